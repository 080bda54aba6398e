"""Logits of every family and option against transformers', from stored fixtures (no torch here)."""

from __future__ import annotations

import pytest

from tests.parity import comparing
from tests.parity.cases import all_cases


def test_every_case_has_its_fixture() -> None:
    assert set(all_cases()) == set(comparing.names())


@pytest.mark.parametrize("name", comparing.names())
def test_fixtures_are_small_and_belong_to_their_case(name: str) -> None:
    import json

    assert (comparing.FIXTURES / f"{name}.safetensors").stat().st_size <= 300_000
    case, stored = all_cases()[name], comparing.fixture(name)
    assert json.loads(stored.about["options"]) == json.loads(json.dumps(case.options))
    assert stored.about["note"] == case.note


# Every case reads in one piece with the filter, and decodes after it (512); carries its state from token to token with
# the filter (1) and from chunk to chunk without (77). The rest runs at full volume.
READINGS = [(1, True), (77, False), (512, True)]
REST = [(1, False), (77, True), (512, False)]


@pytest.mark.parametrize(
    ("chunk", "filtered"), [*READINGS, *(pytest.param(*other, marks=pytest.mark.slow) for other in REST)]
)
@pytest.mark.parametrize("name", comparing.names())
def test_logits_equal_the_reference(name: str, chunk: int, filtered: bool) -> None:
    parity = comparing.run(name, chunk, filtered)
    assert parity.exact, f"{parity.max_abs:.2e} off, {parity.argmax_same:.1%} of argmaxes the same"


@pytest.mark.slow
@pytest.mark.parametrize("filtered", [False, True], ids=["free", "filtered"])
@pytest.mark.parametrize("name", comparing.names())
def test_logits_of_single_tokens_equal_the_reference(name: str, filtered: bool) -> None:
    parity = comparing.run(name, 1, filtered, short=False)
    assert parity.exact, f"{parity.max_abs:.2e} off, {parity.argmax_same:.1%} of argmaxes the same"


@pytest.mark.parametrize("name", comparing.names())
def test_plain_mlx_equals_the_reference(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without NumPy, which stands in for MLX on a CPU under Linux: the operations that a Mac runs."""
    monkeypatch.setenv("LONGMAMBA_KERNEL", "reference")
    parity = comparing.run(name, 77, filtered=True)
    assert parity.exact, f"{parity.max_abs:.2e} off, {parity.argmax_same:.1%} of argmaxes the same"
