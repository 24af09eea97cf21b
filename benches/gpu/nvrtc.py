#!/usr/bin/env python3
"""Compiles CUDA C++ without a GPU: `nvrtc.py [--markdown] DIR [ARCH ...]`, by default for sm_80 and sm_90a.

    cargo run --release --workspace --features spo-kernels/cuda-text --example cuda_text -- DIR
    pip install nvidia-cuda-nvrtc==13.0.88 nvidia-cuda-runtime==13.0.96 nvidia-cuda-crt==13.0.88 \\
        nvidia-cuda-nvcc==13.0.88 nvidia-cuda-cccl==13.0.85
    python3 benches/gpu/nvrtc.py DIR

Prints registers and spilled bytes of each kernel, as ptxas has them (shared memory is asked for at the launch), or the table
of docs/kernels.md, which has a row for all variants of a kernel; ends with 1 if one does not compile.
"""

import ctypes
import pathlib
import re
import subprocess
import sys
import tempfile

import nvidia.cu13

HOME = pathlib.Path(list(nvidia.cu13.__path__)[0])
# NVRTC opens its own helper by name alone, which finds what is loaded already.
BUILTINS = ctypes.CDLL(str(HOME / "lib" / "libnvrtc-builtins.so.13.0"))
NVRTC = ctypes.CDLL(str(HOME / "lib" / "libnvrtc.so.13"))


def text(program, what):
    """PTX or the log of a program."""
    size = ctypes.c_size_t()
    getattr(NVRTC, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    getattr(NVRTC, f"nvrtcGet{what}")(program, buffer)
    return buffer.value.decode()


def ptx(source, arch):
    program = ctypes.c_void_p()
    NVRTC.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None)
    include = HOME / "include"
    options = [f"--gpu-architecture={arch}", f"-I{include}", f"-I{include}/cccl", "-lineinfo"]
    array = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    status = NVRTC.nvrtcCompileProgram(program, len(options), array)
    if status != 0:
        raise RuntimeError(text(program, "ProgramLog"))
    result = text(program, "PTX")
    NVRTC.nvrtcDestroyProgram(ctypes.byref(program))
    return result


def resources(code, arch):
    """Registers and spilled bytes (stores, loads) of the one kernel in some PTX."""
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "kernel.ptx"
        path.write_text(code)
        command = [HOME / "bin" / "ptxas", "-v", f"-arch={arch}", path, "-o", path.with_suffix(".cubin")]
        log = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    patterns = [r"Used (\d+) registers", r"(\d+) bytes spill stores", r"(\d+) bytes spill loads"]
    return [int(re.search(pattern, log)[1]) for pattern in patterns]


def kind(name):
    """What stands in a row of its own."""
    kernel, *variant = name.split(".")
    return f"`{kernel}`, matrix units" if "matrix" in variant else f"`{kernel}`"


def markdown(found, archs):
    """A row for each kernel: its variants, their registers, and of the one that spills most what it stores and loads."""
    print("| kernel | variants |" + "".join(f" registers, {arch} | spilled |" for arch in archs))
    print("|---|--:|" + "--:|--:|" * len(archs))
    for kernel in dict.fromkeys(kind(name) for name, _ in found):
        row = []
        for arch in archs:
            own = [numbers for (name, on), numbers in found.items() if kind(name) == kernel and on == arch]
            least, most = min(own)[0], max(own)[0]
            spilled = max((stored, loaded) for _, stored, loaded in own)
            row += [f"{least}" if least == most else f"{least} – {most}", "{} / {}".format(*spilled) if any(spilled) else ""]
        print(f"| {kernel} | {len(own)} | " + " | ".join(row) + " |")


def main():
    as_markdown = "--markdown" in sys.argv
    directory, *archs = [word for word in sys.argv[1:] if word != "--markdown"]
    archs = archs or ["sm_80", "sm_90a"]
    found, failed = {}, 0
    for path in sorted(pathlib.Path(directory).glob("*.cu")):
        for arch in archs:
            try:
                found[path.stem, arch] = resources(ptx(path.read_text(), arch), arch)
            except (RuntimeError, subprocess.CalledProcessError) as error:
                failed = 1
                print(f"{path.stem} for {arch}: {getattr(error, 'stderr', None) or error}", file=sys.stderr)
    if not found:
        sys.exit(f"{directory}: no kernel was compiled")
    if as_markdown:
        markdown(found, archs)
        return failed
    print(f"{'kernel':<44} {'arch':<7} registers  spill st  spill ld")
    for (name, arch), numbers in found.items():
        print(f"{name:<44} {arch:<7} {numbers[0]:>9}  {numbers[1]:>8}  {numbers[2]:>8}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
