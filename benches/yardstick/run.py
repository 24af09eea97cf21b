#!/usr/bin/env python3
"""spo beside TRL and llama.cpp on this machine: python3 benches/yardstick/run.py [WORK]

Sets up the pinned environment of both and the models and pairs in the folder WORK (a few GB; benches/yardstick/work if none
is given), builds spo, runs both programs in turns on the same pairs and prints a table of ratios of medians. Every
measurement is appended to WORK/results.jsonl: `--only ROW` measures some rows, `--report` only prints what is there,
and to begin anew is to remove that file. Ends with 0 if every row measured reaches its target and computes the same.
"""
import argparse, json, os, pathlib, statistics, subprocess, sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# A retaining allocator and precomputed reference log-probs: the strongest setting of TRL that is known.
STRONG = {"MALLOC_MMAP_THRESHOLD_": str(8 << 30), "MALLOC_TRIM_THRESHOLD_": str(16 << 30), "MALLOC_TOP_PAD_": str(256 << 20)}
LOSSES_AGREE = 1e-3
# Pairs of a turn: every turn takes the next ones of the file.
PAIRS = "32"


def train(model, lora=False, default=False, pairs=PAIRS):
    """DPO on a turn's pairs, two a step: an epoch to warm up and one that counts. Both start from the same adapter."""
    both = ["--pairs", pairs, "--pairs-per-step", "2", "--epochs", "1"]
    peer, spo = ["train", model, f"{model}.turn.jsonl", *both], ["--what", "train", "--model", model, "--data", f"{model}.turn.jsonl", *both]
    if lora:
        peer += ["--adapter", f"{model}-lora"]
        spo += ["--lora", "16", "--set", f"lora.start={model}-lora"]
    return dict(peer=peer + ([] if default else ["--precompute"]), spo=spo, strong=not default)


def score(model, pairs):
    both = ["--pairs", pairs, "--epochs", "2"]
    return dict(peer=["score", model, f"{model}.turn.jsonl", *both], strong=True,
                spo=["--what", "score", "--model", model, "--data", f"{model}.turn.jsonl", *both])


def generate(batch):
    both = ["--batch", batch, "--new-tokens", "128", "--epochs", "3"]
    return dict(peer=["generate", "medium", "medium.prompts.jsonl", *both], strong=True,
                spo=["--what", "generate", "--model", "medium", "--data", "medium.prompts.jsonl", *both])


def llama(batch, kind, new_tokens="128", prompts="smollm2-135m.prompts.jsonl"):
    """Greedy answers from the same file, in f32 or in 8 bits."""
    both = ["--batch", batch, "--new-tokens", new_tokens, "--epochs", "3"]
    file, stored = f"smollm2-135m.{kind}.gguf", ["--as-stored", "--weight-format", "q8"] if kind == "q8_0" else []
    return dict(llama=[file, prompts, *both],
                # Room for an answer behind a prompt of 512 tokens.
                spo=["--what", "generate", "--model", file, "--data", prompts, "--max-length", "640", *both, *stored])


def alone(model, data, *more):
    return ["--what", "train", "--model", model, "--data", data, "--epochs", "1", *more]


