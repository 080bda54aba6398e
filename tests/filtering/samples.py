"""Fixtures of the method's tests: synthetic step sizes and a tiny sequential model in numpy."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import mlx.core as mx
import numpy as np

from longmamba_mlx.filtering import Policy
from longmamba_mlx.filtering.delta import delta_of
from longmamba_mlx.filtering.registry import DEFAULT_NAME, policy_class


def raw_sample(units: int = 6, windows: int = 3, length: int = 200, seed: int = 0) -> np.ndarray:
    """(units, windows, length) float32: raw values of the heavy-tailed kind that real models have."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(-6, -2, (units, 1, 1))
    width = rng.uniform(0.5, 2.0, (units, 1, 1))
    return (centre + width * rng.standard_normal((units, windows, length))).astype(np.float32)


def kept_mass(raw: np.ndarray, threshold: float) -> float:
    """Sum of Delta of the tokens that a threshold keeps."""
    return float(delta_of(raw[raw > threshold]).sum())


def policy(name: str, **options: Any) -> Policy:
    """A policy by name with those of the options that it has."""
    kind = policy_class(name)
    known = {field.name for field in fields(kind)}
    chosen = {key: value for key, value in options.items() if key in known}
    return kind(by_default=name == DEFAULT_NAME, **chosen)


@dataclass(frozen=True)
class TinyConfig:
    """What calibration reads of a configuration."""

    units: int = 4
    n_layer: int = 2
    d_model: int = 8
    d_state: int = 3
    vocab_size: int = 512
    model_type: str = "mamba2"
    training_length: int = 64
    time_step_limit: tuple[float, float] = (0.0, math.inf)

    @property
    def is_mamba1(self) -> bool:
        return self.model_type != "mamba2"


@dataclass(frozen=True)
class TinyState:
    ssm: np.ndarray


@dataclass(frozen=True)
class TinyStates:
    layers: tuple[TinyState, ...]


class TinyModel:
    """A layered scan in numpy float64, with the calls that calibration makes. Each unit reads one mix of the
    input; Mamba-1 units have `d_state` decay rates, Mamba-2 units one. No convolution."""

    def __init__(self, config: TinyConfig | None = None, seed: int = 0) -> None:
        self.config = config = config or TinyConfig()
        rng = np.random.default_rng(seed)
        layers, units, width = config.n_layer, config.units, config.d_model
        modes = config.d_state if config.is_mamba1 else 1
        self.table = rng.standard_normal((config.vocab_size, width))
        self.bias = rng.uniform(-5, -1, (layers, units))
        self.to_raw = rng.standard_normal((layers, width, units)) * 0.6
        self.to_x = rng.standard_normal((layers, width, units)) * 0.3
        self.to_b = rng.standard_normal((layers, width, config.d_state)) * 0.3
        self.to_c = rng.standard_normal((layers, width, config.d_state)) * 0.3
        self.out = rng.standard_normal((layers, units, width)) * 0.3
        self.rates = np.exp(rng.uniform(-4, 1, (layers, units, modes))).astype(np.float32)

    def embed(self, ids: mx.array) -> mx.array:
        return mx.array(self.table[np.array(ids)], mx.float32)

    def has_scan(self, index: int) -> bool:
        return True

    def initial_state(self, batch: int = 1) -> TinyStates:
        empty = np.zeros((batch, self.config.units, self.config.d_state))
        return TinyStates((TinyState(empty),) * self.config.n_layer)

    def decay_rates(self, index: int) -> np.ndarray:
        rates = self.rates[index]
        return rates if self.config.is_mamba1 else rates[:, 0]

    def token_rates(self, index: int, hidden: mx.array) -> mx.array | None:
        return None

    def raw(self, index: int, hidden: np.ndarray) -> np.ndarray:
        return (hidden.astype(np.float64) @ self.to_raw[index] + self.bias[index]).astype(np.float32)

    def raw_step(self, index: int, hidden: mx.array, state: TinyState) -> tuple[mx.array, TinyState]:
        return mx.array(self.raw(index, np.array(hidden))), state

    def layer(
        self, index: int, hidden: mx.array, state: TinyState, threshold: Any = None
    ) -> tuple[mx.array, TinyState]:
        values = np.array(hidden).astype(np.float64)
        raw = self.raw(index, values)
        delta = delta_of(raw, self.config.time_step_limit)
        if threshold is not None:
            delta = np.where(raw > np.array(threshold), delta, 0.0)
        y, last = scan(
            delta[0], self.rates[index], values[0] @ self.to_b[index], values[0] @ self.to_c[index],
            values[0] @ self.to_x[index], state.ssm[0],
        )  # fmt: skip
        return mx.array(values + y[None] @ self.out[index], mx.float32), TinyState(last[None])


def scan(
    delta: np.ndarray, rates: np.ndarray, b: np.ndarray, c: np.ndarray, x: np.ndarray, state: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The recurrence, token by token: delta, x (S, units); b, c (S, n); rates (units, 1 or n); state (units,
    n)."""
    outputs = []
    for t in range(len(delta)):
        decay = np.exp(-delta[t][:, None] * rates)
        state = decay * state + delta[t][:, None] * b[t][None] * x[t][:, None]
        outputs.append(state @ c[t])
    return np.array(outputs), state


def run(
    model: TinyModel, ids: np.ndarray, thresholds: list[Any] | None = None, chunk: int | None = None
) -> tuple[np.ndarray, list[np.ndarray]]:
    """All tokens through all layers in chunks -> (hidden (S, d_model), final ssm states)."""
    states = list(model.initial_state().layers)
    pieces = []
    for start in range(0, len(ids), chunk or len(ids)):
        hidden = model.embed(mx.array(ids[None, start : start + (chunk or len(ids))]))
        for index in range(model.config.n_layer):
            threshold = None if thresholds is None else thresholds[index]
            hidden, states[index] = model.layer(index, hidden, states[index], threshold)
        pieces.append(np.array(hidden)[0])
    return np.concatenate(pieces), [state.ssm for state in states]


def with_rates(model: TinyModel, rate: float) -> TinyModel:
    """The same model with one decay rate everywhere: large for a model that only looks back a few tokens."""
    other = TinyModel(replace(model.config))
    other.__dict__.update(model.__dict__)
    other.rates = np.full_like(model.rates, rate)
    return other
