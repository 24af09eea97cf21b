"""Checkpoints whose weights are packed, of random bits, and what numpy makes of them: fixtures/packed.

packed.py OUT   writes a folder for each of gptq, awq, nf4 and fp8 with config.json, model.safetensors and expected.safetensors

Formats as their projects describe them: GPTQModel and AutoGPTQ (int32 words, zero points stored less one), AutoAWQ's GEMM kernel
(nibbles of a word in the order 0 2 4 6 1 3 5 7), bitsandbytes (a code book, scales of 64 values that are quantised again), DeepSeek's
FP8 (E4M3 with a scale for each 128 x 128 block).
"""

import json
import os
import struct
import sys

import numpy as np

HIDDEN, INNER, VOCABULARY = 32, 160, 40
NF4 = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
       -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
       0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]
TYPES = {"float32": "F32", "float16": "F16", "int32": "I32", "uint8": "U8"}


def write(path, tensors, types):
    header, data = {}, b""
    for name in sorted(tensors):
        value = np.ascontiguousarray(tensors[name])
        bytes_ = value.tobytes()
        kind = types.get(name) or TYPES[str(value.dtype)]
        header[name] = {"dtype": kind, "shape": list(value.shape), "data_offsets": [len(data), len(data) + len(bytes_)]}
        data += bytes_
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def projections():
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        yield f"model.layers.0.self_attn.{name}", HIDDEN, HIDDEN
    yield "model.layers.0.mlp.gate_proj", INNER, HIDDEN
    yield "model.layers.0.mlp.up_proj", INNER, HIDDEN
    yield "model.layers.0.mlp.down_proj", HIDDEN, INNER


def words(random, *shape):
    return random.integers(-2**31, 2**31, shape, dtype=np.int64).astype(np.int32)


def half(random, *shape):
    return (random.random(shape) * 0.02 + 0.001).astype(np.float16)


def gptq(random, name, out, inputs, bits=4, group=16):
    pack, groups = 32 // bits, inputs // group
    qweight, qzeros = words(random, inputs // pack, out), words(random, groups, out // pack)
    scales, order = half(random, groups, out), random.permutation(np.arange(inputs) // group).astype(np.int32)
    weight = np.zeros((out, inputs), np.float32)
    for column in range(inputs):
        for row in range(out):
            g = order[column]
            q = (int(np.uint32(qweight[column // pack, row])) >> (bits * (column % pack))) % 2**bits
            zero = ((int(np.uint32(qzeros[g, row // pack])) >> (bits * (row % pack))) + 1) % 2**bits
            weight[row, column] = np.float32(scales[g, row]) * np.float32(q - zero)
    return {"qweight": qweight, "qzeros": qzeros, "scales": scales, "g_idx": order}, weight


def awq(random, name, out, inputs, group=16):
    place = [0, 2, 4, 6, 1, 3, 5, 7]
    qweight, qzeros, scales = words(random, inputs, out // 8), words(random, inputs // group, out // 8), half(random, inputs // group, out)

    def nibbles(packed):
        found = np.zeros((packed.shape[0], packed.shape[1] * 8), np.int32)
        for nibble, column in enumerate(place):
            found[:, column::8] = (packed.view(np.uint32) >> np.uint32(4 * nibble)) & np.uint32(15)
        return found

    groups = np.arange(inputs) // group
    weight = (nibbles(qweight) - nibbles(qzeros)[groups]).astype(np.float32) * scales.astype(np.float32)[groups]
    return {"qweight": qweight, "qzeros": qzeros, "scales": scales}, weight.T


def nf4(random, name, out, inputs):
    count = out * inputs
    packed, nested = random.integers(0, 256, (count // 2, 1), dtype=np.uint8), random.integers(0, 256, count // 64, dtype=np.uint8)
    book, codes = np.array(NF4, np.float32), (np.linspace(-1, 1, 256) ** 3).astype(np.float32)
    of_nested, offset = (random.random(-(-len(nested) // 256)) * 0.1).astype(np.float32), 0.125
    state = {"quant_type": "nf4", "blocksize": 64, "dtype": "float16", "shape": [out, inputs], "nested_blocksize": 256,
             "nested_dtype": "float32", "nested_offset": offset}
    scales = codes[nested] * np.repeat(of_nested, 256)[: len(nested)] + np.float32(offset)
    codes_of = np.stack([packed[:, 0] >> 4, packed[:, 0] & 15], 1).reshape(-1)
    weight = (book[codes_of] * np.repeat(scales, 64)).reshape(out, inputs).astype(np.float32)
    text = np.frombuffer(json.dumps(state).encode(), np.uint8)
    return {"weight": packed, "weight.absmax": nested, "weight.quant_map": book, "weight.nested_absmax": of_nested,
            "weight.nested_quant_map": codes, "weight.quant_state.bitsandbytes__nf4": text}, weight


def fp8(random, name, out, inputs):
    codes = random.integers(0, 256, (out, inputs), dtype=np.uint8)
    codes[(codes & 127) == 127] = 0
    scales = (random.random((-(-out // 128), -(-inputs // 128))) * 0.01).astype(np.float32)
    exponent, mantissa = (codes >> 3 & 15).astype(np.int32), (codes & 7).astype(np.float64)
    size = np.where(exponent == 0, mantissa * 2.0**-9, (1 + mantissa / 8) * 2.0 ** (exponent - 7.0))
    value = np.where(codes & 128, -size, size).astype(np.float32)
    weight = value * np.repeat(np.repeat(scales, 128, 0)[:out], 128, 1)[:, :inputs]
    return {"weight": codes, "weight_scale_inv": scales}, weight.astype(np.float32)


CONFIGS = {
    "gptq": (gptq, {"quant_method": "gptq", "bits": 4, "group_size": 16, "desc_act": True, "checkpoint_format": "gptq"}),
    "awq": (awq, {"quant_method": "awq", "bits": 4, "group_size": 16, "zero_point": True, "version": "gemm"}),
    "nf4": (nf4, {"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False, "bnb_4bit_quant_type": "nf4",
                  "bnb_4bit_use_double_quant": True}),
    "fp8": (fp8, {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}),
}


def main(folder):
    for index, (kind, (make, quantisation)) in enumerate(CONFIGS.items()):
        random, tensors, expected, types = np.random.default_rng(index), {}, {}, {}
        for name, out, inputs in projections():
            parts, weight = make(random, name, out, inputs)
            tensors.update({f"{name}.{part}": value for part, value in parts.items()})
            expected[f"{name}.weight"] = weight
            if kind == "fp8":
                types[f"{name}.weight"] = "F8_E4M3"
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.0.{name}.weight"] = np.ones(HIDDEN, np.float16)
        tensors["model.norm.weight"] = np.ones(HIDDEN, np.float16)
        tensors["model.embed_tokens.weight"] = (random.standard_normal((VOCABULARY, HIDDEN)) * 0.1).astype(np.float16)
        config = {
            "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": VOCABULARY, "hidden_size": HIDDEN,
            "intermediate_size": INNER, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
            "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "tie_word_embeddings": True, "torch_dtype": "float16",
            "quantization_config": quantisation}
        out = os.path.join(folder, kind)
        os.makedirs(out, exist_ok=True)
        write(os.path.join(out, "model.safetensors"), tensors, types)
        write(os.path.join(out, "expected.safetensors"), expected, {})
        with open(os.path.join(out, "config.json"), "w") as file:
            json.dump(config, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main(sys.argv[1])
