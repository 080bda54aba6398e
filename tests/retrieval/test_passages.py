"""Related passages: the right ones first, quotes only where they are quotes, no question is ever syntax."""

from __future__ import annotations

import sqlite3
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longmamba_mlx.documents import Document
from longmamba_mlx.errors import LongMambaError
from longmamba_mlx.retrieval import passage_index
from longmamba_mlx.retrieval.passages import PassageIndex

STORY = """# The Harbour

The Pequod lay in the harbour of Nantucket. Her captain had not been seen.

“Who is the captain of this ship?” said I. “Captain
Ahab,” said Peleg.

Captain Ahab limped on deck. The captain of the Pequod said nothing.

# The Islander

Queequeg was a native of Rokovoko, an island far away. It is not down in any map.

The café on the quay sold coffee for 7,50 francs, and nobody drank it.

The access code of the gate is 4711. Nobody had told Ishmael.

The whale and the sea and the ship and the sky.
"""


@pytest.fixture(scope="module")
def index() -> PassageIndex:
    return PassageIndex(Document("story", STORY))


def texts(index: PassageIndex, question: str, answer: str, limit: int = 3) -> list[str]:
    return [passage.text for passage in index.search(question, answer, limit)]


def test_a_passage_points_at_the_text(index: PassageIndex) -> None:
    document = Document("story", STORY)
    for passage in index.search("Where does Queequeg come from?", "Rokovoko", 10):
        assert document.text[passage.start : passage.end] == passage.text
        paragraph = document.paragraphs[passage.number - 1]
        assert (paragraph.start, paragraph.heading) == (passage.start, passage.heading)
    assert index.search("Where does Queequeg come from?", "Rokovoko")[0].heading == "The Islander"


@pytest.mark.parametrize(
    ("answer", "missing"),
    [
        ("4711", ()),
        ("It is **4711**.", ()),
        ("(4711), and 7,50 francs", ()),
        ("4712", ("4712",)),
        ("471", ("471",)),  # part of a number is another number
        ("The code is 47-11, or 7.50; never 4711.", ("47-11", "7.50")),
        ("4712, and 4712 again", ("4712",)),
        ("1. Captain Ahab\n2) Queequeg", ()),  # a list's own numbers are not said of the text
        ("7,50 €", ()),
        ("Captain Ahab of Nantucket", ()),
        ("A-113", ("A-113",)),
        ('4711" OR "captain', ()),
        ("", ()),
    ],
)
def test_numbers_and_codes_that_stand_nowhere(index: PassageIndex, answer: str, missing: tuple[str, ...]) -> None:
    assert index.not_in_text(answer) == missing


def test_up_to_a_place_later_numbers_stand_nowhere(index: PassageIndex) -> None:
    assert index.not_in_text("4711", end=STORY.index("4711")) == ("4711",)
    assert index.not_in_text("4711", end=STORY.index("4711") + 4) == ()


def test_the_passage_that_tells_comes_first(index: PassageIndex) -> None:
    assert "4711" in texts(index, "What is the access code of the gate?", "4711")[0]
    assert "4711" in texts(index, "What is the access code of the gate?", "It is not given.")[0]
    assert "Rokovoko" in texts(index, "Where is Queequeg from?", "an island")[0]


def test_among_quotes_the_rare_words_of_the_question_decide(index: PassageIndex) -> None:
    found = index.search("Who is the captain of the Pequod?", "Captain Ahab")
    assert found[0].text.startswith("Captain Ahab limped") and found[0].quoted
    assert found[1].quoted and not found[2].quoted


def test_quotes_over_line_ends_case_and_punctuation(index: PassageIndex) -> None:
    for answer in ("Captain Ahab", "captain ahab.", "“Captain\n AHAB,”", " CAPTAIN  AHAB! "):
        found = index.search("Who is the captain of this ship?", answer)
        assert any(passage.quoted and "Peleg" in passage.text for passage in found), answer


@pytest.mark.parametrize(
    "answer",
    ["Captain", "Rokovoko", "7,50 francs", "4711", "nobody drank it", "café", "cafe\u0301"],
)
def test_verbatim_answers_are_quotes(index: PassageIndex, answer: str) -> None:
    assert index.search("What?", answer)[0].quoted


@pytest.mark.parametrize(
    "answer",
    [
        "Rokovok",
        "okovoko",
        "471",
        "47110",
        "Captain Bahab",
        "Ahab Captain",
        "cafe",
        "7.50 francs",
        "Queequeg of Rokovoko",
        "is",
        "It is not",
        "no",
        "",
        "?!",
        ".*",
        "Captain.Ahab",
    ],
)
def test_everything_else_is_only_related(index: PassageIndex, answer: str) -> None:
    assert not any(passage.quoted for passage in index.search("Who is the captain of Rokovoko?", answer, 20))


def test_diacritics_do_not_hinder_finding(index: PassageIndex) -> None:
    assert "café" in texts(index, "Where is the Cafe?", "")[0]
    assert "Rokovoko" in texts(index, "What is Rókövökó?", "")[0]


def test_limits(index: PassageIndex) -> None:
    assert index.search("captain", "Ahab", 0) == ()
    assert len(index.search("captain", "Ahab", 1)) == 1
    assert index.search("", "") == ()
    assert index.search("zebra", "giraffe") == ()
    assert index.search("the and of", "") != ()


def test_no_passage_twice(index: PassageIndex) -> None:
    found = index.search("Who is the captain of the ship Pequod?", "Captain Ahab", 50)
    assert len({passage.number for passage in found}) == len(found)


