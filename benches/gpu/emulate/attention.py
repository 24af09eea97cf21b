#!/usr/bin/env python3
"""Runs the CUDA C++ of the attention kernels on the CPU: `attention.py DIR`, the folder of `cuda_text` (nvrtc.py has the command).

Kernels are compiled by g++ with a stand-in for CUDA (emulated.h) and held against attention in float64: outputs,
logarithms of sums and gradients, of packs with empty prompts, answers of one token, windows and lengths across the borders
of tiles; threads run in three orders between barriers, which must not change a bit. Ends with 1 where something is
further off than rounding explains. Needs numpy.
"""

import ctypes
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np

HERE = pathlib.Path(__file__).parent
TILE = 32
HEADS, KV_HEADS, SCALE, CAP = 4, 2, 0.3, 5.0
# Of the largest value: inputs and outputs are rounded to the type, in products by matrix units weights too.
ALLOWED = {"bf16": 1.2e-2, "f16": 2e-3, "f32": 2e-5}
PACKS = [([(37, [20, 1]), (0, [5, 70])], None), ([(33, [32, 3]), (1, [1])], 7), ([(64, [31])], 2)]


def rounded(values, kind):
    """Values as the type has them, and their bytes."""
    values = np.asarray(values, np.float32)
    if kind == "f32":
        return values.astype(np.float64), values.copy()
    if kind == "f16":
        return values.astype(np.float16).astype(np.float64), values.astype(np.float16)
    bits = values.view(np.uint32)
    bits = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return numbers(bits, kind), bits


