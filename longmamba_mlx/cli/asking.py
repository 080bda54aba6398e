"""`ask` and `read`: answers on standard output, all else on standard error."""

from __future__ import annotations

import json as json_module
import sys
from dataclasses import asdict
from pathlib import Path

from longmamba_mlx.catalogue import DEFAULT
from longmamba_mlx.cli.progress import follow, summary
from longmamba_mlx.documents import read_document
from longmamba_mlx.errors import UsageError
from longmamba_mlx.session import Answer, Answered, Piece, ReadDone, Session


def ask_about(
    session: Session,
    files: list[str],
    question: str | None,
    questions: Path | None,
    *,
    model: str | None,
    json: bool,
    stream: bool,
) -> bool:
    """Read, then answer one question or a file of them; whether every answer was found in the document."""
    wanted = _questions(question, questions)
    done = follow(session.open(_sources(files)))
    print(summary(done), file=sys.stderr)
    _say_which(model)
    found = True
    for text in wanted:
        answer = _answer(session, text, show=not json and stream)
        found = found and answer.found
        if json:
            print(json_module.dumps(as_json(answer, done, model or DEFAULT), ensure_ascii=False), flush=True)
        elif not stream:
            print(answer.text, flush=True)
        else:
            print(flush=True)
    return found


def read_only(session: Session, files: list[str], *, model: str | None, json: bool) -> None:
    """Read and remember; print what was stored."""
    done = follow(session.open(_sources(files)))
    _say_which(model)
    if json:
        print(json_module.dumps(asdict(done), ensure_ascii=False))
    else:
        print(summary(done))
        print(f"Remembered as {done.stored[:12]}." if done.stored else "Not remembered.")


def as_json(answer: Answer, done: ReadDone, model: str) -> dict[str, object]:
    """One answer as the object that `--json` prints."""
    return {
        "question": answer.question,
        "answer": answer.text,
        "found": answer.found,
        "finish_reason": answer.finish_reason,
        "passages": [asdict(passage) for passage in answer.passages],
        "tokens": answer.tokens,
        "tokens_read": done.tokens,
        "seconds": round(answer.seconds, 4),
        "reading_seconds": round(done.seconds, 4),
        "reopened": done.reopened,
        "model": model,
        "filter": done.filter,
        "state": done.stored,
    }


def _say_which(model: str | None) -> None:
    """One line where no model was asked for: the built-in one must not be taken for a real one."""
    if model is None:
        notice = "Note: this is the built-in demonstration model, which knows one kind of question; see --model."
        print(notice, file=sys.stderr)


def _answer(session: Session, question: str, *, show: bool) -> Answer:
    for event in session.ask(question):
        if isinstance(event, Piece) and show:
            print(event.text, end="", flush=True)
        elif isinstance(event, Answered):
            return event.answer
    raise RuntimeError("an answer ends with Answered or an error")


def _questions(question: str | None, file: Path | None) -> list[str]:
    if (question is None) == (file is None):
        raise UsageError(
            "Give one question, or --questions FILE.", hint='longmamba-mlx ask --file book.txt "Who is Ahab?"'
        )
    given = [question or ""] if file is None else read_document(file).text.splitlines()
    lines = [line.strip() for line in given if line.strip()]
    if not lines:
        raise UsageError("The question is empty.", hint="Ask something.")
    return lines


def _sources(files: list[str]) -> list[str]:
    if files:
        return files
    if sys.stdin.isatty():
        raise UsageError("There is no document.", hint="Name one with --file, or pipe it in.")
    return ["-"]
