"""Would the kernel tests notice a mistake? Kernels with one change each go through them: `pytest -m slow -s` here.

At least 95 % of the changes that alter what a kernel means must be noticed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import mlx.core as mx
import pytest

from longmamba_mlx import metal_kernels
from longmamba_mlx.metal_kernels import chunked_ssd
from longmamba_mlx.metal_kernels import conv as conv_kernel
from longmamba_mlx.metal_kernels import dt_b_c_norm as parts_kernel
from longmamba_mlx.metal_kernels import gated_norm as norm_kernel
from longmamba_mlx.metal_kernels import mamba3 as mamba3_kernel
from longmamba_mlx.metal_kernels import sequential_scan as scan_kernel
from tests.emulator.emulator import EmulatorError
from tests.emulator.fixtures import forget_kernels
from tests.metal import (
    test_chunked_kernel,
    test_conv_kernel,
    test_mamba3_kernel,
    test_norm_kernel,
    test_scan_kernel,
)
from tests.metal.mutants import HARMLESS, MUTANTS
from tests.metal.test_scan_kernel import check, small
from tests.ops.cases import selective_case, ssd_case
from tests.ops.mamba3_cases import mamba3_case

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("emulated"), pytest.mark.timeout(1800)]


def checks() -> list[Callable[[], None]]:
    """The kernel tests, the quick and sharp ones first."""
    cases = [selective_case(2, 33, 70, 8), selective_case(1, 21, 5, 32)]
    scans = test_scan_kernel
    return [
        lambda: check("mamba1", small("mamba1", 37)),
        lambda: check("mamba2", small("mamba2", 37)),
        lambda: check("mamba2", ssd_case(1, 9, 1, 1, 1, 64)),  # fewer threads than states
        lambda: check(
            "mamba2", ssd_case(1, 37, 1, 12, 1, 64)
        ),  # three tokens at once, which does not divide those staged
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
        lambda: scans.test_mamba2_sizes(2, 32, 1, 128),
        lambda: scans.test_mamba1_sizes(5, 3),
        lambda: scans.test_mamba1_sizes(2, 1),
        lambda: scans.test_mamba1_sizes(7, 48),
        lambda: scans.test_any_split_in_time_is_bitwise_the_whole("mamba1", False),
    ]


def chunked_checks() -> list[Callable[[], None]]:
    chunked = test_chunked_kernel
    return [
        lambda: chunked.test_sizes(2, 8, 2, 64),
        lambda: chunked.test_groups(6, 3),
        chunked.test_inputs_are_read_in_place,
        lambda: chunked.test_reverse(True),
        lambda: chunked.check(chunked.small(128, batch=2)),
        lambda: chunked.test_optional_arguments("threshold"),
        lambda: chunked.test_any_share_of_kept_tokens(0.1),
        lambda: chunked.test_any_share_of_kept_tokens(0.7),
        chunked.test_kept_counts_can_be_left_out,
        chunked.test_all_filtered_leaves_the_state_as_it_was,
        chunked.test_ties_and_neighbouring_floats,
        chunked.test_small_dt_between_large_ones,
        chunked.test_what_is_no_number_in_a_filtered_token_stays_there,
        lambda: chunked.test_sizes(1, 40, 1, 64),
        lambda: chunked.test_sizes(1, 128, 1, 192),
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
        lambda: norms.test_dt_b_c_norms("float32", 300, 33, True),
        lambda: norms.test_dt_b_c_norms("float32", 4, 16, True),
        norms.test_dt_b_c_norms_read_in_place,
    ]


def mamba3_checks() -> list[Callable[[], None]]:
    mamba3 = test_mamba3_kernel
    cases = [mamba3_case(2, 70, mimo=True), mamba3_case(2, 37)]
    return [
        *(lambda case=case: mamba3.check(case) for case in cases),
        *(lambda case=case: mamba3.check(replace(case, threshold=None, z=None, A_floor=0.9)) for case in cases),
        *(lambda mimo=mimo: mamba3.test_inputs_are_read_in_place(mimo) for mimo in (True, False)),
        lambda: mamba3.test_the_angle_has_the_bits_of_the_specification(False),
        *(lambda edge=edge: mamba3.test_steps_of_every_size(False, *edge) for edge in ((0.0, 30.0), (-40.0, 1.0))),
        mamba3.test_ties_are_filtered_and_neighbouring_floats_told_apart,
        lambda: mamba3.test_kept_counts_can_be_left_out(False),
        mamba3.test_directions_alone,
        mamba3.test_whole_numbers_alone,
        lambda: mamba3.test_what_is_no_number_stays_none(False),
        lambda: mamba3.test_sizes(3, 5, 96, 2, 3),
        lambda: mamba3.test_sizes(2, 7, 50, 5, 1),
        lambda: mamba3.test_sizes(2, 32, 64, 1, 2),
        lambda: mamba3.test_sizes(1, 128, 256, 1, 1),
        mamba3.test_more_angles_than_a_threadgroup_has_threads,
    ]


CHECKS = {
    "mamba3_steps": mamba3_checks,
    "mamba3_scan": mamba3_checks,
    "turns": mamba3_checks,
    "chunked_ssd": chunked_checks,
    "two_sum": chunked_checks,
    "conv": conv_checks,
    "gated_norm": norm_checks,
    "dt_b_c_norm": parts_checks,
}


MODULES_OF_TESTS = (test_scan_kernel, test_mamba3_kernel)


def noticed(tests: list[Callable[[], None]]) -> bool:
    for test in tests:
        try:
            test()
        except (AssertionError, EmulatorError):
            return True
    return False


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = metal_kernels.source
    body = real(name)
    missed = []
    mutants = MUTANTS[name]
    for old, new in mutants:
        assert old in body, old
        changed = body.replace(old, new, 1)

        def source(wanted: str, changed: str = changed) -> str:
            return changed if wanted == name else real(wanted)

        for module in (scan_kernel, chunked_ssd, norm_kernel, parts_kernel, mamba3_kernel, *MODULES_OF_TESTS):
            monkeypatch.setattr(module, "source", source)
        monkeypatch.setattr(conv_kernel, "source", source)
        forget_kernels()
        if not noticed(CHECKS.get(name, checks)()):
            missed.append((old, new))
        mx.clear_cache()
    real_mutants = [mutant for mutant in mutants if mutant not in HARMLESS]
    unseen = [mutant for mutant in missed if mutant not in HARMLESS]
    print(f"\n{name}: {len(real_mutants) - len(unseen)} of {len(real_mutants)} mutants noticed; missed: {missed}")
    assert len(unseen) <= 0.05 * len(real_mutants)
