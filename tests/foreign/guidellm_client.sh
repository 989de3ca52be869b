#!/bin/sh
# GuideLLM, unmodified: six synthetic chats, two at a time, over streams.
set -eu
guidellm run \
    --backend "kind=openai_http,target=${OPENAI_BASE_URL%/v1},model=$MODEL" \
    --profile kind=concurrent,streams=2 --constraint kind=max_requests,count=6 \
    --tokenizer "kind=huggingface_auto,model=$TOKENIZER" \
    --data kind=synthetic_text,prompt_tokens=32,output_tokens=16 \
    --output "kind=json,path=$WORK/guidellm.json" --disable-console-interactive
python - "$WORK/guidellm.json" <<'PY'
import json, sys
(benchmark,) = json.load(open(sys.argv[1]))["benchmarks"]
totals = benchmark["metrics"]["request_totals"]
assert totals["successful"] >= 6 and not totals["errored"], totals
PY
