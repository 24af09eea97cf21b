"""One measurement of llama.cpp; prints the keys of `spo bench --json`. One process per measurement."""
import argparse, concurrent.futures, json, os, pathlib, statistics, time, urllib.request

STARTED = time.perf_counter()
parser = argparse.ArgumentParser()
parser.add_argument("model", help="a GGUF file")
parser.add_argument("data")
parser.add_argument("--batch", type=int, default=1)
parser.add_argument("--new-tokens", type=int, default=128)
parser.add_argument("--epochs", type=int, default=3)
arguments = parser.parse_args()

import xllamacpp

rows = [json.loads(line) for line in open(arguments.data)][: arguments.batch]
longest = max(len(row["prompt_ids"]) for row in rows)
parameters = xllamacpp.CommonParams()
parameters.model.path = arguments.model
parameters.n_gpu_layers = 0
parameters.n_parallel = len(rows)
parameters.n_ctx = len(rows) * (longest + arguments.new_tokens + 16)
parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = os.cpu_count()
parameters.warmup = False
parameters.verbosity = 0
server = xllamacpp.Server(parameters)


def answer(row, new_tokens):
    """Greedy, never ended early, the prompt computed anew each time."""
    request = {"prompt": row["prompt_ids"], "n_predict": new_tokens, "temperature": 0.0, "ignore_eos": True,
               "cache_prompt": False, "return_tokens": True}
    headers = {"Content-Type": "application/json"}
    posted = urllib.request.Request(f"{server.listening_address}/completion", json.dumps(request).encode(), headers)
    return json.load(urllib.request.urlopen(posted))["tokens"]


answer(rows[0], 1)
first = time.perf_counter() - STARTED
epochs = []
with concurrent.futures.ThreadPoolExecutor(len(rows)) as pool:
    for _ in range(arguments.epochs + 1):
        begun = time.perf_counter()
        answers = list(pool.map(lambda row: answer(row, arguments.new_tokens), rows))
        epochs.append(time.perf_counter() - begun)
measured = epochs[1:]
status = pathlib.Path("/proc/self/status").read_text()
peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
print(json.dumps(dict(
    what="generate", device="CPU", pairs_per_s=len(rows) / statistics.median(measured), to_first_step_s=first,
    peak_rss_mb=peak / 1024, epoch_s=measured, pairs=len(rows), threads=os.cpu_count(), batch=len(rows),
    ids=answers[0])))
