"""Write JSONL rows of token ids for a model: python rows.py MODEL PAIRS.jsonl.gz [COUNT] > rows.jsonl

PAIRS has prompt, response_a and response_b; the model directory's tokenizer splits them, loaded as transformers does.
Then as many rows of random ids: prompts and answers of 1 token, and up to 64 tokens of what the vocabulary has.
"""

import gzip
import itertools
import json
import random
import sys
from pathlib import Path

from transformers import AutoTokenizer


def from_text(model, pairs, count):
    tokenizer = AutoTokenizer.from_pretrained(model)
    with gzip.open(pairs, "rt") as lines:
        for line in itertools.islice(lines, count):
            row = json.loads(line)
            answers = [row["response_a"], row["response_b"]]
            answers = [tokenizer.encode(f" {text}", add_special_tokens=False) for text in answers]
            yield tokenizer.encode(f"Question: {row['prompt']}\nAnswer:"), *answers


def at_random(vocabulary, count):
    generator = random.Random(0)
    for row in range(count):
        lengths = [1, 1, 63] if row == 0 else [63, 1, 1] if row == 1 else generator.choices(range(1, 33), k=3)
        yield [[generator.randrange(vocabulary) for _ in range(length)] for length in lengths]


def main():
    model, pairs = Path(sys.argv[1]), sys.argv[2]
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 20
    vocabulary = json.loads((model / "config.json").read_text())["vocab_size"]
    for ids in itertools.chain(from_text(model, pairs, count), at_random(vocabulary, count)):
        print(json.dumps(dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), ids))))


if __name__ == "__main__":
    main()
