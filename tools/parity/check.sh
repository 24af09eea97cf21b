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
    "$python" "$here/rows.py" "$model" "$root/spo-cli/assets/truthfulqa/pairs.test.jsonl.gz" >"$work/rows.jsonl"
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
exit $failed
