"""Downloads, end to end against a server on this machine: what is fetched, checked, kept; and every failure."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from longmamba_mlx.conversion import convert
from longmamba_mlx.conversion.hub.files import needed
from longmamba_mlx.conversion.hub.progress import DownloadProgress
from longmamba_mlx.errors import DiskError, LongMambaError, ModelError, StoppedError
from longmamba_mlx.models.config.parse import read_json
from longmamba_mlx.models.loading import load_model
from tests.conversion.hub_server import COMMIT, Hub, serving_model

NAME = "someone/tiny"
SNAPSHOT_BAR = "huggingface_hub.snapshot_download"


class Heard:
    """A report that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.bytes: list[tuple[int, int]] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def progress(self, what: str, done: int, total: int) -> None:
        if what == NAME:
            self.bytes.append((done, total))


@pytest.fixture
def server(tmp_path: Path, no_network: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with one model, the client pointed at it, and no pauses between tries."""
    with serving_model(NAME, tmp_path, monkeypatch) as running:
        yield running


@pytest.mark.parametrize(
    ("there", "weights"),
    [
        (["model.safetensors", "pytorch_model.bin"], ["model.safetensors"]),
        (
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json",
             "consolidated.safetensors", "pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"],
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"],
        ),
        (["pytorch_model.bin", "training_args.bin", "optimizer.bin"], ["pytorch_model.bin"]),
        (["pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json"],
         ["pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json"]),
        (["consolidated.safetensors", "params.json"], ["consolidated.safetensors", "params.json"]),
        (["weights.safetensors", "adapter_model.safetensors"], ["weights.safetensors"]),
        (["sub/model.safetensors", "model.gguf", "modeling_x.py"], []),
    ],
)  # fmt: skip
def test_which_files_are_needed(there: list[str], weights: list[str]) -> None:
    always = ["config.json", "tokenizer.json", "chat_template.jinja"]
    assert needed([*there, *always, "README.md", "model.py"]) == sorted([*weights, *always])


def test_a_model_is_downloaded_checked_and_pinned(tmp_path: Path, server: Hub) -> None:
    remote = server.repositories[NAME]
    (remote / "pytorch_model.bin").write_bytes(b"not wanted")
    (remote / "chat_template.jinja").write_text("{{ messages }}")
    heard = Heard()
    convert(NAME, tmp_path / "mlx", report=heard)
    assert sorted(server.downloads()) == [
        "chat_template.jinja", "config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
        "model.safetensors.index.json", "tokenizer.json",
    ]  # fmt: skip
    total = sum((remote / name).stat().st_size for name in server.downloads())
    assert heard.lines[0].startswith(f"{NAME}, commit {COMMIT[:12]}: 6 files") and heard.bytes[-1] == (total, total)
    assert [done for done, _ in heard.bytes] == sorted(done for done, _ in heard.bytes)
    settings = read_json(tmp_path / "mlx" / "config.json")["longmamba"]
    assert settings == {"source": {"repository": NAME, "revision": COMMIT}}
    assert (tmp_path / "mlx" / "chat_template.jinja").read_text() == "{{ messages }}"
    assert load_model(tmp_path / "mlx").settings == settings


def test_a_second_time_nothing_is_fetched_and_offline_works(
    tmp_path: Path, server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(NAME, tmp_path / "one")
    before = len(server.downloads())
    convert(NAME, tmp_path / "two", revision=COMMIT)
    assert len(server.downloads()) == before
    server.asked.clear()
    convert(NAME, tmp_path / "three", offline=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    convert(NAME, tmp_path / "four", revision=COMMIT)
    assert not server.asked
    texts = {(tmp_path / name / "config.json").read_text() for name in ("one", "two", "three", "four")}
    assert len(texts) == 1


def test_offline_damage_is_noticed(tmp_path: Path, server: Hub) -> None:
    convert(NAME, tmp_path / "one")
    blob = next((tmp_path / "cache").rglob("snapshots/*/model-00001*")).resolve()
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    with pytest.raises(ModelError, match="damaged in the Hub client's cache") as caught:
        convert(NAME, tmp_path / "two", offline=True)
    assert caught.value.hint and not (tmp_path / "two").exists()
    convert(NAME, tmp_path / "two")  # fetched anew
    assert blob.read_bytes() != bytes(data)


@pytest.mark.parametrize("cuts", [1, 3])
def test_cut_connections_are_taken_up_again(tmp_path: Path, server: Hub, cuts: int) -> None:
    name = "model-00002-of-00002.safetensors"
    server.faults[name] = ["cut"] * cuts
    convert(NAME, tmp_path / "mlx")
    ranges = [header for method, path, header in server.asked if method == "GET" and path.endswith(name)]
    assert len(ranges) == cuts + 1 and all(header.startswith("bytes=") for header in ranges[1:])
    assert load_model(tmp_path / "mlx")


def test_a_connection_that_stays_cut_is_an_error_and_a_rerun_finishes(tmp_path: Path, server: Hub) -> None:
    name = "model-00002-of-00002.safetensors"
    server.faults[name] = ["cut"] * 200
    with pytest.raises(ModelError, match="Downloading someone/tiny failed") as caught:
        convert(NAME, tmp_path / "mlx")
    assert caught.value.hint and "\n" not in str(caught.value)
    assert not (tmp_path / "mlx").exists() and not list(tmp_path.rglob("*.incomplete"))
    assert [path for path in os.listdir(tmp_path) if path.startswith(".")] == []
    server.faults.clear()
    before = server.downloads().count("model-00001-of-00002.safetensors")
    convert(NAME, tmp_path / "mlx")
    assert server.downloads().count("model-00001-of-00002.safetensors") == before, "whole files are kept"


def test_damage_on_the_way_is_noticed_and_mended_once(tmp_path: Path, server: Hub) -> None:
    name = "model-00001-of-00002.safetensors"
    server.faults[name] = ["damage"]
    convert(NAME, tmp_path / "one")
    assert server.downloads().count(name) == 2
    shutil.rmtree(tmp_path / "cache")
    server.faults[name] = ["damage"] * 3
    with pytest.raises(ModelError, match="arrived damaged twice") as caught:
        convert(NAME, tmp_path / "two")
    assert caught.value.hint and not (tmp_path / "two").exists()


def test_bytes_of_the_clients_new_storage_count_once() -> None:
    """The client's reporter of that storage (Xet) is driven as its download drives it."""
    from types import SimpleNamespace

    module = pytest.importorskip("huggingface_hub.utils._xet_progress_reporting")
    heard = Heard()
    bar_class = DownloadProgress(heard, NAME, 7, 107).bar_class()
    written, received = (bar_class(unit="B", name=name) for name in (SNAPSHOT_BAR, f"{SNAPSHOT_BAR}.transfer"))

    class Bar:
        """What the client's snapshot download makes of its two bars for each file."""

        def __init__(self, *_: object, **__: object) -> None:
            self.set_postfix_str = self.set_transfer_postfix_str = self.close = lambda *_, **__: None

        def update(self, count: float) -> None:
            written.update(count)

        def update_transfer(self, count: float) -> None:
            received.update(count)

    reporter = module.XetDownloadProgressReporter(reconstruction_desc="", total=100, log_level=30, tqdm_class=Bar)
    with reporter as progress:
        for done in (40, 100):
            progress.update_progress(
                SimpleNamespace(
                    total_bytes_completed=done, total_transfer_bytes_completed=done, total_bytes=100,
                    total_bytes_completion_rate=1.0, total_transfer_bytes_completion_rate=1.0,
                )
            )  # fmt: skip
    assert sorted({done for done, _ in heard.bytes}) == [47, 107]


class Impatient(Heard):
    """Wants no more once something of the weights is there; notes when that was."""

    stopped_at = 0.0

    def progress(self, what: str, done: int, total: int) -> None:
        super().progress(what, done, total)
        if done > 10_000:
            self.stopped_at = self.stopped_at or time.monotonic()
            raise StoppedError("The download was stopped.")


@pytest.mark.parametrize("fault", ["hold", ""])
def test_a_download_that_nobody_wants_ends_at_once(tmp_path: Path, server: Hub, fault: str) -> None:
    """Also while the server says nothing: the stop is the report's own error, not a failed download."""
    server.faults["model-00001-of-00002.safetensors"] = [fault]
    heard = Impatient()
    with pytest.raises(StoppedError, match="was stopped"):
        convert(NAME, tmp_path / "mlx", report=heard)
    assert time.monotonic() - heard.stopped_at < 2 and not (tmp_path / "mlx").exists()
    server.released.set()
    convert(NAME, tmp_path / "mlx")
    assert load_model(tmp_path / "mlx")


def test_somebody_who_waits_for_a_silent_server_is_told_again_and_again(tmp_path: Path, server: Hub) -> None:
    server.faults["model-00001-of-00002.safetensors"] = ["hold"]
    heard = Heard()
    progress = heard.progress

    def count(what: str, done: int, total: int) -> None:
        progress(what, done, total)
        if heard.bytes.count((done, total)) >= 3:
            server.released.set()

    heard.progress = count  # type: ignore[method-assign]
    convert(NAME, tmp_path / "mlx", report=heard)
    assert server.released.is_set() and load_model(tmp_path / "mlx")


def test_no_room_is_said_before_anything_is_fetched(
    tmp_path: Path, server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(DiskError, match=r"the disk has 1\.0 kB left") as caught:
        convert(NAME, tmp_path / "mlx")
    assert caught.value.hint and not server.downloads()


def test_what_the_hub_refuses(tmp_path: Path, server: Hub) -> None:
    def fails(match: str, name: str = NAME, revision: str | None = None) -> None:
        with pytest.raises(ModelError, match=match) as caught:
            convert(name, tmp_path / "mlx", revision=revision)
        assert caught.value.hint and "\n" not in str(caught.value)
        assert not (tmp_path / "mlx").exists()

    fails("No model someone/else on the Hub", "someone/else")
    fails(f"No model {NAME} at revision v9", revision="v9")
    server.gated.add(NAME)
    fails("accept its terms")
    server.gated.clear()
    server.repositories["someone/empty"] = tmp_path / "empty"
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "README.md").write_text("nothing")
    fails("holds no model files", "someone/empty")


def test_an_unreachable_hub(tmp_path: Path, server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match="the Hub was not reached") as caught:
        convert(NAME, tmp_path / "mlx")
    assert caught.value.hint and "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="not on this machine"):
        convert(NAME, tmp_path / "mlx", offline=True)


def raised(kind: type[Exception], text: str) -> Exception:
    """An error of the client's without the response of whichever HTTP library it uses."""
    error = kind.__new__(kind, text)
    error.args = (text,)
    return error


@pytest.mark.parametrize(
    ("error", "match"),
    [
        (raised(errors.RepositoryNotFoundError, "404\nlong text"), "No model owner/name"),
        (raised(errors.RevisionNotFoundError, "404"), "No model owner/name at revision abc"),
        (raised(errors.GatedRepoError, "403"), "accept its terms"),
        (errors.LocalEntryNotFoundError("not cached"), "not on this machine"),
        (raised(errors.HfHubHTTPError, "500\nserver"), "failed: 500"),
        (errors.OfflineModeIsEnabled("offline"), "failed: offline"),
        (ConnectionError("no route"), "no route"),
        (Exception("name resolution failed"), "name resolution"),
    ],
)
def test_failures_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, match: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fail)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LongMambaError, match=match) as caught:
        convert("owner/name", tmp_path / "mlx", revision="abc")
    assert "\n" not in str(caught.value) and caught.value.hint


