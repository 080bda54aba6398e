"""The Python API: `load` a model, `read` a document, `ask` it questions."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from longmamba_mlx import catalogue
from longmamba_mlx.answering import generate
from longmamba_mlx.documents import READER_VERSION, Document, join, read_document
from longmamba_mlx.errors import ModelError
from longmamba_mlx.events import Answer, Answered, Counted, Event, Piece
from longmamba_mlx.loader import LoadedModel, load_model
from longmamba_mlx.longmamba import (
    Calibration,
    FilterPlan,
    build_plan,
    calibration_windows,
    collect,
    constants_for,
    settings_for,
)
from longmamba_mlx.models.state import ModelState
from longmamba_mlx.ops import implementation
from longmamba_mlx.passages import PassageIndex
from longmamba_mlx.paths import calibration_folder, private_folder
from longmamba_mlx.prompts import PromptForm
from longmamba_mlx.reading import Progress, Reading, read_tokens, reading_steps
from longmamba_mlx.statefile import StateKey, read_state, write_state
from longmamba_mlx.tokenizer import Tokenizer

if TYPE_CHECKING:
    from longmamba_mlx.passages import Passage

CALIBRATION = "longmamba.safetensors"
Stop = Callable[[], bool]


def load(name: str = catalogue.DEFAULT, *, filter: str = "longmamba", offline: bool = False) -> Model:
    """Load a model: "demo", "demo-mamba1", a model folder, or a Hub id (downloaded and converted on first use).

    filter: off | longmamba | paper | curve | document. Raises ModelError, CalibrationError or UsageError with a hint.
    """
    loaded = load_model(catalogue.resolve(name, offline=offline))
    tokenizer = Tokenizer.from_folder(loaded.folder)
    return Model(replace(loaded, name=name), tokenizer, filter)


def calibrate(
    model: Model,
    text: str | None = None,
    *,
    windows: int = 16,
    on_progress: Callable[[int, int], None] | None = None,
    save: bool = True,
) -> Calibration:
    """Measure `model` on windows of its training length from `text`, and store the result beside it.

    `on_progress(done, total)` counts windows times layers. Raises CalibrationError for a text shorter than one window
    (paper section 4: calibration needs a few windows, no training), DiskError where it cannot be stored.
    """
    if text is None:
        text = read_document(catalogue.sample_document()).text
    calibration = model.measure(model.tokenizer.encode(text), windows=windows, on_progress=on_progress)
    if save:
        calibration.save(model.loaded.folder / CALIBRATION)
    model.calibration = calibration
    return calibration


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
        steps = self.reading(as_document(source), chunk=chunk)
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            if on_progress is not None and isinstance(step, Progress):
                on_progress(step)

    def reading(
        self, document: Document, *, chunk: int = 512, should_stop: Stop | None = None
    ) -> Generator[Counted | Progress, None, ReadDocument]:
        """`read` as a generator: Counted, then Progress after every chunk; returns the ReadDocument."""
        ids = self.tokenizer.encode(document.text)
        yield Counted(document.title, len(ids))
        plan = self.plan(len(ids), ids)
        return (yield from self.reading_of(document, ids, plan, chunk=chunk, should_stop=should_stop))

    def reading_of(
        self,
        document: Document,
        ids: NDArray[np.uint32],
        plan: FilterPlan | None,
        *,
        chunk: int,
        should_stop: Stop | None,
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


@dataclass
class ReadDocument:
    """A document as the model remembers it after one reading. Every question starts from this state."""

    model: Model
    document: Document | None
    reading: Reading
    key: StateKey
    seconds: float
    """How long the reading took; 0 for one that was reopened."""

    @property
    def state(self) -> ModelState:
        """The model's state after the last token."""
        return self.reading.state

    @property
    def tokens(self) -> int:
        """How many tokens were read."""
        return self.state.tokens

    @property
    def title(self) -> str:
        return self.document.title if self.document is not None else "document"

    def ask(self, question: str, **options: object) -> Answer:
        """Answer a question; options as for `answering`. Raises UsageError for an empty one."""
        *_, last = self.answering(question, **options)  # type: ignore[arg-type]
        return cast("Answered", last).answer

    def stream(self, question: str, **options: object) -> Iterator[str]:
        """The answer in pieces, as they come."""
        for event in self.answering(question, **options):  # type: ignore[arg-type]
            if isinstance(event, Piece):
                yield event.text

    def answering(
        self,
        question: str,
        *,
        max_tokens: int = 64,
        temperature: float = 0.0,
        seed: int = 0,
        should_stop: Stop | None = None,
    ) -> Iterator[Event]:
        """Piece after Piece, then Answered. The question is not filtered; the document state stays as it is."""
        model, form, started = self.model, self.model.form, time.monotonic()
        prompt = model.tokenizer.encode(form.ask(question))
        decoder, raw, shown, count, ended = model.tokenizer.stream(), "", "", 0, False
        reason = "length"
        for token in generate(
            model.loaded.model,
            self.state,
            prompt,
            max_tokens=max_tokens,
            temperature=temperature,
            seed=seed,
            stop_ids=model.loaded.config.eos_token_ids,
            should_stop=should_stop,
        ):
            count += 1
            raw += decoder.push(token)
            text, ended = form.finish(raw.lstrip())
            if len(text) > len(shown):
                yield Piece(text[len(shown) :])
                shown = text
            if ended:
                break
        if ended or count < max_tokens:
            reason = "stopped" if should_stop is not None and should_stop() and not ended else "stop"
        answer = shown.strip()
        yield Answered(
            Answer(
                question=question,
                text=answer,
                found=form.found(answer),
                passages=self._passages(question, answer) if form.found(answer) else (),
                tokens=count,
                seconds=time.monotonic() - started,
                finish_reason=reason,
            )
        )

    @cached_property
    def _index(self) -> PassageIndex | None:
        return None if self.document is None else PassageIndex(self.document)

    def _passages(self, question: str, answer: str) -> tuple[Passage, ...]:
        return () if self._index is None else self._index.search(question, answer)

    def thresholds(self) -> list[NDArray[np.float32] | None]:
        """Per layer the thresholds that were used, None where nothing was filtered."""
        plan = self.reading.plan
        return [] if plan is None else [plan.thresholds(i) for i in range(len(plan.layers))]

    def info(self) -> dict[str, str | int | float | bool | None]:
        """What a list of remembered documents shows."""
        source = "" if self.document is None else self.document.source
        return {"title": self.title, "source": source, "model": self.model.name,
                "filter": self.model.filter if self.reading.plan is not None else "off",
                "seconds": round(self.seconds, 3), "read": time.strftime("%Y-%m-%dT%H:%M:%S%z")}  # fmt: skip

    def save(self, path: str | Path) -> None:
        """Write the document state as one file, atomically. Raises DiskError."""
        write_state(Path(path), self.key, self.state, self.thresholds(), self.info())


def as_document(source: str | Path | Document | Sequence[str | Path]) -> Document:
    """A Document from whatever `Model.read` takes."""
    if isinstance(source, Document):
        return source
    if isinstance(source, str | Path):
        return read_document(source)
    return join([read_document(item) for item in source])
