#!/bin/sh
# RiC on the built-in model and pairs: offline stage, ITERATIONS online stages, then answers to eleven preferences.
# Everything goes to work/; `SPO=... STEPS=... sh ric.sh` for another program or a shorter run. `SHUFFLE=--shuffle ITERATIONS=0`
# is the control: answers behind the scores of others.
set -eu
cd "$(dirname "$0")"
spo=${SPO:-spo} pairs=../../spo-cli/assets/truthfulqa steps=${STEPS:-800} online=${ONLINE_STEPS:-200} draws=${DRAWS:-600}
# Two rewards that pull apart: few words, and a denial.
brevity='brevity=rules:length=1'
denial='denial={ kind = "rules", keywords = ["no", "not", "n'"'"'t", "never"] }'
mkdir -p work
goals() { "$spo" data goals "$@" --scorer "$brevity" --scorer "$denial" --scale work/goals.json; }
[ -e work/train.jsonl ] || goals $pairs/pairs.train.jsonl.gz ${SHUFFLE:-} --out work/train.jsonl
[ -e work/test.jsonl ] || goals $pairs/pairs.test.jsonl.gz --out work/test.jsonl
[ -e work/kept.jsonl ] || goals $pairs/pairs.train.jsonl.gz --keep 0.7 --limit 1500 --out work/kept.jsonl
[ -d work/offline ] || "$spo" train run.toml --out work/offline --set training.steps="$steps"
model=work/offline/model
for iteration in $(seq 1 "${ITERATIONS:-2}"); do
    if [ ! -d "work/online-$iteration" ]; then
        rm -f work/draws.jsonl work/answers.jsonl work/online.jsonl
        "$spo" data goals $pairs/pairs.train.jsonl.gz --draw "$draws" --seed "$iteration" --scale work/goals.json --out work/draws.jsonl
        "$spo" generate --model $model --prompts work/draws.jsonl --samples 2 --temperature 0.7 --top-p 0.9 \
            --max-new-tokens 40 --json --batch 64 >work/answers.jsonl
        goals work/answers.jsonl --keep 0.7 --out work/online.jsonl
        "$spo" train online.toml --out "work/online-$iteration" --set "model.path=$model" --set training.steps="$online"
    fi
    model=work/online-$iteration/model
done
# Eleven preferences, and what the answers come to.
[ -e work/front.jsonl ] || "$spo" data goals $pairs/pairs.test.jsonl.gz --draw 60 --scale work/goals.json --out work/front.jsonl
for tenths in 0 1 2 3 4 5 6 7 8 9 10; do
    weights="brevity=0.$tenths,denial=0.$((10 - tenths))"
    [ $tenths = 0 ] && weights="brevity=0,denial=1"
    [ $tenths = 10 ] && weights="brevity=1,denial=0"
    "$spo" generate --model "$model" --prompts work/front.jsonl --goals "$weights" --scale work/goals.json --samples 2 \
        --temperature 1 --max-new-tokens 40 --json --batch 64 >work/point.jsonl
    echo "$weights: $("$spo" score --scorer "$brevity" --scorer "$denial" --data work/point.jsonl --mean 2>/dev/null)"
done
