"""One measurement of TRL; prints the keys of `spo bench --json`. One process per measurement."""
import argparse, json, os, pathlib, statistics, tempfile, time

STARTED = time.perf_counter()
os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", TQDM_DISABLE="1")
parser = argparse.ArgumentParser()
parser.add_argument("what", choices=["train", "score", "generate", "tokenize"])
parser.add_argument("model")
parser.add_argument("data")
parser.add_argument("--pairs", type=int, default=64)
parser.add_argument("--pairs-per-step", type=int, default=2)
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--adapter", help="train the adapter in this directory")
parser.add_argument("--precompute", action="store_true", help="the reference's log-probs before training")
parser.add_argument("--batch", type=int, default=1)
parser.add_argument("--new-tokens", type=int, default=128)
parser.add_argument("--learning-rate", type=float, default=5e-6)
parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32", help="bf16 computes in it, with weights and moments in f32")
parser.add_argument("--liger", action="store_true", help="Liger's kernels in place of the model's own")
arguments = parser.parse_args()
ON_CPU = arguments.device == "cpu"
if ON_CPU:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

torch.set_num_threads(os.cpu_count())
first, epochs, prepare_s = [], [], []


def wait():
    """For what the device still has to do."""
    if not ON_CPU:
        torch.cuda.synchronize()


def step_done():
    wait()
    first.append(time.perf_counter() - STARTED)


def trainer(rows, epochs_to_train):
    from datasets import Dataset, disable_caching
    from trl import DPOConfig, DPOTrainer

    class Clock(TrainerCallback):
        def on_epoch_begin(self, *_, **__): epochs.append(-time.perf_counter())
        def on_epoch_end(self, *_, **__): epochs[-1] += time.perf_counter()
        def on_step_end(self, *_, **__): step_done()

    class InOrder(DPOTrainer):
        def _prepare_dataset(self, *given, **named):
            begun = time.perf_counter()
            prepared = super()._prepare_dataset(*given, **named)
            prepare_s.append(time.perf_counter() - begun)
            return prepared

        def _get_train_sampler(self, *_, **__): return torch.utils.data.SequentialSampler(self.train_dataset)

    disable_caching()
    model, of_model = arguments.model, dict(attn_implementation="sdpa")
    if arguments.adapter:
        from peft import PeftModel
        base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, **of_model)
        model, of_model = PeftModel.from_pretrained(base, arguments.adapter, is_trainable=True), None
    config = DPOConfig(
        output_dir=tempfile.mkdtemp(), use_cpu=ON_CPU, bf16=arguments.dtype == "bf16", fp16=False, gradient_checkpointing=False, seed=0,
        per_device_train_batch_size=arguments.pairs_per_step, num_train_epochs=epochs_to_train, max_length=512,
        learning_rate=arguments.learning_rate, lr_scheduler_type="constant", loss_type=["sigmoid"], beta=0.1,
        precompute_ref_log_probs=arguments.precompute, model_init_kwargs=of_model,
        report_to="none", save_strategy="no", eval_strategy="no", logging_steps=1, disable_tqdm=True,
        dataloader_pin_memory=not ON_CPU, use_liger_kernel=arguments.liger)
    return InOrder(
        model=model, args=config, train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(arguments.model), callbacks=[Clock()])


def train(rows):
    running = trainer(rows, arguments.epochs + 1)
    running.train()
    losses = [entry["loss"] for entry in running.state.log_history if "loss" in entry]
    return len(rows), dict(losses=losses, pairs_per_step=arguments.pairs_per_step)


def score(rows):
    """What TRL does to precompute the reference's log-probs, again and again."""
    running = trainer(rows, 1)
    sums = []
    for _ in range(arguments.epochs + 1):
        sums.clear()
        loader = torch.utils.data.DataLoader(
            running.train_dataset, batch_size=arguments.pairs_per_step, collate_fn=running.data_collator)
        begun = time.perf_counter()
        for batch in loader:
            with running.accelerator.autocast():
                sides = running.compute_ref_log_probs(running.model, running._prepare_inputs(batch))
            sums += [float(logp) for side in sides for logp in side]
            step_done()
        epochs.append(time.perf_counter() - begun)
    return len(rows), dict(mean_logp=statistics.fmean(sums))


def tokenize(rows):
    """What the trainer does to its data when it is made, again and again."""
    for _ in range(arguments.epochs + 1):
        trainer(rows, 1)
        step_done()
    epochs.extend(prepare_s)
    return len(rows), {}


def generate(rows):
    dtype = dict(f32=torch.float32, bf16=torch.bfloat16)[arguments.dtype]
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=dtype, attn_implementation="sdpa")
    model.to(arguments.device)
    prompts = torch.tensor([row["prompt_ids"] for row in rows[: arguments.batch]], device=arguments.device)
    from transformers import StoppingCriteria, StoppingCriteriaList

    class First(StoppingCriteria):
        def __call__(self, ids, scores, **_):
            first or step_done()
            return torch.zeros(ids.shape[0], dtype=torch.bool, device=ids.device)

    for _ in range(arguments.epochs + 1):
        begun = time.perf_counter()
        with torch.inference_mode():
            out = model.generate(
                prompts, attention_mask=torch.ones_like(prompts), do_sample=False, eos_token_id=None,
                min_new_tokens=arguments.new_tokens, max_new_tokens=arguments.new_tokens,
                stopping_criteria=StoppingCriteriaList([First()]))
        wait()
        epochs.append(time.perf_counter() - begun)
    return arguments.batch, dict(ids=out[0, prompts.shape[1]:].tolist(), batch=arguments.batch)


rows = [json.loads(line) for line in open(arguments.data)][: arguments.pairs]
count, details = dict(train=train, score=score, generate=generate, tokenize=tokenize)[arguments.what](rows)
measured = epochs[1:]
median = statistics.median(measured)
status = pathlib.Path("/proc/self/status").read_text()
peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
device = "CPU" if ON_CPU else torch.cuda.get_device_name()
on_device = {} if ON_CPU else dict(peak_device_mb=torch.cuda.max_memory_reserved() / 2**20)
print(json.dumps(dict(
    what=arguments.what, device=device, pairs_per_s=count / median, to_first_step_s=first[0], peak_rss_mb=peak / 1024,
    epoch_s=measured, pairs=count, threads=torch.get_num_threads(), **on_device, **details)))
