#!/usr/bin/env python3
"""spo and TRL side by side on this machine: python3 benches/yardstick/run.py [WORK]

Sets up the pinned TRL environment and the models and pairs in the folder WORK (a few GB; benches/yardstick/work if none
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


def train(model, pairs="64", lora=None, default=False, epochs="1"):
    both = ["--pairs", pairs, "--pairs-per-step", "2", "--epochs", epochs] + (["--lora", lora] if lora else [])
    return dict(
        peer=["train", model, f"{model}.pairs.jsonl", *both] + ([] if default else ["--precompute"]),
        spo=["--what", "train", "--model", model, "--data", f"{model}.pairs.jsonl", *both],
        strong=not default)


def generate(batch):
    both = ["--batch", batch, "--new-tokens", "128", "--epochs", "3"]
    return dict(peer=["generate", "medium", "medium.prompts.jsonl", *both], strong=True,
                spo=["--what", "generate", "--model", "medium", "--data", "medium.prompts.jsonl", *both])


def alone(model, data, *more):
    return ["--what", "train", "--lora", "16", "--model", model, "--data", data, "--epochs", "2", *more]


# Name: title, what is compared, whether more or less is better, what must be reached and aimed at, how it is measured.
ROWS = {
    "full-medium": ("DPO full, medium", "pairs_per_s", "more", 2, 4, train("medium")),
    "lora-medium": ("DPO LoRA r16, medium", "pairs_per_s", "more", 2.5, 5, train("medium", lora="16")),
    "full-small": ("DPO full, small", "pairs_per_s", "more", 2, 4, train("small")),
    "memory-full": ("peak RSS, full, medium (TRL default)", "peak_rss_mb", "less", 0.4, 0.25,
                    train("medium", pairs="32", default=True)),
    "memory-lora": ("peak RSS, LoRA, medium (TRL default)", "peak_rss_mb", "less", 0.25, 0.12,
                    train("medium", pairs="32", lora="16", default=True)),
    "start-small": ("start to first step, small", "to_first_step_s", "less", 0.2, 0.05, train("small", pairs="8")),
    "start-medium": ("start to first step, medium", "to_first_step_s", "less", 0.2, 0.05, train("medium", pairs="8")),
    "score": ("scoring, medium", "pairs_per_s", "more", 2.5, 5, dict(
        peer=["score", "medium", "medium.pairs.jsonl", "--pairs", "64", "--epochs", "2"], strong=True,
        spo=["--what", "score", "--model", "medium", "--data", "medium.pairs.jsonl", "--pairs", "64", "--epochs", "2"])),
    "generate-1": ("greedy generation, medium, batch 1", "pairs_per_s", "more", 1.5, 3, generate("1")),
    "generate-8": ("greedy generation, medium, batch 8", "pairs_per_s", "more", 1.5, 3, generate("8")),
    "head": ("head memory, vocabulary 151,936 less 32,000, over the weights' difference", "peak_rss_mb", "less", 1.1, 1.1, dict(
        small=alone("head-32000", "even.jsonl", "--pairs", "16"), spo=alone("head-151936", "even.jsonl", "--pairs", "16"))),
    "linear": ("time per pair, 64 pairs a step over 4 a step", "epoch_s", "less", 1.05, 1.05, dict(
        small=alone("medium", "even.jsonl", "--pairs-per-step", "4"),
        spo=alone("medium", "even.jsonl", "--pairs-per-step", "64"))),
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


def measure(name):
    recipe = ROWS[name][5]
    spo = arguments.spo or ROOT / "target/release/spo"
    fixed = ["--device", "cpu", "--max-length", "512", "--overflow", "keep-start", "--set", "training.learning-rate=5e-6"]
    for turn in range(arguments.repeats):
        for who in ("peer", "small", "spo"):
            if who not in recipe:
                continue
            print(f"{name}: {who}, {turn + 1} of {arguments.repeats}", file=sys.stderr)
            if who == "peer":
                out = run([PYTHON, HERE / "peer.py", *recipe["peer"]], **(STRONG if recipe["strong"] else {}))
            else:
                out = run([spo, "bench", "--json", *fixed, *recipe[who]])
            record = dict(row=name, who=who) | json.loads(out.splitlines()[-1])
            with RESULTS.open("a") as file:
                file.write(json.dumps(record) + "\n")


def weights_difference():
    sizes = [(WORK / f"head-{vocabulary}/model.safetensors").stat().st_size for vocabulary in (151936, 32000)]
    return (sizes[0] - sizes[1]) / 2**20


def figures(records, name, who, key):
    values = [record[key] for record in records if (record["row"], record["who"]) == (name, who)]
    return [statistics.median(value) if isinstance(value, list) else value for value in values]


def agreement(records, name):
    """Largest difference of what both programs computed, at any step."""
    of = lambda who: next((r for r in records if (r["row"], r["who"]) == (name, who)), {})
    peer, spo = of("peer"), of("spo")
    if "losses" in peer:
        if len(peer["losses"]) != len(spo["losses"]):
            return "other steps", False
        gap = max(abs(a - b) for a, b in zip(peer["losses"], spo["losses"]))
        return f"losses {gap:.0e}", gap <= LOSSES_AGREE
    if "mean_logp" in peer:
        gap = abs(peer["mean_logp"] / spo["mean_logp"] - 1)
        return f"log-probs {gap:.0e}", gap <= LOSSES_AGREE
    if "ids" in peer:
        same = sum(a == b for a, b in zip(peer["ids"], spo["ids"]))
        return f"{same} of {len(peer['ids'])} tokens", same == len(peer["ids"])
    return "", True


def report():
    records = [json.loads(line) for line in RESULTS.open()]
    spread = lambda values: f"{statistics.median(values):.4g}" + (f" ({min(values):.4g}–{max(values):.4g})" if len(values) > 1 else "")
    print("| work | other | spo | ratio | must reach | aim at | same results |\n|---|--:|--:|--:|--:|--:|---|")
    good = True
    for name, (title, key, better, must, aim, recipe) in ROWS.items():
        base, own = figures(records, name, "peer" if "peer" in recipe else "small", key), figures(records, name, "spo", key)
        if not base or not own:
            continue
        ratio = statistics.median(own) / statistics.median(base)
        if name == "head":
            ratio = (statistics.median(own) - statistics.median(base)) / weights_difference()
        reached = ratio >= must if better == "more" else ratio <= must
        same, equal = agreement(records, name)
        good &= reached and equal
        sign = "≥" if better == "more" else "≤"
        print(f"| {title} | {spread(base)} | {spread(own)} | **{ratio:.2f}**{'' if reached else ' missed'} | {sign} {must} | {aim} | {same}{'' if equal else ' DIFFER'} |")
        utilisation = figures(records, name, "spo", "model_flops_utilisation")
        if key == "pairs_per_s":
            peak = statistics.median(figures(records, name, "spo", "matmul_gflops"))
            print(f"| … share of the f32 matmul peak ({peak:.0f} GFLOP/s) | | {statistics.median(utilisation):.0%} | | | | |")
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
