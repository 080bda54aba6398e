"""The kernels' bodies through NVIDIA's run-time compiler (NVRTC), where it is installed: another compiler of GPU code,
with its own rules for shared memory, lanes and the functions of a device. It needs no GPU."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from tests.emulator.running import EmulatorError
from tests.emulator.texts import body_for_host, head_and_body, signature, template_values

HEADER = (Path(__file__).parent / "near_cuda.h").read_text(encoding="utf-8")
ATTRIBUTES = {
    "thread_position_in_grid": "position(blockIdx, blockDim, threadIdx)",
    "threadgroup_position_in_grid": "blockIdx",
    "thread_position_in_threadgroup": "uint3{threadIdx.x, threadIdx.y, threadIdx.z}",
    "thread_index_in_threadgroup": "index_in_group()",
    "thread_index_in_simdgroup": "index_in_group() % 32",
    "simdgroup_index_in_threadgroup": "index_in_group() / 32",
    "simdgroups_per_threadgroup": "(blockDim.x * blockDim.y * blockDim.z + 31) / 32",
    "threads_per_threadgroup": "inside_grid(blockIdx, blockDim, threads)",
    "threadgroups_per_grid": "uint3{gridDim.x, gridDim.y, gridDim.z}",
    "threads_per_grid": "threads",
}
OUTSIDE = "if ({}) return;".format(
    " || ".join(f"position(blockIdx, blockDim, threadIdx).{axis} >= threads.{axis}" for axis in "xyz")
)


def as_cuda(text: str) -> str:
    """MLX's kernel text as CUDA C++. Scalars come as pointers; what is outside of the grid leaves its whole block."""
    parts = signature(text)
    head, body = head_and_body(body_for_host(text))
    parameters, references = [], []
    for argument in parts.arguments:
        const = "const " if argument.const else ""
        name = argument.name if argument.pointer else f"{argument.name}_"
        parameters.append(f"{const}{argument.type}* {name}")
        if not argument.pointer:
            references.append(f"{const}{argument.type}& {argument.name} = *{name};")
    positions = [f"const {kind} {name} = {ATTRIBUTES[name]};" for kind, name in parts.attributes]
    return "\n".join(
        [
            HEADER,
            head,
            template_values(text),
            f'extern "C" __global__ void compiled({", ".join(parameters)}, uint3 threads) {{',
            OUTSIDE,
            *positions,
            *references,
            body,
        ]
    )


def _places() -> Iterator[str]:
    """Where NVRTC may lie: in NVIDIA's Python packages, on the linker's path, in a CUDA installation."""
    package = find_spec("nvidia")
    for folder in (package.submodule_search_locations or ()) if package else ():
        yield from sorted(map(str, Path(folder).glob("*/lib/libnvrtc.so.*")))
    yield from filter(None, [ctypes.util.find_library("nvrtc")])
    for root in filter(None, [os.environ.get("CUDA_HOME"), "/usr/local/cuda"]):
        yield from sorted(map(str, Path(root).glob("lib64/libnvrtc.so*")))


@cache
def compiler() -> ctypes.CDLL | None:
    """NVRTC, or None where it is not installed."""
    for place in _places():
        try:
            return ctypes.CDLL(place)
        except OSError:
            continue
    return None


def _compile(source: str, architecture: str, fused: bool) -> tuple[bytes, str]:
    """Machine code (nothing for a virtual architecture) and, where the source does not compile, why."""
    library = compiler()
    if library is None:
        raise RuntimeError("NVRTC is not installed")
    given = (f"--gpu-architecture={architecture}", "--std=c++17", "--device-as-default-execution-space")
    options = [option.encode() for option in (*given, f"--fmad={str(fused).lower()}")]
    program, size, image = ctypes.c_void_p(), ctypes.c_size_t(), b""
    library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None)
    failed = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    if not failed and architecture.startswith("sm_"):
        library.nvrtcGetCUBINSize(program, ctypes.byref(size))
        code = ctypes.create_string_buffer(size.value)
        library.nvrtcGetCUBIN(program, code)
        image = code.raw
    library.nvrtcDestroyProgram(ctypes.byref(program))
    return image, log.value.decode() or "it does not say why" if failed else ""


def complaints(source: str) -> str:
    """What NVRTC says about CUDA C++; empty when it compiles it to PTX."""
    return _compile(source, "compute_80", fused=False)[1]


def machine_code(source: str, architecture: str, *, fused: bool) -> bytes:
    """CUDA C++ compiled for a GPU like "sm_90". Raises EmulatorError."""
    image, complaint = _compile(source, architecture, fused)
    if complaint:
        raise EmulatorError("the kernel does not compile:\n" + complaint[:2000])
    return image
