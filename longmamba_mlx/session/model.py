"""A loaded model with its tokenizer, calibration and filter."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from longmamba_mlx.documents import READER_VERSION, Document, join, read_document
from longmamba_mlx.documents.streamed_text import Text, pieces_of
from longmamba_mlx.errors import DocumentError, ModelError
from longmamba_mlx.filtering import (
    Calibration,
    FilterPlan,
    build_plan,
    calibration_windows,
    collect,
    collect_steps,
    constants_for,
    policy_for,
)
from longmamba_mlx.inference.prefill import Ids, Progress, Reading, Run, read_tokens, reading_steps, run_to_end
from longmamba_mlx.models.loading import LoadedModel
from longmamba_mlx.models.mixer import float_type
from longmamba_mlx.ops import implementation
from longmamba_mlx.paths import calibration_folder, private_folder
from longmamba_mlx.session.read_document import ReadDocument
from longmamba_mlx.states.state_file import StateKey, read_state
from longmamba_mlx.system import resident_bytes
from longmamba_mlx.tokenization.chat_template import template_form
from longmamba_mlx.tokenization.count import CountedText, count
from longmamba_mlx.tokenization.prompt_format import PromptForm
from longmamba_mlx.tokenization.tokenizer import Tokenizer

CALIBRATION = "longmamba.safetensors"
Stop = Callable[[], bool]


class Model:
    """A loaded model with its tokenizer, calibration and filter. Use it from one thread."""

    def __init__(
        self, loaded: LoadedModel, tokenizer: Tokenizer, filter: str = "longmamba", form: PromptForm | None = None
    ) -> None:
        self.loaded = loaded
        self.name = loaded.name
        self.tokenizer = tokenizer
        self.form = form or PromptForm.from_settings(loaded.settings, template_form(loaded.folder))
        self.policy = policy_for(loaded.config, filter, loaded.settings)
        self.policy.check_model(hybrid=loaded.config.hybrid is not None)
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
    def attention_window(self) -> int | None:
        """How many of the latest tokens a hybrid's attention remembers; None: all, or there is no attention."""
        hybrid = self.loaded.config.hybrid
        return None if hybrid is None or hybrid.attention is None else hybrid.attention.window

    @property
    def filter(self) -> str:
        """The filter's name as a plan uses it: `longmamba` is replaced by the policy it names."""
        return self.policy.name

    def with_filter(self, filter: str) -> Model:
        """The same weights with another filter."""
        return Model(self.loaded, self.tokenizer, filter, self.form)

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
        counted = self.count(document)
        plan = self.plan(len(counted.ids), counted.ids)
        return run_to_end(self.reading_of(document, counted, plan, Run(chunk)), on_progress)

    def count(self, document: Text, *, should_stop: Stop | None = None) -> CountedText:
        """All ids of a document, with what comes before it in this model's form.

        Raises StoppedError, DiskError, DocumentError for a text without a single token.
        """
        opening = self.tokenizer.encode(self.form.opening)
        counted = count(self.tokenizer, opening, pieces_of(document), should_stop=should_stop)
        if len(counted.ids) == len(opening):
            raise DocumentError(f"{self.name} knows no token of {document.title!r}.", hint="Give another document.")
        return counted

    def reading_of(
        self, document: Text, counted: CountedText, plan: FilterPlan | None, run: Run
    ) -> Generator[Progress, None, ReadDocument]:
        """The reading itself, for a document that is tokenised and has its plan."""
        started = time.monotonic()
        run = replace(run, logits="none")
        reading: Reading = yield from reading_steps(self.loaded.model, counted.ids, plan, run)
        key = self.key(document, len(counted.ids), plan, run.chunk)
        return ReadDocument(self, document, reading, key, time.monotonic() - started, counted.text_map)

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
        key = stored.key
        plan = self.plan(key.tokens) if key.filter != "off" and self.calibration is not None else None
        if plan is not None and plan.digest() != key.filter:
            plan = None  # read with another filter than this model is loaded with
        return ReadDocument.restored(self, document, stored, plan)

    def logits(self, token_ids: ArrayLike, *, chunk: int = 512) -> NDArray[np.float32]:
        """Next-token logits (L, vocab) float32 for token_ids (L,), filtered as configured with S = L."""
        ids = np.asarray(token_ids, np.uint32)
        reading = read_tokens(self.loaded.model, ids, self.plan(len(ids), ids), chunk=chunk, logits="all")
        return np.asarray(reading.logits, np.float32)

    def plan(self, total: int, ids: Ids | None = None) -> FilterPlan | None:
        """The filter for a reading of `total` tokens; None where nothing is filtered.

        A model that was never calibrated is measured on windows of `ids` first, and remembered.
        """
        if self.filter == "off" or total <= self.training_length:
            return None
        if self.calibration is None:
            run_to_end(self.measuring(np.zeros(0, np.uint32) if ids is None else ids))
        if self.calibration is None:
            raise RuntimeError("a measured model has its calibration")
        plan = build_plan(self.calibration, self.policy, total)
        return None if plan.is_off else plan

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Ids that end an answer: the model's own, and the special token that a chat template ends a turn with."""
        after = self.tokenizer.encode(self.form.follow_up)[:1]
        return frozenset(self.loaded.config.eos_token_ids) | {
            int(token) for token in after if self.tokenizer.special(int(token))
        }

    @property
    def training_length(self) -> int:
        """Tokens in a calibration window: no filter is needed up to here."""
        return constants_for(self.loaded.config, self.loaded.settings).training_length

    def measure(
        self,
        ids: Ids,
        *,
        windows: int = 16,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Calibration:
        """A calibration from evenly spread windows of ids (N,)."""
        chosen = self._windows(ids, windows)
        return collect(self.loaded.model, chosen, on_progress=on_progress, **self._measured_as)

    def measuring(self, ids: Ids, *, windows: int = 16) -> Generator[Progress, None, None]:
        """Measure a model that never was, on evenly spread windows of ids (N,), and remember it: Progress in tokens."""
        chosen = self._windows(ids, windows)
        steps = collect_steps(self.loaded.model, chosen, **self._measured_as)
        started = time.monotonic()
        while True:
            try:
                done, total = next(steps)
            except StopIteration as end:
                calibration: Calibration = end.value
                break
            yield Progress(done * chosen.size // total, chosen.size, time.monotonic() - started, resident_bytes())
        private_folder(calibration_folder())
        calibration.save(self._remembered_calibration)
        self.calibration = calibration

    def _windows(self, ids: Ids, count: int) -> NDArray[np.uint32]:
        return calibration_windows(cast("NDArray[np.uint32]", ids), self.training_length, count)  # slices it

    @property
    def _measured_as(self) -> dict[str, Any]:
        clamp = constants_for(self.loaded.config, self.loaded.settings).clamp
        return {
            "fingerprint": self.loaded.fingerprint,
            "quantisation": self.loaded.quantisation,
            "clamps": (clamp,),
        }

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
        """The fields of a state's key that say which model it belongs to, and what it reads before a document."""
        dtype = str(float_type(self.loaded.model.embeddings)).removeprefix("mlx.core.")
        opening = self.form.opening
        return {
            "opening": hashlib.sha256(opening.encode()).hexdigest() if opening else "",
            "tokenizer": self.tokenizer.identity,
            "model": self.loaded.fingerprint,
            "quantisation": self.loaded.quantisation,
            "dtype": dtype,
        }

    def key(self, document: Text, tokens: int, plan: FilterPlan | None, chunk: int) -> StateKey:
        """Everything the state of this document, read with this plan, depends on."""
        window = self.attention_window
        return StateKey(
            document=document.digest,
            reader=READER_VERSION,
            tokens=tokens,
            config="" if window is None else f"attention_window={window}",  # all else is part of the fingerprint
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
