"""Downloads: only what is needed, and every failure as one line with a hint. The client is a stand-in."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import errors

from longmamba_mlx.convert import convert, hub
from longmamba_mlx.errors import ModelError
from tests.convert.checkpoints import write_checkpoint


def raised(kind: type[Exception], text: str) -> Exception:
    """An error of the client's without the response of whichever HTTP library it uses."""
    error = kind.__new__(kind, text)
    error.args = (text,)
    return error


@pytest.mark.parametrize("text", ["state-spaces/mamba-130m-hf", "a/b", "tiiuae/Falcon3-Mamba-7B-Instruct"])
def test_hub_ids(text: str) -> None:
    assert hub.is_hub_id(text)


@pytest.mark.parametrize("text", ["a", "a/b/c", "./a", "../a", "/a/b", "~/a", "a b/c", "a/", "-a/b", "a/b\n"])
def test_no_hub_ids(text: str) -> None:
    assert not hub.is_hub_id(text)


def test_only_what_is_needed_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def snapshot(repository: str, **options: object) -> str:
        asked.update(options, repository=repository)
        write_checkpoint(tmp_path / "cache", "transformers-4-mamba")
        return str(tmp_path / "cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.chdir(tmp_path)
    convert("owner/name", tmp_path / "mlx", revision="abc", offline=True)
    assert asked["repository"] == "owner/name" and asked["revision"] == "abc" and asked["local_files_only"]
    assert "*.safetensors" in asked["allow_patterns"] and "*" not in asked["allow_patterns"]
    assert (tmp_path / "mlx" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("error", "match"),
    [
        (raised(errors.RepositoryNotFoundError, "404\nlong text"), "no model owner/name"),
        (raised(errors.RevisionNotFoundError, "404"), "no model owner/name at revision abc"),
        (raised(errors.GatedRepoError, "403"), "accept its terms"),
        (errors.LocalEntryNotFoundError("not cached"), "not on this machine"),
        (raised(errors.HfHubHTTPError, "500\nserver"), "failed: 500"),
        (errors.OfflineModeIsEnabled("offline"), "failed: offline"),
        (OSError(28, "No space left on device"), "No space left"),
        (ConnectionError("no route"), "no route"),
        (Exception("name resolution failed"), "name resolution"),
    ],
)
def test_failures_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, match: str) -> None:
    def snapshot(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=match) as caught:
        convert("owner/name", tmp_path / "mlx", revision="abc")
    assert "\n" not in str(caught.value) and caught.value.hint
