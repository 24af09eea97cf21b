"""spo and TRL in turns on the same pairs of models with random weights."""
import json, pathlib, shutil, sys

HERE = pathlib.Path(__file__).resolve().parent
YARDSTICK = HERE.parent / "yardstick"
MODELS = ["smollm2-135m", "qwen2-1.5b"]
# What, of which model, in which number format, by whom, on how many pairs, and the limit in seconds.
ROWS = [
    ("train", "smollm2-135m", "bf16", "spo", 32, 60),
    ("train", "smollm2-135m", "bf16", "trl", 32, 60),
    ("train", "smollm2-135m", "bf16", "trl-liger", 32, 60),
    ("train", "qwen2-1.5b", "bf16", "spo", 16, 100),
    ("train", "qwen2-1.5b", "bf16", "trl", 16, 60),
    ("train", "qwen2-1.5b", "bf16", "trl-liger", 16, 60),
    ("train", "smollm2-135m", "f32", "spo", 32, 60),
    ("score", "smollm2-135m", "bf16", "spo", 32, 40),
    ("score", "smollm2-135m", "bf16", "trl", 32, 40),
    ("generate", "smollm2-135m", "bf16", "spo", 8, 40),
    ("generate", "smollm2-135m", "bf16", "trl", 8, 40),
]
NAMED = {"-".join(row[:4]): row for row in ROWS}
PAIRS_PER_STEP, NEW_TOKENS = 8, 64


def models(parts, work, device):
    """Weights for the tokenizers and pairs that `pack` made, drawn on the card, stored in bf16."""
    packed = HERE / "packed/models"
    if packed.exists():
        shutil.copytree(packed, work, dirs_exist_ok=True)
    on_card = "cuda" if device.startswith("cuda") else "cpu"
    command = [sys.executable, YARDSTICK / "fixtures.py", work, *MODELS, "--device", on_card, "--dtype", "bfloat16"]
    return parts.run("models", command, 90)


def command(who, spo, device, work, what, model, dtype, pairs):
    data = work / f"{model}.{'prompts' if what == 'generate' else 'pairs'}.jsonl"
    of_what = dict(
        train=["--pairs", pairs, "--pairs-per-step", PAIRS_PER_STEP, "--epochs", 1],
        score=["--pairs", pairs, "--pairs-per-step", PAIRS_PER_STEP, "--epochs", 1],
        generate=["--batch", pairs, "--new-tokens", NEW_TOKENS, "--epochs", 1],
    )[what]
    if who == "spo":
        return [spo, "bench", "--json", "--device", device, "--what", what, "--model", work / model, "--data", data,
                "--dtype", dtype, "--max-length", 512, "--overflow", "keep-start",
                "--set", "training.learning-rate=5e-6", *of_what]
    more = (["--precompute"] if what == "train" else []) + (["--liger"] if who == "trl-liger" else [])
    return [sys.executable, YARDSTICK / "peer.py", what, work / model, data, *of_what, *more,
            "--device", device.split(":")[0], "--dtype", dtype]


def measure(parts, spo, device, work, names):
    """One record for the making of the models and one for each row."""
    if not all((work / model / "model.safetensors").exists() for model in MODELS):
        made = models(parts, work, device)
        made.pop("output")
        yield made
        if made["ended"] != "ok":
            return
    for name in names or NAMED:
        what, model, dtype, who, pairs, limit = NAMED[name]
        done = parts.run(name, command(who, spo, device, work, what, model, dtype, pairs), limit,
                         **(parts.libraries if who == "spo" else {}))
        lines = done.pop("output").strip().splitlines()
        if done["ended"] == "ok":
            done |= json.loads(lines[-1])
        yield done | dict(row=f"{what} {model} {dtype}", who=who)
