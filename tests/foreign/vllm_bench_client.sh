#!/bin/sh
# `vllm bench serve`, unmodified: random prompts to chat completions and to completions.
set -eu
for kind in "openai-chat /v1/chat/completions" "openai /v1/completions"; do
    set -- $kind
    vllm bench serve --backend "$1" --endpoint "$2" --base-url "${OPENAI_BASE_URL%/v1}" \
        --model "$MODEL" --tokenizer "$TOKENIZER" --dataset-name random \
        --random-input-len 32 --random-output-len 16 --num-prompts 6 --max-concurrency 2 \
        --save-result --result-filename "$WORK/vllm-$1.json"
    python - "$WORK/vllm-$1.json" <<'PY'
import json, sys
result = json.load(open(sys.argv[1]))
assert result["completed"] == 6 and result["total_output_tokens"] > 0, result
PY
done
