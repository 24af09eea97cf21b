#!/usr/bin/env bash
# Every comparison, in the folder that is given or a new one: tools/parity/check.sh [WORK]
# SPO and PYTHON name other programs than `spo` and `python`.
set -euo pipefail
export OMP_NUM_THREADS=1  # the models are tiny
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
work=${1:-$(mktemp -d)}
spo=${SPO:-spo}
python=${PYTHON:-python}
mkdir -p "$work"
failed=0

# compare TITLE MODEL [ADAPTER]
compare() {
    local title=$1 model=$2 adapter=()
    if [[ $# -gt 2 ]]; then adapter=(--adapter "$3"); fi
    "$python" "$here/rows.py" "$model" "$pairs" >"$work/rows.jsonl"
    "$spo" score --device cpu --model "$model" "${adapter[@]}" --data "$work/rows.jsonl" --json \
        >"$work/scores.jsonl" 2>"$work/score.err" || { cat "$work/score.err"; exit 1; }
    echo "$title"
    "$python" "$here/parity.py" "$model" "$work/rows.jsonl" "$work/scores.jsonl" \
        "${adapter[@]}" --double || failed=1
}

# train NAME [--set …]
train() {
    local out=$work/$1
    shift
    rm -rf "$out"
    "$spo" train "$here/run.toml" --out "$out" "$@" >"$out.out" 2>"$out.err" || { cat "$out.err"; exit 1; }
}

pairs=$root/spo-cli/assets/truthfulqa/pairs.test.jsonl.gz

# gguf TITLE MODEL TOLERANCE: llama.cpp on the exported file
gguf() {
    rm -rf "$work/gguf"
    "$spo" export --model "$2" --format gguf --dtype f32 --out "$work/gguf" >"$work/export.out" 2>&1 ||
        { cat "$work/export.out"; exit 1; }
    "$python" "$here/rows.py" "$2" "$pairs" 8 >"$work/rows.jsonl"
    "$spo" score --device cpu --model "$2" --data "$work/rows.jsonl" --json >"$work/scores.jsonl" 2>"$work/score.err" ||
        { cat "$work/score.err"; exit 1; }
    echo "$1 in llama.cpp"
    "$python" "$here/llama_cpp.py" "$work/gguf/model-f32.gguf" "$2" "$pairs" "$work/rows.jsonl" "$work/scores.jsonl" \
        --tolerance "$3" || failed=1
}

# random CONFIG TOKENIZER [JSON]: a small model with random weights, and one that is trained and exported
random() {
    local name=$1 model=$work/$1
    rm -rf "$model"
    "$python" "$here/family.py" "$root/fixtures/families/$name/config.json" "$2" "$model" "${3:-{\}}"
    compare "$name, random weights" "$model"
    train "$name-lora" --set "model.path=\"$model\"" --set lora.rank=4 --set lora.alpha=8
    compare "$name with an adapter trained by spo, merged and exported" "$work/$name-lora/model"
}

# adapters NAME: those of a model of `random`, both ways
adapters() {
    local name=$1 model=$work/$1
    rm -rf "$work/peft"
    "$python" "$here/adapter.py" "$model" "$work/peft"
    compare "$name with a random adapter written by PEFT" "$model" "$work/peft"
    compare "$name with an adapter trained by spo" "$model" "$work/$name-lora/policies/round-2-helpfulness"
}

# family CONFIG TOKENIZER TOLERANCE [JSON]: adapters both ways, and GGUF
family() {
    random "$1" "$2" "${4:-{\}}"
    adapters "$1"
    gguf "$1" "$work/$1-lora/model" "$3"
}

base=$root/spo-cli/assets/stories260K
compare "stories260K as it is" "$base"
for model in llama-tiny-policy qwen3-tiny-policy llama3rope-tiny; do
    compare "$model as it is" "$root/fixtures/trl/$model"
done
for arch in llama qwen3; do
    compare "$arch-tiny with PEFT's trained adapter" "$root/fixtures/trl/$arch-tiny-policy" "$root/fixtures/trl/$arch-tiny-lora"
done

train full
compare "trained in full, exported" "$work/full/model"

train lora --set lora.rank=4 --set lora.alpha=8
compare "adapter of round 1" "$base" "$work/lora/policies/round-1-honesty"
compare "adapter of round 2" "$base" "$work/lora/policies/round-2-helpfulness"
compare "adapter of round 2, merged and exported" "$work/lora/model"

train rslora --set lora.rank=4 --set lora.rslora=true --set 'lora.targets=["q_proj", "down_proj"]'
compare "rank-stabilised adapter of two projections" "$base" "$work/rslora/policies/round-2-helpfulness"
compare "the same, merged and exported" "$work/rslora/model"

train bf16 --set 'model.dtype="bf16"' --set lora.rank=4
compare "trained in bf16, exported: computed in f32" "$work/bf16/model"

for model in "$base" "$root/fixtures/trl/qwen3-tiny-policy"; do
    rm -rf "$work/peft"
    "$python" "$here/adapter.py" "$model" "$work/peft"
    compare "$(basename "$model") with a random adapter written by PEFT" "$model" "$work/peft"
done

gguf "stories260K" "$base" 1e-4
for model in llama-tiny-policy qwen3-tiny-policy llama3rope-tiny; do
    gguf "$model" "$root/fixtures/trl/$model" 1e-4
done
byte_level=$root/fixtures/trl/llama-tiny-policy
rope='"rope_theta": 1e4, "rope_type"'
family llama "$base" 1e-4 "{\"rope_parameters\": {$rope: \"yarn\", \"factor\": 4.0, \"original_max_position_embeddings\": 64}}"
family llama3-rope-tied "$byte_level" 1e-4
family mistral-window "$base" 1e-4 '{"sliding_window": null}'       # llama.cpp has no window for it
family qwen2 "$byte_level" 1e-4 "{\"rope_parameters\": {$rope: \"linear\", \"factor\": 4.0}}"
family qwen3 "$byte_level" 1e-4
# llama.cpp looks a GELU up in a table of 16-bit numbers.
family gemma "$base" 2e-2
family gemma2 "$base" 2e-2
family gemma3 "$base" 2e-2 '{"num_hidden_layers": 7, "layer_types": null}'
family phi3 "$base" 1e-4 "{\"max_position_embeddings\": 131072, \"rope_parameters\": {$rope: \"longrope\",
    \"short_factor\": [1.0, 1.5, 2.0, 2.5], \"long_factor\": [1.0, 3.0, 4.0, 5.0]}}"
family olmo2 "$byte_level" 1e-4
family smollm3 "$byte_level" 1e-4 '{"num_hidden_layers": 5, "layer_types": null, "no_rope_layers": null, "no_rope_layer_interval": 4}'
family gpt2 "$byte_level" 2e-2
family gpt-neox "$byte_level" 2e-2

# Families whose GGUF files were compared with other shapes than the fixtures have (README.md), or are not written.
for name in granite seed-oss hunyuan-dense exaone4 olmo3 ministral3 glm4 cohere2 apertus; do
    random "$name" "$base"
    adapters "$name"
done
# PEFT has a form of its own for adapters of experts.
for name in mixtral qwen2-moe qwen3-moe olmoe granitemoe gpt-oss; do
    random "$name" "$base"
done

# Chat templates in Jinja2 as transformers sets it up.
SPO=$spo "$python" "$here/templates.py" "$root/fixtures/tokenizers/chat_templates" || failed=1
exit $failed
