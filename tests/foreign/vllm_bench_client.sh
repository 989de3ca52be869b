#!/bin/sh
# `vllm bench serve`, unmodified: random prompts to chat completions and to completions.
set -eu
# The CPU build's own command line asks for a distribution of another name.
cat > "$WORK/bench_serve.py" <<'PY'
from argparse import ArgumentParser
from vllm.benchmarks.serve import add_cli_args, main
parser = ArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
PY
for kind in "openai-chat /v1/chat/completions" "openai /v1/completions"; do
    set -- $kind
    python "$WORK/bench_serve.py" --backend "$1" --endpoint "$2" --base-url "${OPENAI_BASE_URL%/v1}" \
        --model "$MODEL" --tokenizer "$TOKENIZER" --dataset-name random \
        --random-input-len 32 --random-output-len 16 --num-prompts 6 --max-concurrency 2 \
        --save-result --result-filename "$WORK/vllm-$1.json"
    python - "$WORK/vllm-$1.json" <<'PY'
import json, sys
result = json.load(open(sys.argv[1]))
assert result["completed"] == 6 and result["total_output_tokens"] > 0, result
PY
done
