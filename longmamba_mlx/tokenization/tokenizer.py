"""Encode text to token ids and decode them, with a model folder's tokenizer.json."""

from __future__ import annotations

import hashlib
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.documents import sanitise
from longmamba_mlx.documents.sanitise import one_line
from longmamba_mlx.errors import ConfigError, LongMambaError, ModelError
from longmamba_mlx.storage.json_config import read_json
from longmamba_mlx.tokenization import bounded_child
from longmamba_mlx.tokenization.load_limits import MOST_BYTES, check_cost
from longmamba_mlx.tokenization.pieces import Encoded, Pieces
from longmamba_mlx.tokenization.risks import may_run_away, switch_off_changes
from longmamba_mlx.tokenization.windowed import EncodedPart, Encoding, encode_parts

if TYPE_CHECKING:
    from tokenizers import Encoding as LibraryEncoding
    from tokenizers import Tokenizer as Backend

_MOST_SETTINGS = 16 << 20
TOKENIZERS = ("tokenizer.json", "tokenizer.jsonl")
"""The files that hold a tokenizer, the first that is there."""
_SECONDS = 60.0  # by the clock, for one window of text in the child process, which limits its own computing
_OTHER = "Use the tokenizer.json of the model's own publisher: convert --tokenizer OWNER/NAME"


class Detokenizer:
    """Decodes ids one by one into text, as soon as whole characters are complete; without control characters."""

    def __init__(self, backend: Backend) -> None:
        from tokenizers.decoders import DecodeStream

        self._backend = backend
        self._stream = DecodeStream(skip_special_tokens=True)

    def push(self, token: int) -> str:
        """The text that `token` completes; "" while a character is incomplete. Raises ModelError."""
        with _as_model_error("The tokenizer cannot decode"):
            return sanitise(self._stream.step(self._backend, token) or "")


class Tokenizer:
    """A tokenizer of the `tokenizers` library; with `pieces` these encode, and the library decodes."""

    def __init__(self, backend: Backend, identity: str, pieces: Pieces | None = None) -> None:
        self._backend = backend
        self._pieces = pieces
        self._dropped: dict[str, bool] = {}  # what `left_out` has found so far
        self.identity = identity
        """sha256 (hex) of the tokenizer's file."""

    @classmethod
    def from_folder(cls, folder: Path) -> Tokenizer:
        """Load `folder`/tokenizer.json, without the truncation, padding, dropout and templates that it may ask for;
        else its tokenizer.jsonl (PLaMo-2).

        Raises ModelError where it is missing, broken or could run away while it decodes.
        """
        from tokenizers import Tokenizer as Backend

        path = tokenizer_file(folder) or folder / TOKENIZERS[0]
        try:
            if path.stat().st_size > MOST_BYTES:
                raise ModelError(f"{path.name} of {folder.name} is larger than {MOST_BYTES:,} bytes.", hint=_OTHER)
            data = path.read_bytes()
        except OSError:
            raise ModelError(
                f"{folder.name} has no tokenizer.json", hint="Copy the checkpoint's tokenizer.json there."
            ) from None
        with _as_model_error(f"{path.name} of {folder.name} is broken"):
            if path.suffix == ".jsonl":
                pieces = Pieces(data, _special_names(folder))
                return cls(pieces.backend(), hashlib.sha256(data).hexdigest(), pieces)
            check_cost(data)
            backend = Backend.from_str(data.decode("utf-8"))
            switch_off_changes(backend)
            if may_run_away(backend.decoder):
                raise ModelError(f"{path.name} of {folder.name} decodes by patterns without bounds.", hint=_OTHER)
        return cls(backend, hashlib.sha256(data).hexdigest())

    @cached_property
    def vocabulary(self) -> int:
        """The number of tokens, added ones included."""
        return int(self._backend.get_vocab_size())

    @cached_property
    def _bounded(self) -> bool:
        """Whether texts are encoded in a child process with limits."""
        return may_run_away(self._backend.normalizer) or may_run_away(self._backend.pre_tokenizer)

    def left_out(self, text: str) -> int:
        """How many characters of a text, blanks aside, have no token: 0 but for BPE without an unknown token."""
        if not self._drops:
            return 0
        return sum(count for character, count in Counter(text).items() if self._is_dropped(character))

    @cached_property
    def _drops(self) -> bool:
        """Whether characters that are not in the vocabulary vanish: BPE without a token for them, and not on bytes."""
        parts = (self._backend.normalizer, self._backend.pre_tokenizer)
        on_bytes = any(part is not None and b"ByteLevel" in part.__getstate__() for part in parts)
        return type(self._backend.model).__name__ == "BPE" and self._backend.model.unk_token is None and not on_bytes

    def _is_dropped(self, character: str) -> bool:
        if character not in self._dropped:
            self._dropped[character] = not character.isspace() and not len(self.encode(character, as_text=True))
        return self._dropped[character]

    def encode(self, text: str, *, as_text: bool = False) -> NDArray[np.uint32]:
        """Encode a text -> ids (n,), nothing added before or after. `as_text`: as in `encode_document`.

        Raises ModelError where the tokenizer fails.
        """
        encoding = self._as_text(text) if as_text else self._encoded(text, special=True)
        return np.asarray(encoding.ids, np.uint32)

    @cached_property
    def _as_json(self) -> str:
        text: str = self._backend.to_str()
        return text

    def encode_document(self, pieces: Iterable[str]) -> Iterator[EncodedPart]:
        """Encode a document given in pieces of any size: yields parts whose ids together are those of the whole text.

        What looks like a special token is encoded as text: a book that contains "<|im_end|>" cannot end its own turn.
        """
        return encode_parts(self._as_text, pieces)

    def special(self, token: int) -> bool:
        """Whether an id is a special token, such as the end of a turn."""
        added = self._backend.get_added_tokens_decoder().get(token)
        return added is not None and added.special

    def _as_text(self, text: str) -> Encoding:
        return self._encoded(text, special=False)

    def _encoded(self, text: str, *, special: bool) -> Encoding:
        """Encode a text; special tokens are recognised in it only if `special`."""
        if self._pieces is not None:
            with _as_model_error("The tokenizer cannot encode this text"):
                return self._pieces.encode(text, special=special)
        if self._bounded:
            return _encode_in_child(self._as_json, text, special)
        self._backend.encode_special_tokens = not special
        try:
            with _as_model_error("The tokenizer cannot encode this text"):
                # A batch of one releases the GIL: a long text would otherwise block the chat's keyboard.
                encoding = self._backend.encode_batch([text], add_special_tokens=False)[0]
        finally:
            self._backend.encode_special_tokens = False
        _check_whole(encoding)
        return encoding

    def decode(self, ids: NDArray[np.uint32] | list[int]) -> str:
        """Decode ids to text, without special tokens and control characters. Raises ModelError."""
        with _as_model_error("The tokenizer cannot decode"):
            return sanitise(self._backend.decode([int(i) for i in ids], skip_special_tokens=True))

    def stream(self) -> Detokenizer:
        """A new detokenizer for one answer."""
        return Detokenizer(self._backend)


