"""`eval` as it is typed: rows on standard output, JSON, figure, and going on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from longmamba_mlx.cli import main


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err


def test_niah(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "o.json"
    words = ["eval", "niah", "--lengths", "512,2x", "--filter", "off,longmamba,last", "--samples", 4, "--json", report]
    code, out, _ = run(capsys, *words)
    assert code == 0 and len(out.splitlines()) == 1 + 6
    data = json.loads(report.read_text(encoding="utf-8"))
    assert data["model"] == "demo" and data["task"] == "niah" and data["training_length"] == 512
    assert [(row["filter"], row["length"]) for row in data["rows"][:3]] == [
        ("off", 512),
        ("longmamba", 512),
        ("last", 512),
    ]
    assert {"samples", "accuracy", "stderr", "nll", "depth", "gain"} <= set(data["rows"][0])
    assert data["rows"][0]["stderr"] is None  # of one document
    lines = (tmp_path / "o.samples.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 24
    assert run(capsys, *words)[1] == out
    assert (tmp_path / "o.samples.jsonl").read_text(encoding="utf-8").splitlines() == lines


def test_a_grid_with_its_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    figure = tmp_path / "o.png"
    code, out, _ = run(capsys, "eval", "niah", "--lengths", "512", "--filter", "off", "--samples", 1, "--depths", "2",
                       "--plot", figure)  # fmt: skip
    assert code == 0 and len(out.splitlines()) == 3 and figure.read_bytes().startswith(b"\x89PNG")


def test_passkey_ruler_and_perplexity(tmp_path: Path, story: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text(story, encoding="utf-8")
    code, out, _ = run(capsys, "eval", "passkey", "--lengths", "600", "--filter", "off,paper", "--samples", 1)
    assert code == 0 and len(out.splitlines()) == 3
    code, out, err = run(capsys, "eval", "ruler", "--lengths", "1200", "--tasks", "niah_single_1,fwe", "--samples", 1)
    assert code == 0 and len(out.splitlines()) == 5 and not err
    code, out, _ = run(capsys, "eval", "ppl", "--text", tmp_path, "--lengths", "600", "--samples", 1)
    assert code == 0 and len(out.splitlines()) == 3


def test_longbench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = {"input": "Who?", "context": "Ann did it. " * 90, "answers": ["Ann"], "length": 99, "all_classes": None}
    for name in ("hotpotqa_e", "triviaqa_e"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    report = tmp_path / "r.json"
    code, out, _ = run(
        capsys, "eval", "longbench", "--e", "--data", tmp_path, "--filter", "off,paper", "--json", report
    )
    assert code == 0 and len(out.splitlines()) == 5
    data = json.loads(report.read_text(encoding="utf-8"))
    assert {row["task"] for row in data["rows"]} == {"hotpotqa", "triviaqa"}
    assert all(row["group"] == "0-4k" and row["length"] > 200 for row in data["rows"])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["niah", "--lengths", "x"], 2, "length"),
        (["niah", "--filter", "magic"], 2, "Unknown filter"),
        (["niah", "--filter", "paper:zz=1"], 2, "Unknown filter option"),
        (["niah", "--depths", "2,3"], 2, "depths"),
        (["niah", "--split", "other"], 2, "split"),
        (["ppl", "--text", "nowhere.txt"], 66, "nowhere.txt"),
        (["ppl", "--filter", "off,surest", "--text", "nowhere.txt"], 2, "Leave `surest` out"),
        (["ruler", "--tasks", "zz"], 2, "Unknown RULER task"),
        (["ruler", "--tasks", "qa_1"], 65, "squad.json"),
        (["longbench", "--offline"], 65, "data.zip"),
        (["longbench", "--data", "nowhere"], 65, "data.zip"),
    ],
)
def test_mistakes_are_one_line_and_a_hint(
    words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    found, _, err = run(capsys, "eval", *words)
    assert found == code and said in err and err.startswith("Error:") and len(err.splitlines()) <= 2
