"""Commands with a limit of time, their logs, and the memory of the card while they run."""
import os, pathlib, shutil, signal, subprocess, threading, time


class Parts:
    """Runs commands; none begins after `seconds`, each ends at its own limit."""

    def __init__(self, logs, seconds):
        self.logs, self.ends, self.libraries = logs, time.monotonic() + seconds, libraries()
        logs.mkdir(parents=True, exist_ok=True)

    def run(self, name, command, limit, **environment):
        """What became of the command: `ended` is ok, what it ended with, or that it was killed or not begun."""
        limit = min(limit, self.ends - time.monotonic())
        if limit < 5:
            return dict(part=name, ended="not begun: the time is over", seconds=0.0, output="")
        out, err = self.logs / f"{name}.out", self.logs / f"{name}.err"
        begun = time.monotonic()
        with out.open("wb") as stdout, err.open("wb") as stderr, Memory() as memory:
            process = subprocess.Popen(
                list(map(str, command)), stdout=stdout, stderr=stderr, start_new_session=True,
                env=os.environ | {"RUST_BACKTRACE": "1"} | environment)
            try:
                code = process.wait(limit)
                ended = "ok" if code == 0 else f"exit code {code}"
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                ended = f"killed at its limit of {limit:.0f} s"
        said = "" if ended == "ok" else last_words(err)
        return dict(part=name, ended=ended, seconds=time.monotonic() - begun, **memory.figures(),
                    output=out.read_text(errors="replace"), **(dict(said=said) if said else {}))


def last_words(file, lines=12):
    """The end of what a program complained about, without the frames of its backtrace."""
    text = file.read_text(errors="replace").replace("\r", "\n").splitlines()
    return "\n".join([line for line in text if line.strip()][:200][-lines:])


class Memory:
    """The largest memory in use on the card, less what was in use before, as nvidia-smi says; nothing without it."""

    def __init__(self):
        self.process, self.seen = None, []

    def __enter__(self):
        if shutil.which("nvidia-smi"):
            query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-i", "0", "-lms", "250"]
            self.process = subprocess.Popen(query, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            self.reader = threading.Thread(target=self.read, daemon=True)
            self.reader.start()
        return self

    def read(self):
        self.seen += [float(line) for line in self.process.stdout if line.strip().isdigit()]

    def __exit__(self, *_):
        if self.process:
            self.process.terminate()
            self.reader.join()
            self.process.wait()

    def figures(self):
        return dict(device_mb=max(self.seen) - self.seen[0]) if self.seen else {}


def libraries():
    """Where spo finds NVRTC and the toolkit's headers, be they of a toolkit or of Python wheels. Only for spo: torch
    brings its own."""
    homes = [pathlib.Path(os.environ.get("CUDA_PATH", "/usr/local/cuda")), *(pathlib.Path(site) / "nvidia/cu13" for site in sites())]
    found = [str(home / part) for home in homes for part in ("lib64", "lib") if list((home / part).glob("libnvrtc.so*"))]
    headers = [str(home) for home in homes if (home / "include/cuda_runtime.h").exists()]
    paths = found + list(filter(None, [os.environ.get("LD_LIBRARY_PATH")]))
    return (dict(CUDA_PATH=headers[0]) if headers else {}) | (dict(LD_LIBRARY_PATH=":".join(paths)) if paths else {})


def sites():
    import site, sysconfig
    return dict.fromkeys([sysconfig.get_path("purelib"), *site.getsitepackages()])
