"""The same bodies compile for NVIDIA's GPUs, where NVRTC is installed (it needs no GPU)."""

from __future__ import annotations

import pytest

from tests.emulator import nvrtc
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
        ("TB * N]", "TB * N + length]"),  # shared memory of a size that is not known
        ("static_cast<T>(value)", "T(value, 1)"),
        ("metal::precise::exp", "metal::precise::expm1"),
        ("simd_shuffle_xor(sum", "simd_shuffle_xor(missing"),
    ],
)
def test_mistakes_are_noticed(right: str, wrong: str) -> None:
    source = nvrtc.as_cuda(text_of(LAUNCHES["mamba1 bfloat16 1x40x16 one lane"]))
    assert right in source
    assert "error" in nvrtc.complaints(source.replace(right, wrong))
