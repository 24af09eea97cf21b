"""Numbers of PEFT for fixtures/peft: python adapter_golden.py FIXTURES [CASE …]

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
    "dora": ("trl/llama-tiny-policy", dict(r=3, lora_alpha=6, target_modules="all-linear", use_dora=True)),
    "dora-rslora-some": (
        "trl/qwen3-tiny-policy",
        dict(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], use_dora=True, use_rslora=True),
    ),
    "pattern": (
        "trl/llama-tiny-policy",
        dict(
            r=4,
            lora_alpha=8,
            target_modules=r".*\.layers\.1\..*(q_proj|up_proj)|.*\.layers\.0\.mlp\.down_proj",
            rank_pattern={"up_proj": 2},
            alpha_pattern={r"layers\.0\.mlp\.down_proj": 3},
        ),
    ),
    "saved": (
        "trl/llama-tiny-policy",
        dict(r=2, lora_alpha=4, target_modules=["v_proj"], modules_to_save=["lm_head", "model.norm", "input_layernorm"]),
    ),
    "gpt2": (
        "families/gpt2",
        dict(
            r=3,
            lora_alpha=6,
            target_modules=["c_attn", "c_proj", "c_fc"],
            modules_to_save=["ln_f", "ln_2"],
            fan_in_fan_out=True,
        ),
    ),
    "gpt2-dora": (
        "families/gpt2",
        dict(r=2, lora_alpha=4, target_modules=["attn.c_proj", "c_fc"], use_dora=True, fan_in_fan_out=True),
    ),
    "gpt-neox": (
        "families/gpt-neox",
        dict(r=3, lora_alpha=6, target_modules="all-linear", modules_to_save=["final_layer_norm"]),
    ),
    "phi3": ("families/phi3", dict(r=3, lora_alpha=6, target_modules=["qkv_proj", "down_proj"], use_rslora=True)),
}


def sequence_logps(model, rows):
    """Log-probabilities of the chosen, then the rejected answers."""
    logps = []
    for side in (1, 2):
        for row in rows:
            prompt, answer = row[0], row[side]
            ids = torch.tensor([prompt + answer])
            logits = model(ids).logits[0, len(prompt) - 1 : -1]
            logps.append(logits.log_softmax(-1).gather(-1, ids[0, len(prompt) :, None]).sum())
    return torch.stack(logps)


def rows_of(fixtures, base):
    """TRL's rows, in the vocabulary of the model, answers cut to 96 tokens with their prompt."""
    arch = base.split("/")[1].split("-")[0]
    arch = arch if base.startswith("trl/") else "llama"
    vocabulary = json.loads((fixtures / base / "config.json").read_text())["vocab_size"]
    rows = []
    for row in json.loads((fixtures / "trl" / f"{arch}-tiny.json").read_text())["tokenised"]:
        room = 96 - len(row["prompt_ids"])
        lists = row["prompt_ids"], row["chosen_ids"][:room], row["rejected_ids"][:room]
        rows.append([[token % vocabulary for token in ids] for ids in lists])
    return rows


def main():
    logging.disable_progress_bar()
    fixtures = Path(sys.argv[1])
    for case in sys.argv[2:] or CASES:
        base, options = CASES[case]
        torch.manual_seed(0)
        out = fixtures / "peft" / case
        load = lambda: AutoModelForCausalLM.from_pretrained(
            fixtures / base, dtype=torch.float32, attn_implementation="eager"
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
        rows = rows_of(fixtures, base)
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
            "rows": rows,
            "seq_logps": logps.tolist(),
            "merged_seq_logps": merged.tolist(),
            "gradient_norms": norms,
        }
        (out / "golden.json").write_text(json.dumps(golden, indent=1) + "\n")
        print(case, len(norms), logps.tolist()[:2])


if __name__ == "__main__":
    main()
