"""A document as a model remembers it: every question starts from the same state."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.answering import generate
from longmamba_mlx.documents import Document
from longmamba_mlx.events import Answer, Answered, Event, Piece
from longmamba_mlx.models.state import ModelState
from longmamba_mlx.passages import PassageIndex
from longmamba_mlx.reading import Reading
from longmamba_mlx.statefile import StateKey, write_state

if TYPE_CHECKING:
    from longmamba_mlx.model import Model
    from longmamba_mlx.passages import Passage


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
        should_stop: Callable[[], bool] | None = None,
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
            ended = ended or form.is_refusal(text)
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
