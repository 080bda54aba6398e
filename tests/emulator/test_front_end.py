"""Every kernel, dtype and size class through the near relative of Apple's front end; and faults that it must notice."""

from __future__ import annotations

import mlx.core as mx
import pytest

from tests.emulator.emulator import EmulatedKernel
from tests.emulator.fixtures import forget_kernels
from tests.emulator.launches import all_launches, text_of
from tests.emulator.texts import texts

pytest.importorskip("clang.cindex", reason="the front-end check needs the libclang package")
from tests.emulator.front_end import complaints

LAUNCHES = dict(all_launches())


@pytest.mark.parametrize("title", LAUNCHES)
def test_our_kernels(title: str) -> None:
    forget_kernels()
    assert complaints(text_of(LAUNCHES[title])) == []


def tried(body: str, header: str = "", size: int = 9) -> list[str]:
    kernel = EmulatedKernel(name="tried", input_names=["a", "n"], output_names=["o"], source=body, header=header).real
    arguments = {"output_shapes": [(9,)], "output_dtypes": [mx.float32], "grid": (9, 1, 1), "threadgroup": (9, 1, 1)}

    def launch(a: mx.array) -> list[mx.array]:
        return list(
            kernel(inputs=[a, 3], template=[("T", mx.float16), ("K", 2), ("F", True)], verbose=True, **arguments)
        )

    return complaints(texts(launch, mx.zeros((size,)))[0])


HELPER = "inline float first(const device float* p) { return p[0]; }\n"


def test_a_correct_kernel() -> None:
    assert tried("threadgroup float s[K]; s[0] = first(a) + n; o[0] = static_cast<T>(F ? s[0] : 0.0);", HELPER) == []


@pytest.mark.parametrize(
    ("body", "header", "size"),
    [
        ("o[0] = first(a);", HELPER, 7),  # MLX passes small arrays as constant
        ("threadgroup float s[2]; device float* p = s; o[0] = p[0];", "", 9),
        ("threadgroup float s[2]; s[0] = 1; o[0] = first(s);", HELPER, 9),
        ("thread float* p = o; p[0] = 1;", "", 9),
        ("((device float*)&n)[0] = 1; o[0] = 0;", "", 9),
        ("float* p = o; p[0] = 1;", "", 9),
        ("o[0] = 0; a[0] = 1;", "", 9),
        ("double f = 1; o[0] = f;", "", 9),
        ("o[0] = std::exp(1.0f);", "", 9),
        ("o[0] = metal::expm1(1.0f);", "", 9),
        ("bfloat16_t f = 1.0f; o[0] = f;", "", 9),
        ("o[0] = missing;", "", 9),
        ("o[0] = changed(a[0]);", "inline float changed(float& f) { return f; }\n", 9),
    ],
)
def test_faults_are_noticed(body: str, header: str, size: int) -> None:
    assert tried(body, header, size)
