"""A stand-in for mx.fast.metal_kernel that runs the kernel's own text on this CPU, thread by thread.

The text is MLX's (see `texts`), compiled with g++ against `shim.hpp`; `runtime.cpp` runs the grid. Every call runs
twice: threads and threadgroups forwards against buffers that end at a guard page, then backwards against buffers
that begin at one, with other poison in memory, threadgroup memory and uninitialised locals. What differs by a
single bit between the two is an error, other than one NaN from another, and so is everything that a guard page or a
sanitiser trap notices.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import numpy as np

from tests.emulator.host import HostRun, take_products
from tests.emulator.running import POISON, EmulatorError, Run
from tests.emulator.texts import Signature, signature, texts

MAX_BUFFERS = 31  # Metal's limit: a kernel with more does not compile
_FAR = 2**31  # elements
_TAIL = 4096  # of an output too large to look at, so many of the last elements are
_NO_RESERVE = 0x4000  # Linux: memory that is not written is not taken
_real_metal_kernel = mx.fast.metal_kernel


@dataclass(slots=True)
class Options:
    """How emulated kernels run: `adversarial` 1 makes exp wrong by a pseudo-random part of what MSL allows, 2 by all
    of it; `twice` is the check of orders and poison; `make_run` says what runs them; `far` lays the tokens of inputs
    with three or more dimensions so far apart that 32-bit offsets do not reach the last. Counted are `launches`, the
    threads of the `largest_group` and, once a launch, 8 x 8 matrix `products`."""

    make_run: Callable[[int, int], Run] = HostRun
    adversarial: int = 0
    twice: bool = True
    far: bool = False
    products: int = 0
    launches: int = 0
    largest_group: int = 0
    seen: list[str] = field(default_factory=list)


options = Options()


def _numpy(array: mx.array) -> np.ndarray:
    """The values, with the strides of the MLX array; bfloat16 as its bits."""
    mx.eval(array)
    return np.asarray(array.view(mx.uint16) if array.dtype == mx.bfloat16 else array)


def _as_mlx(values: np.ndarray, dtype: mx.Dtype) -> mx.array:
    return mx.array(values).view(mx.bfloat16) if dtype == mx.bfloat16 else mx.array(values)


def _storage(dtype: mx.Dtype) -> np.dtype:
    return _numpy(mx.zeros((1,), dtype=dtype)).dtype


class EmulatedKernel:
    """What `metal_kernel` returns: called as MLX's own kernel objects are."""

    def __init__(self, **definition: Any) -> None:
        self.definition = definition
        self.real = _real_metal_kernel(**definition)
        self.known: dict[tuple[object, ...], str] = {}

    def text(self, inputs: Sequence[object], launch: dict[str, Any]) -> str:
        """MLX's text for this launch. MLX checks the arguments on the way."""
        sizes = [(a.dtype, a.ndim == 0, a.size < 8) if isinstance(a, mx.array) else type(a) for a in inputs]
        key = (*sizes, str(launch["template"]), str(launch["output_dtypes"]))
        if key not in self.known:
            arrays = [a for a in inputs if isinstance(a, mx.array)]

            def call(*given: mx.array) -> list[mx.array]:
                rest = iter(given)
                filled = [next(rest) if isinstance(a, mx.array) else a for a in inputs]
                return list(self.real(inputs=filled, **launch, verbose=True))

            self.known[key] = texts(call, *arrays)[0]
        return self.known[key]

    def __call__(
        self,
        *,
        inputs: Sequence[Any],
        output_shapes: Sequence[Sequence[int]],
        output_dtypes: Sequence[mx.Dtype],
        grid: tuple[int, int, int],
        threadgroup: tuple[int, int, int],
        template: Sequence[tuple[str, object]] | None = None,
        init_value: float | None = None,
        verbose: bool = False,
        stream: object = None,
    ) -> list[mx.array]:
        launch = {"output_shapes": output_shapes, "output_dtypes": output_dtypes, "grid": grid}
        text = self.text(inputs, launch | {"threadgroup": threadgroup, "template": template, "init_value": init_value})
        options.launches += 1
        options.largest_group = max(options.largest_group, int(np.prod(np.minimum(threadgroup, grid))))
        options.seen.append(text)
        group = tuple(min(a, b) for a, b in zip(threadgroup, grid, strict=True))
        if int(np.prod(group)) > 1024:
            raise EmulatorError(f"{int(np.prod(group))} threads in a threadgroup: more than 1024")
        names = dict(zip(self.definition["input_names"], inputs, strict=True))
        arrays = {name: self._array(value) for name, value in names.items()}
        outputs = [(tuple(shape), _storage(dtype)) for shape, dtype in zip(output_shapes, output_dtypes, strict=True)]
        runs = []
        for which in range(2 if options.twice else 1):
            with options.make_run(which, options.adversarial) as run:
                runs.append(self._once(run, text, arrays, outputs, init_value, grid, group))
        if options.make_run is HostRun:
            options.products += take_products() // len(runs)
        if options.twice:
            _compare(*runs, self.definition["output_names"])
        return [_as_mlx(values, dtype) for values, dtype in zip(runs[0], output_dtypes, strict=True)]

    def _array(self, value: Any) -> np.ndarray:
        array = value if isinstance(value, mx.array) else mx.array(value)
        values = _numpy(array)
        if self.definition.get("ensure_row_contiguous", True):
            values = np.ascontiguousarray(values).reshape(values.shape)
        return _far_apart(values) if options.far and values.ndim >= 3 and values.shape[1] > 1 else values

    def _once(
        self,
        run: Run,
        text: str,
        arrays: dict[str, np.ndarray],
        outputs: list[tuple[tuple[int, ...], np.dtype]],
        initial: object,
        grid: Sequence[int],
        group: Sequence[int],
    ) -> list[np.ndarray]:
        parts: Signature = signature(text)
        if len(parts.arguments) > MAX_BUFFERS:
            raise EmulatorError(f"{len(parts.arguments)} buffers: more than {MAX_BUFFERS}")
        names = list(self.definition["output_names"])
        results = []
        for argument in parts.arguments:
            if argument.name in names:
                results.append(run.take(*outputs[names.index(argument.name)], initial))
            else:
                run.give(_described(argument.name, arrays))
        run.launch(text, grid, group)
        for i, argument in enumerate(parts.arguments):
            if argument.name in names and run.spilled(i):
                raise EmulatorError(f"written outside of output {argument.name}")
        return [(values if values.size < _FAR // 2 else values.reshape(-1)[-_TAIL:]).copy() for values in results]


def _far_apart(values: np.ndarray) -> np.ndarray:
    """The same values with tokens, the second dimension, so far apart that the last lie past `_FAR` elements."""
    size = values.dtype.itemsize
    token = 3 * _FAR // (2 * values.shape[1] - 2) * size
    strides = (values.strides[0], token, *(max(stride, 0) for stride in values.strides[2:]))
    span = sum((n - 1) * s for n, s in zip(values.shape, strides, strict=True))
    memory = mmap.mmap(-1, span + size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE)
    spread: np.ndarray = np.ndarray(values.shape, values.dtype, memory, 0, strides)
    spread[...] = values
    return spread


def _described(name: str, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """An input, or the shape, strides (in elements) or number of dimensions that MLX passes along with one."""
    if name in arrays:
        return arrays[name]
    base, _, what = name.rpartition("_")
    array = arrays[base]
    if what == "shape":
        return np.array(array.shape, np.int32)
    if what == "strides":
        return np.array(array.strides, np.int64) // array.itemsize
    return np.array(array.ndim, np.int32)


def _compare(first: list[np.ndarray], second: list[np.ndarray], names: Sequence[str]) -> None:
    for name, a, b in zip(names, first, second, strict=True):
        flat = [np.ascontiguousarray(values).reshape(-1) for values in (a, b)]
        bits = [values.view(np.uint8).reshape(a.size, a.itemsize) for values in flat]
        differ = (bits[0] != bits[1]).any(axis=1)
        untouched = (bits[0] == POISON[0]).all(axis=1) & (bits[1] == POISON[1]).all(axis=1)
        if differ.any() and np.issubdtype(a.dtype, np.floating):
            # Which NaN it is follows from the order that a compiler gives two operands, and nobody promises it. In
            # float16 both kinds of poison are NaN, too.
            differ &= untouched | ~(np.isnan(flat[0]) & np.isnan(flat[1]))
        if not differ.any():
            continue
        element = int(np.flatnonzero(differ)[0])
        what = (
            "is never written, or is what was never written"
            if untouched[element]
            else "depends on the order of threads or on uninitialised memory"
        )
        raise EmulatorError(f"output {name}, element {element}, {what}")


def metal_kernel(
    name: str,
    input_names: Sequence[str],
    output_names: Sequence[str],
    source: str,
    header: str = "",
    ensure_row_contiguous: bool = True,
    atomic_outputs: bool = False,
    compile_options: dict[str, str] | None = None,
) -> EmulatedKernel:
    """As mx.fast.metal_kernel."""
    definition = {"name": name, "input_names": list(input_names), "output_names": list(output_names), "source": source}
    given = {"header": header, "ensure_row_contiguous": ensure_row_contiguous, "atomic_outputs": atomic_outputs}
    if compile_options is not None:
        given["compile_options"] = compile_options
    return EmulatedKernel(**definition, **given)


@contextmanager
def emulated(
    *, adversarial: int = 0, twice: bool = True, make_run: Callable[[int, int], Run] = HostRun
) -> Iterator[Options]:
    """Inside, mx.fast.metal_kernel makes emulated kernels and Metal counts as available."""
    available = mx.metal.is_available
    before = options.adversarial, options.twice, options.make_run
    options.far = False
    options.adversarial, options.twice, options.make_run = adversarial, twice, make_run
    options.launches = options.largest_group = options.products = 0
    options.seen.clear()
    mx.fast.metal_kernel, mx.metal.is_available = metal_kernel, lambda: True
    try:
        yield options
    finally:
        mx.fast.metal_kernel, mx.metal.is_available = _real_metal_kernel, available
        options.adversarial, options.twice, options.make_run = before
