"""Every way that spo can multiply on the card, on the products of a model of Qwen2-1.5B's shape."""
import json

MODEL, TOKENS, LIMIT = "qwen2-1.5b", 2048, 120


def measure(parts, spo, device, work, models, dtypes):
    """One record for each strategy and number format."""
    config = work / MODEL / "config.json"
    if not config.exists():
        made = models(parts, work, device)
        if made["ended"] != "ok":
            yield dict(part=made["part"], ended=made["ended"], seconds=made["seconds"], said=made.get("said", ""))
            return
    for dtype in dtypes:
        command = [spo, "bench", "--json", "--what", "matmul", "--device", device, "--dtype", dtype,
                   "--model", work / MODEL, "--tokens", TOKENS]
        done = parts.run(f"matmul-{dtype}", command, LIMIT, **parts.libraries)
        lines = [json.loads(line) for line in done.pop("output").splitlines()]
        if done["ended"] != "ok":
            yield done
        yield from (done | line for line in lines)


def table(records):
    """A line for each strategy, the fastest first."""
    measured = sorted((record for record in records if "strategy" in record),
                      key=lambda record: (record["dtype"], "refused" in record, record["block_ms"]))
    print("| strategy | dtype | block, ms | head, ms | TFLOP/s | |\n|---|---|--:|--:|--:|---|")
    for record in measured:
        print(f"| {record['strategy']} | {record['dtype']} | {record['block_ms']:.2f} | {record['head_ms']:.2f} | {record['tflops']:.0f} | {record.get('refused', '')} |")


def wrong(records):
    """Strategies whose products differ from those of `auto`."""
    return [record["strategy"] for record in records if record.get("refused", "").startswith("WRONG")]
