"""Generate one answer: ids become text until a stop of the prompt form, the token limit, or a request to stop."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.events import Piece
from longmamba_mlx.ground.steps import Stop
from longmamba_mlx.inference.decode import generate
from longmamba_mlx.models.state import ModelState
from longmamba_mlx.session.text_model import TextModel


class Reply:
    """An answer's `text`, its `ids` without the one that ended it, and `reason`: "stop", "length" or "stopped"."""

    def __init__(self, model: TextModel, max_tokens: int) -> None:
        self._model, self._max_tokens = model, max_tokens
        self.ids: list[int] = []
        self.text, self.reason = "", "length"

    def stream(
        self,
        state: ModelState,
        prompt: NDArray[np.uint32],
        temperature: float,
        seed: int,
        should_stop: Stop | None,
    ) -> Iterator[Piece]:
        """Answer prompt (n,) on top of `state`; the pieces together are `text` and white space around it."""
        form, decoder, raw, shown, ended = self._model.form, self._model.tokenizer.stream(), "", "", False
        for token in generate(
            self._model.network,
            state,
            prompt,
            max_tokens=self._max_tokens,
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
            self.reason = "length" if len(self.ids) >= self._max_tokens else "stopped" if stopped else "stop"
            self.text = shown.strip()
            return
        if ended:  # the last token brought the stop: the conversation goes on without it
            self.ids.pop()
        self.reason, self.text = "stop", shown.strip()
