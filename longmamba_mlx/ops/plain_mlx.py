"""The ops in plain MLX, for any device: as `reference`, but the scans of Mamba-2 and Mamba-3 in blocks, which are a
handful of matrix products."""

from __future__ import annotations

from longmamba_mlx.ops.chunked_ssd import ssd_scan
from longmamba_mlx.ops.mamba3.chunked import mamba3_scan
from longmamba_mlx.ops.reference import causal_conv1d, dt_b_c_norms, gated_rms_norm, selective_scan

__all__ = ["causal_conv1d", "dt_b_c_norms", "gated_rms_norm", "mamba3_scan", "selective_scan", "ssd_scan"]
