"""Models with random weights and real pairs for the yardstick and for benches/gpu.

small      6 M parameters: hidden 256, 4 blocks, vocabulary 8,192, tied
medium    56 M parameters: hidden 512, 8 blocks, vocabulary 32,000
head-32000, head-151936   2 blocks of medium's width with a tied head of that vocabulary
smollm2-135m   134 M parameters in the shape of SmolLM2-135M
qwen2-0.5b   494 M parameters in the shape of Qwen2.5-0.5B, only when it is named
qwen2-1.5b   1.54 G parameters in the shape of Qwen2-1.5B, only when it is named
SIZE.pairs.jsonl          pairs of Anthropic HH as messages, in random order, prompts under 512 tokens
SIZE-lora     an adapter of rank 16 on all linear layers of medium and of smollm2-135m, as PEFT draws it
SIZE.prompts.jsonl        eight prompts of 64 tokens, as ids, each with an answer of one token
long.jsonl                a prompt of 512 random ids with an answer of one token
even.jsonl                pairs of random ids, all of one length
"""
import argparse, gzip, json, pathlib, random, re

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("out", type=pathlib.Path, help="the folder to write to")
parser.add_argument("models", nargs="*", help="all that the yardstick needs if none is named")
parser.add_argument("--device", default="cpu", help="where torch draws the weights")
parser.add_argument("--dtype", default="float32", help="what the weights are stored as")
parser.add_argument("--no-weights", action="store_true", help="only tokenizers and pairs; they are taken from there the next time")
arguments = parser.parse_args()
OUT = arguments.out
HH = pathlib.Path(__file__).parents[2] / "fixtures/hh_harmless/test.jsonl.gz"
MAX_LENGTH, PAIRS = 512, 256
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SHAPES = {
    "small": dict(hidden_size=256, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
                  intermediate_size=1024, vocab_size=8192, tie_word_embeddings=True),
    "medium": dict(hidden_size=512, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=4,
                   intermediate_size=1376, vocab_size=32000, tie_word_embeddings=False),
}
for vocabulary in (32000, 151936):
    SHAPES[f"head-{vocabulary}"] = SHAPES["medium"] | dict(
        num_hidden_layers=2, vocab_size=vocabulary, tie_word_embeddings=True)
SHAPES["smollm2-135m"] = dict(hidden_size=576, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
                              intermediate_size=1536, vocab_size=49152, tie_word_embeddings=True)
YARDSTICK = list(SHAPES)
SHAPES["qwen2-0.5b"] = dict(hidden_size=896, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2,
                            intermediate_size=4864, vocab_size=151936, tie_word_embeddings=True)
SHAPES["qwen2-1.5b"] = dict(hidden_size=1536, num_hidden_layers=28, num_attention_heads=12, num_key_value_heads=2,
                            intermediate_size=8960, vocab_size=151936, tie_word_embeddings=True)
EPSILON = {"qwen2-0.5b": 1e-6, "qwen2-1.5b": 1e-6}


def transcripts():
    with gzip.open(HH, "rt") as lines:
        yield from map(json.loads, lines)


def texts():
    """What the tokenizers are trained on: Python's own help and library, and the chosen transcripts."""
    import pydoc_data.topics

    yield from (text for _, text in sorted(pydoc_data.topics.topics.items()))
    for file in sorted(pathlib.Path(json.__file__).parents[1].glob("*.py")):
        yield file.read_text(errors="ignore")
    yield from (row["chosen"] for row in transcripts())


def train_tokenizer(vocabulary):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(texts(), trainers.BpeTrainer(
        vocab_size=vocabulary, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]))
    fast = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|pad|>")
    fast.chat_template = TEMPLATE
    return fast


def messages(transcript):
    parts = re.split(r"\n\n(Human|Assistant): ?", transcript)[1:]
    roles = {"Human": "user", "Assistant": "assistant"}
    return [dict(role=roles[role], content=text.strip()) for role, text in zip(parts[::2], parts[1::2])]


def pairs():
    """Transcripts that differ in the assistant's last turn only."""
    for row in transcripts():
        chosen, rejected = messages(row["chosen"]), messages(row["rejected"])
        if len(chosen) < 2 or chosen[:-1] != rejected[:-1] or chosen[-1] == rejected[-1]:
            continue
        if all(turn["role"] == "assistant" and turn["content"] for turn in (chosen[-1], rejected[-1])):
            yield dict(prompt=chosen[:-1], chosen=chosen[-1:], rejected=rejected[-1:])


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def tokenizer_of(name):
    from transformers import AutoTokenizer

    if not (OUT / name / "tokenizer.json").exists():
        train_tokenizer(min(SHAPES[name]["vocab_size"], 32000)).save_pretrained(OUT / name)
    return AutoTokenizer.from_pretrained(OUT / name)


def write_pairs(name, tokenizer):
    ids = lambda row: tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False)
    rows = [row for row in pairs() if len(ids(row)) < MAX_LENGTH]
    random.Random(0).shuffle(rows)
    write(OUT / f"{name}.pairs.jsonl", rows[:PAIRS])
    long = [ids(row)[:64] for row in rows if len(ids(row)) >= 64][:8]
    write(OUT / f"{name}.prompts.jsonl", [dict(prompt_ids=ids, chosen_ids=[2], rejected_ids=[3]) for ids in long])


def write_model(name):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    config, model = (Qwen2Config, Qwen2ForCausalLM) if name.startswith("qwen2") else (LlamaConfig, LlamaForCausalLM)
    torch.manual_seed(0)
    with torch.device(arguments.device):
        model = model(config(
            rms_norm_eps=EPSILON.get(name, 1e-5), max_position_embeddings=2048, bos_token_id=None, eos_token_id=2,
            pad_token_id=3, **SHAPES[name]))
    model.to(getattr(torch, arguments.dtype)).save_pretrained(OUT / name)
    print(name, sum(p.numel() for p in model.parameters()))
    return model


def write_adapter(name, model):
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(model, LoraConfig(
        r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM", lora_dropout=0.0))
    adapted.save_pretrained(OUT / f"{name}-lora")


for name in arguments.models or YARDSTICK:
    tokenizer = tokenizer_of(name)
    if not name.startswith("head") and not (OUT / f"{name}.prompts.jsonl").exists():
        write_pairs(name, tokenizer)
    if not arguments.no_weights:
        model = write_model(name)
        if name in ("medium", "smollm2-135m"):
            write_adapter(name, model)
draw = random.Random(0)
words = lambda count: [draw.randrange(4, 32000) for _ in range(count)]
write(OUT / "even.jsonl", [dict(prompt_ids=words(96), chosen_ids=words(48), rejected_ids=words(48)) for _ in range(64)])
write(OUT / "long.jsonl", [dict(prompt_ids=words(512), chosen_ids=[2], rejected_ids=[3])])
