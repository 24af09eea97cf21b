#!/bin/sh
# The row of MM-RLHF on text: a reward model, pairs labelled by it with strengths, MM-DPO beside DPO. Everything goes to work/;
# `SPO=... STEPS=... sh mm-rlhf.sh` for another program or a shorter run.
set -eu
cd "$(dirname "$0")"
spo=${SPO:-spo} pairs=../../spo-cli/assets/truthfulqa
mkdir -p work
[ -d work/reward/model ] || "$spo" train reward.toml --out work/reward --set training.steps="${STEPS:-400}"
for split in train test; do
    [ -e work/$split.jsonl ] || "$spo" data label $pairs/pairs.$split.jsonl.gz --scorer helpful=reward-model:work/reward/model \
        --out work/$split.jsonl
done
"$spo" train run.toml --out work/mm-dpo --set warmup.steps="${WARMUP:-200}" --set training.steps="${STEPS:-150}"
