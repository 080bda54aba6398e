"""Sequences of the harder exam: several attributes of a name, several wordings, and values that belong to no fact.

The names, fillers and questions are those of `data.py`; what is new are the attributes of `evaluation/attributes.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from data import ABSENT, DIGIT, DIGIT1, END, FACT, FILLER, NUMBER, PROMPT, Pack, Sampler, Shape, integers
from torch import Tensor

MOST_OF_ONE_NAME = 3
NARROW = 4  # attributes of a document that has few of them
STRANGER, UNSAID = 100, 200


@dataclass(frozen=True, eq=False)
class ExamShape(Shape):
    """`others` sentences at most with values of no fact; `about` an attribute that every question is about, or -1;
    `other_attribute` the share of refusals that ask for what is not said of a name that is there."""

    others: int = 4
    about: int = -1
    other_attribute: float = 0.5

    @property
    def length(self) -> int:
        return self.tokens + self.questions * (26 if self.words == 1 else 30)


class ExamSampler(Sampler):
    """Draws batches of one shape from one split."""

    def __init__(self, pack: Pack, shape: ExamShape, split: str) -> None:
        super().__init__(pack, shape, split)
        self.exam = shape
        self.values = pack.tables[f"exam_values_{split}"]
        device = pack.device
        self.fact_kinds = torch.tensor([FILLER] + [FACT] * 8, device=device)
        self.other_kinds = torch.tensor([FILLER] + [NUMBER] * 8, device=device)
        self.ask_kinds = torch.tensor([FILLER] + [PROMPT] * 7 + [DIGIT1, ABSENT, END], device=device)

    def plan(self, batch: int, facts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Who every fact is about, its attribute, and one that is not said of that name: (batch, most) each."""
        device, most, count = self.pack.device, self.shape.facts, len(self.pack.tables["exam_kinds"])
        rows = torch.arange(batch, device=device)[:, None]
        each = 1 + integers(MOST_OF_ONE_NAME, (batch, 1), device) * (torch.rand(batch, 1, device=device) < 0.6)
        index = torch.arange(most, device=device)[None]
        entity = index // each
        # Few attributes in some documents, or of few kinds, so that what is asked is said of another name.
        by_kind = torch.rand(batch, len(self.values), device=device)[:, self.pack.tables["exam_kinds"]]
        alike = (torch.rand(batch, 1, device=device) < 0.5) * 100.0
        order = (by_kind * alike + torch.rand(batch, count, device=device)).argsort(1).argsort(1)
        narrow = (torch.rand(batch, 1, device=device) < 0.5) & (order >= NARROW)
        score = torch.rand(batch, most, count, device=device) + 2.0 * narrow[:, None]
        if self.exam.about >= 0:  # the first name's first fact
            score[:, 0, self.exam.about] = -1.0
        ranked = score.argsort(2)
        attribute = ranked[rows, entity, index % each]
        missing = ranked[rows, entity, torch.minimum(each, facts - entity * each).clamp(min=1)]
        # Or one attribute only: the name decides.
        alone = (torch.rand(batch, 1, device=device) < 0.5) & (each == 1)
        same = attribute[:, :1].expand(-1, most)
        other = (same + 1 + integers(count - 1, (batch, most), device)) % count
        return entity, torch.where(alone, same, attribute), torch.where(alone, other, missing)

    def batch(self, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, kinds (both (batch, length)) and the place where the document ends (batch,)."""
        return self.draw(batch)[:3]

    def draw(self, batch: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The same, and what every question is about (batch, questions): an attribute, less STRANGER of a name that is
        not there, less UNSAID of one of which it is not said."""
        shape, device = self.exam, self.pack.device
        most = shape.facts
        facts = shape.min_facts + integers(most - shape.min_facts + 1, (batch, 1), device)
        names = self.names(batch, most + shape.questions)
        entity, attribute, missing = self.plan(batch, facts)
        value = self.draw_values(self.pack.tables["exam_kinds"][attribute])
        sentences = torch.cat([self.facts(facts, names, entity, attribute, value), self.others(names)], 1)
        kinds = torch.cat([self.fact_kinds.expand(most, -1), self.other_kinds.expand(shape.others, -1)])
        mixed = torch.rand(batch, most + shape.others, device=device).argsort(1)
        sentences, kinds = sentences.gather(1, mixed[..., None, None].expand_as(sentences)), kinds[mixed]
        asks, about = self.questions(facts, names, entity, attribute, missing, value)
        document, tokens = self.in_filler(sentences)
        last = torch.cat([self.ask_kinds[:1], self.ask_kinds[1:].repeat(shape.questions)]).expand(batch, -1)
        ids, kind = self.lay_out(torch.cat([document, asks], 1), torch.cat([kinds.flatten(1), last], 1))
        # Only the first token of a value is found by its name alone.
        follows = torch.zeros_like(kind, dtype=torch.bool)
        follows[:, 1:] = (kind[:, 1:] == DIGIT1) & (kind[:, :-1] == DIGIT1)
        kind.masked_fill_(follows, DIGIT)
        if shape.numbers is not None:
            self.strew_numbers(ids, kind)
        return ids, kind, tokens, about

    def draw_values(self, kind: Tensor) -> Tensor:
        """A value of each kind: (batch, n) -> (batch, n, 1, 2)."""
        return self.values[kind, integers(self.values.shape[1], tuple(kind.shape), self.pack.device)][:, :, None]

    def facts(self, facts: Tensor, names: Tensor, entity: Tensor, attribute: Tensor, value: Tensor) -> Tensor:
        """(batch, most, 8, 2): before the name, three words, before the value, the value, nothing, a full stop."""
        wording, device = self.pack.tables["exam_facts"], self.pack.device
        form, lead = (integers(wording.shape[i], tuple(attribute.shape), device) for i in (1, 2))
        texts, dot = wording[attribute, form, lead], self.pack.tables["marks"][-1].expand_as(value)
        words = names.gather(1, entity[..., None, None].expand(-1, -1, 3, 2))
        fact = torch.cat([texts[:, :, :1], words, texts[:, :, 1:], value, torch.zeros_like(value), dot], 2)
        fact[..., 1] *= (torch.arange(attribute.shape[1], device=device)[None] < facts)[..., None]
        return fact

    def others(self, names: Tensor) -> Tensor:
        """(batch, others, 8, 2): sentences of no fact, cut alike, every second about a name."""
        wording, device, size = self.pack.tables["exam_others"], self.pack.device, (len(names), self.exam.others)
        kind, lead, form = (integers(wording.shape[i], size, device) for i in range(3))
        texts, value = wording[kind, lead, form], self.draw_values(kind)
        who = integers(names.shape[1], size, device)
        words = names.gather(1, who[..., None, None].expand(-1, -1, 3, 2)).clone()
        words[..., 1] *= (form == 1)[..., None]
        dot = self.pack.tables["marks"][-1].expand_as(value)
        other = torch.cat([texts[:, :, :1], words, texts[:, :, 1:2], value, texts[:, :, 2:], dot], 2)
        said = integers(size[1] + 1, (size[0], 1), device)
        other[..., 1] *= (torch.arange(size[1], device=device)[None] < said)[..., None]
        return other

    def in_filler(self, sentences: Tensor) -> tuple[Tensor, Tensor]:
        """The document's segments (batch, m, 2), with filler before, between and after; its length (batch,)."""
        batch, count, device, tokens = len(sentences), sentences.shape[1], self.pack.device, self.exam.tokens
        room = (tokens - sentences[..., 1].sum((1, 2))).clamp(min=0)
        cuts = (torch.sort(torch.rand(batch, count, device=device), 1).values * room[:, None]).long()
        edges = torch.cat([torch.zeros_like(cuts[:, :1]), cuts, room[:, None]], 1)
        low, high = self.filler
        base = low + integers(high - low - tokens - 1, (batch, 1), device)
        filler = torch.stack([base + edges[:, :-1], edges[:, 1:] - edges[:, :-1]], -1)
        document = torch.cat([torch.cat([filler[:, :-1, None], sentences], 2).flatten(1, 2), filler[:, -1:]], 1)
        return document, document[..., 1].sum(1)

    def questions(
        self, facts: Tensor, names: Tensor, entity: Tensor, attribute: Tensor, missing: Tensor, value: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Segments (batch, 10 a question, 2), and what every question is about as `draw` tells it."""
        shape, device, (batch, most) = self.exam, self.pack.device, attribute.shape
        asked, wording = shape.questions, self.pack.tables["exam_questions"]
        end, question, answer, absent, _, _ = self.pack.tables["marks"]
        # Every fact is asked for before any is asked again: an answer could be copied from the one before.
        lots = torch.rand(batch, most, device=device) + 1.0 * (torch.arange(most, device=device)[None] >= facts)
        which = lots.argsort(1).gather(1, torch.arange(asked, device=device)[None] % facts) * (shape.about < 0)
        dice = torch.rand(batch, asked, device=device)
        stranger = dice < shape.absent * (1 - shape.other_attribute)
        unsaid = (dice < shape.absent) & ~stranger
        spare = most + torch.arange(asked, device=device)[None]
        slot = torch.where(stranger, spare, entity.gather(1, which))
        about = torch.where(unsaid, missing.gather(1, which), attribute.gather(1, which))
        texts = wording[about, integers(wording.shape[1], (batch, asked), device)]
        words = names.gather(1, slot[..., None, None].expand(-1, -1, 3, 2))
        gone = (stranger | unsaid)[..., None]
        reply = value.gather(1, which[..., None, None].expand(-1, -1, 1, 2)).clone()
        reply[..., 1] *= ~gone

        def fixed(mark: Tensor) -> Tensor:
            return mark.expand(batch, asked, 1, 2)

        silent = fixed(absent).clone()
        silent[..., 1] *= gone
        asks = [fixed(question), texts[:, :, :1], words, texts[:, :, 1:], fixed(answer), reply, silent, fixed(end)]
        return torch.cat(asks, 2).flatten(1, 2), about - STRANGER * stranger.long() - UNSAID * unsaid.long()
