"""LongBench from local files in its published form."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from longmamba_mlx.errors import DocumentError, UsageError
from longmamba_mlx.evaluation.longbench import ENGLISH_E, NAMES, data_folder, longbench_documents, split_prompt
from longmamba_mlx.evaluation.longbench_prompts import LONGEST, PROMPTS


def line(**changes: object) -> str:
    values = {"input": "Who?", "context": "Ann did it.", "answers": ["Ann"], "length": 3000, "dataset": "hotpotqa",
              "language": "en", "all_classes": None, "_id": "x"}  # fmt: skip
    return json.dumps({**values, **changes})


def write(folder: Path, name: str, *lines: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_every_task_has_prompt_and_limit() -> None:
    assert set(PROMPTS) == set(LONGEST) and len(NAMES) == 21 and len(ENGLISH_E) == 13
    assert all(prompt.count("{context}") == 1 for prompt in PROMPTS.values())
    assert LONGEST["qasper"] == 128 and LONGEST["gov_report"] == 512 and LONGEST["trec"] == 64


@pytest.mark.parametrize("name", NAMES)
def test_document_and_question_are_the_prompt(name: str) -> None:
    document, question = split_prompt(name, "CONTEXT {input}", "INPUT")
    expected = PROMPTS[name].replace("{input}", "INPUT").replace("{context}", "CONTEXT {input}")
    assert document + question == expected and document.endswith("CONTEXT {input}")


def test_scores_are_those_of_the_task(tmp_path: Path) -> None:
    write(tmp_path, "hotpotqa", line(), line(answers=["Bob Smith", "Bob"]))
    write(tmp_path, "trec", line(answers=["Food"], all_classes=["Food", "Animal"], input="Type:"))
    write(tmp_path, "passage_retrieval_en", line(answers=["Paragraph 3"]))
    write(tmp_path, "lcc", line(answers=["return x"], input=""))
    documents = list(longbench_documents(tmp_path, [], extended=False))
    assert [(planned.cell.task, planned.document, planned.cell.group) for planned in documents] == [
        ("hotpotqa", 0, ""), ("hotpotqa", 1, ""), ("trec", 0, ""), ("passage_retrieval_en", 0, ""), ("lcc", 0, "")
    ]  # fmt: skip
    exams = [planned.make() for planned in documents]
    assert exams[1].score("bob", exams[1].questions[0].answers) == 1.0  # the best of several answers
    assert exams[1].score("a smith", exams[1].questions[0].answers) == pytest.approx(2 / 3)
    assert exams[2].score("\nFood\nAnimal", ["Food"]) == 1.0  # the first line alone counts
    assert exams[3].score("Paragraph 3", ["Paragraph 3"]) == 1.0 and exams[3].max_tokens == 32
    assert exams[4].score("return x\n", ["return x"]) == 1.0
    assert exams[0].document.endswith("Ann did it.") and not exams[0].likelihood


def test_the_extended_files_are_told_apart_by_length(tmp_path: Path) -> None:
    write(tmp_path / "data", "trec_e", line(length=3999), line(length=4000), line(length=8000))
    groups = [planned.cell.group for planned in longbench_documents(tmp_path, ["trec"], extended=True)]
    assert groups == ["0-4k", "4-8k", "8k+"]
    assert len(list(longbench_documents(tmp_path, ["trec"], extended=True, samples=2))) == 2


def test_missing_and_broken_files(tmp_path: Path) -> None:
    for names, extended in ((["magic"], False), (["narrativeqa"], True)):
        with pytest.raises(UsageError):
            list(longbench_documents(tmp_path, names, extended=extended))
    with pytest.raises(DocumentError) as missing:
        list(longbench_documents(tmp_path, [], extended=False))
    assert missing.value.hint is not None and "data.zip" in missing.value.hint
    with pytest.raises(DocumentError):
        list(longbench_documents(tmp_path, ["trec"], extended=False))
    for broken in ("{", "[]", line(answers="Ann"), line(context=3), '{"input": "x"}'):
        write(tmp_path, "trec", broken)
        with pytest.raises(DocumentError, match=r"trec\.jsonl, line 1"):
            list(longbench_documents(tmp_path, ["trec"], extended=False))


def test_the_hubs_archive_is_unpacked_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "data.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("data/trec.jsonl", line())
        file.writestr("../evil.jsonl", line())
        file.writestr("data/readme.md", "no")
    target = tmp_path / "target"
    with pytest.raises(DocumentError, match="not on this machine"):
        data_folder(None, target, offline=True)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *args, **options: str(archive))
    assert data_folder(None, target, offline=False) == target
    assert sorted(path.name for path in tmp_path.rglob("*.jsonl")) == ["evil.jsonl", "trec.jsonl"]
    assert all(path.parent == target for path in tmp_path.rglob("*.jsonl"))
    assert data_folder(tmp_path, target, offline=True) == tmp_path

    def fail(*args: object, **options: object) -> str:
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    with pytest.raises(DocumentError, match="could not be fetched"):
        data_folder(None, tmp_path / "other", offline=False)
