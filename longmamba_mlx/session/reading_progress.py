"""A prefill's progress as events."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from longmamba_mlx.events import ReadProgress
from longmamba_mlx.ground.steps import Steps

if TYPE_CHECKING:
    from longmamba_mlx.documents.streamed_text import Text
    from longmamba_mlx.inference.progress import Progress
    from longmamba_mlx.inference.reading import Reading
    from longmamba_mlx.tokenization.offsets import TextMap


def reading_events(
    steps: Generator[Progress, None, Reading], document: Text | None, text_map: TextMap | None
) -> Generator[ReadProgress, None, Reading]:
    """A prefill's progress as events, with the place in the document; returns the Reading."""
    work = Steps(steps)
    for step in work:
        place = "" if document is None or text_map is None else document.place_at(text_map.character(step.done))
        yield progress_event(step, place)
    return work.result


def progress_event(step: Progress, place: str) -> ReadProgress:
    """Progress as an event, at a place of the document ("" where none is known)."""
    return ReadProgress(step.done, step.total, step.tokens_per_second, step.seconds_left, step.memory, place)