def numbers(values, kind):
    """What bytes of a type mean."""
    if kind == "bf16":
        return (values.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return values.astype(np.float64)


class Pack:
    """Who sees whom, by definition, and as the kernels are told."""

    def __init__(self, groups, window):
        rows = []
        for prompt, answers in groups:
            start = len(rows)
            rows += [(start, 0, start, place) for place in range(prompt)]
            for answer in answers:
                own = len(rows)
                rows += [(start, prompt, own, prompt + place) for place in range(answer)]
        self.tokens = len(rows)
        self.seen = np.zeros((self.tokens, self.tokens), bool)
        self.ranges = np.zeros((self.tokens, 4), np.uint32)
        for token, (start, prompt, own, position) in enumerate(rows):
            least = 0 if window is None else max(0, position + 1 - window)
            # Places of the sequence that it sees: first those of the prompt, then those of its own.
            of_prompt = range(start + min(least, prompt), start + prompt)
            of_own = range(own + max(least - prompt, 0), own + position - prompt + 1)
            self.ranges[token] = [of_prompt.start, of_prompt.stop, of_own.start, of_own.stop]
            self.seen[token, list(of_prompt) + list(of_own)] = True
        tiles = -(-self.tokens // TILE)
        meets = np.zeros((tiles, tiles), bool)
        for row, key in zip(*np.nonzero(self.seen)):
            meets[row // TILE, key // TILE] = True
        self.keys_of_rows, self.rows_of_keys = lists(meets), lists(meets.T)


def lists(meets):
    """Where the list of each tile starts, and the lists."""
    found = [np.nonzero(row)[0] for row in meets]
    return np.cumsum([0, *map(len, found)]).astype(np.uint32), np.concatenate(found).astype(np.uint32)


class Kernel:
    """A kernel that the CPU runs."""

    def __init__(self, path, folder):
        text = path.read_text()
        text = "\n".join(line for line in text.splitlines() if not re.match(r"typedef (un)?signed .*int\d+_t;", line))
        text = re.sub(r"#include <.*>", "", text)
        name, arguments = re.search(r'extern "C" .*?(\w+)\((\w[^)]*)\) \{', text).groups()
        shared = re.search(r"extern __shared__ .* char (\w+)\[\];", text)[1]
        types = [argument.rsplit(" ", 1)[0].replace("__restrict__", "") for argument in arguments.split(", ")[:-1]]
        passed = ", ".join(f"({kind.rstrip().removesuffix('const')})of[{index}]" for index, kind in enumerate(types))
        source = folder / f"{path.stem}.cpp"
        source.write_text(
            f'#include "emulated.h"\n{text}\nalignas(128) char {shared}[1 << 16];\n'
            f'extern "C" void run(void **of, info_st *info, unsigned x, unsigned y, unsigned order) {{\n'
            f"    launch(x, y, order, {shared}, sizeof {shared}, [&] {{ {name}({passed}, *info); }});\n}}\n"
        )
        library = source.with_suffix(".so")
        options = ["-O1", "-march=native", "-ffp-contract=off", "-w", "-shared", "-fPIC", "-std=c++17"]
        subprocess.run(["g++", *options, f"-I{HERE}", source, "-o", library], check=True)
        self.run = ctypes.CDLL(str(library)).run
        self.lengths = int(re.search(r"static_meta\[(\d+)\]", text)[1])

    def __call__(self, pack, buffers, heads):
        """The buffers after a run, which must be the same in every order of threads."""
        results = []
        for order in [0, 1, 7]:
            own = [buffer.copy() for buffer in buffers]
            scalars = np.array([pack.tokens, HEADS, KV_HEADS, 0], np.uint32).tobytes()
            scalars += np.array([SCALE, CAP], np.float32).tobytes()
            lengths = np.zeros(self.lengths, np.uint32)
            lengths[: len(own)] = [buffer.size for buffer in own]
            info = ctypes.create_string_buffer(scalars + lengths.tobytes())
            pointers = (ctypes.c_void_p * len(own))(*(buffer.ctypes.data for buffer in own))
            self.run(pointers, info, -(-pack.tokens // TILE), heads, order)
            results.append(own)
        for other in results[1:]:
            if any(one.tobytes() != two.tobytes() for one, two in zip(results[0], other)):
                sys.exit("the order of threads changes the result: a barrier is missing")
        return results[0]


def reference(pack, q, k, v, d_y, capped):
    """Attention in float64: outputs, logarithms of sums, means, gradients of queries, keys and values."""
    y, log_sums, means = np.zeros_like(q), np.zeros(q.shape[:2]), np.zeros(q.shape[:2])
    d_q, d_k, d_v = map(np.zeros_like, (q, k, v))
    for head in range(HEADS):
        kv = head // (HEADS // KV_HEADS)
        products = q[:, head] @ k[:, kv].T * SCALE
        scores = np.tanh(products / CAP) * CAP if capped else products
        slopes = SCALE * (1 - (scores / CAP) ** 2) if capped else SCALE
        scores = np.where(pack.seen, scores, -np.inf)
        log_sums[:, head] = np.logaddexp.reduce(scores, axis=1)
        weights = np.exp(scores - log_sums[:, head, None])
        y[:, head] = weights @ v[:, kv]
        d_weights = d_y[:, head] @ v[:, kv].T
        means[:, head] = (weights * d_weights).sum(1)
        d_scores = weights * (d_weights - means[:, head, None]) * slopes
        d_q[:, head] = d_scores @ k[:, kv]
        d_k[:, kv] += d_scores.T @ q[:, head]
        d_v[:, kv] += weights.T @ d_y[:, head]
    return y, log_sums, means, d_q, d_k, d_v


def compared(path, folder):
    """The largest difference of a kernel's results, by what they are, as shares of the largest value."""
    what, kind, dim, *rest = path.stem.split(".")
    dim, kernel, off = int(dim), Kernel(path, folder), {}
    for index, (groups, window) in enumerate(PACKS):
        pack, chance = Pack(groups, window), np.random.default_rng(index)
        drawn = lambda heads: rounded(chance.standard_normal((pack.tokens, heads, dim)), kind)
        (q, q_), (k, k_), (v, v_), (d_y, d_y_) = (drawn(heads) for heads in [HEADS, KV_HEADS, KV_HEADS, HEADS])
        y, log_sums, means, d_q, d_k, d_v = reference(pack, q, k, v, d_y, "capped" in rest)
        inputs = [q_, k_, v_, pack.ranges.ravel()]
        sums, poison = log_sums.astype(np.float32), lambda of: rounded(np.full_like(of, np.nan), kind)[1]
        unknown = np.full(sums.shape, np.nan, np.float32)
        if what == "attend":
            found = kernel(pack, [*inputs, *pack.keys_of_rows, poison(y), unknown], HEADS)
            results = {"y": (numbers(found[6], kind), y), "log sums": (found[7], log_sums)}
        elif what == "attend_backward_queries":
            buffers = [*inputs, *pack.keys_of_rows, rounded(y, kind)[1], sums, d_y_, unknown, poison(d_q)]
            found = kernel(pack, buffers, HEADS)
            results = {"means": (found[9], means), "d_q": (numbers(found[10], kind), d_q)}
        else:
            buffers = [*inputs, *pack.rows_of_keys, sums, d_y_, means.astype(np.float32), poison(d_k), poison(d_v)]
            found = kernel(pack, buffers, KV_HEADS)
            results = {"d_k": (numbers(found[9], kind), d_k), "d_v": (numbers(found[10], kind), d_v)}
        for name, (own, true) in results.items():
            difference = np.abs(own - true).max() / np.abs(true).max()
            off[name] = max(off.get(name, 0.0), difference if np.isfinite(difference) else np.inf)
    return off, ALLOWED[kind]


def main():
    paths = sorted(pathlib.Path(sys.argv[1]).glob("attend*.cu"))
    if not paths:
        sys.exit(f"{sys.argv[1]}: no attend*.cu")
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            off, allowed = compared(path, pathlib.Path(folder))
            good = all(difference <= allowed for difference in off.values())
            failed |= not good
            told = ", ".join(f"{name} {difference:.1e}" for name, difference in off.items())
            print(f"{path.stem:<46} {told}{'' if good else f'; allowed: {allowed}'}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
