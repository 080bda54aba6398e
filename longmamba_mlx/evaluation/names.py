"""The open vocabulary of names: made-up, real, common, spelled-out and numbered words, split by a hash.

A name is one to three words. The built-in models were trained on names of the split "train" only, chosen on "dev" and
are reported on "test"; titles, places and numbers ("Unit 7", "Dr. Hale") are shared by all splits, as in life.
Not for anything secret: the random numbers are reproducible on purpose.
"""

from __future__ import annotations

import random
import re
import zlib
from collections import Counter

FIRST = (
    "Adam Agnes Ahmed Alan Albert Alice Amara Amelia Amina Anders Andrea Anna Anton Arthur Astrid Aziz "
    "Beatrice Ben Bianca Boris Brenda Bruno Camila Carla Carlos Cecil Chen Clara Claude Conrad Cora Cyrus "
    "Daisy Dana Daniel Darius Diana Diego Dmitri Dora Edgar Edith Elena Eli Elsa Emil Emma Enrico Erik "
    "Esther Eva Fatima Felix Fiona Flora Frank Freya Gabriel George Gerda Gina Gloria Greta Grace Hanna "
    "Harold Hassan Hector Helen Henry Hugo Ida Igor Ines Ingrid Irene Isaac Ivan Ivy Jack Jakob James "
    "Jana Jasper Javier Jean Joan Johan Jonas Jorge Julia Kamal Karen Karl Kenji Kira Klara Kofi Lara "
    "Laura Layla Lena Leon Liam Lidia Linda Louis Lucia Luka Lydia Mabel Magda Malik Marco Margaret Maria "
    "Mark Marta Martin Maya Mei Mia Milo Mina Miriam Mona Nadia Naomi Nathan Nina Noah Nora Olga Oliver "
    "Omar Oscar Otto Pablo Paula Pavel Pedro Peter Petra Philip Priya Quentin Rachel Rafael Ralph Ravi "
    "Rebecca Rhea Rita Robert Rosa Ruth Salma Samuel Sanjay Sara Selma Sergei Sheila Silas Simon Sofia "
    "Stefan Stella Susan Sven Tamar Tariq Teresa Thomas Tina Tobias Uma Ursula Vera Victor Viktor Vincent "
    "Walter Wanda Wendy Wilma Xavier Yara Yuki Yusuf Zara Zeno"
).split()
LAST = (
    "Abbott Adler Ahmadi Alvarez Anders Archer Bakker Baldwin Barnes Becker Bell Bennett Berg Bishop "
    "Blake Bloom Borg Bowen Boyd Brandt Brooks Burke Byrne Campbell Carver Castro Chan Chopra Clarke "
    "Cohen Cole Conway Costa Crane Cruz Dalton Davies Delgado Diaz Dixon Doyle Drake Duarte Dubois Dunn "
    "Eklund Ellis Engel Espinoza Evans Falk Farrow Fischer Fleming Fletcher Ford Foster Fox Fraser "
    "Fuentes Gallagher Garcia Gibson Gomez Grant Greene Griffin Haas Hale Hansen Harper Hart Hayes "
    "Henriksen Herrera Holm Holt Horvath Howell Hughes Hunt Ibarra Ibrahim Jansen Jarvis Jensen Kane "
    "Kapoor Keller Kelly Khan Kim Klein Knight Kovacs Kramer Lang Larsen Lee Lemaire Levy Lind Lopez Lund "
    "Lynch Marsh Mason Mehta Mendes Meyer Miles Mills Moreau Moreno Morgan Moss Muller Murphy Nash "
    "Navarro Nelson Neumann Nielsen Nolan Norris Novak Okafor Olsen Ortega Osborne Palmer Park Parker "
    "Patel Pearce Perez Petrov Pierce Pope Porter Quinn Ramos Reed Reyes Rhodes Rios Rivera Rojas Rossi "
    "Rowe Russo Ryan Sanders Santos Sato Schmidt Sharma Shaw Silva Singh Sloan Snow Soto Stark Stein "
    "Stone Suzuki Swan Tanaka Thorne Torres Tran Vance Vargas Vega Vogel Voss Wagner Walsh Ward Watts "
    "Weber West Wolfe Wood Yang York Young Zeller Zhang Zimmer"
).split()
TITLES = "Dr. Mr. Mrs. Miss Sir Lady Captain Professor Agent Officer Sister Uncle Judge Major Inspector Count".split()
PLACES = (
    "Unit Gate Room Station Sector Vault Ward Locker Tower Dock Wing Project Hall Block Bay Cabin Depot Level Pier Post"
).split()
ONSETS = "b br c ch cl d dr f fl g gl gr h j k kr l m n p ph pr qu r s sh sk st t th tr v vr w y z zh".split()
VOWELS = "a e i o u ae ai au ei ia io oa ou ua".split()
CODAS = ["", "", "", "l", "n", "r", "s", "k", "m", "th", "x", "rd", "nd", "st", "ck", "rn", "lt", "ph"]
CONSONANTS = "bcdfghjklmnpqrstvwxyz"
SHARED = {*TITLES, *PLACES}


