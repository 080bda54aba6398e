"""Make the tokenizer and the token pool that training reads: `python training/pack.py BOOKS OUT`.

BOOKS holds public-domain texts (Project Gutenberg). Two of them are never trained on: one for development, one for
the reported test.
"""

from __future__ import annotations

import random
import re
import sys
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from longmamba_mlx.evaluation.attributes import ATTRIBUTES as EXAM
from longmamba_mlx.evaluation.attributes import DISTRACTIONS, VALUES
from longmamba_mlx.evaluation.names import PLACES, TITLES, common_words, draw_pairs, draw_word

TRAIN_BOOKS = ("war-and-peace", "moby-dick", "pride-and-prejudice", "two-cities", "sherlock-holmes", "alice")
HELD_OUT = {"dev": "treasure-island", "test": "frankenstein"}
VOCABULARY = 2048
ABSENT = " The document does not say."
SPECIAL = ("<|end|>", "\nQuestion:", "?\nAnswer:", ABSENT)
ATTRIBUTES = (
    "access code", "locker number", "account number", "badge number", "ticket number", "serial number", "door code",
    "file number",
)  # fmt: skip
LEADS = (" ", "\n\n", "")
FORMS = 12  # wordings of an attribute: a multiple of how many it has
WORDS = {"train": 120_000, "dev": 4_000, "test": 4_000}
VALUES_OF_A_KIND = {"train": 40_000, "dev": 4_000, "test": 4_000}
LONGEST_VALUE = 11  # tokens


def train_tokenizer(texts: list[str]) -> Tokenizer:
    """Byte-level BPE. A single line break is a space (wrapped and flowing text read alike); each digit is a token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex("[‘’]"), "'"),
            normalizers.Replace(Regex("[“”]"), '"'),
            normalizers.Replace(Regex(r"[ \t]*\n[ \t]*(\n[ \t]*)+"), "\n\n"),
            normalizers.Replace(Regex(r"(?<!\n)\n(?!\n)"), " "),
            normalizers.Replace(Regex(r"[ \t]{2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?\d"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    # Names are half of what the pieces must spell, so the merges see some of them beside the books.
    rng = random.Random(0)
    common = common_words(texts)
    names = "\n\n".join(" " + draw_word(rng, common) for _ in range(40_000))
    digits = "".join(f" {rng.randrange(10)}" for _ in range(400_000))  # so that " 4" is one token
    tokenizer.train_from_iterator([*texts, names, digits], trainer)
    tokenizer.add_special_tokens([AddedToken(SPECIAL[0], normalized=False, special=True)])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in SPECIAL[1:]])
    if tokenizer.get_vocab_size() > VOCABULARY:
        raise SystemExit(f"vocabulary of {tokenizer.get_vocab_size()} tokens, wanted {VOCABULARY}")
    return tokenizer


class Pool:
    """One flat array of tokens; every part of a training sequence is a (pointer, length) into it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.parts: list[np.ndarray] = []
        self.size = 0

    def add_ids(self, ids: list[int]) -> tuple[int, int]:
        self.parts.append(np.asarray(ids, np.int16))
        self.size += len(ids)
        return self.size - len(ids), len(ids)

    def add(self, texts: list[str]) -> np.ndarray:
        """(n, 2) pointers and lengths of the texts."""
        encoded = self.tokenizer.encode_batch(texts, add_special_tokens=False)
        return np.asarray([self.add_ids(item.ids) for item in encoded], np.int32)


def clean(text: str) -> str:
    text = re.sub(r"\r\n?", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text)


