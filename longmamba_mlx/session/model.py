"""The model of the Python API: read documents, reopen saved ones, compute logits."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from longmamba_mlx.documents import Document, join, read_document
from longmamba_mlx.inference.prefill import chunk_or_default, prefill
from longmamba_mlx.inference.progress import Progress
from longmamba_mlx.session.read_document import ReadDocument
from longmamba_mlx.session.text_model import TextModel
from longmamba_mlx.states.state_file import read_state
from longmamba_mlx.tokenization.count import left_out_line


class Model(TextModel):
    """A loaded model with its tokenizer, calibration and filter. Use it from one thread."""

    def read(
        self,
        source: str | Path | Document | Sequence[str | Path],
        *,
        on_progress: Callable[[Progress], object] | None = None,
        chunk: int | None = None,
        encoding: str = "",
    ) -> ReadDocument:
        """Prefill the model with a file, several files (in order) or a Document.

        on_progress(Progress) is called after every `chunk` tokens (None: 2,048 on a GPU, else 512). encoding: that of
        text files; "" detects it. Raises DocumentError or a subclass of it, UsageError for an unknown encoding,
        ModelError where it would take more memory than may be used (docs/states.md, Memory).
        """
        document = as_document(source, encoding)
        counted = self.count(document)
        if counted.left_out:
            warnings.warn(left_out_line(self.name, counted.left_out), RuntimeWarning, stacklevel=2)
        chunk = chunk_or_default(chunk)
        plan = self.plan(len(counted.ids), counted.ids)
        self.require_memory(len(counted.ids), chunk)
        started = time.monotonic()
        reading = prefill(self.network, counted.ids, plan, chunk=chunk, logits="none", on_progress=on_progress)
        key = self.key(document.digest, len(counted.ids), plan, chunk)
        return ReadDocument(self, document, reading, key, time.monotonic() - started, counted.text_map)

    def open(self, path: str | Path, document: str | Path | Document | None = None) -> ReadDocument:
        """Open a state that was saved with `ReadDocument.save`; pass the text as `document` to have passages again.

        Raises StateError for a file that is broken or was made with another model, DocumentError for another document.
        """
        stored = read_state(Path(path), like=self.network.initial_state())
        wanted = replace(stored.key, **self.identity())  # type: ignore[arg-type]
        if document is not None:
            document = as_document(document)
            wanted = replace(wanted, document=document.digest)
        if wanted != stored.key:
            stored = read_state(Path(path), key=wanted)  # raises, naming the field that differs
        key = stored.key
        plan = self.plan(key.tokens) if key.filter != "off" and self.calibration is not None else None
        if plan is not None and plan.digest() != key.filter:
            plan = None  # read with another filter than this model is loaded with
        return ReadDocument.restored(self, document, stored, plan)

    def logits(self, token_ids: ArrayLike, *, chunk: int | None = None) -> NDArray[np.float32]:
        """Return the next-token logits (L, vocab) float32 for token_ids (L,), filtered as configured with S = L.

        Raises ModelError where that would take more memory than may be used.
        """
        ids, chunk = np.asarray(token_ids, np.uint32), chunk_or_default(chunk)
        rows = ids.size * self.loaded.config.vocab_size * np.dtype(np.float32).itemsize
        self.require_memory(ids.size, chunk, beside=2 * rows)  # those of each chunk, and then of all
        reading = prefill(self.network, ids, self.plan(len(ids), ids), chunk=chunk, logits="all")
        return np.asarray(reading.logits, np.float32)


def as_document(source: str | Path | Document | Sequence[str | Path], encoding: str = "") -> Document:
    """Return the Document for any argument that `Model.read` accepts."""
    if isinstance(source, Document):
        return source
    if isinstance(source, str | Path):
        return read_document(source, encoding=encoding)
    return join([read_document(item, encoding=encoding) for item in source])
