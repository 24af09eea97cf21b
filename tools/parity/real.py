"""Compare spo with llama.cpp on a GGUF file of a real model: python real.py FILE.gguf PAIRS.jsonl.gz [--rows N]

SPO names another program than `spo`. Three comparisons: the tokens of texts; log-probabilities of answers and greedy
tokens on the file itself, where llama.cpp rounds the inputs of its products to 8 bits; and the same on a copy of the
file whose tensors the gguf package has dequantised to float32, where it does not.

Then the log-probabilities on the same values in float64, by transformers.

Exit code 1 if tokens of a text differ, if a sequence is off from float64's by more than --tolerance times its
log-probability (or nats, below one), or greedy tokens of the float32 file differ from llama.cpp's.
"""

import argparse
import gzip
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy
import torch
from llama_cpp import SIDES, logp, serve, texts, tokens
from transformers import AutoModelForCausalLM
from transformers.utils import logging

SPO = os.environ.get("SPO", "spo")


def spo(*arguments):
    done = subprocess.run([SPO, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


def dequantise(source, target):
    """A copy in which every tensor is float32."""
    reader = gguf.GGUFReader(source)
    kinds = gguf.GGUFValueType
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        kind = field.types[0]
        writer.add_key_value(name, field.contents(), kind, field.types[-1] if kind == kinds.ARRAY else None)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)
        writer.add_tensor(tensor.name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def rows(server, pairs, count):
    """Prompts and answers in llama.cpp's tokens."""
    with gzip.open(pairs, "rt") as lines:
        for line in itertools.islice(lines, count):
            row = json.loads(line)
            prompt = tokens(server, f"Question: {row['prompt']}\nAnswer:")
            answers = [tokens(server, f" {row[side]}")[:12] for side in ("response_a", "response_b")]
            yield dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), (prompt, *answers)))


def greedy(server, ids, count):
    request = {"prompt": ids, "n_predict": count, "n_probs": 1, "temperature": 0.0, "ignore_eos": False}
    answer = server.handle_completions(request)
    answer = json.loads(answer) if isinstance(answer, str) else answer
    return [token["id"] for token in answer["choices"][0]["logprobs"]["content"]]


def compare(title, server, file, some_rows, scores, vocabulary, whole, new):
    differences = []
    for row, score in zip(some_rows, scores, strict=True):
        for side in SIDES:
            answer = row[f"{side}_ids"]
            before = [row["prompt_ids"] + answer[:at] for at in range(len(answer))]
            found = sum(logp(server, vocabulary, whole, ids, token) for ids, token in zip(before, answer))
            ours = score[f"{side}_logp"]
            differences.append((abs(found - ours), abs(found - ours) / max(1.0, abs(found)), len(answer), found))
    same = total = 0
    for row in some_rows:
        ids = row["prompt_ids"]
        (ours,) = spo("generate", "--device", "cpu", "--model", file, "--ids", ",".join(map(str, ids)),
                      "--temperature", 0, "--max-new-tokens", new, "--json")
        theirs = greedy(server, ids, new)
        # The token that ends an answer is not listed by every version of llama.cpp.
        length = min(len(ours["ids"]), len(theirs))
        same += ours["ids"][:length] == theirs[:length] and length > 0
        total += 1
    worst = max(differences, key=lambda item: (math.isnan(item[0]), item[0]))
    relative = max(item[1] for item in differences)
    print(
        f"{title}: {len(differences)} sequences, largest difference {worst[0]:.2e} nats (at {worst[2]} tokens, "
        f"logp {worst[3]:.1f}), {relative:.1e} of the log-probability; {same} of {total} greedy continuations equal"
    )
    return relative, same == total


def double(file, some_rows, scores):
    """The same model in float64: what rounds least."""
    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).double()
    differences = []
    for row, score in zip(some_rows, scores, strict=True):
        for side in SIDES:
            prompt, answer = row["prompt_ids"], row[f"{side}_ids"]
            with torch.no_grad():
                logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
            found = logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).sum().item()
            difference = abs(found - score[f"{side}_logp"])
            differences.append((difference, difference / max(1.0, abs(found))))
    worst, relative = (max(column) for column in zip(*differences))
    print(f"in float64 by transformers: {len(differences)} sequences, largest difference {worst:.2e} nats, "
          f"{relative:.1e} of the log-probability")
    return relative


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--new", type=int, default=32, help="greedy tokens of each prompt")
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--tolerance", type=float, default=1e-5)
    arguments = parser.parse_args()
    file, failed = arguments.file, False

    server = serve(str(file))
    differing = compared = 0
    some_texts = list(texts(arguments.pairs, arguments.texts))
    for text in some_texts:
        (ours,) = spo("tokenize", "--tokenizer", file, "--json", f"--text={text}")
        expected = tokens(server, text)
        compared += 1
        if ours["ids"] != expected:
            differing += 1
            print(f"{text!r}\n  spo       {ours['ids']}\n  llama.cpp {expected}")
    print(f"{differing} of {compared} texts split otherwise")
    failed |= differing > 0

    some_rows = list(rows(server, arguments.pairs, arguments.rows))
    vocabulary = len(gguf.GGUFReader(file).fields["tokenizer.ggml.tokens"].data)
    whole = tokens(server, "a")[-1]
    with tempfile.TemporaryDirectory() as work:
        data, wide = Path(work) / "rows.jsonl", Path(work) / "wide.gguf"
        data.write_text("".join(json.dumps(row) + "\n" for row in some_rows))
        scores = spo("score", "--device", "cpu", "--model", file, "--data", data, "--json")
        compare("the file itself", server, file, some_rows, scores, vocabulary, whole, arguments.new)
        del server
        dequantise(file, wide)
        _, same = compare(
            "dequantised by the gguf package", serve(str(wide)), file, some_rows, scores, vocabulary, whole, arguments.new
        )
        failed |= not same or not double(wide, some_rows, scores) <= arguments.tolerance
    sys.exit(failed)


if __name__ == "__main__":
    main()
