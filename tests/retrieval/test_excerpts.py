"""Excerpts show what was asked for, cut at words."""

from __future__ import annotations

from longmamba_mlx.retrieval.excerpts import excerpt, first_place

LONG = "The rain fell on the moor. " * 30 + "Then Zoë Ferrars\ncame in. " + "The wind went down at last. " * 30


def test_a_short_text_is_whole_and_on_one_line() -> None:
    assert excerpt("One\n two  three.", "two?") == "One two three."


def test_a_long_text_is_cut_around_the_word_asked_for() -> None:
    shown = excerpt(LONG, "Who is Zoe Ferrars?", 120)
    assert "Zoë Ferrars came in." in shown and len(shown) <= 124
    assert shown.startswith("… ") and shown.endswith(" …")
    words = set(LONG.split())
    assert all(word in words for word in shown.strip("… ").split())


def test_without_a_word_of_the_question_it_is_the_beginning() -> None:
    assert first_place(LONG, "Where is Ahab?") == 0
    assert excerpt(LONG, "Where is Ahab?", 60).startswith("The rain fell")
