"""Would the kernel tests notice a mistake? Kernels with one change each go through them: `pytest -m slow -s` here.

At least 90 % of the changes that alter what a kernel means must be noticed.
"""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import pytest

from longmamba_mlx import metal_kernels
from longmamba_mlx.metal_kernels import conv as conv_kernel
from longmamba_mlx.metal_kernels import dt_b_c_norm as parts_kernel
from longmamba_mlx.metal_kernels import gated_norm as norm_kernel
from longmamba_mlx.metal_kernels import sequential_scan as scan_kernel
from tests.emulator.emulator import EmulatorError
from tests.emulator.fixtures import forget_kernels
from tests.metal import test_conv_kernel, test_norm_kernel, test_scan_kernel
from tests.metal.test_scan_kernel import check, small
from tests.ops.cases import selective_case

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("emulated"), pytest.mark.timeout(1800)]

SCAN = (
    ("threadgroup_barrier(metal::mem_flags::mem_threadgroup);\n    if (WHOLE)", "if (WHOLE)"),
    ("mem_flags::mem_threadgroup", "mem_flags::mem_none"),
    ("if (WHOLE) {", "if (true) {"),
    ("if (WHOLE) {", "if (false) {"),
    ("TB % PASS == 0", "true"),
    ("forth * PASS * B_strides[1]", "forth * B_strides[1]"),
    ("forth * PASS * C_strides[1]", "PASS * C_strides[1]"),
    ("forth * (self / N) * B_strides[1]", "(self / N) * B_strides[1]"),
    ("self % N * C_strides[3]", "self % N"),
    ("R % 4 == 0", "true"),
    ("4 * lane : R * lane", "4 * lane : lane"),
    ("const int n = first + (FOURS ? i / 4 * 4 * S + i % 4 : i);\n    rate", "const int n = first + i;\n    rate"),
    (
        "const int n = first + (FOURS ? i / 4 * 4 * S + i % 4 : i);\n        state_out",
        "const int n = first + i;\n        state_out",
    ),
    ("shared_c[staged + (FOURS ? i / 4 * 4 * S + i % 4 : i)]", "shared_c[staged + i]"),
    ("keep ? metal::precise::exp(step * rate[0]) : -1.0f", "metal::precise::exp(step * rate[0])"),
    ("!(shared < 0.0f)", "shared >= 0.0f"),
    ("dt_base + t * dt_strides[1]", "dt_base + (start + i) * dt_strides[1]"),
    ("KEPT && thread_position_in_grid.x < GROUP", "KEPT"),
    ("    }\n    threadgroup_barrier(metal::mem_flags::mem_threadgroup);\n", "    }\n"),
    ("const bool live = own < rows;", "const bool live = own <= rows;"),
    ("const int row = live ? own : rows - 1;", "const int row = own;"),
    ("const int unit = PER_HEAD ? head : row;", "const int unit = row;"),
    ("const int unit = PER_HEAD ? head : row;", "const int unit = head;"),
    ("head / heads_per_group", "head % heads_per_group"),
    ("head / heads_per_group", "0"),
    ("live && lane == 0", "lane == 0"),
    ("PER_HEAD ? 0 : n * A_strides[1]", "n * A_strides[1]"),
    ("PER_HEAD ? 0 : n * A_strides[1]", "0"),
    ("batch * state_in_strides[0] + ", ""),
    ("head * state_in_strides[1] + ", ""),
    ("n * state_in_strides[3]", "n"),
    ("unit * D_strides[0]", "unit"),
    ("REVERSE ? length - 1 : 0", "REVERSE ? length : 0"),
    ("REVERSE ? -1 : 1", "1"),
    ("batch * x_strides[0] + ", ""),
    ("row * x_strides[3]", "row"),
    ("batch * dt_strides[0] + ", ""),
    ("batch * z_strides[0] + ", ""),
    ("(batch * int64_t(length) + begin) * heads + head", "int64_t(begin) * heads + head"),
    ("batch * B_strides[0] + ", ""),
    ("group * C_strides[2]", "0"),
    ("forth * (start + i / N)", "forth * (i / N)"),
    ("i % N * B_strides[3]", "i % N"),
    ("metal::min(TB, length - start)", "TB"),
    ("static_cast<float>(dt[dt_at]) + bias", "static_cast<float>(dt[dt_at])"),
    ("dt_strides[1]]) + bias", "dt_strides[1]])"),
    ("start + k + j + 1 < length", "true"),
    ("start + k + j + 1 < length", "k + j + 1 < count"),
    ("if (k + j < count) {", "{"),
    ("!filtered || raws[j] > least", "raws[j] > least"),
    ("!filtered || raw > least", "raw > least"),
    ("raws[j] > least", "raws[j] >= least"),
    ("raw > least", "raw >= least"),
    ("raws[j] > least", "longmamba_softplus(raws[j]) > longmamba_softplus(least)"),
    ("raw > least", "longmamba_softplus(raw) > longmamba_softplus(least)"),
    ("step * inputs[j]", "inputs[j]"),
    ("PER_HEAD ? shared :", "PER_HEAD ? 1.0f :"),
    ("written * shared_b[staged", "written * shared_c[staged"),
    ("float sum = 0.0f;", "float sum = h[0];"),
    ("offset = S / 2; offset > 0", "offset = S / 2; offset > 1"),
    ("metal::fma(skip, inputs[j], sum)", "sum"),
    ("1.0f + metal::precise::exp(-gates[j])", "1.0f + metal::precise::exp(gates[j])"),
    ("8 * j);\n                }\n                y_at", "4 * j);\n                }\n                y_at"),
    ("y_at += y_step;", "y_at += heads * rows;"),
    ("thread_index_in_simdgroup == 0", "thread_index_in_threadgroup == 0"),
    ("j < U && k + j < count", "j < U"),
    ("(batch * int64_t(length) + t) * parts", "t * parts"),
    ("(batch * int64_t(length) + t) * heads + head", "t * heads + head"),
    ("int64_t(batch) * heads + head) * rows", "int64_t(batch) * heads) * rows"),
    ("kept[0] = 0;", ""),
)
SOFTPLUS = (
    ("-metal::fabs(x)", "metal::fabs(x)"),
    ("2.0f + u", "1.0f + u"),
    ("1.0f / 13.0f", "0.0f"),
    ("1.0f / 11.0f", "1.0f / 12.0f"),
    ("series * q + 1.0f / 7.0f", "series + 1.0f / 7.0f"),
    ("2.0f * w * series", "2.0f * u * series"),
    ("1.0f / 3.0f", "1.0f / 3.1f"),
    ("metal::max(x, 0.0f)", "x"),
    ("step < least ? least : ", ""),
    ("step > most ? most : step", "step"),
    ("step < least ? least : step > most ? most : step", "metal::min(metal::max(step, least), most)"),
)
CONV = (
    ("+ TOKENS, int(length)", "+ TOKENS, int(length) + 1"),
    ("batch * x_strides[0]", "0"),
    ("channel * x_strides[2]", "channel"),
    ("batch * initial_strides[0]", "0"),
    ("channel * weight_strides[0]", "channel * K"),
    ("j * weight_strides[1]", "(BEFORE - j) * weight_strides[1]"),
    ("start - BEFORE + j", "start - K + j"),
    ("t >= 0", "t > 0"),
    ("static_cast<float>(static_cast<T>(initial", "static_cast<float>((initial"),
    ("(BEFORE + t)", "t"),
    ("sum + offset", "sum"),
    ("1.0f + metal::precise::exp(-value)", "1.0f"),
    ("recent[j] = recent[j + 1];", ""),
    ("stop == length", "start == 0"),
    ("(int64_t(batch) * BEFORE + j)", "j"),
)
NORM = (
    ("threadgroup_position_in_grid.x) * size", "threadgroup_position_in_grid.x)"),
    ("batch * y_strides[0]", "0"),
    ("token * z_strides[1]", "0"),
    ("i * y_strides[2]", "i"),
    ("i * z_strides[2]", "i"),
    ("(batch * int64_t(threads_per_grid.y) + token)", "token"),
    ("BEFORE ? raw :", ""),
    ("squares = metal::simd_sum(squares);", ""),
    ("threadgroup_barrier(metal::mem_flags::mem_threadgroup);", ""),
    (
        "threadgroup_barrier(metal::mem_flags::mem_threadgroup);",
        "simdgroup_barrier(metal::mem_flags::mem_threadgroup);",
    ),
    ("total += partial[i];", "total = partial[i];"),
    ("total / float(size)", "total"),
    (" + eps", ""),
    ("weight[i * weight_strides[0]]", "weight[i]"),
    ("i += crowd", "i += 2 * crowd"),
)
PARTS = (
    ("part == 0 ? 0 : part == 1 ? first : first + second", "part == 0 ? 0 : first"),
    ("part == 0 ? first : part == 1 ? second : third", "part == 0 ? first : 1"),
    ("batch * x_strides[0]", "0"),
    ("token * x_strides[1]", "0"),
    ("start * x_strides[2]", "start"),
    ("batch * int64_t(threads_per_grid.y) + token", "token"),
    ("x_at + i * x_strides[2]", "x_at + i"),
    ("squares = metal::simd_sum(squares);", ""),
    ("threadgroup_barrier(metal::mem_flags::mem_threadgroup);", ""),
    ("total += partial[i];", "total = partial[i];"),
    ("total / float(size)", "total"),
    (" + eps", ""),
    ("metal::precise::rsqrt(", "1.0f / ("),
    ("low_weight[i * low_weight_strides[0]]", "low_weight[i]"),
    ("b_weight[i * b_weight_strides[0]]", "low_weight[i * low_weight_strides[0]]"),
    ("c_weight[i * c_weight_strides[0]]", "b_weight[i * b_weight_strides[0]]"),
    ("c_out[row * size + i]", "c_out[row * third]"),
    ("} else if (part == 1) {", "} else if (part > 1) {"),
)
# Changes that alter nothing: the same bytes written by several threads.
HARMLESS = {("live && lane == 0", "lane == 0")}


