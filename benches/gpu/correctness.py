"""Numbers of other implementations and of the CPU against those of a device."""
import json, math, pathlib, shutil
from concurrent.futures import ThreadPoolExecutor

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "fixtures"
BUILT_IN = ROOT / "spo-cli/assets/stories260K"
# What a log-prob of a token may differ by: TF32, in which tensor cores multiply f32, has 10 bits.
TOLERANCE = {"f32": 4e-3, "bf16": 0.08}
# The first optimiser steps start from the same weights; later ones carry the differences on.
FIRST_STEPS, FIRST_LOSSES_AGREE, LOSSES_AGREE = 2, 2e-3, 5e-2
LIMIT = 90
QUICKSTART = [
    "warmup.steps=10", "training.steps=10", "training.warmup-steps=2", "training.tokens-per-micro-batch=4096",
    "data.0.limit=200", "data.1.limit=60", "evaluation.kl-samples=4", "evaluation.kl-max-new-tokens=8", "evaluation.samples=1",
]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def family(name, work):
    """A model of the families, with a tokenizer beside it, its rows and the log-probs that transformers gives them."""
    dir = work / "families" / name
    shutil.copytree(FIXTURES / "families" / name, dir, dirs_exist_ok=True)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(BUILT_IN / file, dir)
    cases = [case for case in json.loads((dir / "golden.json").read_text())["cases"] if len(case["ids"]) > 1]
    rows = [dict(prompt_ids=case["ids"][:1], chosen_ids=case["ids"][1:], rejected_ids=case["ids"][1:2]) for case in cases]
    write(dir / "rows.jsonl", rows)
    expected = [(case["token_logps"], case["token_logps"][:1]) for case in cases]
    return dir, dir / "rows.jsonl", [], expected


def trl(name, work):
    """A model of TRL's goldens and the log-probs that TRL gives its pairs."""
    arch, which = name.split("-tiny-")
    golden = json.loads((FIXTURES / f"trl/{arch}-tiny.json").read_text())
    longest = golden["max_length"]
    rows = [{key: ids if key == "prompt_ids" else ids[:longest - len(row["prompt_ids"])] for key, ids in row.items()}
            for row in golden["tokenised"]]
    file = work / f"{arch}.rows.jsonl"
    write(file, rows)
    # All chosen, then all rejected; position t is the log-prob of token t + 1.
    logps = golden["policy" if which == "policy" else "ref"]["token_logps"]
    answer = lambda index, row, key: logps[index][len(row["prompt_ids"]) - 1:][:len(row[key])]
    expected = [(answer(index, row, "chosen_ids"), answer(index + len(rows), row, "rejected_ids"))
                for index, row in enumerate(rows)]
    return FIXTURES / f"trl/{name}", file, [], expected


def largest_difference(output, expected):
    """Over all tokens; infinite if the tokens are not those expected."""
    found = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    if len(found) != len(expected):
        return math.inf
    gaps = []
    for line, sides in zip(found, expected):
        for key, side in zip(("chosen_token_logps", "rejected_token_logps"), sides):
            if len(line[key]) != len(side):
                return math.inf
            gaps += [math.inf if a is None or math.isnan(a) else abs(a - b) for a, b in zip(line[key], side)]
    return max(gaps)


def score(parts, spo, device, work, name, dtype):
    """One golden model in one number format."""
    model, rows, more, expected = (trl if "-tiny-" in name else family)(name, work)
    command = [spo, "score", "--model", model, "--data", rows, "--json", "--per-token", "--device", device, "--dtype", dtype]
    done = parts.run(f"score-{name}-{dtype}", command + more, LIMIT, **parts.libraries)
    done["difference"] = largest_difference(done.pop("output"), expected) if done["ended"] == "ok" else math.inf
    done["allowed"] = TOLERANCE[dtype]
    done["good"] = done["difference"] <= done["allowed"]
    return done


def losses(out):
    events = map(json.loads, (out / "events.jsonl").read_text().splitlines())
    return [event["loss"] for event in events if event["event"] == "step"]


def quickstart(parts, spo, device, work):
    """The main job on the device and on the CPU: the losses of all optimiser steps."""
    outs = {where: work / f"quickstart-{where}" for where in dict.fromkeys((device, "cpu"))}
    sets = [word for key in QUICKSTART for word in ("--set", key)]
    run = lambda where: parts.run(
        f"quickstart-{where}", [spo, "quickstart", "--device", where, "--out", outs[where], *sets], LIMIT, **parts.libraries)
    for out in outs.values():
        shutil.rmtree(out, ignore_errors=True)
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(run, outs))
    result = done[0]
    result.pop("output")
    if all(part["ended"] == "ok" for part in done):
        of_device, of_cpu = losses(outs[device]), losses(outs["cpu"])
        gaps = [abs(a - b) for a, b in zip(of_device, of_cpu)]
        result |= dict(first_difference=max(gaps[:FIRST_STEPS]), difference=max(gaps), allowed=LOSSES_AGREE,
                       losses=of_device, losses_cpu=of_cpu, cpu_seconds=done[-1]["seconds"])
        result["good"] = (len(of_device) == len(of_cpu) and result["difference"] <= LOSSES_AGREE
                          and result["first_difference"] <= FIRST_LOSSES_AGREE)
    else:
        result |= dict(good=False, difference=math.inf, allowed=LOSSES_AGREE, cpu_ended=done[-1]["ended"])
    return result


def check(parts, spo, device, work, dtypes):
    """All parts at once: what counts is what they compute, not how fast."""
    families = sorted(path.name for path in (FIXTURES / "families").iterdir())
    models = families + [f"{arch}-tiny-{which}" for arch in ("llama", "qwen3") for which in ("policy", "ref")]
    with ThreadPoolExecutor(max_workers=8) as pool:
        job = pool.submit(quickstart, parts, spo, device, work)
        scores = pool.map(lambda given: score(parts, spo, device, work, *given),
                          [(name, dtype) for dtype in dtypes for name in models])
        return [*scores, job.result()]
