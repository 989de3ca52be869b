#!/bin/sh
# `llm`, unmodified: an OpenAI-compatible model from its configuration file, streamed and not.
set -eu
export LLM_USER_PATH="$WORK/llm"
mkdir -p "$LLM_USER_PATH"
cat > "$LLM_USER_PATH/extra-openai-models.yaml" <<YAML
- model_id: served
  model_name: $MODEL
  api_base: "$OPENAI_BASE_URL"
  api_key_name: served
YAML
streamed=$(llm -m served -o temperature 0 "What is 12 * 13?" --key none)
whole=$(llm -m served -o temperature 0 --no-stream "What is 12 * 13?" --key none)
test -n "$whole"
test "$streamed" = "$whole"
