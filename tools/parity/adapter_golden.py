"""Numbers of PEFT for fixtures/peft: python adapter_golden.py FIXTURES

Writes FIXTURES/peft/CASE: an adapter whose factors are all random, as PEFT saves it, and golden.json with the sequence
log-probabilities under it, those after PEFT's own merge, and the L2 norm of each adapter tensor's gradient for the
sum of the chosen answers' log-probabilities.
"""

import json
import sys
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM
from transformers.utils import logging

CASES = {
    "dora": ("llama-tiny-policy", dict(r=3, lora_alpha=6, target_modules="all-linear", use_dora=True)),
    "dora-rslora-some": (
        "qwen3-tiny-policy",
        dict(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], use_dora=True, use_rslora=True),
    ),
    "pattern": (
        "llama-tiny-policy",
        dict(
            r=4,
            lora_alpha=8,
            target_modules=r".*\.layers\.1\..*(q_proj|up_proj)|.*\.layers\.0\.mlp\.down_proj",
            rank_pattern={"up_proj": 2},
            alpha_pattern={r"layers\.0\.mlp\.down_proj": 3},
        ),
    ),
    "saved": (
        "llama-tiny-policy",
        dict(r=2, lora_alpha=4, target_modules=["v_proj"], modules_to_save=["lm_head", "model.norm", "input_layernorm"]),
    ),
}


def sequence_logps(model, rows):
    """Log-probabilities of the chosen, then the rejected answers."""
    logps = []
    for side in ("chosen_ids", "rejected_ids"):
        for row in rows:
            prompt, answer = row["prompt_ids"], row[side][: 96 - len(row["prompt_ids"])]
            ids = torch.tensor([prompt + answer])
            logits = model(ids).logits[0, len(prompt) - 1 : -1]
            logps.append(logits.log_softmax(-1).gather(-1, ids[0, len(prompt) :, None]).sum())
    return torch.stack(logps)


def main():
    logging.disable_progress_bar()
    fixtures = Path(sys.argv[1])
    for case, (base, options) in CASES.items():
        torch.manual_seed(0)
        out = fixtures / "peft" / case
        load = lambda: AutoModelForCausalLM.from_pretrained(
            fixtures / "trl" / base, dtype=torch.float32, attn_implementation="eager"
        )
        model = get_peft_model(load(), LoraConfig(task_type="CAUSAL_LM", **options))
        for name, parameter in model.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.05)
            elif parameter.requires_grad:  # magnitudes and modules to save
                parameter.data *= 1 + 0.1 * torch.randn_like(parameter)
        model.peft_config["default"].base_model_name_or_path = base
        model.save_pretrained(out)
        (out / "README.md").unlink(missing_ok=True)
        model = PeftModel.from_pretrained(load(), out, is_trainable=True).eval()
        rows = json.loads((fixtures / "trl" / f"{base.split('-')[0]}-tiny.json").read_text())["tokenised"]
        logps = sequence_logps(model, rows)
        logps[: len(rows)].sum().backward()
        norms = {
            name.replace(".default", "").replace("modules_to_save.", "").replace("magnitude_vector.weight", "magnitude_vector"): p.grad.norm().item()
            for name, p in model.named_parameters()
            if p.grad is not None
        }
        with torch.no_grad():
            merged = sequence_logps(model.merge_and_unload(), rows)
        golden = {
            "base": base,
            "seq_logps": logps.tolist(),
            "merged_seq_logps": merged.tolist(),
            "gradient_norms": norms,
        }
        (out / "golden.json").write_text(json.dumps(golden, indent=1) + "\n")
        print(case, len(norms), logps.tolist()[:2])


if __name__ == "__main__":
    main()
