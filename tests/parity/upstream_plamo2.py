"""PLaMo-2's side of a fixture: mlx-lm's classes, with two things put right as the publisher's own code has them.

Step sizes have no limits (mlx-lm's scan has 0.001 to 100), and attention sees itself and the window's tokens before it
but in the layers of `full_attention_idx` (mlx-lm's sees everything). The publisher's code is `modeling_plamo.py` of
pfnet/plamo-2-1b; it wants an NVIDIA GPU.
"""

from __future__ import annotations

import contextlib
import json
import math
import zlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np
import torch
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models import plamo2
from mlx_lm.models.ssm import ssm_update

from tests.parity.cases import DECODE, PREFILL, Case
from tests.parity.reference import Filtering, drawn

_FREE = (0.0, math.inf)


class WindowedAttention(plamo2.Attention):
    """mlx-lm's attention with the window of its layer."""

    window: int | None

    def __call__(self, hidden_states: mx.array, mask: Any = None, cache: Any = None) -> mx.array:
        past, length = (0 if cache is None else cache.offset), hidden_states.shape[1]
        own, other = mx.arange(past, past + length)[:, None], mx.arange(past + length)
        seen = (other <= own) & (True if self.window is None else other >= own - self.window)
        return super().__call__(hidden_states, seen, cache)


class Plamo2Reference:
    """As `reference.Reference`, for mlx-lm's model."""

    def __init__(self, case: Case) -> None:
        self.rng = np.random.default_rng(zlib.crc32(case.name.encode()))
        self.config: dict[str, Any] = {"model_type": "plamo2", **case.options}
        self.args = plamo2.ModelArgs.from_dict(self.config)
        self.model = plamo2.Model(self.args)
        self.tensors = {
            name: self._drawn(name, old.shape).astype(np.float16).astype(np.float32)
            for name, old in sorted(tree_flatten(self.model.parameters()))
        }
        self.model.update(tree_unflatten([(name, mx.array(array)) for name, array in self.tensors.items()]))
        for index, layer in enumerate(self.model.layers):
            if not layer.is_mamba:
                layer.mixer.__class__ = WindowedAttention
                full = index in (self.args.full_attention_idx or ())
                layer.mixer.window = None if full else self.args.attention_window_size
        self.ids = self.rng.integers(0, self.args.vocab_size, PREFILL + DECODE)

    def _drawn(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Norms of the residual stream around 0, since an offset is added to them."""
        if name.endswith((".q_weight", ".k_weight")):
            return 1 + 0.3 * self.rng.standard_normal(shape)
        values = drawn(self.rng, name, shape, tied=self.args.tie_word_embeddings)
        return values - 1 if "norm.weight" in name else values

    def saved(self) -> tuple[str, dict[str, np.ndarray]]:
        """config.json and the tensors in the publisher's layout: a head's rows are a multiple of 16."""
        tensors = {
            name: array.swapaxes(1, 2) if name.endswith("conv1d.weight") else array
            for name, array in self.tensors.items()
        }
        if "lm_head.weight" in tensors:
            tensors["lm_head.weight"] = np.pad(tensors["lm_head.weight"], ((0, -self.args.vocab_size % 16), (0, 0)))
        return json.dumps(self.config, indent=2), tensors

    def logits(self) -> np.ndarray:
        """(tokens, vocab) of one pass over everything."""
        with _scanning(partial(ssm_update, time_step_limit=_FREE)):
            return np.array(self.model(mx.array(self.ids)[None], self.model.make_cache())[0])

    def decoded(self) -> np.ndarray:
        """The same, the last tokens decoded one by one after a prefill."""
        cache, ids = self.model.make_cache(), mx.array(self.ids)[None]
        pieces = [ids[:, :PREFILL], *(ids[:, index : index + 1] for index in range(PREFILL, PREFILL + DECODE))]
        with _scanning(partial(ssm_update, time_step_limit=_FREE)):
            return np.concatenate([np.array(self.model(piece, cache)[0]) for piece in pieces])

    def filtered(self) -> tuple[np.ndarray, dict[int, np.ndarray], float]:
        """One pass with the filter on in the prefill; the thresholds by layer; the share of step sizes zeroed."""
        scanned = [index for index, layer in enumerate(self.model.layers) if layer.is_mamba]
        chosen, order = Filtering(self.rng, unfiltered=scanned[-1]), iter(scanned)

        def scan(x: mx.array, A_log: mx.array, B: mx.array, C: mx.array, D: mx.array, dt: mx.array,
                 dt_bias: mx.array, state: Any = None, **others: Any) -> Any:  # fmt: skip
            chosen.layer = next(order)
            steps = chosen.steps(torch.tensor(np.array(dt + dt_bias)), _FREE)
            dt = mx.where(mx.array((steps > 0).numpy()), dt, -math.inf)  # softplus makes 0 of it
            return ssm_update(x, A_log, B, C, D, dt, dt_bias, state, time_step_limit=_FREE, **others)

        with _scanning(scan):
            logits = np.array(self.model(mx.array(self.ids)[None], self.model.make_cache())[0])
        return logits, chosen.thresholds, chosen.zeroed / max(chosen.seen, 1)


@contextlib.contextmanager
def _scanning(scan: Any) -> Iterator[None]:
    """Within, `scan` is the scan of mlx-lm's Mamba layers."""
    before, plamo2.ssm_update = plamo2.ssm_update, scan
    try:
        yield
    finally:
        plamo2.ssm_update = before