def exam_arrays(pool: Pool, common: list[str]) -> dict[str, np.ndarray]:
    """The attributes of the harder exam: wordings cut at name and value, and values by split.

    `exam_facts` (attributes, FORMS, leads, 2 parts, 2): before the name, and between name and value; `exam_questions`
    (attributes, FORMS, 2 parts, 2): before and after the name; `exam_kinds` (attributes,); `exam_others` (kinds,
    leads, 2 wordings, 3 parts, 2): the sentences that answer nothing, cut alike, the last part after the value;
    `exam_values_SPLIT` (kinds, n, 2). Wordings are repeated where an attribute has fewer than FORMS.
    """
    kinds = list(VALUES)

    def add(texts: list[str], *shape: int) -> np.ndarray:
        return pool.add(texts).reshape(*shape, 2)

    facts = [part for item in EXAM for form in range(FORMS) for lead in LEADS
             for part in parts(lead + item.facts[form % len(item.facts)])[:2]]  # fmt: skip
    questions = [part for item in EXAM for form in range(FORMS)
                 for part in named(" " + item.questions[form % len(item.questions)])]  # fmt: skip
    others = [part for kind in kinds for lead in LEADS for text in DISTRACTIONS[kind] for part in parts(lead + text)]
    arrays = {
        "exam_facts": add(facts, len(EXAM), FORMS, len(LEADS), 2),
        "exam_questions": add(questions, len(EXAM), FORMS, 2),
        "exam_others": add(others, len(kinds), len(LEADS), 2, 3),
        "exam_kinds": np.asarray([kinds.index(item.kind) for item in EXAM], np.int32),
    }
    for seed, (split, count) in enumerate(VALUES_OF_A_KIND.items()):
        rng = random.Random(seed)
        drawn = [pool.add([f" {draw(rng, split, common)}" for _ in range(2 * count)]) for draw in VALUES.values()]
        arrays[f"exam_values_{split}"] = np.stack([v[v[:, 1] <= LONGEST_VALUE][:count] for v in drawn])
    return arrays


def named(text: str) -> tuple[str, str]:
    """What stands before and after " {name}", without the question mark."""
    before, _, after = text.partition(" {name}")
    return before, after.removesuffix("?")


def parts(text: str) -> tuple[str, str, str]:
    """What stands before the name, between name and value, and after the value, up to the full stop."""
    before, _, rest = text.rpartition("{name}")
    before = before.removesuffix(" ")  # a name's own first token carries it
    middle, _, after = rest.partition(" {value}")
    return before, middle, after.removesuffix(".")


def main(books: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    texts = {p.stem: clean(p.read_text(encoding="utf-8-sig")) for p in sorted(books.glob("*.txt"))}
    train_texts = [texts[name] for name in TRAIN_BOOKS]
    tokenizer = train_tokenizer(train_texts)
    tokenizer.save(str(out / "tokenizer.json"))
    pool = Pool(tokenizer)
    arrays: dict[str, np.ndarray] = {}
    for split, names in {"train": TRAIN_BOOKS, **{k: (v,) for k, v in HELD_OUT.items()}}.items():
        spans = pool.add([texts[name] for name in names])
        arrays[f"filler_{split}"] = np.asarray([spans[0, 0], spans[-1].sum()], np.int32)
    common = common_words(train_texts)
    for seed, (split, count) in enumerate(WORDS.items()):
        pairs = draw_pairs(split, count // 2, common, seed)
        arrays[f"words_{split}"] = pool.add([f" {w}" for pair in pairs for w in pair])
    single = [t for t in tokenizer.get_vocab() if re.fullmatch("Ġ[A-Za-z]{2,}", t)]
    arrays["words_single"] = pool.add([" " + t[1:] for t in sorted(single)[: len(single) // 2 * 2]])
    arrays["titles"] = pool.add([f" {w}" for w in TITLES])
    arrays["places"] = pool.add([f" {w}" for w in PLACES])
    arrays["numbers"] = pool.add([f" {i}" for i in range(1, 100)])
    arrays["digits"] = pool.add([*(f" {i}" for i in range(10)), *(str(i) for i in range(10))])
    arrays["facts"] = pool.add([f"{lead}The {attribute} of" for attribute in ATTRIBUTES for lead in LEADS])
    arrays["questions"] = pool.add([f" What is the {attribute} of" for attribute in ATTRIBUTES])
    arrays |= exam_arrays(pool, common)
    arrays["marks"] = pool.add([*SPECIAL, " is", "."])
    arrays["pool"] = np.concatenate(pool.parts)
    part = out / "part.npz"
    np.savez_compressed(part, **arrays)
    part.replace(out / "pack.npz")
    lengths = arrays["words_train"][:, 1]
    print(f"vocabulary {tokenizer.get_vocab_size()}, pool {pool.size:,} tokens, train words {len(lengths):,} of "
          f"{lengths.mean():.2f} pieces (max {lengths.max()})")  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
