"""What a document may say about a name beside its access code: dates, people, places, amounts, phone numbers.

The harder exam hides such facts, up to three of one name, among sentences with values of the same kinds that belong to
no fact, and asks for them in several wordings. Words of people and places are split as names are (`names.split_of`).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from longmamba_mlx.evaluation.names import FIRST, LAST, SHARED, draw_word, made_up, split_of

MONTHS = "January February March April May June July August September October November December".split()
CURRENCIES = ("dollars", "pounds")
_PLACE_FORMS = ("{}", "{}", "{}", "Port {}", "New {}", "{} Street", "{} Hill", "{} Bay")


@dataclass(frozen=True, slots=True)
class Attribute:
    """One thing that a document may say of a name, in every wording: `facts` with {name} and {value}, `questions` with
    {name}. `kind` names what its values are (`VALUES`)."""

    name: str
    kind: str
    facts: tuple[str, ...]
    questions: tuple[str, ...]


def _number(noun: str, kind: str = "code") -> Attribute:
    return Attribute(
        noun, kind, (f"The {noun} of {{name}} is {{value}}.",),
        (f"What is the {noun} of {{name}}?", f"Do you know the {noun} of {{name}}?"),
    )  # fmt: skip


def _end(noun: str) -> Attribute:
    verbs = {"ends": "end", "runs out": "run out", "expires": "expire"}
    return Attribute(
        f"{noun} end", "date",
        tuple(f"The {noun} of {{name}} {verb} on {{value}}." for verb in verbs),
        (*(f"When does the {noun} of {{name}} {verb}?" for verb in verbs.values()),
         f"On what day does the {noun} of {{name}} end?"),
    )  # fmt: skip


def _event(noun: str, of: str = "of") -> Attribute:
    return Attribute(
        noun, "date",
        (f"The {noun} {of} {{name}} is on {{value}}.", f"The {noun} {of} {{name}} takes place on {{value}}."),
        (f"When is the {noun} {of} {{name}}?", f"When does the {noun} {of} {{name}} take place?",
         f"What is the date of the {noun} {of} {{name}}?"),
    )  # fmt: skip


def _made(noun: str, verb: str, participle: str, of: str = "of") -> Attribute:
    return Attribute(
        f"{noun}, {participle} by", "person", (f"The {noun} {of} {{name}} was {participle} by {{value}}.",),
        (f"Who {verb} the {noun} {of} {{name}}?", f"By whom was the {noun} {of} {{name}} {participle}?"),
    )  # fmt: skip


def _person(noun: str) -> Attribute:
    return Attribute(
        noun, "person",
        (f"The {noun} of {{name}} is {{value}}.", f"The {noun} of {{name}} is called {{value}}."),
        (f"Who is the {noun} of {{name}}?", f"What is the {noun} of {{name}} called?",
         f"What is the name of the {noun} of {{name}}?"),
    )  # fmt: skip


def _place(noun: str) -> Attribute:
    return Attribute(
        noun, "place",
        tuple(f"The {noun} of {{name}} {verb} in {{value}}." for verb in ("is", "stands", "is situated")),
        (f"Where is the {noun} of {{name}}?", f"Where does the {noun} of {{name}} stand?",
         f"In what place is the {noun} of {{name}}?"),
    )  # fmt: skip


def _amount(noun: str) -> Attribute:
    return Attribute(
        noun, "amount",
        tuple(f"The {noun} of {{name}} {verb} {{value}}." for verb in ("is", "comes to", "amounts to")),
        (f"How much is the {noun} of {{name}}?", f"What is the {noun} of {{name}}?",
         f"What does the {noun} of {{name}} come to?"),
    )  # fmt: skip


ATTRIBUTES = (
    _number("access code"), _number("account number"), _number("phone number", "phone"),
    *map(_end, ("lease", "contract", "licence", "insurance", "passport")),
    _event("appointment", "with"), _event("meeting", "with"), *map(_event, ("wedding", "birthday", "trial")),
    _made("contract", "signed", "signed"), _made("will", "signed", "signed"), _made("lease", "signed", "signed"),
    _made("letter", "wrote", "written", "to"), _made("report", "wrote", "written", "on"),
    *map(_person, ("doctor", "lawyer", "teacher", "landlord", "manager")),
    *map(_place, ("office", "house", "shop", "school", "grave")),
    *map(_amount, ("rent", "debt", "salary", "fee", "bill")),
)  # fmt: skip

# The same kinds with nouns that no built-in model was trained on.
UNSEEN = (
    _number("vault code"), _number("mobile number", "phone"), _end("guarantee"), _event("concert"),
    _made("portrait", "painted", "painted"), _person("gardener"), _place("warehouse"), _amount("pension"),
)  # fmt: skip

# Sentences with values of the same kinds, some about a name, that answer none of the questions.
DISTRACTIONS: dict[str, tuple[str, ...]] = {
    "code": ("There were {value} of them.", "{name} had counted {value} sheep."),
    "phone": ("Someone had written {value} on the wall.", "{name} could not remember {value} at all."),
    "date": ("It had rained since {value}.", "Nobody saw {name} again before {value}."),
    "person": ("They met {value} at the door.", "{name} had never liked {value}."),
    "place": ("He had walked all the way from {value}.", "{name} had dreamt of {value}."),
    "amount": ("The whole supper cost {value}.", "{name} once lost {value} at cards."),
}


def code(rng: random.Random, _split: str, _common: list[str]) -> str:
    return f"{rng.randrange(100_000):05d}"


def phone(rng: random.Random, _split: str, _common: list[str]) -> str:
    return f"{rng.randrange(200, 1000)}-{rng.randrange(10_000):04d}"


def date(rng: random.Random, _split: str, _common: list[str]) -> str:
    """ "14 March" or "14 March 1987"."""
    day = f"{rng.randint(1, 28)} {rng.choice(MONTHS)}"
    return day if rng.random() < 0.5 else f"{day} {rng.randint(1800, 2049)}"


def amount(rng: random.Random, _split: str, _common: list[str]) -> str:
    """Two to five digits, with a comma after the thousands."""
    return f"{rng.randrange(10, 10 ** rng.randint(2, 5)):,} {rng.choice(CURRENCIES)}"


def person(rng: random.Random, split: str, common: list[str]) -> str:
    """One or two words, a given name first where there are two."""
    last = _word(lambda: rng.choice(LAST) if rng.random() < 0.5 else draw_word(rng, common), split)
    if rng.random() < 0.4:
        return last
    return f"{_word(lambda: rng.choice(FIRST), split)} {last}"


def place(rng: random.Random, split: str, common: list[str]) -> str:
    """An invented town, or one made of a common word or surname, some with "Port", "Street" or the like."""

    def draw() -> str:
        dice = rng.random()
        return made_up(rng) if dice < 0.5 else rng.choice(LAST) if dice < 0.75 else rng.choice(common).capitalize()

    return rng.choice(_PLACE_FORMS).format(_word(draw, split))


def _word(draw: Callable[[], str], split: str) -> str:
    while True:
        text = draw()
        if split_of(text) == split and text not in SHARED and any(c.isalpha() for c in text):
            return text


# How the values of each kind are drawn: (random numbers, split of the words, common words) -> value.
VALUES: dict[str, Callable[[random.Random, str, list[str]], str]] = {
    "code": code, "phone": phone, "date": date, "person": person, "place": place, "amount": amount,
}  # fmt: skip
