"""A model whose scans decay or write more or less than its weights say, on the same weights.

Multiplying dt by s is multiplying both A and B by s, since a scan has dt only in exp(dt A) and in dt B. So every
backend runs these models through its ordinary arguments. Mamba-3's state turns by dt too: there one factor on both is
taken as one on dt.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any, cast

import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.models.base import LanguageModel, Layer

Factors = tuple[NDArray[np.float32], float]
"""What A is multiplied with, for each of its entries or () for one number, and what B is."""


def scaled(model: LanguageModel, factors: Sequence[Factors | None]) -> LanguageModel:
    """`model` with A and B multiplied in its layers, None: as they are. Parameters are shared; a state of one
    model is a state of the other."""
    pairs = zip(model.layers, factors, strict=True)
    return model.with_layers([layer if pair is None else _scaled_layer(layer, *pair) for layer, pair in pairs])


def _scaled_layer(layer: Layer, decay: NDArray[np.float32], write: float) -> Layer:
    twin = cast("Layer", _copied(layer))
    twin.scale_scan(decay, write)
    return twin


def _copied(part: Any) -> Any:
    """A module with copies of all modules inside it; their arrays are shared."""
    if isinstance(part, list):
        return [_copied(item) for item in part]
    if not isinstance(part, nn.Module):
        return part
    twin = copy(part)
    for name, value in part.items():
        twin[name] = _copied(value)
    return twin
