"""A Metal kernel that fails in the middle of work: plain MLX goes on, with one warning, and nothing is lost.

The kernels are stand-ins: the specification in plain MLX, one of whose calls fails, as MLX does it: when the result is
evaluated, or at once. `late_errors` fails as MLX does in a thread of its own, in processes of its own.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from longmamba_mlx.errors import NoMLXError
from longmamba_mlx.filtering import FilterPlan, build_plan, collect, policy_for
from longmamba_mlx.inference import decode
from longmamba_mlx.inference.batched import ask_all, write_all
from longmamba_mlx.inference.decode import advance, generate
from longmamba_mlx.inference.prefill import prefill
from longmamba_mlx.models import LanguageModel
from longmamba_mlx.ops import backend, metal, metal_check, reference
from longmamba_mlx.ops.values import values
from tests.conftest import ROOT
from tests.models.hybrids import hybrid
from tests.models.samples import random_model

OPS = ("selective_scan", "ssd_scan", "causal_conv1d", "gated_rms_norm", "dt_b_c_norms")
IDS = np.arange(90, dtype=np.uint32) * 7 % 37
QUESTION = np.array([3, 1, 4, 1, 5], np.uint32)
Results = list[np.ndarray]


def poison() -> mx.array:
    """A zero that MLX cannot compute: RuntimeError in the thread that evaluates it, as where Metal refuses a kernel."""
    ones, first = mx.ones((1, 1, 1), mx.bfloat16), mx.zeros(1, mx.uint32)
    return mx.gather_mm(ones, ones, first, first, stream=mx.cpu).sum() * 0


def with_poison(result: Any, zero: mx.array | None) -> Any:
    if zero is None:
        raise RuntimeError("[metal::Device] Unable to build metal library from source")
    if isinstance(result, mx.array):
        return result + zero.astype(result.dtype)
    return tuple(array + zero.astype(array.dtype) for array in result)


class Kernels:
    """Stand-ins for the Metal kernels. Call `failing` fails, the first being 0: its result needs `poison`, or, where
    that is None, it raises at once."""

    def __init__(self) -> None:
        self.calls, self.failing = 0, -1
        self.poison: Callable[[], mx.array] | None = poison

    def op(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            result = real(*args, **kwargs)
            if self.calls - 1 != self.failing:
                return result
            return with_poison(result, None if self.poison is None else self.poison())

        return call

    def fail(self, failing: int) -> None:
        """Fail in call `failing` from now on, with the kernels in use."""
        self.calls, self.failing = 0, failing
        metal_check._refusals.clear()


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernels]:
    yield from stand_ins_for_kernels(monkeypatch)


def stand_ins_for_kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernels]:
    stand_ins = Kernels()
    for name in OPS:
        monkeypatch.setattr(metal, name, stand_ins.op(getattr(reference, name)))
    monkeypatch.setattr(backend, "name", lambda: "metal")
    monkeypatch.setattr(metal_check.metal_kernels, "is_available", lambda: True)
    monkeypatch.setattr(metal_check, "_works", lambda: True)
    metal_check._refusals.clear()
    yield stand_ins
    metal_check._refusals.clear()


@cache
def model_and_plan(name: str, mode: str) -> tuple[LanguageModel, FilterPlan]:
    model = (hybrid if name == "granite" else random_model)(name)
    measured = collect(model, IDS[:80].reshape(2, 40), clamps=(), knots=16)
    plan = build_plan(measured, policy_for(model.config, mode, {"theta": 1e-9}), len(IDS))
    assert not plan.is_off
    return model, plan


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
    read = advance(model, model.initial_state(), np.resize(QUESTION, 40))
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


def works_on(what: str, name: str, kernels: Kernels, places: Callable[[int], set[int]]) -> None:
    """Fail in each of the `places` among so many calls: the results stay, and one warning is given."""
    work, mode = WORK[what]
    model, plan = model_and_plan(name, mode)
    kernels.fail(-1)
    expected = work(model, plan)
    for failing in sorted(places(kernels.calls)):
        kernels.fail(failing)
        with pytest.warns(UserWarning, match="Metal kernels are off") as warned:
            got = work(model, plan)
        assert len(warned) == 1 and not metal_check.on()
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("name", ["falcon", "mamba2", "granite"])
@pytest.mark.parametrize("what", WORK)
def test_work_goes_on_where_a_kernel_fails(
    what: str, name: str, at_once: bool, kernels: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it fails: in the first call, in the middle, in the last ones."""
    if what == "read, tokens dropped" and name == "granite":
        pytest.skip("for models without attention")
    monkeypatch.setattr(decode, "CHUNK", 32)
    kernels.poison = None if at_once else poison
    # Some results nobody asks for, and MLX does not compute those.
    first_only = what in ("catch up", "read, tokens dropped") and not at_once
    works_on(what, name, kernels, lambda calls: {0} if first_only else {0, calls // 2, calls - 2, calls - 1})


def test_nothing_is_told_twice(kernels: Kernels) -> None:
    """A stream of tokens goes on after its last one."""
    model = random_model("mamba2")
    expected = list(generate(model, model.initial_state(), QUESTION, max_tokens=12))
    for failing in range(0, kernels.calls, 11):
        kernels.fail(failing)
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


@pytest.mark.parametrize("what", ["work", "values", "to_numpy"])
def test_errors_of_another_thread(what: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.inference.late_errors", what],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
