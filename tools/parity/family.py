"""Let transformers write a small model of a family with random weights: python family.py CONFIG TOKENIZER OUT [JSON]

CONFIG is a config.json, TOKENIZER a model directory with the tokenizer to use, whose size the vocabulary takes; JSON has
keys of the configuration to change.
"""

import json
import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

logging.disable_progress_bar()
config, tokenizer, out = map(Path, sys.argv[1:4])
keys = json.loads(config.read_text())
keys["vocab_size"] = json.loads((tokenizer / "config.json").read_text())["vocab_size"]
keys |= json.loads(sys.argv[4]) if len(sys.argv) > 4 else {}
files = {file.name: file.read_text() for file in tokenizer.glob("*token*.json")}
if keys["model_type"] == "phi3":
    # llama.cpp wants Phi 3's special tokens, and drops or keeps spaces after them as the real tokenizer says.
    content = json.loads(files["tokenizer.json"])
    for token in content["added_tokens"]:
        token["rstrip"] = token["content"] == "</s>"
    last = dict(content["added_tokens"][-1], id=keys["vocab_size"], content="<|endoftext|>", rstrip=False)
    content["added_tokens"].append(last)
    files["tokenizer.json"] = json.dumps(content)
    keys["vocab_size"] += 1
with tempfile.TemporaryDirectory() as folder:
    (Path(folder) / "config.json").write_text(json.dumps(keys))
    config = AutoConfig.from_pretrained(folder)
torch.manual_seed(0)
model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
for name, parameter in model.named_parameters():
    # Sizes at which blocks, norms and biases all matter to the log-probabilities.
    width = parameter.shape[-1] if parameter.dim() > 1 else 25
    mean = parameter.mean().item() if "norm" in name else 0.0
    torch.nn.init.normal_(parameter, mean, width**-0.5)
model.save_pretrained(out)
for name, text in files.items():
    (out / name).write_text(text)
