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
        yield progress_event(step, document, text_map)
    return work.result


def progress_event(step: Progress, document: Text | None, text_map: TextMap | None) -> ReadProgress:
    """Progress as an event, with the place in the document that has been reached."""
    place = ""
    if document is not None and text_map is not None:
        place = document.place_at(text_map.character(step.done))
    return ReadProgress(step.done, step.total, step.tokens_per_second, step.seconds_left, step.memory, place)
