"""`convert`, `models` and `use` as a user meets them, against a server on this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from longmamba_mlx.errors import ConfigError
from longmamba_mlx.ground.hub_id import is_hub_id
from longmamba_mlx.models import FAMILIES
from longmamba_mlx.models.config.base import ModelConfig
from longmamba_mlx.paths import config_file
from longmamba_mlx.registry import resolve
from longmamba_mlx.registry.known_models import CHECKPOINTS, Checkpoint
from tests.commandline import run
from tests.conversion.hub_server import COMMIT, Hub, serving
from tests.conversion.test_hub import NAME, server

__all__ = ["run", "server"]  # the fixtures

ROOT = Path(__file__).resolve().parents[2]


def test_models_lists_every_family_we_have(run) -> None:  # type: ignore[no-untyped-def]
    rows = json.loads(run("models", "--json").out)
    assert {row["family"] for row in rows} <= FAMILIES.keys()
    assert {"mamba", "mamba2", "falcon_mamba", "falcon_h1", "granitemoehybrid", "jamba", "zamba2"} <= {
        row["family"] for row in rows
    }
    assert [row["model"] for row in rows if row["default"]] == ["demo"]
    text = run("models").out
    assert all(checkpoint.repository in text for checkpoint in CHECKPOINTS) and "Apache 2.0" in text


def test_models_is_readable_in_eighty_columns() -> None:
    import pty

    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "longmamba_mlx", "models"]
    environment = os.environ | {"COLUMNS": "80", "TERM": "dumb"}
    subprocess.run(words, cwd=ROOT, env=environment, stdout=theirs, stderr=theirs, timeout=60, check=True)
    os.close(theirs)
    data = b""
    with suppress(OSError):  # the end of what a terminal holds is an error
        while part := os.read(ours, 65536):
            data += part
    os.close(ours)
    lines = data.decode().replace("\r", "").splitlines()
    assert all(any(checkpoint.repository in line for line in lines) for checkpoint in CHECKPOINTS)
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("gigabytes", "expected"), [(192, "yes"), (24, "yes"), (16, "with -q"), (8, "with -q"), (4, "no")]
)
def test_what_fits(gigabytes: int, expected: str) -> None:
    model = Checkpoint("a/b", "falcon_mamba", 7.3, None, None, True)
    assert model.fit(gigabytes << 30) == expected


def test_use_downloads_converts_and_becomes_the_default(run, server: Hub, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    done = run("use", NAME)
    assert done.code == 0 and f"{NAME}, commit {COMMIT[:12]}: 5 files" in done.err and NAME in done.out
    assert resolve.user_default() == NAME and resolve.resolve(NAME).is_dir()
    rows = {row["model"]: row for row in json.loads(run("models", "--json").out)}
    assert rows[NAME]["default"] and rows[NAME]["installed"] and not rows["demo"]["default"]
    server.asked.clear()
    assert run("use", NAME).code == 0 and not server.asked, "it is here already"
    assert "built-in" in run("use", "demo").out and resolve.user_default() is None
    assert run("use", "demo-mamba1").code == 0 and resolve.user_default() == "demo-mamba1"
    folder = tmp_path / "mine"
    shutil.copytree(resolve.resolve(NAME), folder)
    assert run("use", str(folder)).code == 0 and resolve.user_default() == str(folder)
    rows = {row["model"]: row for row in json.loads(run("models", "--json").out)}
    assert [name for name, row in rows.items() if row["default"]] == ["mine"]


def test_a_model_too_large_is_told_before(run, server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    from longmamba_mlx.registry import known_models

    monkeypatch.setattr(known_models, "total_bytes", lambda: 1000)
    assert f"use {NAME} -q" in run("use", NAME).err


def test_use_of_a_quantised_one(run, server: Hub) -> None:  # type: ignore[no-untyped-def]
    server.repositories[NAME] = resolve.resolve("demo-mamba1")
    assert run("use", NAME, "-q", "--q-bits", "8").code == 0
    default = resolve.user_default()
    assert default is not None and default.endswith("someone--tiny--q8-g64")
    rows = {row["model"]: row for row in json.loads(run("models", "--json").out)}
    assert rows["someone/tiny--q8-g64"]["default"]
    assert run("use", "someone/tiny--q8-g64").code == 0


def test_ask_uses_the_default(run, tmp_path: Path, story: str) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "story.txt").write_text(story)
    run("use", "demo-mamba1")
    asked = ("ask", "--file", str(tmp_path / "story.txt"), "--json", "--no-save", "What is the access code of Zorvath?")
    assert json.loads(run(*asked).out)["model"] == "demo-mamba1"
    assert json.loads(run(*asked[:-1], "--model", "demo", asked[-1]).out)["model"] == "demo"


def test_a_hub_model_is_fetched_by_the_first_command_that_names_it(
    run, server: Hub, tmp_path: Path, story: str
) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "story.txt").write_text(story)
    server.repositories[NAME] = resolve.resolve("demo-mamba1")
    asked = ("read", "--model", NAME, "--file", str(tmp_path / "story.txt"))
    first, second = run(*asked), run(*asked)
    assert first.code == second.code == 0 and f"{NAME}, commit" in first.err and "commit" not in second.err
    assert resolve.user_default() is None
    lost = run("ask", "--model", "someone/else", "--offline", "--file", str(tmp_path / "story.txt"), "Who?")
    assert lost.code == 1 and "not on this machine" in lost.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("use", "nowhere"), 66, "There is no model"),
        (("use", "someone/else"), 1, "No model someone/else on the Hub"),
        (("use", "demo", "--q-bits", "3"), 2, "need -q"),
        (("use", "someone/tiny", "-q", "--q-bits", "7"), 1, "no quantisation with 7 bits"),
        (("convert", "--hf-path", "x", "--mlx-path", "y", "--dtype", "int8"), 1, "Unknown dtype"),
        (("convert", "--hf-path", "nowhere", "--mlx-path", "y"), 1, "There is no folder 'nowhere'"),
        (("convert", "--hf-path", "x"), 2, "--mlx-path"),
    ],
)
def test_mistakes(run, server: Hub, arguments: tuple[str, ...], code: int, message: str) -> None:  # type: ignore[no-untyped-def]
    done = run(*arguments)
    assert done.code == code and message in done.err and "Traceback" not in done.err and not done.out
    assert resolve.user_default() is None


def test_a_default_that_was_removed(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    resolve.set_user_default(str(tmp_path / "gone"))
    done = run("ask", "--file", "x.txt", "Who?")
    assert done.code == 1 and "is gone" in done.err and "longmamba-mlx use" in done.err
    assert run("models").code == 0


def test_an_empty_folder_is_no_model(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    done = run("use", str(tmp_path))
    assert done.code == 1 and "No config.json" in done.err and resolve.user_default() is None


@pytest.mark.parametrize("text", ["", "[]", '{"model": 3}', '{"model": ""}', '{"model": "a\\nb"}', '{"a": 1, "a": 2}'])
def test_broken_settings_are_told_and_mended(text: str) -> None:
    path = config_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        resolve.user_default()
    assert "longmamba-mlx use" in str(caught.value.hint)
    resolve.set_user_default("a/b")
    assert resolve.user_default() == "a/b"
    resolve.set_user_default(None)
    assert resolve.user_default() is None


def test_other_settings_are_kept() -> None:
    config_file().parent.mkdir(parents=True, exist_ok=True)
    config_file().write_text('{"theme": "dark"}')
    resolve.set_user_default("demo-mamba1")
    assert json.loads(config_file().read_text()) == {"theme": "dark", "model": "demo-mamba1"}


def test_the_command_itself_from_download_to_offline(tmp_path: Path) -> None:
    """In a process of its own, so that nothing of the client is loaded before."""
    from tests.conversion.checkpoints import write_checkpoint

    write_checkpoint(tmp_path / "remote", "transformers-4-mamba")
    environment = os.environ | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0", "LONGMAMBA_HOME": str(tmp_path)}

    def command(target: str, *more: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "longmamba_mlx", "convert", "--hf-path", NAME, "--mlx-path", target, *more]
        return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)

    with serving() as hub:
        hub.repositories[NAME] = tmp_path / "remote"
        environment["HF_ENDPOINT"] = hub.endpoint
        done = command(str(tmp_path / "one"))
    assert done.returncode == 0 and done.stdout == f"{tmp_path / 'one'}\n", done.stderr
    assert done.stderr.splitlines() == [f"{NAME}, commit {COMMIT[:12]}: 3 files, {size(tmp_path / 'remote')}"]
    assert command(str(tmp_path / "two"), "--offline").returncode == 0
    lost = command(str(tmp_path / "three"))
    assert lost.returncode == 1 and lost.stderr.count("\n") == 2 and "Hint: " in lost.stderr


def size(folder: Path) -> str:
    from longmamba_mlx.ground.sizes import format_size

    names = ("config.json", "model.safetensors", "tokenizer.json")
    return format_size(sum((folder / name).stat().st_size for name in names))


def test_configs_and_catalogue_agree_on_what_a_family_is() -> None:
    assert ModelConfig.__dataclass_fields__["model_type"]
    assert {checkpoint.family for checkpoint in CHECKPOINTS} <= FAMILIES.keys()
    assert len({checkpoint.repository for checkpoint in CHECKPOINTS}) == len(CHECKPOINTS)
    assert all(is_hub_id(checkpoint.repository) for checkpoint in CHECKPOINTS)
