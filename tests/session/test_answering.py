"""Answers: from the document's state, unfiltered, reproducible, and stopped when asked."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from longmamba_mlx.documents import Document
from longmamba_mlx.errors import ConfigError, NumericError, UsageError
from longmamba_mlx.inference.decode import generate
from longmamba_mlx.session.api import Model, ReadDocument, load
from longmamba_mlx.tokenization.prompt_format import PromptForm

QUESTION = "What is the access code of Zorvath?"


@pytest.fixture(scope="module")
def book(demo: Model, story: str) -> ReadDocument:
    return demo.read(Document("story", story))


def test_the_answer_is_read_from_the_document(book: ReadDocument) -> None:
    answer = book.ask(QUESTION)
    assert (answer.text, answer.found, answer.finish_reason) == ("48213", True, "stop")
    assert answer.passages and answer.passages[0].quoted and "48213" in answer.passages[0].text
    assert "".join(book.stream(QUESTION)).strip() == "48213"


def test_questions_do_not_change_the_document(book: ReadDocument) -> None:
    before = {name: np.array(array) for name, array in book.state.arrays().items()}
    first = book.ask(QUESTION).text
    book.ask("What is the access code of Somebody Else?")
    assert book.ask(QUESTION).text == first
    for name, array in book.state.arrays().items():
        np.testing.assert_array_equal(np.array(array), before[name])


def test_decoding_is_one_unfiltered_pass(book: ReadDocument) -> None:
    """Token by token after the prompt equals one unfiltered call over prompt and answer."""
    model, tokenizer = book.model.loaded.model, book.model.tokenizer
    prompt = tokenizer.encode(book.model.form.ask(QUESTION))
    ids = list(generate(model, book.state, prompt, max_tokens=8))
    together = np.concatenate([prompt, np.asarray(ids, np.uint32)])
    hidden, _ = model(mx.array(together[None]), book.state)
    likeliest = np.array(mx.argmax(model.head(hidden)[0], axis=-1))
    np.testing.assert_array_equal(likeliest[len(prompt) - 1 : -1], ids)


@pytest.mark.parametrize("temperature", [0.0, 3.0])
def test_one_token_ahead_gives_the_same_answers(
    book: ReadDocument, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where MLX computes lazily the next token is begun before this one is told: never more than one."""
    prompt = book.model.tokenizer.encode(book.model.form.ask(QUESTION))
    expected = list(generate(book.model.loaded.model, book.state, prompt, max_tokens=9, temperature=temperature))
    monkeypatch.setenv("LONGMAMBA_KERNEL", "reference")
    model = load("demo").loaded.model
    calls: list[int] = []
    run = type(model).__call__
    monkeypatch.setattr(type(model), "__call__", lambda *given: calls.append(1) or run(*given))
    told = []
    for token in generate(model, book.state, prompt, max_tokens=9, temperature=temperature):
        told.append(token)
        assert len(calls) == 1 + min(len(told), 8)
    assert told == expected and len(calls) == 9


def test_one_token_ahead_stops_and_notices_what_is_no_number(
    book: ReadDocument, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LONGMAMBA_KERNEL", "reference")
    model = load("demo").loaded.model
    prompt = book.model.tokenizer.encode(book.model.form.ask(QUESTION))
    ids = list(generate(model, book.state, prompt, max_tokens=4))
    assert list(generate(model, book.state, prompt, max_tokens=4, stop_ids={ids[2]})) == ids[: ids.index(ids[2])]
    assert list(generate(model, book.state, prompt, max_tokens=4, should_stop=lambda: True)) == []
    head = model.head
    monkeypatch.setattr(model, "head", lambda hidden: head(hidden) * (mx.nan if hidden.shape[1] == 1 else 1.0))
    with pytest.raises(NumericError):
        list(generate(model, book.state, prompt, max_tokens=4))


def test_sampling_is_reproducible_and_seeds_differ(book: ReadDocument) -> None:
    def draw(seed: int) -> str:
        return book.ask(QUESTION, temperature=6.0, seed=seed, max_tokens=24).text

    assert draw(1) == draw(1)
    assert len({draw(seed) for seed in range(6)}) > 1


def test_stop_and_length(book: ReadDocument) -> None:
    short = book.ask(QUESTION, max_tokens=2)
    assert (short.tokens, short.finish_reason, short.text) == (2, "length", "48")
    pieces = []
    for piece in book.stream(QUESTION, should_stop=lambda: len(pieces) >= 2):
        pieces.append(piece)
    assert "".join(pieces).strip() == "48"
    assert book.ask(QUESTION, should_stop=lambda: True).finish_reason == "stopped"


def test_a_long_question_stops_within_a_chunk_and_leaves_the_talk(book: ReadDocument) -> None:
    book.ask(QUESTION)
    talk, asked = book.conversation, []
    for keep in (False, True):
        asked.clear()
        answer = book.ask(
            f"What is the access code of {'Zor ' * 5000}?",
            keep=keep,
            should_stop=lambda: asked.append(1) or len(asked) > 3,
        )
        assert (answer.finish_reason, answer.tokens) == ("stopped", 0)
        assert len(asked) < 8, "it was read on after the stop"
    assert book.conversation is talk and book.ask(QUESTION, keep=True).text == "48213"


def test_prompt_forms() -> None:
    form = PromptForm.from_settings({"question": "\nQ: {question}?\nA:", "stop": ["\n"], "not_found": ["No idea"]})
    assert form.ask("  who \n is   it?? ") == "\nQ: who is it?\nA:"
    assert form.finish("Ahab\nQ: more") == ("Ahab", True) and form.finish("Ahab") == ("Ahab", False)
    assert form.is_refusal(" No idea.") and not form.is_refusal("No idea of it") and not form.is_refusal("")
    assert form.found("Ahab") and not form.found("no idea.") and not form.found("  ")
    assert PromptForm().ask("Why").endswith("Question: Why\nAnswer:")
    assert "{" not in PromptForm().ask("Is {question} safe {x}?").replace("{question}", "").replace("{x}", "")
    with pytest.raises(UsageError):
        form.ask(" \n ")
    for settings in ({"question": "no place"}, {"question": 3}, {"stop": "x"}, {"not_found": [""]}):
        with pytest.raises(ConfigError):
            PromptForm.from_settings(settings)
