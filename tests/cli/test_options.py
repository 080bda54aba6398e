"""Options of the command line: each arrives at what it is for, and a test names each."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import typer.main
from click import Command, Group, Option

from tests.commandline import Run, run

__all__ = ["run"]  # the fixture

QUESTION = "What is the access code of Zorvath?"
TESTS = Path(__file__).resolve().parents[1]
IN_EVAL, IN_SUITES = "longmamba_mlx.cli.eval_runs", "longmamba_mlx.bench.suites"

ARRIVING = (
    ("bench peers --families mamba --lengths 64 --engines mlx-lm --decode 8 --patience 3.5 --threads 2 --rounds 1",
     IN_SUITES, "peers",
     {"decode": 8, "patience": 3.5, "threads": 2, "rounds": 1, "engines": ["mlx-lm"]}),
    ("bench prefill --model demo --lengths 64 --threads 2", IN_SUITES, "prefill", {"threads": 2, "rounds": 3}),
    ("bench decode --families mamba2 --tokens 9 --threads 2", IN_SUITES, "decode", {"steps": 9, "threads": 2}),
    ("bench scan --lengths 8 --threads 2", IN_SUITES, "scan", {"threads": 2}),
    ("bench reopen --model demo --threads 2", IN_SUITES, "reopen", {"threads": 2}),
    ("eval niah --facts 2 --absent --split dev --depths 0,1", IN_EVAL, "measure_niah",
     {"facts": 2, "absent": True, "split": "dev", "depths": "0,1"}),
    ("eval niah --attributes unseen --facts 3", IN_EVAL, "measure_attributes", {"facts": 3, "absent": False}),
    ("serve --port 0 --cors http://a.test --cors http://b.test --queue 3 --max-tokens 9 --api-key k",
     "longmamba_mlx.cli.serve", "serve_http",
     {"port": 0, "cors": ["http://a.test", "http://b.test"], "queue": 3, "max_tokens": 9, "key": "k"}),
    ("serve --allow a --allow b --attention-window 64 --chunk 32 --filter off --offline",
     "longmamba_mlx.cli.library", "library_of",
     {"attention_window": 64, "chunk": 32, "filter": "off", "offline": True}),
    ("use owner/name -q --q-bits 8 --q-group-size 32 --yes --revision r --dtype float16",
     "longmamba_mlx.cli.fetch_model", "fetch",
     {"quantize": True, "q_bits": 8, "q_group_size": 32, "q_mode": "affine", "yes": True, "revision": "r",
      "dtype": "float16"}),
    ("convert --hf-path a --mlx-path b --quantize --q-mode mxfp4 --tokenizer t", "longmamba_mlx.conversion", "convert",
     {"quantize": True, "q_mode": "mxfp4", "q_bits": None, "tokenizer": "t"}),
    ("chat --file a --temp 0.5 --seed 3 --max-tokens 7 --chunk 32 --no-save", "longmamba_mlx.cli.chat", "chat_about",
     {"temperature": 0.5, "seed": 3, "max_tokens": 7, "chunk": 32, "save": False}),
)  # fmt: skip


class ArrivedError(Exception):
    """In place of the work."""


@pytest.mark.parametrize(("words", "module", "function", "expected"), ARRIVING, ids=[case[0][:24] for case in ARRIVING])
def test_options_arrive(
    words: str, module: str, function: str, expected: dict[str, object], monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    got: dict[str, object] = {}

    def work(*arguments: object, **options: object) -> None:
        got.update(options)
        raise ArrivedError

    monkeypatch.setattr(import_module(module), function, work)
    with pytest.raises(ArrivedError):
        run(*words.split())
    assert {name: got[name] for name in expected} == expected


def test_texts_and_a_log_of_an_exam(run: Run, tmp_path: Path, story: str) -> None:
    filler, log = tmp_path / "filler.txt", tmp_path / "log.jsonl"
    filler.write_text("Qorvathelm walked on. " * 400, encoding="utf-8")
    words = ["eval", "niah", "--lengths", "600", "--filter", "off", "--samples", "2", "--seed", "5"]
    assert run(*words, "--filler", str(filler), "--log", str(log)).code == 0
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert len(rows) >= 2
    other = run(*words, "--log", str(log))  # other texts: another exam
    assert other.code == 0 and len(log.read_text(encoding="utf-8").splitlines()) > len(rows)


def test_an_answer_at_once_is_the_same_answer(run: Run, tmp_path: Path, story: str) -> None:
    file = tmp_path / "story.txt"
    file.write_text(story, encoding="utf-8")
    ask = ["ask", "--file", str(file)]
    assert run(*ask, "--no-stream", QUESTION).out == run(*ask, QUESTION).out == "48213\n"
    hot = [run(*ask, "--temp", "3", "--seed", seed, "--json", QUESTION).out for seed in ("1", "1", "2", "3", "4")]
    answers = [json.loads(out)["answer"] for out in hot]
    assert answers[0] == answers[1] and len(set(answers)) > 1
    assert run(*ask, "--part-tokens", "600", QUESTION).code == 2, "without --surest it has no meaning"
    surest = run(*ask, "--surest", "--part-tokens", "600", QUESTION)
    assert surest.out == "48213\n" and "parts of 600 tokens" in surest.err


def options(command: Command, name: str = "") -> Iterator[tuple[str, Option]]:
    """All options of all commands that are not hidden."""
    if isinstance(command, Group):
        for each, inner in command.commands.items():
            if not inner.hidden:
                yield from options(inner, f"{name} {each}".strip())
    for option in command.params:
        if isinstance(option, Option) and option.name not in ("install_completion", "show_completion"):
            yield name, option


def test_a_test_names_every_option() -> None:
    from longmamba_mlx.cli.app import app

    text = "\n".join(path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py"))
    named = set(re.findall(r"(?<![\w-])--?[a-z][a-z0-9-]*", text))
    assert [f"{name} {option.opts}" for name, option in options(typer.main.get_command(app))
            if not named & {word for word in option.opts if word.startswith("--")}] == []  # fmt: skip
