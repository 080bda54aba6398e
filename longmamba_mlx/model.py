"""A loaded model with its tokenizer, calibration and filter."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from longmamba_mlx.documents import READER_VERSION, Document, join, read_document
from longmamba_mlx.errors import ModelError
from longmamba_mlx.loader import LoadedModel
from longmamba_mlx.longmamba import (
    Calibration,
    FilterPlan,
    build_plan,
    calibration_windows,
    collect,
    constants_for,
    settings_for,
)
from longmamba_mlx.ops import implementation
from longmamba_mlx.paths import calibration_folder, private_folder
from longmamba_mlx.prompts import PromptForm
from longmamba_mlx.readdocument import ReadDocument
from longmamba_mlx.reading import Progress, Reading, read_tokens, reading_steps, run_to_end
from longmamba_mlx.statefile import StateKey, read_state
from longmamba_mlx.tokenizer import Tokenizer

CALIBRATION = "longmamba.safetensors"
Stop = Callable[[], bool]


class Model:
    """A loaded model with its tokenizer, calibration and filter. Use it from one thread."""

    def __init__(self, loaded: LoadedModel, tokenizer: Tokenizer, filter: str = "longmamba") -> None:
        self.loaded = loaded
        self.name = loaded.name
        self.tokenizer = tokenizer
        self.form = PromptForm.from_settings(loaded.settings)
        self.settings = settings_for(loaded.config, filter, loaded.settings)
        self.calibration = self._stored_calibration()
        if tokenizer.vocabulary > loaded.config.vocab_size:
            raise ModelError(
                f"The tokenizer of {self.name} has {tokenizer.vocabulary} tokens, its model only "
                f"{loaded.config.vocab_size}.",
                hint="Convert the checkpoint again with its own tokenizer.json.",
            )

    @property
    def parameters(self) -> int:
        """How many numbers the weights hold."""
        return self.loaded.parameters

    @property
    def filter(self) -> str:
        """The filter's name as a plan uses it: `longmamba` is replaced by the mode it names."""
        return self.settings.resolved_mode

    def with_filter(self, filter: str) -> Model:
        """The same weights with another filter."""
        return Model(self.loaded, self.tokenizer, filter)

    def read(
        self,
        source: str | Path | Document | Sequence[str | Path],
        *,
        on_progress: Callable[[Progress], object] | None = None,
        chunk: int = 512,
    ) -> ReadDocument:
        """Read a file, several files (one after the other) or a Document, whole.

        on_progress(Progress) is called after every `chunk` tokens. Raises DocumentError and its kinds.
        """
        document = as_document(source)
        ids = self.tokenizer.encode(document.text)
        steps = self.reading_of(document, ids, self.plan(len(ids), ids), chunk=chunk)
        return run_to_end(steps, on_progress)

    def reading_of(
        self,
        document: Document,
        ids: NDArray[np.uint32],
        plan: FilterPlan | None,
        *,
        chunk: int = 512,
        should_stop: Stop | None = None,
    ) -> Generator[Progress, None, ReadDocument]:
        """The reading itself, for a document that is tokenised and has its plan."""
        started = time.monotonic()
        reading: Reading = yield from reading_steps(
            self.loaded.model, ids, plan, chunk=chunk, should_stop=should_stop, logits="none"
        )
        key = self.key(document, len(ids), plan, chunk)
        return ReadDocument(self, document, reading, key, time.monotonic() - started)

    def open(self, path: str | Path, document: str | Path | Document | None = None) -> ReadDocument:
        """A document read before and saved with `ReadDocument.save`; `document` brings back its passages.

        Raises StateError for a file that is broken or was made with another model, DocumentError for another document.
        """
        stored = read_state(Path(path), like=self.loaded.model.initial_state())
        wanted = replace(stored.key, **self._identity())  # type: ignore[arg-type]
        if document is not None:
            document = as_document(document)
            wanted = replace(wanted, document=document.digest, reader=READER_VERSION)
        if wanted != stored.key:
            stored = read_state(Path(path), key=wanted)  # names the field that differs
        return ReadDocument(self, document, Reading(stored.state, None, None), stored.key, 0.0)

    def logits(self, token_ids: ArrayLike, *, chunk: int = 512) -> NDArray[np.float32]:
        """Next-token logits (L, vocab) float32 for token_ids (L,), filtered as configured with S = L."""
        ids = np.asarray(token_ids, np.uint32)
        reading = read_tokens(self.loaded.model, ids, self.plan(len(ids), ids), chunk=chunk, logits="all")
        return np.asarray(reading.logits, np.float32)

    def plan(self, total: int, ids: NDArray[np.uint32] | None = None) -> FilterPlan | None:
        """The filter for a reading of `total` tokens; None where nothing is filtered.

        A model that was never calibrated is measured on windows of `ids` first, and remembered.
        """
        if self.filter == "off" or total <= self.training_length:
            return None
        if self.calibration is None:
            self.calibration = self.measure(np.zeros(0, np.uint32) if ids is None else ids)
            private_folder(calibration_folder())
            self.calibration.save(self._remembered_calibration)
        plan = build_plan(self.calibration, self.settings, total)
        return None if plan.is_off else plan

    @property
    def training_length(self) -> int:
        """Tokens in a calibration window: no filter is needed up to here."""
        return constants_for(self.loaded.config, self.loaded.settings).training_length

    def measure(
        self,
        ids: NDArray[np.uint32],
        *,
        windows: int = 16,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Calibration:
        """A calibration from evenly spread windows of ids (N,)."""
        constants = constants_for(self.loaded.config, self.loaded.settings)
        return collect(
            self.loaded.model,
            calibration_windows(ids, constants.training_length, windows),
            fingerprint=self.loaded.fingerprint,
            quantisation=self.loaded.quantisation,
            clamps=(constants.clamp,),
            on_progress=on_progress,
        )

    @property
    def _remembered_calibration(self) -> Path:
        name = f"{self.loaded.fingerprint[:24]}-{self.loaded.quantisation}.safetensors"
        return calibration_folder() / name

    def _stored_calibration(self) -> Calibration | None:
        for path in (self.loaded.folder / CALIBRATION, self._remembered_calibration):
            if path.exists():
                return Calibration.load(
                    path, fingerprint=self.loaded.fingerprint, quantisation=self.loaded.quantisation
                )
        return None

    def _identity(self) -> dict[str, str]:
        """The fields of a state's key that say which model it belongs to."""
        dtype = str(self.loaded.model.backbone.embeddings.weight.dtype).removeprefix("mlx.core.")
        return {
            "tokenizer": self.tokenizer.identity,
            "model": self.loaded.fingerprint,
            "quantisation": self.loaded.quantisation,
            "dtype": dtype,
        }

    def key(self, document: Document, tokens: int, plan: FilterPlan | None, chunk: int) -> StateKey:
        """Everything the state of this document, read with this plan, depends on."""
        return StateKey(
            document=document.digest,
            reader=READER_VERSION,
            tokens=tokens,
            config="",  # part of the model's fingerprint
            filter="off" if plan is None else plan.digest(),
            calibration="" if plan is None or self.calibration is None else self.calibration.text_digest,
            plan_length=tokens,
            chunk=chunk,
            kernel=implementation(),
            **self._identity(),  # type: ignore[arg-type]
        )


def as_document(source: str | Path | Document | Sequence[str | Path]) -> Document:
    """A Document from whatever `Model.read` takes."""
    if isinstance(source, Document):
        return source
    if isinstance(source, str | Path):
        return read_document(source)
    return join([read_document(item) for item in source])