def tokenizer_file(folder: Path) -> Path | None:
    """The file that `Tokenizer.from_folder` reads; None where there is none."""
    return next((folder / name for name in TOKENIZERS if (folder / name).is_file()), None)


def _special_names(folder: Path) -> list[str]:
    """The tokens that tokenizer_config.json calls special."""
    try:
        table = read_json(folder / "tokenizer_config.json", max_bytes=_MOST_SETTINGS)
    except ConfigError:  # missing or broken: the vocabulary's own words hold
        return []
    added = table.get("added_tokens_decoder")
    entries = added.values() if isinstance(added, dict) else ()
    return [str(entry.get("content")) for entry in entries if isinstance(entry, dict) and entry.get("special")]


def _encode_in_child(tokenizer: str, text: str, special: bool) -> Encoded:
    task = {"tokenizer": tokenizer, "text": text, "special": special}
    try:
        answer = bounded_child.run("longmamba_mlx.tokenization.encode_worker", task, seconds=_SECONDS)
        if not isinstance(answer, dict):
            raise ValueError("an encode worker answers with a table")
        return Encoded(answer["ids"], [(begin, end) for begin, end in answer["spans"]])
    except (OSError, ValueError, KeyError, RecursionError, subprocess.SubprocessError):
        raise ModelError("The tokenizer fails on this text, or never ends.", hint=_OTHER) from None


@contextmanager
def _as_model_error(problem: str) -> Iterator[None]:
    """Whatever the library raises, in one line. A panic in its Rust code is a BaseException, not an Exception."""
    try:
        yield
    except (LongMambaError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        reason = one_line((str(error).splitlines() or [type(error).__name__])[0], 160)  # it may quote the file
        raise ModelError(f"{problem}: {reason}", hint=_OTHER) from None


def _check_whole(encoding: LibraryEncoding) -> None:
    """Raise ModelError unless these are the text's tokens, all of them and no others."""
    if encoding.overflowing or 0 in encoding.attention_mask:
        raise ModelError("The tokenizer truncates or pads its texts.", hint=_OTHER)


class NoTokenizer(Tokenizer):
    """Stands in for a missing tokenizer: the model computes logits, but any use of text raises ModelError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pieces = None
        self.identity = ""

    vocabulary = 0

    def left_out(self, text: str) -> int:
        return 0

    @property
    def _backend(self) -> Backend:  # type: ignore[override]
        raise ModelError(
            f"{self._folder.name} has no tokenizer.json, so its model cannot read text.",
            hint="Convert the checkpoint again with --tokenizer, or copy its tokenizer.json there.",
        )
