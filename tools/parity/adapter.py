"""Let PEFT write a LoRA adapter whose factors are both random: python adapter.py BASE OUT"""

import sys

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
from transformers.utils import logging

logging.disable_progress_bar()
base, out = sys.argv[1:]
torch.manual_seed(0)
config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
for name, parameter in model.named_parameters():
    if "lora_B" in name:  # zeros by default, an adapter without effect
        torch.nn.init.normal_(parameter, std=0.05)
model.save_pretrained(out)