# ---------------------------------------------------------------- tokenizers


def original(folder: Path, vocabulary: int = 50280, **more: object) -> Path:
    """A mamba_ssm checkpoint without a tokenizer, with the vocabulary of GPT-NeoX or of bytes."""
    import mlx.core as mx

    from longmamba_mlx.models import FAMILIES
    from tests.models import samples

    table = {
        "d_model": 8, "n_layer": 1, "vocab_size": vocabulary, "pad_vocab_size_multiple": 1,
        "ssm_cfg": {"d_state": 4, "dt_rank": 2, "expand": 1},
    }  # fmt: skip
    config = samples.ModelConfig("mamba", vocabulary, 8, 1, 8, 4, 4, dt_rank=2)
    from mlx.utils import tree_flatten

    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(table | more))
    tensors = dict(tree_flatten(FAMILIES["mamba"](config).parameters()))
    tensors["backbone.embedding.weight"] = tensors.pop("backbone.embeddings.weight")
    mx.save_safetensors(str(folder / "model.safetensors"), tensors)
    return folder


def test_the_tokenizer_that_originals_do_not_ship(tmp_path: Path, server: Hub) -> None:
    from tests.conversion.checkpoints import tiny_tokenizer

    neox = tmp_path / "neox"
    neox.mkdir()
    (neox / "tokenizer.json").write_text(tiny_tokenizer())
    (neox / "tokenizer_config.json").write_text('{"tokenizer_class": "X", "auto_map": {"AutoTokenizer": "evil.py"}}')
    (neox / "model.safetensors").write_bytes(b"40 GB")
    server.repositories["EleutherAI/gpt-neox-20b"] = neox
    original(tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "mlx")
    assert sorted(server.downloads()) == ["tokenizer.json", "tokenizer_config.json"]
    assert (tmp_path / "mlx" / "tokenizer.json").read_text() == tiny_tokenizer()
    assert json.loads((tmp_path / "mlx" / "tokenizer_config.json").read_text()) == {"tokenizer_class": "X"}
    convert(tmp_path / "hf", tmp_path / "again", offline=True)


def test_offline_the_missing_tokenizer_is_named(tmp_path: Path, server: Hub) -> None:
    original(tmp_path / "hf")
    with pytest.raises(ModelError, match="The tokenizer is missing: EleutherAI/gpt-neox-20b") as caught:
        convert(tmp_path / "hf", tmp_path / "mlx", offline=True)
    assert "--tokenizer" in str(caught.value.hint) and not (tmp_path / "mlx").exists()
