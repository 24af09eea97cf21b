"""Commands with a limit of time, their logs, and the memory of the card while they run."""
import os, pathlib, shutil, signal, subprocess, threading, time


class Parts:
    """Runs commands; none begins after `seconds`, each ends at its own limit."""

    def __init__(self, logs, seconds):
        self.logs, self.ends = logs, time.monotonic() + seconds
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


def environment(root):
    """Where the program finds NVRTC and the toolkit's headers, be they of a toolkit or of Python wheels."""
    found = {}
    toolkit = pathlib.Path(os.environ.get("CUDA_PATH", "/usr/local/cuda"))
    wheels = [pathlib.Path(site) / "nvidia/cu13" for site in sites()]
    homes = [toolkit, *wheels]
    libraries = [home / part for home in homes for part in ("lib64", "lib") if list((home / part).glob("libnvrtc.so*"))]
    headers = [home for home in homes if (home / "include/cuda_runtime.h").exists()]
    if headers:
        found["CUDA_PATH"] = str(headers[0])
    paths = [*map(str, libraries), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    if paths:
        found["LD_LIBRARY_PATH"] = ":".join(paths)
    if list((root / "wheels").glob("*.whl")):
        found["PYTHONPATH"] = ":".join(filter(None, [str(root / "site"), os.environ.get("PYTHONPATH")]))
    return found


def sites():
    import site, sysconfig
    return dict.fromkeys([sysconfig.get_path("purelib"), *site.getsitepackages()])
