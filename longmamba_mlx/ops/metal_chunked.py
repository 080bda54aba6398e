"""The Metal kernels with the chunked one required: what it does not take is an error, not a slower way."""

from __future__ import annotations

from longmamba_mlx.errors import UsageError
from longmamba_mlx.metal_kernels.scan import can_chunk
from longmamba_mlx.ops import metal
from longmamba_mlx.ops.inputs import Scan, ScanInputs
from longmamba_mlx.ops.mamba3.inputs import Mamba3Inputs, Mamba3Scan
from longmamba_mlx.ops.mamba3.scan_shapes import Mamba3Shape
from longmamba_mlx.ops.metal import causal_conv1d, dt_b_c_norms, gated_rms_norm
from longmamba_mlx.ops.scan_shapes import ScanShape

__all__ = [
    "causal_conv1d", "dt_b_c_norms", "gated_rms_norm", "mamba3_scan", "require", "selective_scan", "ssd_scan",
]  # fmt: skip


def require(shape: ScanShape | Mamba3Shape) -> None:
    """Raises UsageError for a scan that the chunked kernel does not take."""
    if isinstance(shape, Mamba3Shape):
        raise _refusal("Mamba-3's scan")
    if not shape.per_head or not can_chunk(shape.rows, shape.states):
        raise _refusal(f"heads of {shape.rows} rows with {shape.states} states" if shape.per_head else "Mamba-1's scan")


def _refusal(scan: str) -> UsageError:
    return UsageError(
        f"LONGMAMBA_KERNEL is 'chunked', but the chunked kernel does not take {scan}.",
        hint="Unset it: then the kernel is chosen by the sizes.",
    )


def selective_scan(inputs: ScanInputs) -> Scan:
    """Raises UsageError."""
    require(ScanShape(1, inputs.x.shape[2], inputs.B.shape[2], per_head=False))
    raise AssertionError("there is no chunked kernel of Mamba-1")


def mamba3_scan(inputs: Mamba3Inputs) -> Mamba3Scan:
    """Raises UsageError."""
    raise _refusal("Mamba-3's scan")


def ssd_scan(inputs: ScanInputs) -> Scan:
    """As `reference.ssd_scan`, all whole chunks of 64 tokens on the matrix units. Raises UsageError."""
    require(ScanShape(inputs.x.shape[2], inputs.x.shape[3], inputs.B.shape[3]))
    return metal.ssd_scan(inputs)