def checks() -> list[Callable[[], None]]:
    """The kernel tests, the quick and sharp ones first."""
    cases = [selective_case(2, 33, 70, 8), selective_case(1, 21, 5, 32)]
    scans = test_scan_kernel
    return [
        lambda: check("mamba1", small("mamba1", 37)),
        lambda: check("mamba2", small("mamba2", 37)),
        *(lambda case=case: check("mamba1", case) for case in cases),
        *(lambda name=name: check(name, small(name) | {"reverse": True}) for name in scans.SCANS),
        *(lambda name=name: check(name, small(name) | {"threshold": None, "z": None}) for name in scans.SCANS),
        *(lambda name=name: scans.test_ties_are_filtered(name) for name in scans.SCANS),
        *(lambda name=name: scans.test_neighbouring_floats_are_told_apart(name) for name in scans.SCANS),
        *(lambda name=name: scans.test_step_limits_do_not_bring_filtered_tokens_back(name) for name in scans.SCANS),
        *(lambda name=name: scans.test_steps_of_every_size(name) for name in scans.SCANS),
        *(lambda name=name: scans.test_kept_counts_can_be_left_out(name) for name in scans.SCANS),
        *(lambda name=name: scans.test_what_is_no_number_stays_none(name) for name in scans.SCANS),
        scans.test_softplus_alone,
        scans.test_inputs_are_read_in_place,
        scans.test_mamba2_reads_one_projection_in_place,
        lambda: scans.test_mamba2_groups(6, 3),
        lambda: scans.test_mamba1_sizes(130, 16),
        lambda: scans.test_mamba2_sizes(2, 64, 2, 64),
        lambda: scans.test_any_split_in_time_is_bitwise_the_whole("mamba1", False),
    ]