# Name: title, what is compared, whether more or less is better, what must be reached and aimed at, how it is measured.
ROWS = {
    "full-medium": ("DPO full, medium", "pairs_per_s", "more", 2, 4, train("medium")),
    "lora-medium": ("DPO LoRA r16, medium", "pairs_per_s", "more", 2.5, 5, train("medium", lora=True)),
    "full-small": ("DPO full, small", "pairs_per_s", "more", 2, 4, train("small")),
    "memory-full": ("peak RSS, full, medium (TRL default)", "peak_rss_mb", "less", 0.4, 0.25,
                    train("medium", default=True)),
    "memory-lora": ("peak RSS, LoRA, medium (TRL default)", "peak_rss_mb", "less", 0.25, 0.12,
                    train("medium", lora=True, default=True)),
    "start-small": ("start to first step, small", "to_first_step_s", "less", 0.2, 0.05, train("small", pairs="8")),
    "start-medium": ("start to first step, medium", "to_first_step_s", "less", 0.2, 0.05, train("medium", pairs="8")),
    "score": ("scoring, medium", "pairs_per_s", "more", 2.5, 5, score("medium", PAIRS)),
    "generate-1": ("greedy generation, medium, batch 1", "pairs_per_s", "more", 1.5, 3, generate("1")),
    "generate-8": ("greedy generation, medium, batch 8", "pairs_per_s", "more", 1.5, 3, generate("8")),
    "lora-smollm2": ("DPO LoRA r16, SmolLM2-135M's shape", "pairs_per_s", "more", 3, 4, train("smollm2-135m", lora=True, pairs="8")),
    "score-smollm2": ("scoring, SmolLM2-135M's shape", "pairs_per_s", "more", 3, 4, score("smollm2-135m", "16")),
    "start-smollm2": ("start to first step, LoRA, SmolLM2-135M's shape", "to_first_step_s", "less", 0.2, 0.05,
                      train("smollm2-135m", lora=True, pairs="8")),
    **{f"llama-{batch}-{kind}": (f"greedy generation, SmolLM2-135M's shape, {kind}, batch {batch}, against llama.cpp",
                                 "pairs_per_s", "more", 1.2, 1.5, llama(batch, kind))
       for batch in ("1", "8") for kind in ("f32", "q8_0")},
    **{f"llama-prompt-{kind}": (f"a prompt of 512 tokens, {kind}, against llama.cpp", "pairs_per_s", "more", 1, 1.2,
                                llama("1", kind, "1", "long.jsonl")) for kind in ("f32", "q8_0")},
    **{f"llama-start-{kind}": (f"start to first token, {kind}, against llama.cpp", "to_first_step_s", "less", 1, 0.5,
                               llama("1", kind)) for kind in ("f32", "q8_0")},
    **{f"llama-memory-{kind}": (f"peak RSS of generation, {kind}, against llama.cpp", "peak_rss_mb", "less", 1.2, 1,
                                llama("1", kind)) for kind in ("f32", "q8_0")},
    "head": ("memory, vocabulary 151,936 less 32,000, over the weights' difference", "peak_rss_mb", "less", 1.1, 1.1, dict(
        small=alone("head-32000", "even.jsonl", "--lora", "16", "--pairs", "16"),
        spo=alone("head-151936", "even.jsonl", "--lora", "16", "--pairs", "16"))),
    "linear": ("time of 64 pairs in one step over 16 steps of 4", "epoch_s", "less", 1.05, 1.05, dict(
        small=alone("medium", "even.jsonl", "--lora", "16", "--pairs-per-step", "4"),
        spo=alone("medium", "even.jsonl", "--lora", "16", "--pairs-per-step", "64"))),
    "in-backward": ("peak RSS, full, medium, update-in-backward over plain", "peak_rss_mb", "less", 1, 1, dict(
        small=alone("medium", "even.jsonl", "--pairs", "8", "--pairs-per-step", "2"),
        spo=alone("medium", "even.jsonl", "--pairs", "8", "--pairs-per-step", "2",
                  "--set", "training.max-grad-norm=0", "--set", "training.update-in-backward=true"))),
}


def run(command, **environment):
    ended = subprocess.run(command, cwd=WORK, env=os.environ | environment, stdout=subprocess.PIPE, text=True)
    if ended.returncode:
        sys.exit(f"failed: {' '.join(map(str, command))}")
    return ended.stdout


def set_up():
    if not PYTHON.exists():
        print("installing TRL", file=sys.stderr)
        run([sys.executable, "-m", "venv", ENVIRONMENT])
        run([PYTHON, "-m", "pip", "install", "-q", "-r", HERE / "requirements.txt"])
    if not (WORK / "even.jsonl").exists():
        print("making models and pairs", file=sys.stderr)
        run([PYTHON, HERE / "fixtures.py", WORK])
    if not arguments.spo:
        subprocess.run(["cargo", "build", "--release", "-p", "spo-cli"], cwd=ROOT, check=True)
    for kind in ("f32", "q8_0"):
        if not (WORK / f"smollm2-135m.{kind}.gguf").exists():
            print(f"writing smollm2-135m.{kind}.gguf", file=sys.stderr)
            run([program(), "export", "--model", "smollm2-135m", "--format", "gguf", "--dtype", kind, "--out", f"smollm2-{kind}"])
            (file,) = (WORK / f"smollm2-{kind}").glob("*.gguf")
            file.rename(WORK / f"smollm2-135m.{kind}.gguf")


def program():
    return arguments.spo or ROOT / "target/release/spo"


def measure(name):
    recipe = ROWS[name][5]
    fixed = ["--device", "cpu", "--overflow", "keep-start", "--set", "training.learning-rate=5e-6"]
    if "--max-length" not in recipe["spo"]:
        fixed += ["--max-length", "512"]
    first = len([record for record in read() if (record["row"], record["who"]) == (name, "spo")])
    for turn in range(first, first + arguments.repeats):
        for model in ("small", "medium", "smollm2-135m"):
            rows = (WORK / f"{model}.pairs.jsonl").read_text().splitlines(keepends=True)
            start = turn * int(PAIRS) % len(rows)
            (WORK / f"{model}.turn.jsonl").write_text("".join(rows[start:start + int(PAIRS)]))
        for who in ("peer", "llama", "small", "spo"):
            if who not in recipe:
                continue
            print(f"{name}: {who}, {turn - first + 1} of {arguments.repeats}", file=sys.stderr)
            if who == "peer":
                out = run([PYTHON, HERE / "peer.py", *recipe["peer"]], **(STRONG if recipe["strong"] else {}))
            elif who == "llama":
                out = run([PYTHON, HERE / "llama.py", *recipe["llama"]])
            else:
                out = run([program(), "bench", "--json", *fixed, *recipe[who]])
            record = dict(row=name, who=who) | json.loads(out.splitlines()[-1])
            with RESULTS.open("a") as file:
                file.write(json.dumps(record) + "\n")


