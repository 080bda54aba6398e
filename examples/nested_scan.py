"""Scans inside scans, as in Mamba-in-Mamba (MiM-ISTD, arXiv 2403.02148).

An image is cut into patches ("sentences") of sub-patches ("words"): an inner scan runs over the words of every patch,
all patches at once as a batch, and what it gives is added to the patch that an outer scan then runs over.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
from bidirectional import Direction


class NestedLayer(nn.Module):
    """words (b, patches, words, d_word), patches (b, patches, d_patch) -> both, with what the other knows."""

    def __init__(self, words: int, word_width: int, patch_width: int, states: int = 4) -> None:
        super().__init__()
        self.inner = Direction(word_width, states, reverse=False)
        self.outer = Direction(patch_width, states, reverse=False)
        self.lift = nn.Linear(words * word_width, patch_width)

    def __call__(self, words: mx.array, patches: mx.array) -> tuple[mx.array, mx.array]:
        batch, count, length, width = words.shape
        inner = self.inner(words.reshape(batch * count, length, width)).reshape(words.shape)
        words = words + inner
        patches = patches + self.lift(words.reshape(batch, count, length * width))
        return words, patches + self.outer(patches)


def main() -> None:
    mx.random.seed(0)
    layer = NestedLayer(words=4, word_width=8, patch_width=16)
    words, patches = layer(mx.random.normal((2, 64, 4, 8)), mx.random.normal((2, 64, 16)))
    print(f"words {words.shape}, patches {patches.shape}")


if __name__ == "__main__":
    main()
