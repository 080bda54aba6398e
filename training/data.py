"""Training and evaluation sequences, assembled on the device: every part is a (pointer, length) into one token pool.

A sequence is: filler and facts in turn ("The access code of NAME is 48213."), then questions with their answers
("\\nQuestion: What is the access code of NAME?\\nAnswer: 48213<|end|>", or that the document does not say).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

KINDS = 9
FILLER, FACT, PROMPT, DIGIT1, DIGIT, END, ABSENT, PAD, NUMBER = range(KINDS)


@dataclass(frozen=True, eq=False)
class Shape:
    """One kind of sequence: `tokens` of document, at most `facts` facts, `questions` questions.

    `most`, `numbers` and `density` may be tensors (batch, 1), one value a sequence.
    """

    tokens: int
    facts: int
    questions: int
    words: int = 3  # at most so many words a name
    pieces: int = 12  # at most so many tokens a word
    min_facts: int = 1
    absent: float = 0.15
    attributes: float = 0.25
    sharing: float = 0.4
    digits: int = 5
    most: int | Tensor | None = None  # facts drawn, where that is less than there is room for
    numbers: float | Tensor | None = None  # share of sequences whose filler is full of numbers that nobody asks for
    density: float | Tensor = 0.1  # of those numbers: at most so many a token

    @property
    def length(self) -> int:
        return self.tokens + self.questions * (19 if self.words == 1 and self.pieces <= 2 else 25)


class Pack:
    """The arrays of `pack.py` on a device."""

    def __init__(self, path: Path, device: str) -> None:
        self.device = device
        arrays = np.load(path)
        self.pool = torch.as_tensor(arrays["pool"].astype(np.int64), device=device)
        self.tables = {k: torch.as_tensor(v.astype(np.int64), device=device) for k, v in arrays.items() if k != "pool"}

    def words(self, split: str, pieces: int) -> Tensor:
        """The words of at most `pieces` tokens, as neighbouring pairs that differ in one letter."""
        table = self.tables["words_single" if pieces == 1 else f"words_{split}"]
        pairs = table.view(-1, 2, 2)
        return pairs[(pairs[:, :, 1] <= pieces).all(1)]


def integers(high: int | Tensor, size: tuple[int, ...], device: str) -> Tensor:
    # torch.randint cannot be captured with a tensor bound; a scaled uniform can.
    return (torch.rand(size, device=device) * high).long()


class Sampler:
    """Draws batches of one shape from one split."""

    def __init__(self, pack: Pack, shape: Shape, split: str) -> None:
        self.pack, self.shape, self.split = pack, shape, split
        self.pairs = pack.words(split, shape.pieces)
        self.filler = pack.tables[f"filler_{split}"].tolist()
        fact = [FILLER] + [FACT] * 11
        ask = [PROMPT] * 6 + [DIGIT1] + [DIGIT] * 4 + [ABSENT, END]
        kinds = fact * shape.facts + [FILLER] + ask * shape.questions
        self.kinds = torch.tensor(kinds, device=pack.device)

    def names(self, batch: int, count: int) -> Tensor:
        """(batch, count, 3, 2) pointers and lengths of the words of `count` names a sequence."""
        device, tables = self.pack.device, self.pack.tables

        def chance(p: float, *size: int) -> Tensor:
            return torch.rand(size, device=device) < p

        def word(*size: int) -> Tensor:
            index = integers(len(self.pairs), size, device)
            return self.pairs[index, integers(2, size, device)]

        first, second, third = word(batch, count), word(batch, count), word(batch, count)
        # Hard cases: one letter off the neighbour; a shared first word; a shared last word.
        pair = integers(len(self.pairs), (batch, 1), device)
        slot = torch.arange(count, device=device)[None] % 2
        close = chance(0.1 * self.shape.sharing, batch, 1) & (torch.arange(count, device=device)[None] < 2)
        first = torch.where(close[..., None], self.pairs[pair.expand(-1, count), slot.expand(batch, -1)], first)
        if self.shape.words == 1:
            rest = torch.zeros_like(second)
            return torch.stack([first, rest, rest], 2)
        first = torch.where(chance(self.shape.sharing * 0.4, batch, 1)[..., None], first[:, :1], first)
        second = torch.where(chance(self.shape.sharing * 0.5, batch, 1)[..., None], second[:, :1], second)
        title = tables["titles"][integers(len(tables["titles"]), (batch, count), device)]
        first = torch.where(chance(0.12, batch, count)[..., None], title, first)
        # "Unit 7": one place a sequence, different numbers.
        place = tables["places"][integers(len(tables["places"]), (batch, 1), device)].expand(-1, count, -1)
        start, step = integers(99, (batch, 1), device), 1 + integers(8, (batch, 1), device)
        number = tables["numbers"][(start + step * torch.arange(count, device=device)[None]) % 99]
        numbered = (chance(0.12, batch, 1) & chance(0.8, batch, count))[..., None]
        placed = (chance(0.10, batch, 1) & chance(0.8, batch, count))[..., None]
        first = torch.where(numbered | placed, place, first)
        second = torch.where(numbered, number, second)
        words = torch.stack([first, second, third], 2)
        kinds = torch.rand((batch, count), device=device)
        two = (kinds < 0.45)[..., None] | numbered | placed
        three = ((kinds < 0.08) & (self.shape.words > 2))[..., None] & ~numbered
        words[:, :, 1] *= two
        words[:, :, 2] *= three
        return words

    def batch(self, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, kinds (both (batch, length)) and the place where the document ends (batch,)."""
        shape, tables, device = self.shape, self.pack.tables, self.pack.device
        marks, most = tables["marks"], shape.facts
        end, question, answer, absent, is_, dot = marks
        asked = shape.questions
        names = self.names(batch, most + asked)
        drawn = most if shape.most is None else shape.most
        facts = shape.min_facts + integers(drawn - shape.min_facts + 1, (batch, 1), device)
        alive = torch.arange(most, device=device)[None] < facts
        plain = torch.rand((batch, 1), device=device) >= shape.attributes
        kinds_of_fact = len(tables["questions"])
        attribute = integers(kinds_of_fact, (batch, most + asked), device) * ~plain
        lead = integers(3, (batch, most), device)
        digits = integers(10, (batch, most, 5), device)
        spelled = torch.cat([tables["digits"][digits[..., :1]], tables["digits"][10 + digits[..., 1:]]], 2)
        spelled[:, :, shape.digits :, 1] = 0

        def fixed(mark: Tensor, count: int) -> Tensor:
            return mark.expand(batch, count, 1, 2)

        # Facts: lead-in, name, " is", digits, full stop.
        fact = torch.cat(
            [tables["facts"][attribute[:, :most] * 3 + lead][:, :, None], names[:, :most],
             fixed(is_, most), spelled, fixed(dot, most)], 2,
        )  # fmt: skip
        fact[..., 1] *= alive[..., None]
        room = (shape.tokens - fact[..., 1].sum((1, 2))).clamp(min=0)
        cuts = torch.sort(torch.rand((batch, most), device=device), 1).values
        cuts = torch.where(alive, cuts, 1.0)
        cuts = torch.sort(cuts, 1).values  # dead facts sit at the end, with no length
        edges = (cuts * room[:, None]).long()
        edges = torch.cat([torch.zeros_like(edges[:, :1]), edges, room[:, None]], 1)
        low, high = self.filler
        base = low + integers(high - low - shape.tokens - 1, (batch, 1), device)
        filler = torch.stack([base + edges[:, :-1], edges[:, 1:] - edges[:, :-1]], -1)

        # Questions: about a fact, or about a name that is not there.
        which = (torch.rand((batch, asked), device=device) * facts).long()
        gone = (torch.rand((batch, asked), device=device) < shape.absent) | (facts == 0)
        rows = torch.arange(batch, device=device)[:, None]
        spare = most + torch.arange(asked, device=device)[None]
        slot = torch.where(gone, spare, which)
        named, about = names[rows, slot], attribute[rows, slot]
        replies = spelled[rows, which.clamp(max=most - 1)].clone()
        replies[..., 1] *= ~gone[..., None]
        silent = fixed(absent, asked).clone()
        silent[..., 1] *= gone[..., None]
        asks = torch.cat(
            [fixed(question, asked), tables["questions"][about][:, :, None], named, fixed(answer, asked),
             replies, silent, fixed(end, asked)], 2,
        )  # fmt: skip
        doc = torch.cat([filler[:, :-1, None], fact], 2).flatten(1, 2)
        segments = torch.cat([doc, filler[:, -1:], asks.flatten(1, 2)], 1)
        tokens, kind = self.lay_out(segments, self.kinds)
        if shape.numbers is not None:
            self.strew_numbers(tokens, kind)
        return tokens, kind, doc[..., 1].sum(1) + filler[:, -1, 1]

    def strew_numbers(self, tokens: Tensor, kind: Tensor) -> None:
        """Put numbers of one to four digits in the place of filler, in some sequences up to `density` a token.

        No loss looks at them: a book's digits cannot be foretold.
        """
        device, digits = tokens.device, self.pack.pool[self.pack.tables["digits"][:, 0]]
        batch, length = tokens.shape
        chosen = torch.rand((batch, 1), device=device) < self.shape.numbers
        often = chosen * self.shape.density * torch.rand((batch, 1), device=device)
        starts = (torch.rand((batch, length), device=device) < often) & (kind == FILLER)
        place = torch.arange(length, device=device).expand(batch, -1)
        started = torch.where(starts, place, -1).cummax(1).values
        count = (1 + integers(4, (batch, length), device)).gather(1, started.clamp(min=0))
        inside = (started >= 0) & (place - started < count) & (kind == FILLER)
        spelled = digits[integers(10, (batch, length), device) + 10 * (place > started)]
        tokens.copy_(torch.where(inside, spelled, tokens))
        kind.masked_fill_(inside, NUMBER)

    def lay_out(self, segments: Tensor, kinds: Tensor) -> tuple[Tensor, Tensor]:
        """Copy the segments (batch, m, 2) one after the other into (batch, length) tokens; kinds (m,) or (batch, m)."""
        ends = segments[..., 1].cumsum(1)
        place = torch.arange(self.shape.length, device=ends.device).expand(len(ends), -1).contiguous()
        m = torch.searchsorted(ends, place, right=True)
        beyond = m >= ends.shape[1]
        m = m.clamp(max=ends.shape[1] - 1)
        start = (ends - segments[..., 1]).gather(1, m)
        pointer = segments[..., 0].gather(1, m) + place - start
        tokens = self.pack.pool[pointer.clamp(max=len(self.pack.pool) - 1)]
        kind = torch.where(beyond, PAD, kinds.expand(len(ends), -1).gather(1, m))
        return torch.where(beyond, 0, tokens), kind
