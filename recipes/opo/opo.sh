#!/bin/sh
# OPO on lists of a policy's own answers: sampled, graded, trained on. Everything goes to work/; `SPO=... sh opo.sh` for another
# program; MODEL names the policy that answers, such as runs/spo:warmup of recipes/spo.
set -eu
cd "$(dirname "$0")"
spo=${SPO:-spo} pairs=../../spo-cli/assets/truthfulqa model=${MODEL:-../../spo-cli/assets/stories260K}
# A grade from 0 to 3: how many of the words there are.
grade='coverage={ kind = "rules", keywords = ["is", "are", "the"], coverage = 3 }'
mkdir -p work
for split in train test; do
    [ -e work/$split.jsonl ] && continue
    gzip -dc $pairs/pairs.$split.jsonl.gz | head -n "${ROWS:-2000}" | awk -F'"prompt": *"' '{ split($2, p, "\""); if (!seen[p[1]]++) print }' \
        >work/prompts.jsonl
    "$spo" generate --model "$model" --prompts work/prompts.jsonl --prompt-format 'Question: {prompt}\nAnswer:' --samples 4 \
        --temperature 1 --max-new-tokens 40 --batch 64 --json >work/answers.jsonl
    "$spo" data label work/answers.jsonl --scorer "$grade" --as lists --out work/$split.jsonl
done
"$spo" train run.toml --out work/opo --set warmup.steps="${WARMUP:-200}" --set training.steps="${STEPS:-120}"
