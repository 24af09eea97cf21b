#!/usr/bin/env python3
"""Compiles CUDA C++ without a GPU: `nvrtc.py DIR [ARCH ...]`, by default for sm_80 and sm_90a.

    cargo run --release -p spo-kernels --features cuda-text --example cuda_text -- DIR
    pip install nvidia-cuda-nvrtc==13.0.88 nvidia-cuda-runtime==13.0.96 nvidia-cuda-crt==13.0.88 \\
        nvidia-cuda-nvcc==13.0.88 nvidia-cuda-cccl==13.0.85
    python3 benches/gpu/nvrtc.py DIR

Prints registers, spilled bytes and shared memory of each kernel, as ptxas has them; ends with 1 if one does not compile.
"""

import ctypes
import pathlib
import re
import subprocess
import sys
import tempfile

import nvidia.cu13

HOME = pathlib.Path(list(nvidia.cu13.__path__)[0])
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
    """Registers, spilled bytes (stores, loads) and shared bytes of the one kernel in some PTX."""
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "kernel.ptx"
        path.write_text(code)
        command = [HOME / "bin" / "ptxas", "-v", f"-arch={arch}", path, "-o", path.with_suffix(".cubin")]
        log = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    first = lambda pattern: int((re.search(pattern, log) or [0, 0])[1])
    return [
        first(r"Used (\d+) registers"),
        first(r"(\d+) bytes spill stores"),
        first(r"(\d+) bytes spill loads"),
        first(r"(\d+) bytes smem"),
    ]


def main():
    directory, *archs = sys.argv[1:]
    failed = 0
    print(f"{'kernel':<44} {'arch':<7} registers  spill st  spill ld  shared B")
    for path in sorted(pathlib.Path(directory).glob("*.cu")):
        for arch in archs or ["sm_80", "sm_90a"]:
            try:
                numbers = resources(ptx(path.read_text(), arch), arch)
                print(f"{path.stem:<44} {arch:<7} {numbers[0]:>9}  {numbers[1]:>8}  {numbers[2]:>8}  {numbers[3]:>8}")
            except (RuntimeError, subprocess.CalledProcessError) as error:
                failed = 1
                print(f"{path.stem:<44} {arch:<7} {getattr(error, 'stderr', None) or error}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
