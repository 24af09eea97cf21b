"""Compare `spo score --json` with transformers (and PEFT) on the same token ids.

    spo score --model MODEL --data rows.jsonl --json | python parity.py MODEL rows.jsonl
    spo score --model BASE --adapter ADAPTER --data rows.jsonl --json | python parity.py BASE rows.jsonl --adapter ADAPTER

Exit code 1 if any sequence log-probability is further off than the tolerance; with `--double` from transformers in float64,
whose own float32 rounds long answers by as much.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

SIDES = ("chosen", "rejected")


def load(directory, adapter, dtype):
    # Expert by expert: the grouped product has no float64.
    model, report = AutoModelForCausalLM.from_pretrained(
        directory, dtype=dtype, attn_implementation="eager", output_loading_info=True, experts_implementation="eager"
    )
    left = {key: names for key, names in report.items() if names}
    if left:
        sys.exit(f"{directory}: transformers could not place every tensor: {left}")
    if adapter:
        from peft import PeftModel, get_peft_model_state_dict
        from safetensors.torch import load_file

        model = PeftModel.from_pretrained(model, adapter)
        saved = load_file(Path(adapter) / "adapter_model.safetensors")
        placed = get_peft_model_state_dict(model)
        if saved.keys() != placed.keys():
            sys.exit(f"{adapter}: PEFT could not place every tensor: {sorted(saved.keys() ^ placed.keys())}")
    return model.eval()


@torch.no_grad()
def sequence_logp(model, prompt, answer):
    """Sum of log p(token | everything before) over the answer, in nats; one row, so nothing is padded."""
    ids = torch.tensor([prompt + answer])
    logits = model(ids).logits[0, len(prompt) - 1 : -1]
    logps = logits.log_softmax(-1).gather(-1, ids[0, len(prompt) :, None])
    return logps.double().sum().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="model directory; with --adapter the base model")
    parser.add_argument("rows", help="JSONL with prompt_ids, chosen_ids, rejected_ids")
    parser.add_argument("scores", nargs="?", default="-", help="output of spo score --json; - is standard input")
    parser.add_argument("--adapter", help="adapter directory in PEFT's format")
    parser.add_argument("--double", action="store_true", help="hold to float64, and say how far float32 is from it")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="per sequence, in nats")
    arguments = parser.parse_args()

    logging.disable_progress_bar()
    model = load(arguments.model, arguments.adapter, torch.float32)
    exact = load(arguments.model, arguments.adapter, torch.float64) if arguments.double else None
    rows = [json.loads(line) for line in Path(arguments.rows).read_text().splitlines()]
    lines = sys.stdin.read() if arguments.scores == "-" else Path(arguments.scores).read_text()
    scores = [json.loads(line) for line in lines.splitlines()]
    if not rows or len(rows) != len(scores):
        sys.exit(f"{len(rows)} rows but {len(scores)} scores")

    differences, in_single = [], []
    for row, score in zip(rows, scores):
        for side in SIDES:
            answer = row[f"{side}_ids"]
            if score[f"{side}_tokens"] != len(answer):
                sys.exit(f"{score['id']}: {score[f'{side}_tokens']} {side} tokens scored of {len(answer)}")
            expected = sequence_logp(exact or model, row["prompt_ids"], answer)
            # `not (… <= …)`: a NaN must count as a difference.
            difference = abs(expected - score[f"{side}_logp"])
            if not difference <= arguments.tolerance:
                print(f"{score['id']} {side}: spo {score[f'{side}_logp']}, transformers {expected}")
            differences.append((difference, len(answer), expected))
            if exact:
                in_single.append(abs(expected - sequence_logp(model, row["prompt_ids"], answer)))
    failed = sum(not difference <= arguments.tolerance for difference, _, _ in differences)
    worst, tokens, logp = max(differences, key=lambda item: (item[0] != item[0], item[0]))
    print(
        f"{len(differences)} sequences, {failed} off by more than {arguments.tolerance:g}"
        f"{' from float64' if exact else ''}; largest difference {worst:.2e} (at {tokens} tokens, logp {logp:.1f})"
    )
    if exact:
        print(f"transformers in float32 is off by {max(in_single):.2e} at most")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
