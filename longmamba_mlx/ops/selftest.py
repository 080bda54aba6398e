"""The ops' test cases run on this machine, against the recurrences in float64: `longmamba-mlx selftest`.

On an Apple GPU the Metal kernels run, which no other machine can: an emulator is not the hardware. Elsewhere the same
cases run through the specification in plain MLX.
"""

from __future__ import annotations

import json as json_module
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import pairwise
from typing import Any

import mlx.core as mx
import numpy as np

from longmamba_mlx.errors import LongMambaError
from longmamba_mlx.ops import backend, metal, oracle, reference
from longmamba_mlx.ops.inputs import ScanInputs, takes
from longmamba_mlx.ops.mamba3 import selftest as mamba3
from longmamba_mlx.ops.oracle import Case, Values, as64
from longmamba_mlx.ops.scan_shapes import KNOWN, SECOND, distinct, random_inputs

Op = Callable[..., Any]

# Relative to the largest value. 16-bit outputs may be off by half a unit in their last place; states never are 16-bit.
FLOAT32_LIMIT = 5e-6
Y_LIMITS = {"float32": FLOAT32_LIMIT, "float16": 6e-4, "bfloat16": 4.5e-3}
_DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}
ORACLES: dict[str, Callable[..., Any]] = {
    "mamba1": oracle.selective_scan,
    "mamba2": oracle.ssd_scan,
    "conv": oracle.causal_conv1d,
    "norm": oracle.gated_rms_norm,
    "mamba3": mamba3.expected,
    "parts": lambda **case: (np.concatenate(oracle.dt_b_c_norms(**case), axis=-1),),
}
_LONG = {"metal": 16384, "reference": 512}  # tokens: the specification takes one after the other


@dataclass(frozen=True, slots=True)
class Row:
    """One case: errors of y and of the state (or window) relative to the largest value, wrong kept counts; `problem`
    says what failed ("" when nothing did)."""

    kernel: str
    case: str
    dtype: str
    y_error: float
    state_error: float
    wrong_counts: int
    problem: str

    @property
    def passed(self) -> bool:
        return not self.problem


def implementation() -> str:
    """The implementation that the cases test on this machine: "metal" or "reference"."""
    return "metal" if backend.name() == "metal" else "reference"


def run_cases(how: str | None = None) -> Iterator[Row]:
    """Run every case through `how` ("metal" or "reference"; by default what fits this machine), row by row."""
    chosen = how or implementation()
    for kernel, op in _operations(chosen).items():
        for name, dtype, case in (*_cases(kernel, _LONG[chosen]), *_known_models(kernel)):
            yield _compared(kernel, name, dtype, op, ORACLES[kernel], case)
        for name, attempt in _exact(kernel, chosen):
            yield _exactly(kernel, name, op, attempt)


def print_cases(*, json: bool) -> bool:
    """Print the table (or rows as JSON) and say whether everything passed."""
    how = implementation()
    rows = []
    if not json:
        print(f"{mx.default_device()}, MLX {version('mlx')}, through {how}\n")
        print(f"{'op':8}{'case':46}{'dtype':10}{'y':>9}{'state':>9}{'counts':>8}")
    for row in run_cases(how):
        rows.append(row)
        if not json:
            print(f"{_line(row)}  {row.problem or 'ok'}", flush=True)
    failed = sum(not row.passed for row in rows)
    if json:
        facts = {"device": str(mx.default_device()), "mlx": version("mlx"), "through": how, "failed": failed}
        print(json_module.dumps(facts | {"rows": [_plain(row) for row in rows]}))
    else:
        print(f"\n{len(rows) - failed} of {len(rows)} cases passed")
    return not failed


def _plain(row: Row) -> dict[str, object]:
    """The row as JSON can say it, which has no NaN."""
    return {key: None if value != value else value for key, value in asdict(row).items()} | {"passed": row.passed}


def _line(row: Row) -> str:
    return f"{row.kernel:8}{row.case:46}{row.dtype:10}{row.y_error:9.1e}{row.state_error:9.1e}{row.wrong_counts:8}"


def _operations(how: str) -> dict[str, Op]:
    ops = metal if how == "metal" else reference
    return {
        "mamba1": takes(ScanInputs)(ops.selective_scan),
        "mamba2": takes(ScanInputs)(ops.ssd_scan),
        "mamba3": mamba3.takes_case(ops.mamba3_scan),
        "conv": ops.causal_conv1d,
        "norm": ops.gated_rms_norm,
        "parts": _side_by_side(ops.dt_b_c_norms),
    }


def _side_by_side(op: Op) -> Op:
    return lambda **case: mx.concatenate(op(**case), axis=-1)


