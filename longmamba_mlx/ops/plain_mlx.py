"""The ops in plain MLX, for any device: as `reference`, but Mamba-2's scan in blocks, a handful of matrix products."""

from __future__ import annotations

from longmamba_mlx.ops.chunked_ssd import ssd_scan
from longmamba_mlx.ops.reference import causal_conv1d, dt_b_c_norms, gated_rms_norm, selective_scan

__all__ = ["causal_conv1d", "dt_b_c_norms", "gated_rms_norm", "selective_scan", "ssd_scan"]