def read():
    return [json.loads(line) for line in RESULTS.open()] if RESULTS.exists() else []


def weights_difference():
    sizes = [(WORK / f"head-{vocabulary}/model.safetensors").stat().st_size for vocabulary in (151936, 32000)]
    return (sizes[0] - sizes[1]) / 2**20


def figures(records, name, who, key):
    values = [record[key] for record in records if (record["row"], record["who"]) == (name, who)]
    return [statistics.median(value) if isinstance(value, list) else value for value in values]


def agreement(records, name):
    """The largest difference of what both programs computed, over all turns."""
    of = lambda who: [record for record in records if (record["row"], record["who"]) == (name, who)]
    gaps, words = [], ""
    for peer, spo in zip(of("peer") + of("llama"), of("spo")):
        if "losses" in peer:
            same_steps = len(peer["losses"]) == len(spo["losses"])
            gaps.append(max(abs(a - b) for a, b in zip(peer["losses"], spo["losses"])) if same_steps else float("inf"))
            words = f"losses within {max(gaps):.0e}"
        elif "mean_logp" in peer:
            gaps.append(abs(peer["mean_logp"] / spo["mean_logp"] - 1))
            words = f"log-probs within {max(gaps):.0e}"
        elif "ids" in peer:
            gaps.append(sum(a != b for a, b in zip(peer["ids"], spo["ids"])))
            words = f"{max(gaps)} of {len(peer['ids'])} tokens differ"
    # llama.cpp rounds the inputs of 8-bit products as well, which may change a token.
    return words, name.endswith("q8_0") or max(gaps, default=0) <= LOSSES_AGREE


def report():
    records, good = read(), True
    spread = lambda values: f"{statistics.median(values):.4g} ({min(values):.4g} – {max(values):.4g})" if len(values) > 1 else f"{values[0]:.4g}"
    print("| work | other | spo | ratio | must reach | aim at | same results |\n|---|--:|--:|--:|--:|--:|---|")
    for name, (title, key, better, must, aim, recipe) in ROWS.items():
        other = next(who for who in ("peer", "llama", "small") if who in recipe)
        base, own = figures(records, name, other, key), figures(records, name, "spo", key)
        if not base or not own:
            continue
        # Each turn has its own pairs.
        ratio = statistics.median(mine / other for mine, other in zip(own, base))
        if name == "head":
            ratio = (statistics.median(own) - statistics.median(base)) / weights_difference()
        reached = ratio >= must if better == "more" else ratio <= must
        same, equal = agreement(records, name)
        good &= reached and equal
        sign = "≥" if better == "more" else "≤"
        print(f"| {title} | {spread(base)} | {spread(own)} | **{ratio:.2f}**{'' if reached else ' missed'} | {sign} {must} | {aim} | {same}{'' if equal else ' DIFFER'} |")
        if key == "pairs_per_s" and "peer" in recipe and "generate" not in name:
            share = statistics.median(figures(records, name, "spo", "model_flops_utilisation"))
            peak = statistics.median(figures(records, name, "spo", "matmul_gflops"))
            print(f"| … share of the f32 matmul peak of {peak:.0f} GFLOP/s | | {share:.0%} | | | | |")
    return good


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("work", nargs="?", type=pathlib.Path, default=HERE / "work")
parser.add_argument("--only", nargs="+", choices=ROWS, metavar="ROW", help=", ".join(ROWS))
parser.add_argument("--repeats", type=int, default=3)
parser.add_argument("--spo", type=pathlib.Path, help="a built spo")
parser.add_argument("--environment", type=pathlib.Path, help="a Python environment that has TRL, instead of WORK/venv")
parser.add_argument("--report", action="store_true", help="measure nothing")
arguments = parser.parse_args()
WORK = arguments.work.resolve()
ENVIRONMENT = (arguments.environment or WORK / "venv").absolute()
PYTHON = ENVIRONMENT / "bin/python"
arguments.spo = arguments.spo and arguments.spo.absolute()
RESULTS = WORK / "results.jsonl"
WORK.mkdir(parents=True, exist_ok=True)
if not arguments.report:
    set_up()
    for name in arguments.only or ROWS:
        measure(name)
sys.exit(0 if report() else 3)
