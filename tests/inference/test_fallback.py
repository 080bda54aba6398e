"""A Metal kernel that fails in the middle of work: plain MLX goes on, with one warning, and nothing is lost.

The kernels are stand-ins: the specification in plain MLX, one of whose calls fails, as MLX does it: when the result is
evaluated, or at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from longmamba_mlx.errors import NoMLXError
from longmamba_mlx.filtering import FilterPlan, build_plan, collect, policy_for
from longmamba_mlx.inference.batched import ask_all, write_all
from longmamba_mlx.inference.decode import advance, generate
from longmamba_mlx.inference.prefill import prefill
from longmamba_mlx.models import LanguageModel
from longmamba_mlx.ops import backend, metal, metal_check, reference
from longmamba_mlx.ops.cpu.arrays import to_numpy
from longmamba_mlx.ops.values import values
from tests.models.hybrids import hybrid
from tests.models.samples import random_model

# MLX keeps counting a task whose evaluation failed as active, and waits for it once there are too many: in a process of
# their own (`pytest -m slow`), so that no other test ever waits.
pytestmark = pytest.mark.slow

OPS = ("selective_scan", "ssd_scan", "causal_conv1d", "gated_rms_norm", "dt_b_c_norms")
IDS = np.arange(90, dtype=np.uint32) * 7 % 37
QUESTION = np.array([3, 1, 4, 1, 5], np.uint32)
Results = list[np.ndarray]


def poison() -> mx.array:
    """A zero that MLX cannot compute: RuntimeError when something that needs it is evaluated."""
    return mx.linalg.inv(mx.zeros((2, 2)), stream=mx.cpu).sum() * 0


def with_poison(result: Any, at_once: bool) -> Any:
    if at_once:
        raise RuntimeError("[metal::Device] Unable to build metal library from source")
    zero = poison()
    if isinstance(result, mx.array):
        return result + zero.astype(result.dtype)
    return tuple(array + zero.astype(array.dtype) for array in result)


class Kernels:
    """Stand-ins for the Metal kernels. Call `failing` fails, the first being 0, when evaluated or `at_once`."""

    def __init__(self) -> None:
        self.calls, self.failing, self.at_once = 0, -1, False

    def op(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            result = real(*args, **kwargs)
            return with_poison(result, self.at_once) if self.calls - 1 == self.failing else result

        return call


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernels]:
    stand_ins = Kernels()
    for name in OPS:
        monkeypatch.setattr(metal, name, stand_ins.op(getattr(reference, name)))
    monkeypatch.setattr(backend, "name", lambda: "metal")
    monkeypatch.setattr(metal_check.metal_kernels, "is_available", lambda: True)
    monkeypatch.setattr(metal_check, "_works", lambda: True)
    metal_check._refusals.clear()
    yield stand_ins
    metal_check._refusals.clear()


def plan_of(model: LanguageModel, mode: str) -> FilterPlan:
    measured = collect(model, IDS[:80].reshape(2, 40), clamps=(), knots=16)
    plan = build_plan(measured, policy_for(model.config, mode, {"theta": 1e-9}), len(IDS))
    assert not plan.is_off
    return plan


def read(model: LanguageModel, plan: FilterPlan) -> Results:
    got = prefill(model, IDS, plan, chunk=32, logits="all")
    assert got.logits is not None and got.logits.shape == (90, model.config.vocab_size) and got.kept is not None
    return [*map(np.array, got.state.arrays().values()), got.logits, got.kept]


def read_in_layers(model: LanguageModel, plan: FilterPlan) -> Results:
    assert plan.needs_document
    got = prefill(model, IDS, plan, chunk=32, logits="last")
    assert got.logits is not None
    return [*map(np.array, got.state.arrays().values()), got.logits]


def answer(model: LanguageModel, plan: FilterPlan, temperature: float = 0.0) -> Results:
    start = model.initial_state()
    tokens = generate(model, start, QUESTION, max_tokens=6, temperature=temperature, seed=5)
    return [np.array(list(tokens), np.float32)]


def sampled(model: LanguageModel, plan: FilterPlan) -> Results:
    return answer(model, plan, temperature=1.5)


def catch_up(model: LanguageModel, plan: FilterPlan) -> Results:
    read = advance(model, model.initial_state(), np.resize(QUESTION, 600))
    assert read is not None
    return [values(array) for array in read[1].arrays().values()]


def ask_several(model: LanguageModel, plan: FilterPlan) -> Results:
    asked = ask_all(model, model.initial_state(2), 2, QUESTION)
    written = write_all(model, asked, [0, 1], max_tokens=6)
    return [asked.entropy, *(np.array(ids, np.float32) for ids in written)]


def calibrate(model: LanguageModel, plan: FilterPlan) -> Results:
    got = collect(model, IDS[:80].reshape(2, 40), clamps=(), chunk=16)
    return [array for layer in got.layers for array in (layer.budgets, layer.knot_raw)]


Work = Callable[[LanguageModel, FilterPlan], Results]
WORK: dict[str, tuple[Work, str]] = {
    "read": (read, "curve"),
    "read, thresholds of the document": (read_in_layers, "document"),
    "read, tokens dropped": (read_in_layers, "decimamba:layers=1:base=40"),
    "answer": (answer, "curve"),
    "answer, sampled": (sampled, "curve"),
    "catch up": (catch_up, "curve"),
    "ask several": (ask_several, "curve"),
    "calibrate": (calibrate, "curve"),
}


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("name", ["falcon", "mamba2", "granite"])
@pytest.mark.parametrize("what", WORK)
def test_work_goes_on_where_a_kernel_fails(what: str, name: str, at_once: bool, kernels: Kernels) -> None:
    """Wherever it fails: in the first call, in the middle, in the last ones."""
    if what == "read, tokens dropped" and name == "granite":
        pytest.skip("for models without attention")
    model, (work, mode) = (hybrid if name == "granite" else random_model)(name), WORK[what]
    plan = plan_of(model, mode)
    before = kernels.calls
    expected = work(model, plan)
    total = kernels.calls - before
    kernels.at_once = at_once
    places = {0, total // 2, total - 2, total - 1}
    if what in ("catch up", "read, tokens dropped") and not at_once:
        places = {0}  # some results nobody asks for there, and MLX does not compute those
    for failing in sorted(places):
        kernels.calls, kernels.failing = 0, failing
        metal_check._refusals.clear()
        with pytest.warns(UserWarning, match="Metal kernels are off") as warned:
            got = work(model, plan)
        assert len(warned) == 1 and not metal_check.on()
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_nothing_is_told_twice(kernels: Kernels) -> None:
    """A stream of tokens goes on after its last one."""
    model = random_model("mamba2")
    expected = list(generate(model, model.initial_state(), QUESTION, max_tokens=12))
    for failing in range(0, kernels.calls, 11):
        kernels.calls, kernels.failing = 0, failing
        metal_check._refusals.clear()
        with pytest.warns(UserWarning, match="are off"):
            assert list(generate(model, model.initial_state(), QUESTION, max_tokens=12)) == expected


def test_an_answer_begun_with_kernels_survives_their_end(kernels: Kernels) -> None:
    """Two answers at a time: one turns the kernels off, the other one then fails in a token dispatched with them."""
    model = random_model("mamba2")
    expected = list(generate(model, model.initial_state(), QUESTION, max_tokens=8))
    stream = generate(model, model.initial_state(), QUESTION, max_tokens=8)
    first = next(stream)
    kernels.failing = kernels.calls + 3
    with pytest.warns(UserWarning, match="are off") as warned:
        advance(model, model.initial_state(), QUESTION)
        kernels.failing = kernels.calls
        assert [first, *stream] == expected
    assert len(warned) == 1


def test_forced_kernels_end_the_work_with_a_clear_line(kernels: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGMAMBA_KERNEL", "metal")
    kernels.failing = 4
    with pytest.warns(UserWarning, match="are off"), pytest.raises(NoMLXError, match="cannot be used"):
        advance(random_model("mamba2"), random_model("mamba2").initial_state(), QUESTION)


def test_other_errors_stay(kernels: Kernels) -> None:
    model = random_model("mamba2")

    def stop() -> bool:
        raise RuntimeError("[malloc] Unable to allocate 9 bytes.")

    with pytest.raises(RuntimeError, match="allocate"):
        advance(model, model.initial_state(), QUESTION, stop)
    assert metal_check.on()


@pytest.mark.parametrize("read", [values, to_numpy])
def test_an_error_is_never_hidden(read: Callable[[mx.array], np.ndarray]) -> None:
    """NumPy alone hides it, or does not, as it happens."""
    for _ in range(8):
        with pytest.raises(RuntimeError, match="Inverse"):
            read(mx.ones(3) + poison())
