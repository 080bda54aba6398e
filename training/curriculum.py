"""The stages of a training: which shapes it draws its sequences from, and when it moves on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from data import Pack, Sampler, Shape
from exam import ExamSampler, ExamShape

Mix = list[tuple[Shape, float]]

ONE = Shape(40, 2, 2, words=1, pieces=1, absent=0.0, attributes=0.0, sharing=0.0)
START = {
    "mamba2": (
        (ONE, 0.85),
        (replace(ONE, tokens=64, facts=3, min_facts=2), 0.9),
        (replace(ONE, tokens=96, facts=4, questions=3, min_facts=2), 0.9),
    ),
    "mamba1": (
        (replace(ONE, digits=1, questions=3), 0.85),
        (replace(ONE, tokens=64, facts=3, min_facts=2, questions=3, digits=1), 0.9),
        (replace(ONE, tokens=96, facts=5, min_facts=3, questions=4, digits=1), 0.9),
        (replace(ONE, tokens=64, facts=3, min_facts=1), 0.85),
        (replace(ONE, tokens=96, facts=4, questions=3, min_facts=2), 0.85),
    ),
}
THEN = (
    (replace(ONE, tokens=160, facts=5, questions=4, absent=0.1), 0.88),
    (replace(ONE, tokens=160, facts=5, questions=4, pieces=3, absent=0.1), 0.88),
    (replace(ONE, tokens=160, facts=6, questions=5, pieces=6, absent=0.12, words=2, sharing=0.1), 0.85),
    (Shape(256, 8, 6, pieces=8, sharing=0.25), 0.85),
)
# The harder exam: stages of its own after those above, then a share of the last one.
EXAM_THEN = (
    (ExamShape(128, 3, 6, words=1, pieces=4, sharing=0.0, absent=0.1, others=1, other_attribute=0.2), 0.8),
    (ExamShape(192, 5, 8, words=2, pieces=8, sharing=0.2, absent=0.15, others=2), 0.8),
)
EXAM_FINAL = (
    (ExamShape(192, 4, 8, min_facts=2), 0.35),
    (ExamShape(256, 5, 8, min_facts=2), 0.35),
    (ExamShape(512, 6, 10, min_facts=2), 0.3),
)
FINAL = ((Shape(160, 6, 6), 0.2), (Shape(256, 8, 8), 0.3), (Shape(512, 12, 10), 0.5))


def stages(kind: str, *, exam: bool) -> tuple[tuple[Shape, float], ...]:
    """The shapes of the stages before the last one, and what share of first digits ends each."""
    return (*START[kind], *THEN, *(EXAM_THEN if exam else ()))


def shapes(kind: str, stage: int, *, most: int, exam: float, **asked: Any) -> Mix:
    """What a stage draws from, and how often: at most `most` facts, `exam` the share of the harder exam.

    `asked` are fields of the last stage's shapes.
    """
    before = stages(kind, exam=bool(exam))

    def last(mix: tuple[tuple[Shape, float], ...], part: float) -> Mix:
        limited = [(replace(shape, facts=min(shape.facts, most), **asked), share * part) for shape, share in mix]
        return [(shape, share) for shape, share in limited if share]

    if stage >= len(before):
        return last(FINAL, 1 - exam) + last(EXAM_FINAL, exam)
    shape = before[stage][0]
    return [*last(FINAL, 1 - exam), (shape, exam)] if isinstance(shape, ExamShape) else [(shape, 1.0)]


def sampler_of(pack: Pack, shape: Shape, split: str = "train") -> Sampler:
    return ExamSampler(pack, shape, split) if isinstance(shape, ExamShape) else Sampler(pack, shape, split)
