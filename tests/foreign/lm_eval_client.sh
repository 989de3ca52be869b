#!/bin/sh
# lm-eval's `local-completions`, unmodified: log likelihoods by echo, and generation, on a task of a few lines.
set -eu
mkdir -p "$WORK/tasks"
printf '%s\n' '{"question": "2+2=", "answer": "4"}' '{"question": "The sky is", "answer": "blue"}' > "$WORK/tasks/lines.jsonl"
for kind in multiple_choice generate_until; do
    cat > "$WORK/tasks/$kind.yaml" <<YAML
task: lines_$kind
dataset_path: json
dataset_kwargs: {data_files: {test: "$WORK/tasks/lines.jsonl"}}
test_split: test
output_type: $kind
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
YAML
done
cat >> "$WORK/tasks/multiple_choice.yaml" <<YAML
doc_to_choice: [" 4", " blue"]
doc_to_target: "{{[' 4', ' blue'].index(' ' + answer)}}"
metric_list: [{metric: acc}]
YAML
cat >> "$WORK/tasks/generate_until.yaml" <<YAML
generation_kwargs: {until: ["\n"], max_gen_toks: 8, do_sample: false}
metric_list: [{metric: exact_match}]
YAML
lm_eval run --model local-completions --include_path "$WORK/tasks" \
    --tasks lines_multiple_choice,lines_generate_until --batch_size 1 \
    --model_args "model=$MODEL,base_url=$OPENAI_BASE_URL/completions,tokenizer=$TOKENIZER,tokenizer_backend=huggingface,num_concurrent=2,max_retries=1,tokenized_requests=False"
