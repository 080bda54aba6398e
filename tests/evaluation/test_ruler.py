"""RULER's documents: what was put in is in them as often as published, and they fill their length."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from longmamba_mlx.errors import DocumentError, UsageError
from longmamba_mlx.evaluation.ruler import materials_from, ruler_documents, tasks_for
from longmamba_mlx.evaluation.ruler_tasks import TASKS, Draft, Draw, Materials
from longmamba_mlx.evaluation.words import ADJECTIVES, EVERY, NOUNS

SYNTHETIC = [name for name in TASKS if not name.startswith("qa")]
RUNNING = tuple(f"Word{number} ends here." if number % 9 == 0 else f"word{number}" for number in range(600))


def count(text: str) -> int:
    return len(text.split())


@pytest.fixture
def squad(tmp_path: Path) -> Path:
    def paragraph(article: int, place: int) -> dict[str, object]:
        text = f"Passage {place} of article {article} says {article}{place}."
        answer = {"question": f"What says {article} {place}?", "answers": [{"text": f"{article}{place}"}],
                  "is_impossible": place == 1}  # fmt: skip
        return {"context": text, "qas": [answer]}

    data = {"data": [{"paragraphs": [paragraph(article, place) for place in range(4)]} for article in range(30)]}
    (tmp_path / "squad.json").write_text(json.dumps(data), encoding="utf-8")
    hotpot = [
        {"question": f"Which {number}?", "answer": f"that {number}",
         "context": [[f"Title {number} {k}", [f"Sentence {number} ", f"and {k}."]] for k in range(3)]}
        for number in range(40)
    ]  # fmt: skip
    (tmp_path / "hotpotqa.json").write_text(json.dumps(hotpot), encoding="utf-8")
    return tmp_path


def draft(name: str, size: int, *, length: int = 8192, seed: int = 0, materials: Materials | None = None) -> Draft:
    return TASKS[name].build(materials or Materials(RUNNING), size, Draw(seed, length, random.Random(seed)))


@pytest.mark.parametrize("name", [name for name in SYNTHETIC if name.startswith("niah")])
def test_needles_are_there_once_and_asked_for(name: str) -> None:
    for seed in range(3):
        made = draft(name, 200, seed=seed)
        whole = made.document + made.question
        assert all(whole.count(answer) == 1 for answer in made.answers)
        wanted = 4 if name in ("niah_multivalue", "niah_multiquery") else 1
        assert len(made.answers) == wanted
        needles = re.findall(r"One of the special magic \w+ for (\S+) is: (\S+)\.", made.document)
        expected = {"niah_multikey_1": 4, "niah_multivalue": 4, "niah_multiquery": 4}.get(name, 1)
        assert len(needles) == (201 if name in ("niah_multikey_2", "niah_multikey_3") else expected)
        asked = [key for key, value in needles if value in made.answers]
        assert all(f"{key}" in made.question for key in asked)
        assert made.document.startswith("Some" if wanted > 1 else "A special magic")
        assert made.begun.endswith("are" if wanted > 1 else " is") and made.question.endswith("?")
        kind = "uuid" if name.endswith(("single_3", "multikey_3")) else "number"
        assert f"special magic {kind}{'s' if wanted > 1 else ''} " in made.question
        pattern = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}" if kind == "uuid" else r"[1-9]\d{6}"
        assert all(re.fullmatch(pattern, answer) for answer in made.answers)


def test_a_chain_of_variables() -> None:
    made = draft("vt", 60)
    value = re.search(r"assigned the value (\d{5}) in the text above\.", made.question)
    assert value is not None and len(made.answers) == 5
    wanted = made.document.rsplit("Memorize and track", 1)[1]
    assert f"VAR {made.answers[0]} = {value[1]}" in wanted
    places = [wanted.index(f"VAR {name} = ") for name in made.answers]
    assert places == sorted(places)
    for earlier, later in zip(made.answers, made.answers[1:], strict=False):
        assert f"VAR {later} = VAR {earlier}" in wanted
    assert wanted.count("The grass is green.") == 60 and made.document.count("Memorize and track") == 2
    assert made.begun.rstrip().endswith("they are:") and "5 variables" in made.begun


@pytest.mark.parametrize(("length", "often", "seldom"), [(8192, 30, 3), (2048, 6, 1)])
def test_common_words_are_the_commonest(length: int, often: int, seldom: int) -> None:
    made = draft("cwe", 100, length=length)
    listed = re.findall(r"\d+\. (\S+)", made.document.rsplit("Below is", 1)[1])
    counts = Counter(listed)
    assert len(counts) == 100 and len(made.answers) == 10
    assert all(counts[word] == often for word in made.answers)
    assert set(counts.values()) == {often, seldom}
    assert made.document.count("Below is a numbered list") == 2


def test_long_lists_have_enough_different_words() -> None:
    made = draft("cwe", 2 * len(EVERY))
    assert len(set(re.findall(r"\d+\. (\S+)", made.document.rsplit("Below is", 1)[1]))) == 2 * len(EVERY)
    assert len(set(NOUNS)) == len(NOUNS) and len(set(ADJECTIVES)) == len(ADJECTIVES)


def test_frequent_codes_follow_the_zeta_law() -> None:
    made = draft("fwe", 5000)
    counts = Counter(made.document.split("coded words. ", 1)[1].split())
    assert counts.most_common(1)[0][0] == "..."
    assert [word for word, _ in counts.most_common(4)[1:]] == list(made.answers)
    assert [counts[word] for word in made.answers] == [int(5000 / k**2 / (3.141592653589793**2 / 6)) for k in (2, 3, 4)]


@pytest.mark.parametrize("name", SYNTHETIC)
def test_documents_fill_their_length_and_are_reproducible(name: str) -> None:
    materials = Materials(RUNNING)
    for length in (1500, 6000):
        documents = list(ruler_documents(materials, count, [length], [name], samples=2, seed=5))
        made = [planned.make() for planned in documents]
        for one in made:
            asked = one.questions[0]
            used = count(one.document) + count(asked.text + asked.begun) + one.max_tokens
            assert used <= length
            assert used > 0.75 * length, name
        assert made[0].document != made[1].document
        again = next(iter(ruler_documents(materials, count, [length], [name], samples=1, seed=5))).make()
        assert again.document == made[0].document


def test_questions_from_local_files(squad: Path) -> None:
    assert tasks_for([], squad) == tuple(TASKS) and tasks_for([], None) == tuple(SYNTHETIC)
    materials = materials_from(["Some words."], squad, ["qa_1", "qa_2"])
    assert len(materials.questions["qa_1"].items) == 90 and len(materials.questions["qa_2"].items) == 40
    for name in ("qa_1", "qa_2"):
        for seed in (0, 4):
            made = draft(name, 12, seed=seed, materials=materials)
            passages = re.findall(r"Document \d+:\n(.+?)(?=\n\nDocument|\Z)", made.document, re.DOTALL)
            assert len(passages) == len(set(passages)) == 12
            own = [materials.questions[name].passages[k] for k in materials.questions[name].items[seed][2]]
            assert set(own) <= set(passages)
            assert made.begun == " Answer:" and materials.questions[name].items[seed][0] in made.question
    few = draft("qa_1", 3, materials=materials)
    assert len(re.findall(r"article 0 ", few.document)) == 3  # passages of the same article come before others


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"squad\.json"):
        materials_from(["x"], tmp_path, ["qa_1"])
    (tmp_path / "squad.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(DocumentError, match="published form"):
        materials_from(["x"], tmp_path, ["qa_1"])
    with pytest.raises(UsageError):
        tasks_for(["niah_single_9"], None)
    with pytest.raises(UsageError, match="does not fit"):
        next(iter(ruler_documents(Materials(RUNNING), count, [200], ["niah_single_2"], samples=1))).make()
