"""MLX models from mlx-community, LM Studio and the Hub's cache, used where they lie: listed, found, never copied."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from longmamba_mlx.builtin import described
from longmamba_mlx.paths import model_folder
from longmamba_mlx.registry import local_models as places
from longmamba_mlx.registry import resolve
from longmamba_mlx.registry.known_models import CHECKPOINTS, recommended
from longmamba_mlx.tui.screens.model_choices import download_size, model_choices
from tests.commandline import run
from tests.conversion.hub_server import Hub, serving_model
from tests.conversion.mlx_lm_folders import hub_cache, lm_studio, mlx_lm_folder

__all__ = ["run"]  # a fixture

NAME = "mlx-community/granite-4.0-h-tiny-4bit"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with nothing in it, and the Hub's cache there."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / ".cache" / "huggingface" / "hub"))
    return folder


@pytest.fixture
def four_bit(tmp_path: Path) -> Path:
    """The built-in model as mlx-lm quantises it, with its tokenizer."""
    folder = mlx_lm_folder(resolve.resolve("demo"), tmp_path / "mlx-lm", bits=4)
    (folder / "tokenizer.json").write_bytes((resolve.resolve("demo") / "tokenizer.json").read_bytes())
    return folder


@pytest.fixture
def server(tmp_path: Path, no_network: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving_model("someone/tiny", tmp_path, monkeypatch) as running:
        yield running


def cache() -> Path:
    return Path(constants.HF_HUB_CACHE)


@pytest.fixture
def story_file(tmp_path: Path, story: str) -> Path:
    (tmp_path / "story.txt").write_text(story)
    return tmp_path / "story.txt"


def asked(story_file: Path, *more: str) -> tuple[str, ...]:
    return ("ask", "--file", str(story_file), "--json", *more, "What is the access code of Zorvath?")


def test_a_quantised_hub_model_is_used_where_the_client_puts_it(
    run, home: Path, server: Hub, four_bit: Path, story_file: Path
) -> None:  # type: ignore[no-untyped-def]
    server.repositories[NAME] = four_bit
    first = run(*asked(story_file, "--model", NAME))
    assert first.code == 0 and json.loads(first.out)["model"] == NAME, first.err
    assert "is in MLX format and is used as it is" in first.err and "4 bits" in first.err
    assert not list(model_folder().glob("*/*")) if model_folder().exists() else True
    assert "README.md" not in server.downloads()
    server.asked.clear()
    second = run(*asked(story_file, "--model", NAME))
    assert second.code == 0 and not server.asked, "it is here already"
    assert resolve.is_here(NAME) and download_size(NAME) is None
    assert run("use", NAME).code == 0 and not server.asked and resolve.user_default() == NAME
    assert json.loads(run(*asked(story_file, "--offline")).out)["model"] == NAME


def test_use_downloads_it_and_options_that_would_change_it_are_refused(
    run, home: Path, server: Hub, four_bit: Path
) -> None:  # type: ignore[no-untyped-def]
    server.repositories[NAME] = four_bit
    for option in (("-q",), ("--dtype", "float32"), ("--tokenizer", "bytes")):
        done = run("use", NAME, *option)
        assert done.code == 1 and "quantised already" in done.err and "Use it as it is" in done.err
    done = run("use", NAME)
    assert done.code == 0 and "snapshots" in done.out and resolve.user_default() == NAME
    assert not list(model_folder().glob("*--*"))


def test_an_unquantised_mlx_model_is_used_as_it_is_and_can_be_quantised(
    run, home: Path, server: Hub, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    folder = mlx_lm_folder(resolve.resolve("demo"), tmp_path / "mlx-lm")
    server.repositories["mlx-community/demo-f32"] = folder
    assert "snapshots" in run("use", "mlx-community/demo-f32").out
    assert run("use", "mlx-community/demo-f32", "-q").code == 0
    default = resolve.user_default()
    assert default is not None and default.endswith("mlx-community--demo-f32--q4-g64")


def test_a_revision_is_remembered_by_its_folder(run, home: Path, server: Hub, four_bit: Path) -> None:  # type: ignore[no-untyped-def]
    from tests.conversion.hub_server import COMMIT

    server.repositories[NAME] = four_bit
    assert run("use", NAME, "--revision", COMMIT).code == 0
    default = resolve.user_default()
    assert default is not None and default.endswith(f"snapshots/{COMMIT}") and Path(default).is_dir()


def test_another_family_is_refused_before_its_weights_are_downloaded(
    run, home: Path, server: Hub, four_bit: Path
) -> None:  # type: ignore[no-untyped-def]
    table = json.loads((four_bit / "config.json").read_text())
    for name, change, match in (
        ("a/qwen", {"model_type": "qwen3_5"}, "not supported"),
        ("a/gptq", {"quantization": None, "quantization_config": {"quant_method": "gptq"}}, "quantised by 'gptq'"),
    ):
        server.repositories[name] = four_bit
        (four_bit / "config.json").write_text(json.dumps(table | change))
        done = run("use", name)
        assert done.code == 1 and match in done.err and "Traceback" not in done.err
        assert set(server.downloads()) == {"config.json"}


@pytest.mark.parametrize("place", ["LM Studio", "older LM Studio", "chosen folder", "Hub cache"])
def test_models_of_other_programs_are_found_listed_and_left_alone(
    run, home: Path, no_network: None, four_bit: Path, story_file: Path, place: str, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    if place == "Hub cache":
        folder = hub_cache(cache(), NAME, four_bit)
    elif place == "chosen folder":
        (home / ".lmstudio").mkdir()
        (home / ".lmstudio" / "settings.json").write_text(json.dumps({"downloadsFolder": str(tmp_path / "big disk")}))
        (tmp_path / "big disk" / NAME).parent.mkdir(parents=True)
        folder = four_bit.rename(tmp_path / "big disk" / NAME)
    else:
        folder = lm_studio(home, NAME, four_bit, older=place.startswith("older"))
    before = sorted(os.listdir(folder))
    assert resolve.resolve(NAME, offline=True) == folder and resolve.is_here(NAME)
    shown = "Hub cache" if place == "Hub cache" else "LM Studio"
    row = {row["model"]: row for row in json.loads(run("models", "--json").out)}[NAME]
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert (row["family"], row["bits"], row["download_bytes"], row["place"]) == ("mamba2", 4, size, shown)
    assert row["installed"] == [str(folder)]
    line = next(line for line in run("models").out.splitlines() if NAME in line)
    assert shown in line and " 4 " in line
    choice = {choice.name: choice.detail for choice in model_choices()}[NAME]
    assert shown in choice and "mamba2" in choice and "4 bit" in choice and "kB" in choice
    assert run("use", NAME).code == 0 and resolve.user_default() == NAME
    done = run(*asked(story_file, "--offline"))
    assert done.code == 0 and json.loads(done.out)["model"] == NAME
    assert run("calibrate", "--model", NAME, "--windows", "2").code == 0
    assert sorted(os.listdir(folder)) == before, "nothing is written into another program's folder"
    assert not list(model_folder().glob("*--*"))


def test_what_cannot_be_used_is_not_listed(run, home: Path, no_network: None, four_bit: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from tests.conversion.checkpoints import write_checkpoint

    def placed(name: str) -> Path:
        import shutil

        return lm_studio(home, name, Path(shutil.copytree(four_bit, tmp_path / name.replace("/", "-"))))

    placed("a/whole")
    (placed("a/no-weights") / "model.safetensors").unlink()
    table = json.loads((four_bit / "config.json").read_text())
    (placed("a/other-family") / "config.json").write_text(json.dumps(table | {"model_type": "llama"}))
    (placed("a/broken-config") / "config.json").write_text("{")
    (placed("a/broken-weights") / "model.safetensors").write_bytes(b"x" * 300)
    (placed("a/link-out") / "model.safetensors").unlink()
    (home / ".lmstudio/models/a/link-out/model.safetensors").symlink_to("/etc/hostname")
    (home / ".lmstudio/models/a/gguf").mkdir()
    (home / ".lmstudio/models/a/gguf/model.gguf").write_text("GGUF")
    (home / ".lmstudio/models/stray.txt").write_text("x")
    write_checkpoint(tmp_path / "hf", "transformers-4-mamba")  # not in MLX format: converted, not used as it is
    hub_cache(cache(), "someone/transformers", tmp_path / "hf")
    (cache() / "models--no--refs" / "snapshots" / "x").mkdir(parents=True)
    (cache() / "datasets--a--b").mkdir()
    assert [model.name for model in places.local_models()] == ["a/whole"]
    for name in ("a/no-weights", "a/other-family", "someone/transformers", "no/refs", "a/gguf"):
        assert places.find_local(name) is None and not resolve.is_here(name)
    assert run("models").code == 0


def test_a_shard_that_is_missing_makes_a_snapshot_incomplete(home: Path, tmp_path: Path) -> None:
    from tests.conversion.checkpoints import write_checkpoint

    write_checkpoint(tmp_path / "hf", "transformers-4-mamba", shards=2)
    folder = mlx_lm_folder(tmp_path / "hf", tmp_path / "mlx")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"]["x"] = "model-00002-of-00002.safetensors"
    index["weight_map"] |= dict.fromkeys(index["weight_map"], "model-00001-of-00002.safetensors") | {
        "x": "model-00002-of-00002.safetensors"
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    hub_cache(cache(), "someone/partial", folder)
    assert places.find_local("someone/partial") is None


def test_broken_settings_of_lm_studio_are_ignored(home: Path, tmp_path: Path) -> None:
    (home / ".lmstudio").mkdir()
    for text in (
        "{",
        "[]",
        '{"downloadsFolder": 3}',
        '{"downloadsFolder": "relative"}',
        '{"downloadsFolder": "/no/such"}',
    ):
        (home / ".lmstudio" / "settings.json").write_text(text)
        assert places.lm_studio_folders() == []


def test_a_model_converted_here_comes_first(home: Path, four_bit: Path) -> None:
    from longmamba_mlx.conversion import convert

    lm_studio(home, NAME, four_bit)
    own = places.installed_folder(NAME)
    convert("demo", own)
    assert resolve.resolve(NAME) == own
    assert [model.place for model in places.local_models()] == [places.HERE]


@pytest.mark.parametrize("gigabytes", [4, 8, 16, 24, 32, 48, 64, 96, 128, 512])
def test_what_is_recommended_fits(gigabytes: int) -> None:
    memory = int(gigabytes * 0.98 * (1 << 30))
    best, plain = recommended(memory), recommended(memory, quantise=False)
    assert best.size <= 0.55 * memory and plain.size <= 0.55 * memory and not plain.quantised
    assert best.checkpoint in CHECKPOINTS and best.gigabytes <= gigabytes
    assert best.command.startswith("longmamba-mlx use ") and best.command.endswith(" -q") == best.quantised


def test_the_recommended_models_come_first(run, home: Path) -> None:  # type: ignore[no-untyped-def]
    rows = json.loads(run("models", "--json").out)
    assert rows[0]["model"] == recommended().repository and rows[0]["recommended_here"]
    sizes = [size for row in rows for size in row.get("recommended_gigabytes", [])]
    assert len(sizes) == len(set(sizes)) >= 4, "one row for each memory size"
    text = run("models").out
    (marked,) = (line for line in text.splitlines() if line.startswith(">"))
    assert recommended().repository in marked
    assert described("demo") in text and "not tuned to answer" in text and "…" not in text
    choices = model_choices()
    assert f"built in · {described('demo')}" in [choice.detail for choice in choices if choice.name == "demo"]
    assert choices[0].name == recommended(quantise=False).repository and choices[0].detail.startswith("recommended")


def test_the_models_of_today_are_known() -> None:
    known = {checkpoint.repository.split("/")[1]: checkpoint for checkpoint in CHECKPOINTS}
    assert {
        "AI21-Jamba2-3B", "Falcon-H1R-7B", "Falcon-H1-Tiny-R-90M", "NVIDIA-Nemotron-3-Nano-4B-BF16",
        "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "NVIDIA-Nemotron-3.5-Lightning-30B-A3B-BF16",
        "NVIDIA-Nemotron-Nano-12B-v2", "Bamba-9B-v2", "mamba-2.8b-slimpj",
    } <= known.keys()  # fmt: skip
    assert known["AI21-Jamba2-3B"].licence == "Apache 2.0" and known["AI21-Jamba2-3B"].context == 262144