def _compared(kernel: str, name: str, dtype: str, op: Op, oracle: Callable[..., Any], case: Case) -> Row:
    """One case against float64."""
    if kernel.startswith("mamba") and kernel != "mamba3":
        case = {"return_kept": True} | case
    expected = oracle(**case)
    try:
        result = op(**case)
        got: list[mx.array] = [result] if isinstance(result, mx.array) else list(result)
        mx.eval(got)
    except (RuntimeError, ValueError, LongMambaError) as error:
        return Row(kernel, name, dtype, math.nan, math.nan, 0, (str(error).splitlines() or ["failed"])[0][:200])
    y_error = _error(got[0], expected[0])
    state_error = _error(got[1], expected[1]) if len(got) > 1 else 0.0
    wrong = int((np.array(got[2]) != expected[2]).sum()) if len(got) > 2 else 0
    problem = ""
    if not y_error <= Y_LIMITS[dtype] or not state_error <= FLOAT32_LIMIT:
        problem = "WRONG"
    elif wrong:
        problem = "WRONG COUNTS"
    return Row(kernel, name, dtype, y_error, state_error, wrong, problem)


def _exactly(kernel: str, name: str, op: Op, attempt: Callable[[Op], list[tuple[mx.array, mx.array]]]) -> Row:
    """One promise that holds to the bit."""
    try:
        pairs = attempt(op)
        same = all(np.array_equal(np.array(a), np.array(b)) for a, b in pairs)
    except (RuntimeError, ValueError, LongMambaError) as error:
        return Row(kernel, name, "float32", math.nan, math.nan, 0, (str(error).splitlines() or ["failed"])[0][:200])
    worst = max(float(np.abs(np.array(a) - np.array(b)).max()) for a, b in pairs)
    return Row(kernel, name, "float32", worst, worst, 0, "" if same else "NOT THE SAME BITS")


def _error(value: mx.array, expected: Values) -> float:
    return float(np.abs(as64(value) - expected).max() / max(float(np.abs(expected).max()), 1e-30))


def _draw(rng: np.random.Generator, *shape: int) -> mx.array:
    return mx.array(rng.standard_normal(shape).astype(np.float32))


def scan_case(kernel: str, length: int, sizes: tuple[int, ...], dtype: str = "float32", batch: int = 2) -> Case:
    """All arguments of a scan; about half of the steps filtered. sizes: (d, n), or (h, p, g, n) for Mamba-2."""
    rng = np.random.default_rng(length)
    low = _DTYPES[dtype]
    units, rows = (sizes[0], sizes[:1]) if kernel == "mamba1" else (sizes[0], sizes[:2])
    size = sizes[-1:] if kernel == "mamba1" else sizes[2:]
    return {
        "x": _draw(rng, batch, length, *rows).astype(low),
        "dt": (2 * _draw(rng, batch, length, units)).astype(low),
        "A": -mx.exp(_draw(rng, units, *(sizes[-1:] if kernel == "mamba1" else ()))),
        "B": _draw(rng, batch, length, *size).astype(low),
        "C": _draw(rng, batch, length, *size).astype(low),
        "D": _draw(rng, units),
        "z": _draw(rng, batch, length, *rows).astype(low),
        "dt_bias": _draw(rng, units) - 2,
        "threshold": _draw(rng, units) - 2,
        "initial_state": _draw(rng, batch, *rows, sizes[-1]),
    }


def _conv_case(length: int, taps: int, dtype: str) -> Case:
    rng = np.random.default_rng(taps)
    low = _DTYPES[dtype]
    x, initial = _draw(rng, 2, length, 70).astype(low), _draw(rng, 2, taps - 1, 70).astype(low)
    return {"x": x, "weight": _draw(rng, 70, taps), "bias": _draw(rng, 70), "initial": initial}


def _tokens(length: int) -> str:
    return f"{length} token" if length == 1 else f"{length} tokens"


def _norm_case(groups: int, before: bool, dtype: str) -> Case:
    rng = np.random.default_rng(groups)
    y, z = (_draw(rng, 2, 5, 612).astype(_DTYPES[dtype]) for _ in range(2))
    return {"y": y, "z": z, "weight": _draw(rng, 612), "groups": groups, "eps": 1e-5, "norm_before_gate": before}


def _parts_case(dtype: str) -> Case:
    rng = np.random.default_rng(5)
    weights = tuple(_draw(rng, size) for size in (70, 16, 16))
    return {"x": _draw(rng, 2, 5, 102).astype(_DTYPES[dtype]), "sizes": (70, 16, 16), "eps": 1e-5, "weights": weights}


