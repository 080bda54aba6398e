"""Split questions, answers and passages into words and names, as the search compares them."""

from __future__ import annotations

import re
import unicodedata

WORD = re.compile("[^\\W_](?:[^\\W_]|[\u0300-\u036f])*")
MOST_WORDS = 64
# Words that do not discriminate between passages; used only for a question of nothing else.
_FUNCTION_WORDS = """
a about an and any are as at be been but by can could did do does for from had has have he her him his how i
if in into is it its me my no not of on or our she should so some such than that the their them then there
these they this those to was we were what when where which who whom whose why will with would yes you your
"""
COMMON = frozenset(_FUNCTION_WORDS.split())


def words_in(text: str) -> list[str]:
    """The distinct words of a question or answer in lower case and in order, at most `MOST_WORDS`."""
    words = (match[0].lower() for match in WORD.finditer(unicodedata.normalize("NFC", text)))
    return list(dict.fromkeys(word for word in words if len(word) <= 64))[:MOST_WORDS]


def telling_words(words: list[str]) -> list[str]:
    """The words that discriminate between passages; all of them if none does."""
    return [word for word in words if word not in COMMON] or words


def folded(word: str) -> str:
    """Fold a word like the index's tokenizer: no diacritics, lower case."""
    return "".join(c for c in unicodedata.normalize("NFD", word) if not unicodedata.combining(c)).lower()


def folded_words(text: str) -> set[str]:
    return {folded(match[0]) for match in WORD.finditer(text)}


def names_in(question: str) -> list[list[str]]:
    """The names in a question, each as its words in lower case: runs of capitalised words and codes.

    Common words are not names, nor is a first word before a name: "Describe Mr Darcy." names [mr, darcy].
    """
    names: list[list[str]] = []
    end = -1  # of the name that the next word may go on; -1: none
    plain = unicodedata.normalize("NFC", question)
    for match in WORD.finditer(plain):
        word = match[0].lower()
        if word in COMMON or not (match[0][0].isupper() or any(letter.isdigit() for letter in word)):
            end = -1
            continue
        if end >= 0 and not plain[end : match.start()].strip(" -.'’"):
            names[-1].append(word)
        else:
            names.append([word])
        end = match.end()
    if names and len(names[0]) > 1 and plain.lower().strip().startswith(names[0][0]):
        del names[0][0]
    return names
