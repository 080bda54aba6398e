"""Which names are Hub repositories, and which are paths."""

from __future__ import annotations

import pytest

from longmamba_mlx.ground.hub_id import is_hub_id


@pytest.mark.parametrize("name", ["state-spaces/mamba-130m-hf", "a/b", "tiiuae/Falcon3-Mamba-7B-Instruct", "a._-/b._-"])
def test_hub_ids(name: str) -> None:
    assert is_hub_id(name)


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "a/b/c",
        "./a",
        "../a",
        "/a/b",
        "~/a",
        "a b/c",
        "a/",
        "-a/b",
        "a/b\n",
        "é/b",
        f"{'a' * 97}/b",
        f"a/{'b' * 97}",
    ],
)
def test_no_hub_ids(name: str) -> None:
    assert not is_hub_id(name)
