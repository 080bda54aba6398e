"""Time it takes to build the graph of a token, beside mlx-lm: `python benchmarks/graph_building.py`. Needs no GPU.

Nothing is evaluated. Inside `mx.export_function` MLX takes Metal kernels on any machine, so both packages build the
graphs they would build on a Mac, except that a CPU's RMSNorm is several nodes, in both alike.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import mlx.core as mx
import mlx_lm.models.ssm
from mlx.utils import tree_map
from mlx_lm.models import mamba as theirs_mamba
from mlx_lm.models import mamba2 as theirs_mamba2

from longmamba_mlx.models import FAMILIES, LanguageModel
from longmamba_mlx.models.config.parse import parse_config
from longmamba_mlx.models.decode_step import CompiledStep
from longmamba_mlx.models.loading import make_ready
from longmamba_mlx.ops import backend, metal

LAYERS = 16
COMMON = {
    "vocab_size": 1000, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": LAYERS, "conv_kernel": 4,
    "expand": 2, "use_bias": False, "use_conv_bias": True, "tie_word_embeddings": True, "residual_in_fp32": True,
    "layer_norm_epsilon": 1e-5, "time_step_rank": 16,
}  # fmt: skip
SIZES = {
    "mamba2": {"num_heads": 8, "head_dim": 64, "state_size": 128, "n_groups": 1, "chunk_size": 256},
    "mamba": {"state_size": 16},
}
TOKEN = mx.array([[3]])


class Metal:
    """MLX as a Mac has it, for mlx-lm's choice of kernels."""

    def __getattr__(self, name: str) -> Any:
        return (lambda: mx.gpu) if name == "default_device" else getattr(mx, name)


def best(run: Callable[[], object], repeats: int) -> float:
    """The shortest time of a run, in microseconds a layer."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return 1e6 * min(seconds) / LAYERS


def in_export(run: Callable[[], list[float]]) -> list[float]:
    """What `run` returns when it runs inside an export."""
    found: list[float] = []

    def traced(x: mx.array) -> mx.array:
        found.extend(run())
        return x + 1

    mx.export_function(lambda _: None, traced, TOKEN)
    return found


def sixteen_bit(model: Any) -> Any:
    model.update(tree_map(lambda array: array.astype(mx.bfloat16), model.parameters()))
    mx.eval(model.parameters())
    return model


def ours(kind: str, repeats: int) -> list[float]:
    """Layer by layer, and compiled."""
    config = parse_config({"model_type": kind, **COMMON, **SIZES[kind]})
    model: LanguageModel = sixteen_bit(FAMILIES[kind](config))
    make_ready(model)
    for layer in model.layers:  # made once for all tokens
        mx.eval(layer.scan.A(), layer.scan.conv1d.parts()[0])
    state = model.initial_state()
    state.evaluate()
    step = CompiledStep(model)

    def layer_by_layer() -> mx.array:
        return model.head(model(TOKEN, state)[0])

    return in_export(lambda: [best(layer_by_layer, repeats), best(lambda: step(TOKEN, state), repeats)])


def theirs(kind: str, repeats: int) -> list[float]:
    module = {"mamba": theirs_mamba, "mamba2": theirs_mamba2}[kind]
    options = {"model_type": kind, **COMMON, **SIZES[kind], "rms_norm": True, "time_step_limit": [0.0, float("inf")]}
    model = sixteen_bit(module.Model(module.ModelArgs.from_dict(options)))
    states = {"mamba": [(1, 3, 512), (1, 512, 16)], "mamba2": [(1, 3, 768), (1, 8, 64, 128)]}[kind]
    arrays = [mx.zeros(shape, dtype=mx.bfloat16) for shape in states]
    caches = model.make_cache()

    def token() -> object:
        for cache in caches:
            cache.cache = list(arrays)
        return model(TOKEN, cache=caches)

    ssm = mlx_lm.models.ssm
    with patch.object(mx.metal, "is_available", lambda: True):
        kernel = ssm.make_ssm_kernel()
        with patch.object(ssm, "_ssm_kernel", kernel), patch.object(ssm, "mx", Metal()):
            return in_export(lambda: [best(token, repeats)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=300)
    repeats = parser.parse_args().repeats
    print(f"{'':10}{'layer by layer':>16}{'compiled':>10}{'mlx-lm':>8}{'compiled / mlx-lm':>19}   us a layer and token")
    for kind in SIZES:
        with (
            patch.object(backend, "name", lambda: "metal"),
            patch.object(backend, "current", lambda states=0: metal),
            patch("longmamba_mlx.models.loading.check_kernels", lambda model: None),
        ):
            layers, compiled = ours(kind, repeats)
        (peer,) = theirs(kind, repeats)
        print(f"{kind:10}{layers:16.1f}{compiled:10.1f}{peer:8.1f}{compiled / peer:19.2f}")


if __name__ == "__main__":
    main()
