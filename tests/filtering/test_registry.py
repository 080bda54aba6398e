"""A policy is a class and a row: everything else that knows filters follows."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

import longmamba_mlx as lm
from longmamba_mlx.errors import UsageError
from longmamba_mlx.filtering import Calibration, registry
from longmamba_mlx.filtering.calibration.data import LayerCalibration
from longmamba_mlx.filtering.layer_plan import LayerPlan
from longmamba_mlx.filtering.policies.base import Option, Policy
from longmamba_mlx.filtering.registry import POLICIES, Entry, completions, help_text, names, options, policy_class
from tests.commandline import Run, run

__all__ = ["run"]  # the fixture

DOCS = Path(__file__).resolve().parents[2] / "docs"


@dataclass(frozen=True, kw_only=True)
class Loud(Policy):
    """Every unit keeps the tokens whose raw step size is above one number."""

    name = "loud"
    options: ClassVar[tuple[Option, ...]] = (*Policy.options, Option("above", "above", float, "the threshold"))

    above: float = -4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not np.isfinite(self.above):
            raise UsageError(f"above must be a number, not {self.above}")

    def plan_layer(self, calibration: Calibration, layer: LayerCalibration, total_length: int) -> LayerPlan:
        everything = np.ones(layer.units, np.bool_)
        return LayerPlan(everything, np.full(layer.units, self.above, np.float32))


@pytest.fixture
def loud(monkeypatch: pytest.MonkeyPatch) -> None:
    """The class above, registered by one row."""
    monkeypatch.setattr(registry, "POLICIES", (*POLICIES, Entry("loud", "for a test", f"{__name__}:Loud")))


@pytest.mark.usefixtures("loud")
def test_a_registered_policy_filters_what_a_model_reads(story: str) -> None:
    states, ids = [], None
    for name in ("off", "loud:above=-100", "loud:above=-2", "loud:above=100"):
        book = lm.load("demo", filter=name).read(lm.Document("story", story))
        states.append(np.array(book.state.layers[1].ssm))
        assert book.filter == name.partition(":")[0]
        ids = book.kept
    off, everything, some, nothing = states
    np.testing.assert_allclose(everything, off, rtol=1e-4, atol=1e-5)
    assert np.abs(some - off).max() > 0.01 and np.abs(some).max() > 0.01
    assert not nothing.any() and ids is not None and not ids.any()
    for wrong in ("loud:above=nan", "loud:above=x", "loud:theta=0.1"):
        with pytest.raises(UsageError):
            lm.load("demo", filter=wrong)


@pytest.mark.usefixtures("loud")
def test_a_registered_policy_is_used_by_the_commands(run: Run, tmp_path: Path, story: str) -> None:
    file, report = tmp_path / "story.txt", tmp_path / "rows.json"
    file.write_text(story, encoding="utf-8")
    asked = run("ask", "--file", str(file), "--filter", "loud:above=-100", "--json",
                "What is the access code of Zorvath?")  # fmt: skip
    assert asked.code == 0 and json.loads(asked.out)["filter"] == "loud"
    states = run("states", "ls")
    assert states.code == 0 and "loud" in states.out
    measured = run("eval", "niah", "--lengths", "600", "--filter", "off,loud:above=100", "--samples", "4", "--json",
                   str(report))  # fmt: skip
    assert measured.code == 0
    written = json.loads(report.read_text(encoding="utf-8"))
    assert [row["filter"] for row in written["rows"]] == ["off", "loud:above=100"]
    record = json.loads(written["filters"]["loud:above=100"])
    assert record == {"above": 100.0, "mode": "loud", "protect_first": 0, "protect_last": 0}
    assert written["rows"][1]["nll"] > written["rows"][0]["nll"]  # nothing was let in
    refused = run("ask", "--file", str(file), "--filter", "lord", "?")
    assert refused.code == 2 and "loud" in refused.err


@pytest.mark.usefixtures("loud")
def test_names_help_and_completion_follow_from_the_row() -> None:
    assert names()[-1] == "loud" and help_text().startswith("off, longmamba, ") and " or loud;" in help_text()
    assert completions("lo") == ["longmamba", "loud"]
    assert completions("off,lo") == ["off,longmamba", "off,loud"]
    assert completions("loud:a") == ["loud:above="] and completions("loud:above=1:f") == ["loud:above=1:first="]
    assert completions("lord:") == completions("x") == []


def test_the_help_of_the_command_line_lists_every_name(run: Run) -> None:
    page = " ".join(run("ask", "--help").out.split())
    assert all(name in page for name in names())


@pytest.mark.parametrize("entry", POLICIES, ids=lambda entry: entry.name)
def test_a_row_names_its_class_and_options_set_fields(entry: Entry) -> None:
    policy = policy_class(entry.name)
    known = {field.name for field in fields(policy)}
    assert policy.name == entry.name and issubclass(policy, Policy)
    assert all(option.field in known for option in policy.options)
    assert len({option.key for option in policy.options}) == len(policy.options)
    assert json.loads(policy().canonical())["mode"] == entry.name


def test_the_documentation_lists_every_filter_and_option() -> None:
    page = (DOCS / "evaluation.md").read_text(encoding="utf-8")
    expected = "\n".join((*filter_table(), "", *option_table()))
    assert expected in page, f"docs/evaluation.md should hold:\n\n{expected}"


def filter_table() -> list[str]:
    rows = [f"| `{entry.name}` | {entry.summary} |" for entry in POLICIES]
    return ["| filter | what it does |", "|---|---|", *rows]


def option_table() -> list[str]:
    takes: dict[tuple[str, str], list[str]] = {}
    for entry in POLICIES:
        for option in options(entry.name):
            takes.setdefault((option.key, option.meaning), []).append(entry.name)
    rows = [
        f"| `{key}` | {'all' if len(modes) == len(POLICIES) else ', '.join(modes)} | {meaning} |"
        for (key, meaning), modes in takes.items()
    ]
    return ["| option | filters | meaning |", "|---|---|---|", *rows]
