"""The Metal kernels without the chunked one: Mamba-2 takes one token after the other, as Mamba-1 always does."""

from __future__ import annotations

from longmamba_mlx.ops import metal
from longmamba_mlx.ops.inputs import Scan, ScanInputs
from longmamba_mlx.ops.metal import causal_conv1d, dt_b_c_norms, gated_rms_norm, mamba3_scan, selective_scan

__all__ = ["causal_conv1d", "dt_b_c_norms", "gated_rms_norm", "mamba3_scan", "selective_scan", "ssd_scan"]


def ssd_scan(inputs: ScanInputs) -> Scan:
    """As `reference.ssd_scan`, in one launch; any split in time is bitwise the whole."""
    return metal.ssd_scan(inputs, chunked=False)
