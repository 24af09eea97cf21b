"""Compare llama.cpp on a GGUF file with `spo score --json` of the same model: python llama_cpp.py FILE.gguf MODEL PAIRS.jsonl.gz ROWS SCORES

ROWS are the token ids that were scored (rows.py), SCORES what spo says of them. llama.cpp splits the texts of PAIRS into
tokens, which must be those of MODEL's tokenizer.json, and gives the log-probability of each answer's tokens.

Exit code 1 if tokens differ, or a sequence log-probability is further off than the tolerance.
"""

import argparse
import gzip
import itertools
import json
import sys
import urllib.request
from pathlib import Path

import xllamacpp
from tokenizers import Tokenizer

SIDES = ("chosen", "rejected")


def serve(file):
    parameters = xllamacpp.CommonParams()
    parameters.model.path = file
    parameters.n_gpu_layers = 0
    parameters.n_ctx = 512
    parameters.n_parallel = 1
    parameters.warmup = False
    parameters.swa_full = True
    parameters.verbosity = 0
    # Scores and cache in float32 too.
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    return xllamacpp.Server(parameters)


def tokens(server, text):
    body = json.dumps({"content": text, "add_special": True, "parse_special": True}).encode()
    request = urllib.request.Request(f"{server.listening_address}/tokenize", body, {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))["tokens"]


def logp(server, vocabulary, whole, ids, token):
    """log p(token | ids), of all tokens that llama.cpp lists before it samples."""
    # An end of text, or a part of a letter, would be answered without its list: it is made to sample `whole`.
    request = {"prompt": ids, "n_predict": 1, "n_probs": vocabulary, "temperature": 0.0, "logit_bias": [[whole, 1e4]]}
    answer = server.handle_completions(request)
    answer = json.loads(answer) if isinstance(answer, str) else answer
    if "choices" not in answer:
        sys.exit(f"llama.cpp: {answer}")
    listed = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    return next(entry["logprob"] for entry in listed if entry["id"] == token)


def texts(pairs, count):
    yield from ("", " ", "  two spaces", "line\nbreaks\n\n\tand tabs", "1234567 it's ÄÖÜ, 数字 🙂", "<s> </s> <unk>")
    with gzip.open(pairs, "rt") as lines:
        for line in itertools.islice(lines, count):
            row = json.loads(line)
            yield f"Question: {row['prompt']}\nAnswer: {row['response_a']}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("file", "model", "pairs", "rows", "scores"):
        parser.add_argument(name)
    parser.add_argument("--tolerance", type=float, default=1e-4, help="per sequence, in nats")
    parser.add_argument("--texts", type=int, default=200, help="texts whose tokens are compared")
    arguments = parser.parse_args()

    server = serve(arguments.file)
    vocabulary = json.loads((Path(arguments.model) / "config.json").read_text())["vocab_size"]
    tokenizer = Tokenizer.from_file(str(Path(arguments.model) / "tokenizer.json"))
    whole = tokenizer.token_to_id("a")
    compared = differing = 0
    for text in texts(arguments.pairs, arguments.texts):
        expected, found = tokenizer.encode(text).ids, tokens(server, text)
        compared += 1
        if found != expected:
            differing += 1
            print(f"{text!r}\n  tokenizer.json {expected}\n  llama.cpp      {found}")

    rows = [json.loads(line) for line in Path(arguments.rows).read_text().splitlines()]
    scores = [json.loads(line) for line in Path(arguments.scores).read_text().splitlines()]
    if not rows or len(rows) != len(scores):
        sys.exit(f"{len(rows)} rows but {len(scores)} scores")
    differences = []
    for row, score in zip(rows, scores):
        for side in SIDES:
            answer = row[f"{side}_ids"]
            before = [row["prompt_ids"] + answer[:at] for at in range(len(answer))]
            found = sum(logp(server, vocabulary, whole, ids, token) for ids, token in zip(before, answer))
            # `not (… <= …)` below: a NaN must count as a difference.
            differences.append((abs(found - score[f"{side}_logp"]), len(answer), found))
    failed = sum(not difference <= arguments.tolerance for difference, _, _ in differences)
    worst, length, total = max(differences, key=lambda item: (item[0] != item[0], item[0]))
    print(
        f"{differing} of {compared} texts split otherwise; {len(differences)} sequences, {failed} off by more than "
        f"{arguments.tolerance:g}; largest difference {worst:.2e} (at {length} tokens, logp {total:.1f})"
    )
    sys.exit(failed > 0 or differing > 0)


if __name__ == "__main__":
    main()
