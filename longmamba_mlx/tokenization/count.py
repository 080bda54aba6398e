"""Tokenise a whole document before it is read: its length determines the filter and the time left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.errors import DiskError, StoppedError
from longmamba_mlx.ground.steps import Stop
from longmamba_mlx.tokenization.offsets import TextMap
from longmamba_mlx.tokenization.spool import Spool
from longmamba_mlx.tokenization.tokenizer import Tokenizer


@dataclass(frozen=True)
class CountedText:
    """The ids of a document after those of the prompt's opening, the offsets of tokens in its text, and how many
    characters the tokenizer has no token for."""

    ids: Spool
    text_map: TextMap
    left_out: int = 0


def left_out_line(model: str, characters: int) -> str:
    """Say that characters were left out."""
    return f"The tokenizer of {model} has no token for {characters:,} characters of this text: they were left out."


def count(
    tokenizer: Tokenizer,
    opening: NDArray[np.uint32],
    pieces: Iterable[str],
    *,
    should_stop: Stop | None = None,
) -> CountedText:
    """Tokenise a document given in pieces, after the ids opening (n,).

    Raises StoppedError, and DiskError if the disk is too full for a long document's ids.
    """
    ids = Spool()
    places: list[NDArray[np.int64]] = []
    end = left_out = 0

    def looked_through() -> Iterator[str]:
        nonlocal left_out
        for piece in pieces:
            left_out += tokenizer.left_out(piece)
            yield piece

    try:
        ids.append(opening)
        for part in tokenizer.encode_document(looked_through()):
            places.append(part.places + np.array([[len(ids)], [0]]))
            ids.append(part.ids)
            end = part.end
            if should_stop is not None and should_stop():
                raise StoppedError("Stopped while counting.")
    except OSError as error:
        hint = "Free some space where temporary files go, or set TMPDIR to another folder."
        raise DiskError(f"The document's tokens cannot be stored: {error.strerror}.", hint=hint) from None
    whole = np.concatenate([*places, np.array([[len(ids)], [end]], np.int64)], axis=1)
    return CountedText(ids, TextMap(whole[0], whole[1]), left_out)
