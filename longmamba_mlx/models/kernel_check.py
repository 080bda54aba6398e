"""Try a model's own Metal kernels when it is loaded, not in the middle of a text."""

from __future__ import annotations

import warnings

from longmamba_mlx.models.base import LanguageModel
from longmamba_mlx.models.mixer import ScanMixer
from longmamba_mlx.ops import backend, metal_check, precision
from longmamba_mlx.ops.mamba3.scan_shapes import Mamba3Shape
from longmamba_mlx.ops.scan_shapes import ScanShape


def check_kernels(model: LanguageModel) -> None:
    """On a Mac's GPU: run the scan kernels this model will use once; plain MLX takes over, with one warning, where they
    fail. One more says where float32 products lose bits. Elsewhere nothing.

    Raises UsageError where LONGMAMBA_KERNEL asks for a kernel that does not take this model.
    """
    if backend.name() == "metal":
        if precision.rounds_float32():
            warnings.warn(
                "longmamba-mlx: MLX rounds float32 products to TF32 here, so that float32 models are less exact; "
                "set MLX_ENABLE_TF32=0 before Python starts",
                stacklevel=2,
            )
        for shape in sorted(scan_shapes(model), key=str):
            backend.check_scan(shape)
            metal_check.check_model(shape)


def scan_shapes(model: LanguageModel) -> set[ScanShape | Mamba3Shape]:
    """The different scans of a model."""
    mixers = (module for module in model.modules() if isinstance(module, ScanMixer))
    return {_shape(mixer) for mixer in mixers if mixer.gated is not None}


def _shape(mixer: ScanMixer) -> ScanShape | Mamba3Shape:
    config, gated = mixer.config, bool(mixer.gated)
    dtype = str(mixer.scan_type()).rsplit(".", 1)[-1]
    if config.is_mamba1:
        width = config.d_inner // config.n_groups  # Zamba scans its groups of channels one by one
        return ScanShape(1, width, config.d_state, per_head=False, gated=gated, dtype=dtype)
    sizes = (config.n_heads, config.headdim, config.d_state)
    if config.mamba3 is not None:
        own = config.turning
        return Mamba3Shape(*sizes, own.rank, own.angles, config.n_groups, own.mimo, gated, dtype)
    return ScanShape(*sizes, config.n_groups, gated=gated, dtype=dtype)
