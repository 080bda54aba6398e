"""Write into a built-in model's card which questions it knows: `python training/card.py longmamba_mlx/builtin/demo`.

The table comes from `known_questions` of the model's config.json, between <!-- questions --> and <!-- /questions -->.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from longmamba_mlx.evaluation.attributes import ATTRIBUTES

NUMBER = re.compile(r"What is the (.+) of \{name\}\?")
PLACE = re.compile(r"(<!-- questions -->).*?(<!-- /questions -->)", re.DOTALL)


def forms(known: list[str]) -> dict[tuple[str, tuple[str, ...]], list[str]]:
    """(kind of value, questions about THING of {name}) -> the things so asked for."""
    left, found = dict.fromkeys(known), dict[tuple[str, tuple[str, ...]], list[str]]()

    def add(kind: str, thing: str, questions: list[str]) -> None:
        asked = tuple(question.replace(f"the {thing} ", "the THING ") for question in questions)
        found.setdefault((kind, asked), []).append(thing)

    for item in ATTRIBUTES:
        # "lease end" and "lease, signed by" are about the lease
        thing = item.name if item.kind in ("code", "phone") else re.split(r" end$|,", item.name)[0]
        if said := [question for question in item.questions if question in left]:
            add(item.kind, thing, said)
            left = {question: None for question in left if question not in said}
    for question in left:
        match = NUMBER.fullmatch(question)
        add("code", match[1] if match else "", [question])
    return found


def table(known: list[str]) -> str:
    """The known questions in a Markdown table, in rows of the same wordings."""
    lines = ["| answer | THING | questions |", "|---|---|---|"]
    for (kind, questions), things in sorted(forms(known).items(), key=lambda form: form[0][0]):
        asked = "<br>".join(question.replace("{name}", "NAME") for question in questions)
        lines.append(f"| {kind} | {', '.join(things)} | {asked} |")
    return "\n".join(lines)


def write(folder: Path) -> None:
    """Renew the table of a model folder's card. Raises SystemExit where it has no place for one."""
    card, config = folder / "README.md", json.loads((folder / "config.json").read_text(encoding="utf-8"))
    text = card.read_text(encoding="utf-8")
    if not PLACE.search(text):
        raise SystemExit(f"{card} has no <!-- questions --> … <!-- /questions -->")
    body = table(config["longmamba"]["known_questions"])
    card.write_text(PLACE.sub(lambda match: f"{match[1]}\n{body}\n{match[2]}", text), encoding="utf-8")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        write(Path(name))