def split_of(word: str) -> str:
    """The split a word belongs to, whatever its case: "train" (80 %), "dev" (10 %) or "test" (10 %)."""
    bucket = zlib.crc32(word.lower().encode()) % 10
    return {0: "dev", 1: "test"}.get(bucket, "train")


def made_up(rng: random.Random) -> str:
    """A word of one to four invented syllables."""
    count = rng.choice((1, 2, 2, 2, 3, 3, 4))
    text = "".join(rng.choice(ONSETS) + rng.choice(VOWELS[: 5 if rng.random() < 0.8 else None]) for _ in range(count))
    return (text + rng.choice(CODAS)).capitalize()


def spelled(rng: random.Random) -> str:
    """Two to six random letters, also in capitals."""
    letters = "".join(rng.choice(CONSONANTS + "aeiou") for _ in range(rng.randint(2, 6)))
    return rng.choice((letters.capitalize(), letters.upper(), letters))


def mixed(rng: random.Random) -> str:
    """Apostrophes, hyphens, letters with digits, initials."""
    kind = rng.randrange(5)
    if kind == 0:
        return f"{rng.choice(('O', 'D', 'L'))}'{made_up(rng)}"
    if kind == 1:
        return f"{made_up(rng)}-{rng.choice((made_up(rng), rng.choice(FIRST)))}"
    if kind == 2:
        return f"{rng.choice('ABCDEFGHJKLMNPQRSTUVWXYZ')}{rng.randint(1, 99)}"
    if kind == 3:
        return f"Mc{made_up(rng)}"
    return f"{rng.choice('ABCDEFGHIJKLMNOPRSTUVW')}."


def one_letter_off(word: str, rng: random.Random) -> str:
    """The word with one letter replaced."""
    places = [i for i, c in enumerate(word) if c.isalpha()]
    i = rng.choice(places)
    new = rng.choice([c for c in CONSONANTS + "aeiou" if c != word[i].lower()])
    return word[:i] + (new.upper() if word[i].isupper() else new) + word[i + 1 :]


def common_words(texts: list[str], count: int = 6000) -> list[str]:
    """The most frequent words of 3 to 12 letters, in lower case."""
    seen: Counter[str] = Counter()
    for text in texts:
        seen.update(w.lower() for w in re.findall(r"[A-Za-z]{3,12}", text))
    return [word for word, _ in seen.most_common(count)]


def draw_word(rng: random.Random, common: list[str]) -> str:
    """One word: 45 % made-up, 20 % real, 15 % common, 10 % spelled, 10 % mixed; some in capitals or lower case."""
    dice = rng.random()
    if dice < 0.45:
        word = made_up(rng)
    elif dice < 0.65:
        word = rng.choice(rng.choice((FIRST, LAST)))
    elif dice < 0.80:
        word = rng.choice(common).capitalize()
    elif dice < 0.90:
        word = spelled(rng)
    else:
        word = mixed(rng)
    style = rng.random()
    if style < 0.08:
        return word.upper()
    if style < 0.14:
        return word.lower()
    return word


def draw_pairs(split: str, count: int, common: list[str], seed: int) -> list[tuple[str, str]]:
    """`count` pairs (word, the same word one letter off), all of one split."""
    rng = random.Random(seed)  # noqa: S311
    pairs: list[tuple[str, str]] = []
    while len(pairs) < count:
        word = draw_word(rng, common)
        if split_of(word) != split or not any(c.isalpha() for c in word):
            continue
        other = next((w for w in (one_letter_off(word, rng) for _ in range(40)) if split_of(w) == split), None)
        if other is not None:
            pairs.append((word, other))
    return pairs


def draw_name(rng: random.Random, split: str, common: list[str]) -> str:
    """One name of a split: 55 % one word, 33 % two, 6 % "Unit 7", 6 % "Dr. Hale"."""

    def word() -> str:
        while True:
            text = draw_word(rng, common)
            if split_of(text) == split and any(c.isalpha() for c in text):
                return text

    dice = rng.random()
    if dice < 0.55:
        return word()
    if dice < 0.88:
        return f"{word()} {word()}"
    if dice < 0.94:
        return f"{rng.choice(PLACES)} {rng.randint(1, 99)}"
    return f"{rng.choice(TITLES)} {word()}"


def draw_names(rng: random.Random, split: str, count: int, common: list[str]) -> list[str]:
    """`count` different names."""
    names: list[str] = []
    while len(names) < count:
        name = draw_name(rng, split, common)
        if name not in names:
            names.append(name)
    return names