def conv_checks() -> list[Callable[[], None]]:
    convolutions = test_conv_kernel
    return [
        lambda: convolutions.test_lengths_and_dtypes("float32", 17),
        lambda: convolutions.test_lengths_and_dtypes("bfloat16", 2),
        lambda: convolutions.test_taps_and_optional_arguments(18),
        convolutions.test_inputs_are_read_in_place,
        convolutions.test_a_wider_window_is_rounded_first,
        convolutions.test_any_split_in_time_is_bitwise_the_whole,
    ]


def norm_checks() -> list[Callable[[], None]]:
    norms = test_norm_kernel
    return [
        lambda: norms.test_dtypes_and_groups("float32", False, 3),
        lambda: norms.test_dtypes_and_groups("float32", True, 1),
        lambda: norms.test_widths(300, 1),
        norms.test_inputs_are_read_in_place,
    ]


def parts_checks() -> list[Callable[[], None]]:
    norms = test_norm_kernel
    return [
        lambda: norms.test_part_norms("float32", 300, 33, True),
        lambda: norms.test_part_norms("float32", 4, 16, True),
        norms.test_part_norms_read_in_place,
    ]


def noticed(tests: list[Callable[[], None]]) -> bool:
    for test in tests:
        try:
            test()
        except (AssertionError, EmulatorError):
            return True
    return False


@pytest.mark.parametrize("name", ["sequential_scan", "softplus", "conv", "gated_norm", "dt_b_c_norm"])
def test_mutants_are_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = metal_kernels.source
    body = real(name)
    missed = []
    all_mutants = {
        "sequential_scan": SCAN,
        "softplus": SOFTPLUS,
        "conv": CONV,
        "gated_norm": NORM,
        "dt_b_c_norm": PARTS,
    }
    mutants: tuple[tuple[str, str], ...] = all_mutants[name]
    for old, new in mutants:
        assert old in body, old
        changed = body.replace(old, new, 1)

        def source(wanted: str, changed: str = changed) -> str:
            return changed if wanted == name else real(wanted)

        for module in (scan_kernel, norm_kernel, parts_kernel, test_scan_kernel):
            monkeypatch.setattr(module, "source", source)
        monkeypatch.setattr(conv_kernel, "source", source)
        forget_kernels()
        if not noticed(
            {"conv": conv_checks, "gated_norm": norm_checks, "dt_b_c_norm": parts_checks}.get(name, checks)()
        ):
            missed.append((old, new))
        mx.clear_cache()
    real_mutants = [mutant for mutant in mutants if mutant not in HARMLESS]
    unseen = [mutant for mutant in missed if mutant not in HARMLESS]
    print(f"\n{name}: {len(real_mutants) - len(unseen)} of {len(real_mutants)} mutants noticed; missed: {missed}")
    assert len(unseen) <= 0.1 * len(real_mutants)
