"""A trained Mamba-1 that others made and publish, where it is installed (`pip install typeseg==0.2.7`, Apache-2.0).

typeseg labels each character of a text with its type of content, by six bidirectional Mamba-1 blocks. It is no language
model, so nothing here is about the quality of answers. What is tested: our scan, forwards and backwards, gives its
labels; its channels are of both kinds that LongMamba tells apart, local and global; a filtered step is exactly zero.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from longmamba_mlx import ops
from longmamba_mlx.builtin import sample_document

SPEC = importlib.util.find_spec("typeseg")
pytestmark = pytest.mark.skipif(SPEC is None, reason="typeseg is not installed")
BLOCKS, STATES, RANK, LENGTH = 6, 16, 16, 2000
KEEPS, FORGETS = 3.0, 11.5  # nats over the text: e^-3 is 5e-2, e^-11.5 is 1e-5, thresholds of the LongMamba paper
CODE = """

def total(lines):
    numbers = [int(line) for line in lines if line.strip()]
    return {"sum": sum(numbers), "count": len(numbers)}

"""

Weights = dict[str, np.ndarray]


@cache
def weights() -> Weights:
    """The published numbers, float32, by "Module/part"."""
    assert SPEC is not None and SPEC.origin is not None
    with np.load(Path(SPEC.origin).parent / "data" / "mamba_al.npz", allow_pickle=False) as file:
        return {name.replace("__", "/"): file[name] for name in file.files}


@cache
def tokens() -> np.ndarray:
    """Prose, and Python inside it."""
    prose = sample_document().read_text(encoding="utf-8")
    text = prose[:700] + CODE * 4 + prose[700:]
    return np.frombuffer(text.encode("ascii", "ignore")[:LENGTH], np.uint8)


def norm(x: np.ndarray, name: str) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return scaled * weights()[f"{name}/scale"] + weights()[f"{name}/bias"]


def dense(x: np.ndarray, name: str) -> np.ndarray:
    return x @ weights()[f"{name}/kernel"] + weights()[f"{name}/bias"]


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


class Block:
    """One block: what goes into its scans for a text, and what comes out of it."""

    def __init__(self, number: int, hidden: np.ndarray) -> None:
        name = f"CheckpointMambaBlock1D_{number}"
        self.name, self.hidden = name, hidden
        x, self.gate = np.split(dense(norm(hidden, f"{name}/LayerNorm_0"), f"{name}/Dense_0"), 2, axis=1)
        kernel = weights()[f"{name}/Conv_0/kernel"][:, 0]
        padded = np.pad(x, ((1, 2), (0, 0)))  # not causal: one character back, two ahead
        taps = sum(padded[place : place + len(x)] * kernel[place] for place in range(4))
        self.x = silu(taps + weights()[f"{name}/Conv_0/bias"])
        low, self.B, self.C = np.split(dense(self.x, f"{name}/Dense_1"), [RANK, RANK + STATES], axis=1)
        steps = np.logaddexp(0, dense(low, f"{name}/Dense_2").astype(np.float64)) + 1e-4
        self.raw = np.log(np.expm1(steps)).astype(np.float32)  # whose softplus these steps are
        self.A = -np.exp(weights()[f"{name}/A_log"])

    def scan(self, **options: object) -> tuple[np.ndarray, np.ndarray]:
        """Our scan: its output (l, d) and the state after it (d, n)."""
        x, raw, B, C = (mx.array(part)[None] for part in (self.x, self.raw, self.B, self.C))
        D = mx.array(weights()[f"{self.name}/D"])
        y, state = ops.selective_scan(x, raw, mx.array(self.A), B, C, D=D, **options)[:2]
        return np.array(y)[0], np.array(state)[0]

    def output(self) -> np.ndarray:
        both = self.scan()[0] + self.scan(reverse=True)[0]
        return self.hidden + dense(both * silu(self.gate), f"{self.name}/Dense_3")

    def forgotten(self) -> np.ndarray:
        """Nats by which each channel's slowest mode decays over the text, (d,)."""
        return np.logaddexp(0, self.raw.astype(np.float64)).sum(0) * np.abs(self.A).min(1)


@cache
def blocks() -> tuple[tuple[Block, ...], np.ndarray]:
    """All blocks of the text, and the logits (l, labels) after them."""
    hidden, found = weights()["Embed_0/embedding"][tokens().astype(np.int64)], []
    for number in range(BLOCKS):
        found.append(Block(number, hidden))
        hidden = found[-1].output()
    return tuple(found), dense(norm(hidden, "LayerNorm_0"), "Dense_0")


def test_our_scan_gives_its_labels() -> None:
    from typeseg._mamba_kernel import mamba_forward

    expected = mamba_forward(np, weights(), tokens())
    ours = blocks()[1]
    difference = float(np.abs(ours - expected).max())
    print(f"\nlargest difference of logits {difference:.1e}, at a standard deviation of {expected.std():.2f}")
    assert difference <= 3e-5
    assert np.array_equal(ours.argmax(1), expected.argmax(1)) and len(set(expected.argmax(1))) > 1


def test_channels_are_local_and_global() -> None:
    local, between, lasting = (
        [int(((least <= block.forgotten()) & (block.forgotten() < most)).sum()) for block in blocks()[0]]
        for least, most in ((FORGETS, np.inf), (KEEPS, FORGETS), (0.0, KEEPS))
    )
    print(f"\nof the 256 channels of each block, after {LENGTH:,} characters:")
    print(f"{lasting} keep more than 5e-2 of what they held, {between} more than 1e-5, {local} less")
    assert sum(lasting) >= 10 and sum(between) >= 10 and min(local) >= 128


@pytest.mark.parametrize("number", range(BLOCKS))
def test_filtered_steps_are_exactly_zero(number: int) -> None:
    block = blocks()[0][number]
    before = mx.array(np.random.default_rng(number).standard_normal((1, 256, STATES)).astype(np.float32))
    _, after = block.scan(initial_state=before, threshold=mx.full((256,), 1e6))
    assert np.array_equal(after, np.array(before)[0])
    # With a threshold in the middle of a channel's steps: as if the filtered characters were not there.
    middle = np.median(block.raw, axis=0)
    _, filtered = block.scan(threshold=mx.array(middle))
    for channel in (0, 100, 255):
        kept = block.raw[:, channel] > middle[channel]
        state = np.zeros(STATES)
        for step, x, B in zip(block.raw[kept, channel], block.x[kept, channel], block.B[kept], strict=True):
            dt = np.logaddexp(0, np.float64(step))
            state = state * np.exp(dt * block.A[channel].astype(np.float64)) + dt * x * B.astype(np.float64)
        assert np.abs(filtered[channel] - state).max() <= 1e-5 * max(1.0, np.abs(state).max())
