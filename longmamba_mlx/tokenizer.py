"""Text to token ids and back, through a model folder's tokenizer.json."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.documents import sanitize
from longmamba_mlx.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend


class Detokenizer:
    """Ids in, text out, as soon as whole characters are there; free of control characters."""

    def __init__(self, backend: Backend) -> None:
        from tokenizers.decoders import DecodeStream

        self._backend = backend
        self._stream = DecodeStream(skip_special_tokens=True)

    def push(self, token: int) -> str:
        """The text that `token` completes; "" while a character is still in parts."""
        return sanitize(self._stream.step(self._backend, token) or "")


class Tokenizer:
    """A tokenizer of the `tokenizers` library. Knows text and ids, never models."""

    def __init__(self, backend: Backend, identity: str) -> None:
        self._backend = backend
        self.identity = identity
        """sha256 (hex) of tokenizer.json."""

    @classmethod
    def from_folder(cls, folder: Path) -> Tokenizer:
        """Load `folder`/tokenizer.json. Raises ModelError where it is missing or broken."""
        from tokenizers import Tokenizer as Backend

        path = folder / "tokenizer.json"
        try:
            data = path.read_bytes()
        except OSError:
            raise ModelError(
                f"{folder.name} has no tokenizer.json", hint="Copy the checkpoint's tokenizer.json there."
            ) from None
        try:
            backend = Backend.from_str(data.decode("utf-8"))
        except Exception as error:  # the library raises plain Exception for anything it does not understand
            raise ModelError(f"{path.name} of {folder.name} is broken: {error}") from None
        return cls(backend, hashlib.sha256(data).hexdigest())

    @cached_property
    def vocabulary(self) -> int:
        """How many tokens there are, added ones included."""
        return int(self._backend.get_vocab_size())

    def encode(self, text: str) -> NDArray[np.uint32]:
        """Token ids (n,) of the text alone: nothing is put before or after it."""
        return np.asarray(self._backend.encode(text, add_special_tokens=False).ids, np.uint32)

    def decode(self, ids: NDArray[np.uint32] | list[int]) -> str:
        """The text of whole ids, special tokens left out, free of control characters."""
        return sanitize(self._backend.decode([int(i) for i in ids], skip_special_tokens=True))

    def stream(self) -> Detokenizer:
        """A fresh detokenizer for one answer."""
        return Detokenizer(self._backend)
