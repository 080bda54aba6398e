"""Kernels that fail are turned off: before the first use, when a model is loaded, and in the middle of a reading."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from longmamba_mlx.errors import ModelError, NoMLXError
from longmamba_mlx.inference.prefill import prefill
from longmamba_mlx.metal_kernels import chunked_ssd, mamba3, sequential_scan
from longmamba_mlx.models.kernel_check import scan_shapes
from longmamba_mlx.models.loading import make_ready
from longmamba_mlx.ops import backend, metal, metal_check, plain_mlx
from longmamba_mlx.ops.inputs import Scan, ScanInputs
from longmamba_mlx.ops.mamba3 import scan_shapes as mamba3_shapes
from longmamba_mlx.ops.mamba3.scan_shapes import Mamba3Shape
from longmamba_mlx.ops.scan_shapes import KNOWN, SECOND, UNPUBLISHED, ScanShape, distinct
from longmamba_mlx.registry.known_models import CHECKPOINTS
from tests.emulator.emulator import EmulatorError, Options
from tests.emulator.fixtures import forget_kernels
from tests.models import hybrids, samples
from tests.parity import comparing

SMALL = ScanShape(2, 8, 64, dtype="float32")


def test_every_known_model_is_checked() -> None:
    assert set(KNOWN) | set(mamba3_shapes.KNOWN) | UNPUBLISHED == {model.repository for model in CHECKPOINTS}
    assert set(SECOND) <= set(KNOWN)
    covered = {shape.kernels() for shape in distinct(KNOWN.items()).values()}
    assert {shape.kernels() for shape in KNOWN.values()} == covered
    # One lane, two, four, eight and sixteen; what an Apple GPU would never see otherwise.
    assert {sequential_scan.layout(1, s.heads, s.rows, s.states).lanes for s in KNOWN.values()} == {1, 2, 4, 8, 16}


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("llamba", ScanShape(4, 8, 8, groups=4, dtype="float32")),
        ("zamba", ScanShape(1, 24, 8, per_head=False, gated=True, dtype="float32")),  # two scans of 24 channels
        ("plamo2", ScanShape(6, 8, 8, gated=True, dtype="float32")),
        ("phi4flash", ScanShape(1, 64, 6, per_head=False, gated=False, dtype="float32")),
    ],
)
def test_a_loaded_models_scans_are_tried(name: str, shape: ScanShape) -> None:
    assert shape in scan_shapes(comparing.model(name))


def test_a_smaller_shape_has_the_same_kernels() -> None:
    for shape in KNOWN.values():
        smallest = shape.smallest()
        assert smallest.kernels() == shape.kernels()
        assert smallest.heads * smallest.rows <= 4096 and smallest.heads % smallest.groups == 0


@pytest.mark.parametrize("shape", [SMALL, ScanShape(1, 40, 16, per_head=False, gated=True, dtype="bfloat16")], ids=str)
def test_a_models_kernels_pass(shape: ScanShape, emulated: Options) -> None:
    metal_check.check_model(shape)
    assert metal_check._refusals == []
    # One token, and 70: for heads that divide into chunks, 64 and 6. With counts and without.
    assert emulated.launches == (6 if shape.per_head else 4)


def test_mamba3s_kernels_pass(emulated: Options) -> None:
    (shape,) = mamba3_shapes.KNOWN.values()
    assert shape.smallest().kernels() == shape.kernels() and shape.smallest().heads == 1
    metal_check.check_model(replace(shape, rows=6, states=16, angles=4))
    assert metal_check._refusals == [] and emulated.launches == 8


@pytest.mark.parametrize(
    ("old", "new"),
    [("sum *= gate / (1.0f", "sum *= 1.0f / (1.0f"), ("running += turned[j]", "running += 9 * turned[j]")],
)
def test_broken_kernels_of_mamba3_are_turned_off(
    old: str, new: str, emulated: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = mamba3.source
    monkeypatch.setattr(mamba3, "source", lambda name: real(name).replace(old, new))
    forget_kernels()
    with pytest.warns(UserWarning, match="Metal kernels are off"):
        metal_check.check_model(Mamba3Shape(2, 6, 16, rank=2, angles=4, mimo=True))


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        (sequential_scan, "float sum = 0.0f;", "float sum = 0.01f;"),
        (chunked_ssd, "token_dt * decay", "token_dt"),
        (
            chunked_ssd,
            "if (KEPT && top == 0)",
            "if (KEPT && top > 0)",
        ),
        (chunked_ssd, "float float", "nonsense"),
    ],
)
def test_a_models_broken_kernels_are_turned_off_with_one_warning(
    module: object, old: str, new: str, emulated: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module.source  # type: ignore[attr-defined]
    changed = (lambda name: "nonsense;") if new == "nonsense" else lambda name: real(name).replace(old, new)
    monkeypatch.setattr(module, "source", changed)
    forget_kernels()
    with pytest.warns(UserWarning, match="Metal kernels are off") as warned:
        metal_check.check_model(SMALL)
        metal_check.check_model(SMALL)
    assert len(warned) == 1
    monkeypatch.setattr(backend, "name", lambda: "metal")
    assert backend.current(64) is plain_mlx
    monkeypatch.setenv("LONGMAMBA_KERNEL", "metal")
    with pytest.raises(NoMLXError, match="cannot be used"):
        backend.current(64)


def test_an_error_in_use_turns_them_off_once(emulated: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "name", lambda: "metal")
    assert backend.current(64) is metal
    assert not metal_check.give_up(KeyError("not of MLX"))
    with pytest.warns(UserWarning, match="too many threads"):
        assert metal_check.give_up(EmulatorError("too many threads\nand more"))
    assert backend.current(64) is plain_mlx
    assert metal_check.give_up(RuntimeError("something else"))  # of work that began before
    assert not metal_check.on()


def test_loading_a_model_checks_its_kernels(emulated: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[ScanShape] = []
    monkeypatch.setattr(metal_check, "check_model", checked.append)
    monkeypatch.setenv("LONGMAMBA_KERNEL", "metal")
    ungated = hybrids.hybrid("falcon_h1", mamba_rms_norm=False)
    turning = comparing.model.__wrapped__("mamba3-mimo")
    for model in (samples.random_model("mamba"), samples.random_model("mamba2-groups"), ungated, turning):
        make_ready(model)
    config = samples.random_model("mamba2-groups").config
    *_, first, second, third, fourth = checked
    assert fourth == Mamba3Shape(8, 8, 16, 4, 4, mimo=True, dtype="float32")
    assert not first.per_head and first.gated and first.heads == 1
    assert second == ScanShape(config.n_heads, config.headdim, config.d_state, config.n_groups, dtype="float32")
    assert third.gated and third.per_head
    monkeypatch.setenv("LONGMAMBA_KERNEL", "reference")
    make_ready(samples.random_model("mamba"))
    assert checked[-1] is fourth


class Failing:
    """ssd_scan that fails once, at its so-many-th call."""

    def __init__(self, at: int) -> None:
        self.real, self.left = metal.ssd_scan, at

    def __call__(self, inputs: ScanInputs) -> Scan:
        self.left -= 1
        if self.left == 0:
            raise RuntimeError("[metal::Device] Unable to build metal library from source")
        return self.real(inputs)


@pytest.mark.parametrize("name", ["mamba2", "granite"])
@pytest.mark.parametrize("at", [1, 4])
def test_a_reading_goes_on_where_a_kernel_fails(
    name: str, at: int, emulated: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the first chunk or in a later one: the same state and logits as in plain MLX, and progress that ends."""
    model = samples.random_model(name) if name == "mamba2" else hybrids.hybrid(name)
    ids = np.arange(48, dtype=np.uint32) % model.config.vocab_size
    monkeypatch.setattr(backend, "name", lambda: "mlx")
    expected = prefill(model, ids, None, chunk=16, logits="all")
    monkeypatch.setattr(backend, "name", lambda: "metal")
    monkeypatch.setattr(metal, "ssd_scan", Failing(at))
    done: list[int] = []
    with pytest.warns(UserWarning, match="Unable to build metal library"):
        got = prefill(model, ids, None, chunk=16, logits="all", on_progress=lambda now: done.append(now.done))
    assert got.logits is not None and expected.logits is not None and got.logits.shape == expected.logits.shape
    np.testing.assert_allclose(got.logits, expected.logits, atol=1e-4)
    assert done[-1] == 48 and max(done) == 48 and got.state.tokens == 48


def test_a_mistake_of_a_caller_turns_nothing_off(emulated: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "name", lambda: "metal")
    model = samples.random_model("mamba2")
    with pytest.raises(ModelError, match="vocabulary"):
        prefill(model, np.full(3, 10**6, np.uint32), None)
    assert metal_check._refusals == []


def test_memory_that_runs_out_is_no_fault_of_a_kernel(emulated: Options) -> None:
    assert not metal_check.give_up(RuntimeError("[metal::malloc] Attempting to allocate 9 bytes"))
    assert not metal_check.give_up(RuntimeError("Insufficient Memory (kIOGPUCommandBufferCallbackErrorOutOfMemory)"))


def test_without_metal_an_error_stays_one() -> None:
    assert not metal_check.give_up(RuntimeError("unrelated"))
    metal_check.check_model(SMALL)
    assert metal_check._refusals == []
