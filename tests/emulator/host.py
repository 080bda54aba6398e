"""A kernel's text compiled by g++ for this CPU, and the run-time part that runs it."""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tests.emulator.running import POISON, EmulatorError, place, reach
from tests.emulator.texts import body_for_host, signature

HERE = Path(__file__).parent
_FLAGS = ["-std=c++17", "-fPIC", "-shared", "-w", "-fsingle-precision-constant", "-ffp-contract=off", "-mno-red-zone"]
# One build for each run. In spite of the pattern, an optimising GCC takes what is uninitialised for whatever suits it
# (`if (a) f = 2; use(f)` becomes `use(2)`): the second build optimises nothing, and both must agree. -O2 would compile
# a large kernel ten times as long as -O1.
_BUILDS = (
    (
        "-O1", "-g1", "-ftrivial-auto-var-init=pattern", "-fsanitize-undefined-trap-on-error",
        "-fsanitize=bounds,alignment,shift,signed-integer-overflow,integer-divide-by-zero",
    ),
    ("-O0", "-g1", "-ftrivial-auto-var-init=zero"),
)  # fmt: skip


def missing() -> str | None:
    """Why the emulator cannot run here, or None."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "the Metal emulator runs on Linux on x86-64"
    return None if shutil.which("g++") else "the Metal emulator needs g++"


@cache
def _folder() -> Path:
    path = Path(tempfile.mkdtemp(prefix="longmamba-emulator-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@cache
def _processor_flags() -> tuple[str, ...]:
    found = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split()
    return ("-mfma", "-mf16c") if "fma" in found and "f16c" in found else ()


def _compile(source: str, name: str, *flags: str) -> Path:
    path = _folder() / f"{name}.cpp"
    path.write_text(source, encoding="utf-8")
    library = path.with_suffix(".so")
    command = ["g++", *_FLAGS, *_processor_flags(), *flags, "-isystem", str(HERE), str(path), "-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise EmulatorError("the kernel does not compile:\n" + done.stderr[:2000])
    return library


@cache
def runtime() -> ctypes.CDLL:
    library = _compile((HERE / "runtime.cpp").read_text(encoding="utf-8"), "runtime", "-O2")
    loaded = ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    loaded.emulator_buffer.restype = ctypes.c_void_p
    loaded.emulator_buffer.argtypes = [ctypes.c_size_t, ctypes.c_int]
    return loaded


def take_products() -> int:
    """How many 8 x 8 matrix products ran since the last call."""
    counter = ctypes.c_ulong.in_dll(runtime(), "emulator_products")
    found, counter.value = counter.value, 0
    return found


@contextmanager
def last_threadgroup_only() -> Iterator[None]:
    """Of every grid only the last threadgroup runs: where its output would be too large to write all of it."""
    flag = ctypes.c_int.in_dll(runtime(), "emulator_last_only")
    flag.value = 1
    try:
        yield
    finally:
        flag.value = 0


def _host_source(text: str) -> str:
    parts = signature(text)
    call = [
        f"({argument.type}*)buffers[{i}]" if argument.pointer else f"*({argument.type}*)buffers[{i}]"
        for i, argument in enumerate(parts.arguments)
    ]
    call += [f"thread_.{name}" for _, name in parts.attributes]
    return (
        f'#include "shim.hpp"\n#line 1 "kernel"\n{body_for_host(text)}\n#line 1 "call"\n'
        'extern "C" void emulated(void** buffers, const Attributes& thread_) '
        f"{{ {parts.instance}({', '.join(call)}); }}\n"
    )


@cache
def built(text: str, adversarial: int = 0) -> tuple[tuple[ctypes.CDLL, Path], ...]:
    """The kernel as a library, in both builds; `adversarial` as in `emulator.Options`."""
    runtime()
    source = _host_source(text)
    name = hashlib.sha256(f"{source}{adversarial}".encode()).hexdigest()[:20]

    def build(which: int) -> Path:
        return _compile(source, f"kernel-{name}-{which}", *_BUILDS[which], f"-DADVERSARIAL={adversarial}")

    with ThreadPoolExecutor(len(_BUILDS)) as pool:
        libraries = list(pool.map(build, range(len(_BUILDS))))
    return tuple((ctypes.CDLL(str(library)), library) for library in libraries)


def line_of(library: ctypes.CDLL, path: Path, pc: int) -> str:
    """ ", kernel line N" for a machine address, where binutils can tell."""
    entry = ctypes.cast(library.emulated, ctypes.c_void_p).value or 0
    tools = shutil.which("addr2line"), shutil.which("nm")
    if not pc or None in tools:
        return ""
    symbols = subprocess.run([str(tools[1]), str(path)], capture_output=True, text=True).stdout.splitlines()
    start = next(int(line.split()[0], 16) for line in symbols if line.endswith(" T emulated"))
    command = [str(tools[0]), "-i", "-e", str(path), hex(pc - entry + start)]
    places = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    lines = [place.split(":")[1].split()[0] for place in places if ".hpp" not in place]
    return f", kernel line {lines[0]}" if lines else ""


class HostRun:
    """One of the two runs on this CPU. Every buffer lies between inaccessible pages."""

    def __init__(self, which: int, adversarial: int) -> None:
        self.runtime, self.which, self.adversarial = runtime(), which, adversarial
        ctypes.c_int.in_dll(self.runtime, "emulator_poison").value = POISON[which]
        self.pointers: list[int] = []

    def __enter__(self) -> HostRun:
        return self

    def __exit__(self, *error: object) -> None:
        self.runtime.emulator_release()

    def _buffer(self, size: int) -> tuple[int, Any]:
        base = self.runtime.emulator_buffer(max(size, 1), int(self.which == 0))
        if not base:
            raise EmulatorError("no address space is left")
        return base, (ctypes.c_char * max(size, 1)).from_address(base)

    def give(self, array: np.ndarray) -> None:
        """An input, its strides kept: what lies between its elements is poison."""
        below, size = reach(array)
        base, memory = self._buffer(size)
        place(array, memory, below)
        self.runtime.emulator_read_only(len(self.pointers))
        self.pointers.append(base + below)

    def take(self, shape: tuple[int, ...], dtype: np.dtype, initial: object) -> np.ndarray:
        """An output; poison unless it has an initial value."""
        base, memory = self._buffer(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
        values = np.ndarray(shape, dtype, memory)
        if initial is not None:
            values[...] = initial
        self.pointers.append(base)
        return values

    def launch(self, text: str, grid: Sequence[int], group: Sequence[int]) -> None:
        said, pc = ctypes.create_string_buffer(1024), ctypes.c_void_p()
        threes = [(ctypes.c_uint * 3)(*three) for three in (grid, group)]
        pointers = (ctypes.c_void_p * len(self.pointers))(*self.pointers)
        library, path = built(text, self.adversarial)[self.which]
        if self.runtime.emulator_run(library.emulated, pointers, *threes, self.which, said, 1024, ctypes.byref(pc)):
            raise EmulatorError(said.value.decode() + line_of(library, path, pc.value or 0))

    def spilled(self, which: int) -> bool:
        return bool(self.runtime.emulator_spilled(which))
