"""The arguments of both filtered scans, written down once."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import wraps
from typing import NamedTuple, ParamSpec, TypeVar

import mlx.core as mx

DtRange = tuple[float, float]
"""The bounds between which a kept token's dt is clipped (`time_step_limit` in checkpoints and in the public API)."""

UNBOUNDED: DtRange = (0.0, math.inf)

Scan = tuple[mx.array, mx.array] | tuple[mx.array, mx.array, mx.array]
"""What a scan returns: y, the state after the last token and, where asked for, kept counts."""

State = TypeVar("State")
Arguments = ParamSpec("Arguments")
Inputs = TypeVar("Inputs")
Result = TypeVar("Result")


class ScanInputs(NamedTuple):
    """What `selective_scan` and `ssd_scan` take; see there for shapes. Backends get it checked."""

    x: mx.array
    dt: mx.array
    A: mx.array
    B: mx.array
    C: mx.array
    D: mx.array | None = None
    z: mx.array | None = None
    dt_bias: mx.array | None = None
    threshold: mx.array | None = None
    initial_state: mx.array | None = None
    time_step_limit: DtRange = UNBOUNDED
    reverse: bool = False
    return_kept: bool = False


def unpacked(
    scan: tuple[mx.array, State] | tuple[mx.array, State, mx.array],
) -> tuple[mx.array, State, mx.array | None]:
    """y, the state and the kept counts of what a scan returned; None where those were not asked for."""
    return scan if len(scan) == 3 else (*scan, None)


def takes(
    inputs: Callable[Arguments, Inputs],
) -> Callable[[Callable[[Inputs], Result]], Callable[Arguments, Result]]:
    """Decorator: call an op on its inputs with their fields as its arguments, by position or by name."""

    def decorate(op: Callable[[Inputs], Result]) -> Callable[Arguments, Result]:
        @wraps(op)
        def called(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            return op(inputs(*args, **kwargs))

        returned = inspect.signature(op).return_annotation
        signature = inspect.signature(inputs).replace(return_annotation=returned)
        called.__signature__ = signature  # type: ignore[attr-defined]
        return called

    return decorate
