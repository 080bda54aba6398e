"""Text to token ids and back, through a model folder's tokenizer.json."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.documents import sanitise
from longmamba_mlx.errors import ModelError
from longmamba_mlx.tokenization.windowed import EncodedPart, encode_parts

if TYPE_CHECKING:
    from tokenizers import Encoding
    from tokenizers import Tokenizer as Backend


class Detokenizer:
    """Ids in, text out, as soon as whole characters are there; free of control characters."""

    def __init__(self, backend: Backend) -> None:
        from tokenizers.decoders import DecodeStream

        self._backend = backend
        self._stream = DecodeStream(skip_special_tokens=True)

    def push(self, token: int) -> str:
        """The text that `token` completes; "" while a character is still in parts."""
        return sanitise(self._stream.step(self._backend, token) or "")


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

    def encode(self, text: str, *, as_text: bool = False) -> NDArray[np.uint32]:
        """Token ids (n,) of the text alone: nothing is put before or after it. `as_text`: see `encode_document`."""
        if as_text:
            return np.asarray(self._as_text(text).ids, np.uint32)
        return np.asarray(self._backend.encode(text, add_special_tokens=False).ids, np.uint32)

    def encode_document(self, pieces: Iterable[str]) -> Iterator[EncodedPart]:
        """A document's ids, part by part; the same as those of the whole text, which may come in pieces of any size.

        What looks like a special token in a document is text: a book that holds "<|im_end|>" cannot end its own turn.
        """
        return encode_parts(self._as_text, pieces)

    def special(self, token: int) -> bool:
        """Whether an id is a special token, such as the end of a turn."""
        added = self._backend.get_added_tokens_decoder().get(token)
        return added is not None and added.special

    def _as_text(self, text: str) -> Encoding:
        self._backend.encode_special_tokens = True
        try:
            # As a batch of one, which lets other threads run meanwhile: a long text would stop the chat's keys.
            return self._backend.encode_batch([text], add_special_tokens=False)[0]
        finally:
            self._backend.encode_special_tokens = False

    def decode(self, ids: NDArray[np.uint32] | list[int]) -> str:
        """The text of whole ids, special tokens left out, free of control characters."""
        return sanitise(self._backend.decode([int(i) for i in ids], skip_special_tokens=True))

    def stream(self) -> Detokenizer:
        """A fresh detokenizer for one answer."""
        return Detokenizer(self._backend)


class NoTokenizer(Tokenizer):
    """Stands in for the tokenizer that a folder lacks: its model gives logits, but reads and writes no text."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.identity = ""

    vocabulary = 0

    @property
    def _backend(self) -> Backend:  # type: ignore[override]
        raise ModelError(
            f"{self._folder.name} has no tokenizer.json, so its model cannot read text.",
            hint="Convert the checkpoint again with --tokenizer, or copy its tokenizer.json there.",
        )