def _cases(kernel: str, long: int) -> Iterator[tuple[str, str, Case]]:
    """What is compared with float64: (name, dtype, arguments)."""
    if kernel == "mamba3":
        yield from mamba3.cases(long)
        return
    if kernel == "conv":
        for dtype in _DTYPES:
            for length in (1, 17, 65):
                yield f"{_tokens(length)}, 4 taps", dtype, _conv_case(length, 4, dtype)
        yield "65 tokens, 3 taps", "float32", _conv_case(65, 3, "float32")
        return
    if kernel == "norm":
        for dtype in _DTYPES:
            yield "after the gate", dtype, _norm_case(1, False, dtype)
            yield "before the gate, 2 groups", dtype, _norm_case(2, True, dtype)
        return
    if kernel == "parts":
        for dtype in _DTYPES:  # float32 comes out, whatever goes in
            yield f"dt, B and C in {dtype}", "float32", _parts_case(dtype)
        return
    yield from _scan_cases(kernel, long)


def _scan_cases(kernel: str, long: int) -> Iterator[tuple[str, str, Case]]:
    usual = (70, 16) if kernel == "mamba1" else (4, 32, 2, 64)
    for dtype in _DTYPES:
        for length in (1, 33, 65):
            yield _tokens(length), dtype, scan_case(kernel, length, usual, dtype)
    others = ((5, 8), (9, 32), (7, 64), (3, 128)) if kernel == "mamba1" else ((2, 64, 1, 128), (1, 128, 1, 256))
    for sizes in others:
        shape = " x ".join(str(size) for size in sizes)
        yield f"sizes {shape}", "float32", scan_case(kernel, 21, sizes)
    case = scan_case(kernel, 37, usual)
    yield "from the last token to the first", "float32", case | {"reverse": True}
    yield "step limits", "float32", case | {"time_step_limit": (0.1, 0.5)}
    yield "no gate, no start", "float32", case | {"z": None, "initial_state": None}
    tied = case | {"dt_bias": None, "threshold": case["dt"][0, 10].astype(mx.float32)}
    yield "thresholds that tie with data", "float32", tied
    small = (2, 16) if kernel == "mamba1" else (1, 2, 1, 16)
    yield f"{long} tokens", "float32", scan_case(kernel, long, small, batch=1)


def _known_models(kernel: str) -> Iterator[tuple[str, str, Case]]:
    """The compiled kernels that the known models use: for a token of an answer, and for a chunk of a text and some more
    tokens; with counts and without, since they are other kernels."""
    for model, shape in distinct([*KNOWN.items(), *SECOND.items()]).items():
        if kernel != ("mamba2" if shape.per_head else "mamba1"):
            continue
        name = model.split("/")[-1].removesuffix("-Instruct")
        for length in (1, 70):
            for counted in (True, False):
                case = random_inputs(shape, length)._asdict() | {"return_kept": counted}
                if length == 1 and not counted:
                    case["threshold"] = None
                yield f"{name}, {_tokens(length)}{', counted' * counted}", shape.dtype, case


def _exact(kernel: str, how: str) -> Iterator[tuple[str, Callable[[Op], list[tuple[mx.array, mx.array]]]]]:
    """What must hold to the bit."""
    if kernel == "mamba3":
        yield from mamba3.exact((metal if how == "metal" else reference).mamba3_scan)
        return
    if not kernel.startswith("mamba"):
        return
    case = scan_case(kernel, 65, (70, 16) if kernel == "mamba1" else (4, 6, 2, 16))

    def untouched(op: Op) -> list[tuple[mx.array, mx.array]]:
        return [(op(**case | {"threshold": mx.full(case["D"].shape, 1e6)})[1], case["initial_state"])]

    def unfiltered(op: Op) -> list[tuple[mx.array, mx.array]]:
        everything = op(**case | {"threshold": mx.full(case["D"].shape, -math.inf)})
        return list(zip(everything, op(**case | {"threshold": None}), strict=True))

    def split(op: Op) -> list[tuple[mx.array, mx.array]]:
        return _in_parts(op, case, (0, 1, 34, 65))

    def split_at_chunks(op: Op) -> list[tuple[mx.array, mx.array]]:
        return _in_parts(op, scan_case(kernel, 150, (2, 8, 1, 64)), (0, 64, 128, 150))

    yield "all filtered: state untouched", untouched
    yield "none filtered: as no threshold", unfiltered
    yield "in three parts: as in one", split
    if kernel == "mamba2":
        yield "in three parts, at chunks: as in one", split_at_chunks


def _in_parts(op: Op, case: Case, edges: tuple[int, ...]) -> list[tuple[mx.array, mx.array]]:
    """y and the state of a scan in parts, beside those of the whole."""
    y, state = op(**case)
    parts, carried = [], case["initial_state"]
    for start, stop in pairwise(edges):
        now = {key: case[key][:, start:stop] for key in ("x", "dt", "B", "C", "z")}
        some, carried = op(**case | now | {"initial_state": carried})
        parts.append(some)
    return [(mx.concatenate(parts, axis=1), y), (carried, state)]