SYNTAX = [
    '"',
    '""',
    '"captain',
    'captain" OR "whale',
    "captain AND",
    "OR",
    "NOT captain",
    "NEAR(captain ahab, 2)",
    "body:captain",
    "{body}: captain",
    "- body : captain",
    "captain*",
    "^captain",
    "captain + ahab",
    "(captain",
    "captain)",
    "'; DROP TABLE passages; --",
    "passages MATCH 'x'",
    "rank:bm25(10)",
    "captain\x00whale",
    "\\",
    "%s %d {0}",
    "?1",
    ":name",
    "captain\ncaptain",
    "\u202e captain",
    "captain" * 5000,
    "word " * 5000,
    " ".join(f"w{n}" for n in range(5000)),
    "\ud800",
    "𞤀 𞤁",
    "́",
]


@pytest.mark.parametrize("text", SYNTAX, ids=lambda text: ascii(text[:30]))
def test_no_text_is_syntax(index: PassageIndex, text: str) -> None:
    for question, answer in ((text, "Ahab"), ("captain", text), (text, text)):
        index.search(question, answer)
    assert "4711" in texts(index, "What is the access code?", "4711")[0]


def test_syntax_words_are_words() -> None:
    index = PassageIndex(Document("t", "one NEAR two\n\nthree OR four\n\nfive AND six"))
    assert texts(index, "NEAR", "") == ["one NEAR two"]
    assert texts(index, 'three" NOT "four', "")[0] == "three OR four"


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(), st.text())
def test_any_text_may_be_asked(index: PassageIndex, question: str, answer: str) -> None:
    for passage in index.search(question, answer):
        assert passage.text in STORY


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("abcäß 1,.'", min_size=1, max_size=12).filter(str.strip), min_size=1, max_size=6))
def test_any_text_may_be_searched(paragraphs: list[str]) -> None:
    document = Document("t", "\n\n".join(paragraphs))
    index = PassageIndex(document)
    for paragraph in document.paragraphs:
        text = document.text[paragraph.start : paragraph.end]
        for passage in index.search(text, text, 10):
            assert passage.text in document.text


def test_an_index_is_built_once_and_used_from_any_thread() -> None:
    index = PassageIndex(Document("story", STORY))
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(index.search("captain", "Ahab"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and all(result == found[0] for result in found)


def test_without_fts5(monkeypatch: pytest.MonkeyPatch) -> None:
    class Poor:
        def executescript(self, script: str) -> None:
            raise sqlite3.OperationalError("no such module: fts5")

        def close(self) -> None:
            pass

    monkeypatch.setattr(passage_index.sqlite3, "connect", lambda *a, **k: Poor())
    with pytest.raises(LongMambaError, match="FTS5") as caught:
        PassageIndex(Document("t", "text")).search("a", "b")
    assert caught.value.hint


def test_a_passage_tells_its_place() -> None:
    document = Document("story", STORY)
    for passage in PassageIndex(document).search("Where does Queequeg come from?", "Rokovoko", 5):
        assert passage.place == document.place_at(passage.start) == passage.heading
    assert PassageIndex(Document("t", "no headings here")).search("headings", "")[0].place == ""


def test_the_best_passages_come_in_the_documents_order() -> None:
    index = PassageIndex(Document("story", STORY))
    question = "who is the captain of the ship, and what is the access code?"
    found = index.to_reread(question, 4)
    assert len(found) == 4 and [passage.start for passage in found] == sorted(passage.start for passage in found)
    assert {"4711", "Ahab"} <= {word for word in ("4711", "Ahab") for passage in found if word in passage.text}
    assert {passage.number for passage in found} == {passage.number for passage in index.search(question, "", 4)}
    assert all("Pequod" in passage.text for passage in index.to_reread("Who is the captain of the Pequod?", 4))
    assert index.to_reread("captain", 0) == index.to_reread("", 3) == ()
    assert not any(passage.quoted for passage in found)


def test_what_stands_twice_is_shown_once() -> None:
    found = PassageIndex(Document("t", "The code is 4711.\n\n" * 5 + "A code is a code.")).search(
        "What is the code?", "4711", 3
    )
    assert [passage.text for passage in found] == ["The code is 4711.", "A code is a code."]
    assert found[0].number == 1


LEASE = """# Lease

## Rent

The sum is 1,450 euros a month.

CHAPTER II

Two months are paid.

## Deposit
It is paid back.

# Notice
"""


@pytest.mark.parametrize(
    ("question", "first"),
    [
        ("What about rent?", "The sum is 1,450 euros a month."),
        ("What about the lease?", "The sum is 1,450 euros a month."),
        ("Tell me about Lease", "The sum is 1,450 euros a month."),  # by its name
        ("What is in chapter 2?", "Two months are paid."),
        ("What about the deposit?", "It is paid back."),
        ("What about notice?", "# Notice"),  # nothing is below it
    ],
)
def test_below_a_heading_is_the_passage(question: str, first: str) -> None:
    assert PassageIndex(Document("lease", LEASE)).nearest(question)[0].text == first


def test_a_heading_that_is_the_answer_is_a_quote() -> None:
    (found, *_) = PassageIndex(Document("lease", LEASE)).search("What is the part on money called?", "Rent")
    assert (found.text, found.quoted) == ("## Rent", True)


def test_a_long_document_is_indexed_in_reasonable_time_and_memory() -> None:
    """Five megabytes; the bound is loose, for slow machines."""
    import time

    text = "\n\n".join(
        f"Paragraph {n}: " + f"the keeper {n % 97} wrote down ship {n} again, as always. " * 5 for n in range(18_000)
    )
    index = PassageIndex(Document("t", text))
    started = time.process_time()
    assert index.search("Which ship is 17321?", "")[0].text.startswith("Paragraph 17321")
    assert len(text) > 5_000_000 and time.process_time() - started < 10
