"""The plugin as the program `llm` runs it, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.interfaces.conftest import QUESTION

pytest.importorskip("llm")


@pytest.fixture
def llm(folder: Path, environment: dict[str, str], tmp_path: Path):  # type: ignore[no-untyped-def]
    """Runs `llm` beside the story, with the plugin as an installed package has it; it is known and remembered."""
    meta = tmp_path / "plugin" / "longmamba_plugin-1.dist-info"
    meta.mkdir(parents=True)
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: longmamba-plugin\nVersion: 1\n")
    (meta / "entry_points.txt").write_text("[llm]\nlongmamba = longmamba_mlx.interfaces.llm_plugin\n")
    paths = f"{environment['PYTHONPATH']}:{meta.parent}"
    outside = environment | {"LLM_USER_PATH": str(tmp_path / "llm"), "PYTHONPATH": paths}

    def run(*arguments: str, module: str = "llm") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", module, *arguments]
        return subprocess.run(command, env=outside, cwd=folder, capture_output=True, text=True, timeout=120)

    assert run("read", "--file", "story.txt", module="longmamba_mlx").returncode == 0
    return run


def test_remembered_documents_are_fragments_and_models(llm) -> None:  # type: ignore[no-untyped-def]
    models = llm("models").stdout
    assert "longmamba/demo\n" in models and "longmamba/demo@story.txt" in models
    assert llm("-m", "longmamba/demo", "-f", "book:story", QUESTION).stdout == "48213\n"
    (logged,) = json.loads(llm("logs", "-n", "1", "--json").stdout)
    told = logged["response_json"]
    assert told["reopened"] and told["document"] == "story.txt" and told["passages"][0]["quoted"]
    goes_on = llm("-c", "What is the access code of Varnok?")
    assert goes_on.stdout.startswith("The document does not say.") and "text search" in goes_on.stdout
    assert llm("-m", "longmamba/demo@story.txt", QUESTION).stdout == "48213\n"


def test_where_nothing_can_be_answered_one_line_says_why(llm) -> None:  # type: ignore[no-untyped-def]
    for arguments, says in (
        (("-m", "longmamba/demo", QUESTION), "There is no document"),
        (("-m", "longmamba/demo", "-f", "book:nothing", QUESTION), "No remembered document is called 'nothing'"),
        (("-m", "longmamba/demo", "-f", "story.txt", "-o", "as_of", "nowhere", QUESTION), "There is no 'nowhere'"),
    ):
        result = llm(*arguments)
        assert result.returncode == 1 and says in result.stderr and len(result.stderr.splitlines()) == 1
