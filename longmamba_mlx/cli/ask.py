"""`ask` and `read`: answers on standard output, everything else on standard error."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from longmamba_mlx.builtin import described
from longmamba_mlx.cli.interrupts import stopping
from longmamba_mlx.cli.no_answer import explain
from longmamba_mlx.cli.progress import ReadingBar, follow, summary
from longmamba_mlx.cli.streams import is_null
from longmamba_mlx.documents import one_line, read_document, sanitise
from longmamba_mlx.errors import UsageError
from longmamba_mlx.events import Answer, Answered, Piece, ReadDone
from longmamba_mlx.registry.resolve import DEFAULT
from longmamba_mlx.session.session import Session


@dataclass(frozen=True, slots=True)
class Way:
    """How questions are asked and answers printed."""

    keep: bool = False
    reread: int = 0
    as_of: str | None = None
    surest: bool = False
    part_tokens: int | None = None
    json: bool = False
    stream: bool = True


def ask_about(session: Session, files: list[str], questions: list[str], way: Way, *, model: str | None) -> bool:
    """Read, then answer every question; return whether every answer was found in the document.

    Raises StoppedError on Ctrl-C while reading, KeyboardInterrupt on a later one, after printing the partial answer.
    """
    with stopping(session) as interrupts:
        done = follow(session.open(sources(files)))
        print(summary(done), file=sys.stderr)
        say_which(model)
        found = True
        for question in questions:
            if interrupts.hit:
                raise KeyboardInterrupt
            answer = _answer(session, question, way)
            found = found and answer.found
            if way.json:
                print(json_module.dumps(as_json(answer, done, model or DEFAULT), ensure_ascii=False), flush=True)
            else:
                if answer.reason != "demo":
                    print("" if way.stream else answer.text, flush=True)
                explain(answer, way.as_of)
                if answer.part is not None:
                    print(f"Note: from {one_line(answer.part.label, 200)}.", file=sys.stderr)
                if answer.doubt:
                    print(f"Note: {answer.doubt}.", file=sys.stderr)
        if interrupts.hit:
            raise KeyboardInterrupt
    return found


def wanted_questions(question: str | None, file: Path | None, documents: list[str]) -> list[str]:
    """The questions: from the command line, from a file, or one on each line of standard input for "-"."""
    piped = question == "-"
    if piped and (not documents or "-" in documents):
        raise UsageError("Standard input cannot be the document and the questions.", hint="Name the document: --file F")
    if not piped and (question is None) == (file is None):
        hint = 'longmamba-mlx ask --file book.txt "Who is Ahab?"'
        raise UsageError("Give one question, or --questions FILE, or - and pipe them in.", hint=hint)
    if question is not None and not _is_text(question):
        raise UsageError("The question is not valid UTF-8.", hint="Set the terminal's encoding to UTF-8.")
    if piped:
        given: Iterable[str] = sanitise(sys.stdin.buffer.read().decode("utf-8", "replace")).splitlines()
    else:
        given = [question or ""] if file is None else _lines_of(file)
    lines = [line.strip() for line in given if line.strip()]
    if not lines:
        raise UsageError("The question is empty.", hint="Ask something.")
    return lines


def _is_text(question: str) -> bool:
    """False where bytes of the command line were not UTF-8: Python hands them on as lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in question)


def _lines_of(file: Path) -> list[str]:
    """The lines of a file of questions. Raises DocumentError; UsageError where it has no text."""
    if file.is_file() and not file.read_bytes().strip():
        raise UsageError(f"There is no question in {one_line(str(file))}.", hint="Write one question on each line.")
    return read_document(file).text.splitlines()


def as_json(answer: Answer, done: ReadDone, model: str) -> dict[str, object]:
    """One answer as the object that `--json` prints."""
    return {
        "question": answer.question,
        "answer": None if answer.reason == "demo" else answer.text,
        "found": None if answer.reason == "demo" else answer.found,
        "reason": answer.reason,
        "finish_reason": answer.finish_reason,
        "not_in_text": answer.not_in_text,
        "passages": [asdict(passage) for passage in answer.passages],
        "part": None if answer.part is None else asdict(answer.part),
        "tokens": answer.tokens,
        "tokens_read": done.tokens,
        "seconds": round(answer.seconds, 4),
        "reading_seconds": round(done.seconds, 4),
        "reopened": done.reopened,
        "model": model,
        "filter": done.filter,
        "state": done.stored,
    }


def say_which(model: str | None) -> None:
    """Print a notice when the built-in model is used by default, so that it is not taken for a real one."""
    if model is None:
        print(
            f"Note: the built-in model {DEFAULT} is {described(DEFAULT)}. `longmamba-mlx models` lists real ones.",
            file=sys.stderr,
        )


def _answer(session: Session, question: str, way: Way) -> Answer:
    show = way.stream and not way.json
    with ReadingBar() as bar:  # as of a place, a stretch is read first; for the surest, the parts
        events = session.ask(
            question, keep=way.keep, reread=way.reread, as_of=way.as_of, surest=way.surest, part_tokens=way.part_tokens
        )
        for event in events:
            if isinstance(event, Piece) and show:
                bar.close()
                print(event.text, end="", flush=True)
            elif isinstance(event, Answered):
                return event.answer
            else:
                bar.show(event)
    raise RuntimeError("an answer ends with Answered or an error")


def sources(files: list[str]) -> list[str]:
    """What to read: the files, or standard input where something is piped in. Raises UsageError."""
    if files:
        return files
    if sys.stdin.isatty() or is_null(sys.stdin):
        raise UsageError("There is no document.", hint="Name one with --file, or pipe it in.")
    return ["-"]
