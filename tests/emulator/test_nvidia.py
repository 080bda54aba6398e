"""The same bodies compile for NVIDIA's GPUs, where NVRTC is installed (it needs no GPU)."""

from __future__ import annotations

import shutil

import pytest

from benchmarks import kernel_model
from tests.emulator import instructions, nvrtc
from tests.emulator.fixtures import forget_kernels
from tests.emulator.launches import all_launches, text_of

pytestmark = pytest.mark.skipif(nvrtc.compiler() is None, reason="NVIDIA's run-time compiler (NVRTC) is not installed")

LAUNCHES = dict(all_launches())


@pytest.mark.parametrize("title", LAUNCHES)
def test_our_kernels(title: str) -> None:
    forget_kernels()
    assert nvrtc.complaints(nvrtc.as_cuda(text_of(LAUNCHES[title]))) == ""


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("[TB][N]", "[TB][length]"),  # shared memory of a size that is not known
        ("static_cast<T>(value)", "T(value, 1)"),
        ("metal::precise::exp", "metal::precise::expm1"),
        ("simd_shuffle_xor(sum", "simd_shuffle_xor(missing"),
    ],
)
def test_mistakes_are_noticed(right: str, wrong: str) -> None:
    source = nvrtc.as_cuda(text_of(LAUNCHES["mamba1 bfloat16 1x40x16 one lane"]))
    assert right in source
    assert "error" in nvrtc.complaints(source.replace(right, wrong))


@pytest.mark.skipif(shutil.which("nvdisasm") is None, reason="nvdisasm is not installed")
def test_instructions_are_those_of_the_model() -> None:
    """Another compiler counts a little differently; what a token costs may not grow unnoticed."""
    for counts in (True, False):
        assert instructions.of_a_token(80, 64, 128, True, False, counts) <= 120
    assert instructions.of_a_token(1, 4096, 16, False, True) == pytest.approx(kernel_model.SEQUENTIAL_MAMBA1, rel=0.1)
    for (rows, states), counted in kernel_model.CHUNKED.items():
        now = [instructions.of_a_head(rows, states, gate=False, kept=kept) for kept in (64, 32)]
        assert now == pytest.approx(counted, rel=0.1)
