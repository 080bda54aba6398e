"""The one place that decides how ops run.

The environment variable LONGMAMBA_KERNEL chooses:

    auto        (default) Metal on an Apple GPU; NumPy on a CPU without Accelerate (Linux); else plain MLX
    reference   the specification: one token after the other, in plain MLX
    metal       the Metal kernels, or an error
    chunked     as metal, but an error for a scan that it cannot take 64 tokens at a time, on the matrix units
    sequential  as metal, but Mamba-2 always takes one token after the other: any split of a text is bitwise the whole
    cpu         NumPy; where numba is installed, the loops it compiles for wide layers and for long texts (`cpu_ops`)
    numpy       as cpu, without those loops
    compiled    as cpu, with those loops for everything

Within the CPU backend one choice is left to `cpu.blas`: which matrix-vector product reads memory fastest.
"""

from __future__ import annotations

import os
import sys
import warnings
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Literal, Protocol

import mlx.core as mx

from longmamba_mlx.errors import UsageError
from longmamba_mlx.ops import metal, metal_check, metal_chunked, metal_sequential, plain_mlx, reference
from longmamba_mlx.ops.cpu import bridge, numpy_ops
from longmamba_mlx.ops.inputs import Scan, ScanInputs
from longmamba_mlx.ops.mamba3.inputs import Mamba3Inputs, Mamba3Scan
from longmamba_mlx.ops.mamba3.scan_shapes import Mamba3Shape
from longmamba_mlx.ops.scan_shapes import ScanShape

Name = Literal["reference", "mlx", "metal", "cpu"]

_CHOICES = ("auto", "reference", "metal", "chunked", "sequential", "cpu", "numpy", "compiled")
_CPU = ("cpu", "numpy", "compiled")
_METAL = ("metal", "chunked", "sequential")
# What is worth the 0.4 s and the 100 MiB that loading numba takes, and the 2 to 3 s of its very first use: layers of so
# many channels, and a text of so many tokens. The built-in models gain 14 us a token: from 32,768 on it pays.
_WIDE, _LONG = 1024, 65_536


class Backend(Protocol):
    """The ops of one implementation, without checks of their arguments; `reference` says what they mean."""

    def selective_scan(self, inputs: ScanInputs, /) -> Scan: ...

    def ssd_scan(self, inputs: ScanInputs, /) -> Scan: ...

    def mamba3_scan(self, inputs: Mamba3Inputs, /) -> Mamba3Scan: ...

    def causal_conv1d(
        self, x: mx.array, weight: mx.array, bias: mx.array | None = None, initial: mx.array | None = None
    ) -> tuple[mx.array, mx.array]: ...

    def gated_rms_norm(
        self, y: mx.array, z: mx.array, weight: mx.array, *, groups: int, eps: float, norm_before_gate: bool = False
    ) -> mx.array: ...

    def dt_b_c_norms(
        self,
        x: mx.array,
        sizes: tuple[int, int, int],
        *,
        eps: float,
        weights: tuple[mx.array, mx.array, mx.array] | None = None,
    ) -> tuple[mx.array, mx.array, mx.array]: ...


def name() -> Name:
    """Return the current backend. Raises UsageError for an unknown LONGMAMBA_KERNEL."""
    wish = _wish()
    if wish in _CPU:
        return "cpu"
    if wish in _METAL:
        return "metal"
    if wish == "reference":
        return "reference"
    if mx.default_device().type == mx.DeviceType.cpu:
        return "mlx" if sys.platform == "darwin" else "cpu"
    return "metal" if mx.metal.is_available() else "mlx"


def kernel() -> str:
    """What the bits of a scan depend on, for the keys of stored states: the backend, and whether Mamba-2 takes one
    token after the other on a GPU because LONGMAMBA_KERNEL says so."""
    chosen = name()
    return "metal, sequential" if chosen == "metal" and _wish() == "sequential" else chosen


def current(states: int = 0) -> Backend:
    """The backend for an op now; `states` is the state size of a scan. Raises as `name`, and NoMLXError where Metal is
    required and not usable."""
    chosen = name()
    if chosen != "metal":
        return _BACKENDS[chosen]
    wish = _wish()
    if not metal.fits(states):
        if wish in _METAL:
            raise UsageError(f"LONGMAMBA_KERNEL is {wish!r}, but the Metal kernels do not take {states:,} states.")
        return plain_mlx
    if not metal_check.usable(required=wish in _METAL):
        return plain_mlx
    return {"chunked": metal_chunked, "sequential": metal_sequential}.get(wish, metal)


def check_scan(shape: ScanShape | Mamba3Shape) -> None:
    """Raises UsageError where LONGMAMBA_KERNEL asks for a kernel that does not take this scan."""
    if _wish() == "chunked":
        metal_chunked.require(shape)


def in_numpy() -> bool:
    """Whether whole layers and matrix products run in NumPy, so that nothing runs asynchronously."""
    return name() == "cpu"


def compiles_decoding() -> bool:
    """Whether a decode step runs as compiled graphs: on a GPU, which computes faster than Python builds graphs."""
    return name() in ("metal", "mlx") and mx.default_device().type == mx.DeviceType.gpu


def cpu_ops(channels: int, tokens: int = 0) -> ModuleType:
    """`numpy_ops` or `numba_ops`, which mean the same, for a layer of `channels` channels in a text of `tokens` tokens.

    Where numba is installed, its loops run wide layers and long texts, and everything with LONGMAMBA_KERNEL=compiled.
    Raises UsageError where that is set and numba cannot be used.
    """
    if _wish() == "compiled":
        found = _numba_ops()
        if isinstance(found, str):
            raise UsageError(f"LONGMAMBA_KERNEL is 'compiled', but {found}.", hint="pip install -U numba")
        return found
    worth_it = channels >= _WIDE or tokens >= _LONG
    found = _numba_ops() if worth_it and _wish() != "numpy" else ""
    return numpy_ops if isinstance(found, str) else found


_BACKENDS: dict[Name, Backend] = {"reference": reference, "mlx": plain_mlx, "cpu": bridge.CPU(cpu_ops)}


def _wish() -> str:
    wish = os.environ.get("LONGMAMBA_KERNEL") or "auto"
    if wish not in _CHOICES:
        raise UsageError(f"Invalid LONGMAMBA_KERNEL '{wish}'", hint=f"Use one of: {', '.join(_CHOICES)}")
    return wish


@cache
def _numba_ops() -> ModuleType | str:
    """The module, or why it cannot be used. Warns once where numba is installed and does not work."""
    if find_spec("numba") is None:
        return "numba is not installed"
    try:
        from longmamba_mlx.ops.cpu import numba_ops
    except (ImportError, RuntimeError) as error:  # numba refuses a newer NumPy, or finds no place for its cache
        reason = f"numba does not work here: {error}"
        warnings.warn(f"longmamba-mlx: {reason}; reading is slower without it", RuntimeWarning, stacklevel=2)
        return reason
    return numba_ops
