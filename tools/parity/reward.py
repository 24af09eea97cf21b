"""Reward models: numbers of TRL's RewardTrainer, and exported models in transformers.

    python tools/parity/reward.py golden > fixtures/reward/trl.json    # needs benches/yardstick/requirements.txt
    python tools/parity/reward.py scores MODEL ROWS.jsonl              # rows as of rows.py; one JSON line per answer

`golden` trains fixtures/trl/llama-tiny-policy for ten steps on the four pairs of llama-tiny.json, from a head that is
written out too, and lists losses of rewards with margins and centring.
"""
import contextlib, json, pathlib, sys, tempfile

import torch

ROOT = pathlib.Path(__file__).parents[2]
MODEL = ROOT / "fixtures/trl/llama-tiny-policy"


def scores(model, rows):
    from transformers import AutoModelForSequenceClassification

    model, report = AutoModelForSequenceClassification.from_pretrained(model, output_loading_info=True)
    wrong = {key: sorted(names) for key, names in report.items() if key in ("missing_keys", "mismatched_keys") and names}
    assert not wrong, wrong
    model.eval()
    for line in open(rows):
        row = json.loads(line)
        for key in ("chosen_ids", "rejected_ids"):
            ids = torch.tensor([row["prompt_ids"] + row[key]])
            with torch.no_grad():
                print(json.dumps({"id": row.get("id"), "answer": key, "score": model(ids).logits[0].tolist()}))


class Rewards(torch.nn.Module):
    """Gives the rewards that it was made with."""

    def __init__(self, rewards):
        super().__init__()
        self.rewards = torch.tensor(rewards, dtype=torch.float64)[:, None]

    def forward(self, **_):
        return type("Output", (), {"logits": self.rewards})


def loss_cases(trainer):
    generator = torch.Generator().manual_seed(5)
    for margin in (False, True):
        for centre in (0.0, 0.01, 0.5):
            draw = lambda scale: (scale * torch.randn(6, generator=generator, dtype=torch.float64)).tolist()
            chosen, rejected = draw(3.0), draw(3.0)
            case = {"chosen": chosen, "rejected": rejected, "centre": centre, "margin": None}
            inputs = {"attention_mask": torch.ones(12, 1)}
            if margin:
                case["margin"] = [abs(value) for value in draw(2.0)]
                inputs["margin"] = torch.tensor(case["margin"], dtype=torch.float64)
            trainer.args.center_rewards_coefficient = centre or None
            case["loss"] = trainer.compute_loss(Rewards(chosen + rejected), inputs).item()
            yield case


def trainer(rows, centre, out):
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    class InOrder(RewardTrainer):
        """Rows in their order; keeps what the log rounds."""

        losses = []

        def _get_train_sampler(self, *_):
            return SequentialSampler(self.train_dataset)

        def compute_loss(self, *arguments, **named):
            found = super().compute_loss(*arguments, **named)
            self.losses.append((found[0] if isinstance(found, tuple) else found).item())
            return found

    torch.manual_seed(7)
    model = AutoModelForSequenceClassification.from_pretrained(
        MODEL, num_labels=1, dtype=torch.float32, attn_implementation="eager")
    torch.nn.init.normal_(model.score.weight, std=0.3, generator=torch.Generator().manual_seed(3))
    config = RewardConfig(
        out, per_device_train_batch_size=4, max_steps=10, learning_rate=1e-4, lr_scheduler_type="constant",
        weight_decay=0.0, max_grad_norm=0.0, warmup_steps=0, logging_steps=1, report_to=[], save_strategy="no",
        bf16=False, gradient_checkpointing=False, use_cpu=True, max_length=None, center_rewards_coefficient=centre,
        adam_beta2=0.999, seed=7)
    return InOrder(model=model, args=config, train_dataset=Dataset.from_list(rows),
                   processing_class=AutoTokenizer.from_pretrained(MODEL))


def curve(rows, centre):
    with tempfile.TemporaryDirectory() as out:
        made = trainer(rows, centre, out)
        made.losses = []
        head = made.model.score.weight[0].tolist()
        ids = [{key: list(row[key]) for key in ("chosen_ids", "rejected_ids")} for row in made.train_dataset]
        pad = made.model.config.pad_token_id
        made.train()
        log = [entry for entry in made.state.log_history if "loss" in entry]
        figures = {key: [float(entry[key]) for entry in log] for key in ("grad_norm", "accuracy")}
        figures["loss"] = list(made.losses)
        return head, ids, pad, figures, made


def golden():
    import transformers, trl

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    rows = json.loads((ROOT / "fixtures/trl/llama-tiny.json").read_text())["rows"]
    with contextlib.redirect_stdout(sys.stderr):  # the trainer's own log
        head, ids, pad, plain, made = curve(rows, None)
        *_, centred, _ = curve(rows, 0.01)
    versions = {"trl": trl.__version__, "transformers": transformers.__version__, "torch": torch.__version__}
    print(json.dumps({
        "made with": versions, "model": "fixtures/trl/llama-tiny-policy", "head": head, "rows": ids,
        "pad_token_id": pad, "train_b4": plain, "train_b4_centre0.01": centred, "losses": list(loss_cases(made)),
    }))


if __name__ == "__main__":
    golden() if sys.argv[1] == "golden" else scores(*sys.argv[2:])
