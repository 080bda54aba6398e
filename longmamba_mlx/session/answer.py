"""One answer as it is made: ids become text, which ends where the model's form says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.events import Piece
from longmamba_mlx.inference.decode import generate
from longmamba_mlx.models.state import ModelState

if TYPE_CHECKING:
    from longmamba_mlx.session.model import Model


class Reply:
    """Its text, its ids without what ended it, and why it ended: "stop", "length" or "stopped"."""

    def __init__(self, model: Model, max_tokens: int) -> None:
        self._model, self._most = model, max_tokens
        self.ids: list[int] = []
        self.text, self.reason = "", "length"

    def stream(
        self,
        state: ModelState,
        prompt: NDArray[np.uint32],
        temperature: float,
        seed: int,
        should_stop: Callable[[], bool] | None,
    ) -> Iterator[Piece]:
        """Answer prompt (n,) on top of `state`; the pieces make up `text`, but for white space around it."""
        form, decoder, raw, shown, ended = self._model.form, self._model.tokenizer.stream(), "", "", False
        for token in generate(
            self._model.loaded.model,
            state,
            prompt,
            max_tokens=self._most,
            temperature=temperature,
            seed=seed,
            stop_ids=self._model.stop_ids,
            should_stop=should_stop,
        ):
            self.ids.append(token)
            raw += decoder.push(token)
            text, ended = form.finish(raw.lstrip())
            if len(text) > len(shown):
                yield Piece(text[len(shown) :])
                shown = text
            if ended or form.is_refusal(text):
                break
        else:
            stopped = should_stop is not None and should_stop()
            self.reason = "length" if len(self.ids) >= self._most else "stopped" if stopped else "stop"
            self.text = shown.strip()
            return
        if ended:  # the last token brought the stop: the talk goes on without it
            self.ids.pop()
        self.reason, self.text = "stop", shown.strip()
