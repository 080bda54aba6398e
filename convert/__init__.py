"""Convert checkpoints (Hub or folder; transformers or original mamba_ssm layout) into MLX model folders."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

__all__ = ["convert"]


def convert(
    hf_path: str | Path,
    mlx_path: str | Path,
    dtype: str | None = None,
    *,
    revision: str | None = None,
    offline: bool = False,
) -> Path:
    """Write the model of `hf_path` as an MLX model folder at `mlx_path`, and return that folder.

    hf_path: a folder with config.json and safetensors files, or a Hub id ("owner/name", at `revision`), of
    which only the files needed are downloaded (`offline`: taken from the local cache). dtype: "float32",
    "float16" or "bfloat16" for the large matrices, None to keep theirs; what decides about step sizes and
    decays (A_log, D, dt_bias, dt_proj) and the norms are always float32.

    `mlx_path` appears whole or not at all, and must not exist yet or be empty. Raises ModelError (ConfigError
    for config.json, DiskError for the writing), each with a hint.
    """
    # Imported here so that importing the package loads neither MLX nor the Hub's client.
    from longmamba_mlx.convert.checkpoint import convert_checkpoint

    return convert_checkpoint(hf_path, mlx_path, dtype, revision=revision, offline=offline)


class _CallableModule(ModuleType):
    """`longmamba_mlx.convert` is both this sub-package and a public function of the package.

    Importing the sub-package sets the attribute `convert` of the package to this module, over the function of
    the same name. So the module can be called itself, and `longmamba_mlx.convert(...)` works in any order of
    imports.
    """

    def __call__(
        self,
        hf_path: str | Path,
        mlx_path: str | Path,
        dtype: str | None = None,
        *,
        revision: str | None = None,
        offline: bool = False,
    ) -> Path:
        return convert(hf_path, mlx_path, dtype, revision=revision, offline=offline)


sys.modules[__name__].__class__ = _CallableModule
