"""`selftest`: through the specification here, through the emulated kernels, and on an Apple GPU where there is one."""

from __future__ import annotations

import json

import mlx.core as mx
import pytest

from longmamba_mlx.metal_kernels import sequential_scan as scan_kernel
from longmamba_mlx.ops import metal_check, reference, selftest
from longmamba_mlx.ops.inputs import ScanInputs
from tests.emulator.emulator import Options


def only(monkeypatch: pytest.MonkeyPatch, *kernels: str) -> None:
    """Let `run_cases` run the cases of these kernels alone."""
    known = selftest._operations
    monkeypatch.setattr(selftest, "_operations", lambda how: {name: known(how)[name] for name in kernels})


def test_the_specification_passes() -> None:
    rows = list(selftest.run_cases("reference"))
    assert [row for row in rows if not row.passed] == []
    assert {row.kernel for row in rows} == {"mamba1", "mamba2", "mamba3", "conv", "norm", "parts"} and len(rows) >= 50


# Of the known models' kernels, which are the same with other sizes, the quick run compiles those of three models.
FEW = ("tiiuae/Falcon3-Mamba-7B-Instruct", "state-spaces/mamba2-130m", "tiiuae/Falcon-H1-1.5B-Instruct")


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("models", ["few", pytest.param("all", marks=pytest.mark.slow)])
def test_the_emulated_kernels_pass(models: str, emulated: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    if models == "few":
        monkeypatch.setattr(selftest, "KNOWN", {name: selftest.KNOWN[name] for name in FEW})
        monkeypatch.setattr(selftest, "SECOND", {})
    monkeypatch.setitem(selftest._LONG, "metal", 2048)
    rows = list(selftest.run_cases("metal"))
    assert [row for row in rows if not row.passed] == []
    assert emulated.launches > len(rows) > (80 if models == "few" else 120)


@pytest.mark.metal
@pytest.mark.skipif(not mx.metal.is_available(), reason="this machine has no Metal")
def test_this_machines_gpu_passes() -> None:
    assert metal_check.usable(required=True)
    assert [row for row in selftest.run_cases("metal") if not row.passed] == []


def test_a_wrong_kernel_fails_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = reference.selective_scan

    def wrong(inputs: ScanInputs) -> tuple[mx.array, ...]:
        y, *rest = real(inputs)
        return (y + 1e-3 * mx.abs(y).max(), *rest)

    monkeypatch.setattr(reference, "selective_scan", wrong)
    only(monkeypatch, "mamba1", "conv")
    rows = list(selftest.run_cases("reference"))
    assert {row.kernel for row in rows if row.problem == "WRONG"} == {"mamba1"}
    assert [row for row in rows if row.kernel == "conv"] and all(row.passed for row in rows if row.kernel == "conv")


def test_a_kernel_that_does_not_compile_is_a_row(emulated: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_kernel, "source", lambda name: "nonsense;")
    only(monkeypatch, "mamba1", "conv")
    rows = [row for row in selftest.run_cases("metal") if row.kernel == "mamba1" or not row.passed]
    assert rows and not any(row.passed for row in rows) and {row.kernel for row in rows} == {"mamba1"}
    assert "compile" in rows[0].problem


def test_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from longmamba_mlx.cli import main

    failing = selftest.Row("mamba1", "1 token", "float32", float("nan"), float("nan"), 0, "no luck")
    passing = selftest.Row("conv", "1 token", "float32", 1e-7, 0.0, 0, "")
    for rows, code in (((passing,), 0), ((passing, failing), 1)):
        monkeypatch.setattr(selftest, "run_cases", lambda how, rows=rows: iter(rows))
        for arguments in (["selftest"], ["selftest", "--json"]):
            with pytest.raises(SystemExit) as caught:
                main(arguments)
            assert caught.value.code == code
            out = capsys.readouterr().out
            if "--json" in arguments:
                report = json.loads(out)
                assert report["failed"] == code and len(report["rows"]) == len(rows)
            else:
                assert f"{1} of {len(rows)} cases passed" in out
