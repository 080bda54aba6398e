"""Another stand-in for mx.fast.metal_kernel: mx.fast.cuda_kernel, with the same bodies, as nodes of MLX's own graph.

Needs an NVIDIA GPU and MLX's CUDA build (`pip install "mlx[cuda13]"`). All else runs as it would on a Mac: lazily, on
the GPU, in MLX's streams and memory. `python -m tests.emulator.cuda_graph demo` is `longmamba-mlx demo` that way, and
`pytest -p tests.emulator.cuda_graph tests/models` the tests of the models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from tests.emulator import nvrtc
from tests.emulator.texts import body_for_host

_POINTER = "_in_memory"  # of what Metal passes by reference and CUDA in memory


class GraphKernel:
    """What `metal_kernel` returns: called as MLX's own kernel objects are."""

    def __init__(self, **definition: Any) -> None:
        self.definition = definition
        self.known: dict[tuple[bool, ...], Any] = {}

    def _kernel(self, single: tuple[bool, ...]) -> Any:
        """MLX's kernel object; `single` says which inputs are one number."""
        given = self.definition
        names = [name + _POINTER * one for name, one in zip(given["input_names"], single, strict=True)]
        numbers = [name for name, one in zip(given["input_names"], single, strict=True) if one]
        attributes = [name for name in nvrtc.ATTRIBUTES if name in given["source"]]
        body = "\n".join(
            [
                "const uint3 threads = {uint(grid_[0]), uint(grid_[1]), uint(grid_[2])};",
                nvrtc.OUTSIDE,
                *(f"const auto {name} = *{name}{_POINTER};" for name in numbers),
                *(f"const auto {name} = {nvrtc.ATTRIBUTES[name]};" for name in attributes),
                "{",
                body_for_host(given["source"]),
                "}",
            ]
        )
        return mx.fast.cuda_kernel(
            name=given["name"],
            input_names=[*names, "grid_"],
            output_names=given["output_names"],
            source=body,
            header="#define TYPES_OF_MLX\n" + nvrtc.HEADER + given["header"],
            ensure_row_contiguous=given["ensure_row_contiguous"],
        )

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
        arrays = [value if isinstance(value, mx.array) else mx.array(value) for value in inputs]
        single = tuple(array.ndim == 0 for array in arrays)
        if single not in self.known:
            self.known[single] = self._kernel(single)
        return list(
            self.known[single](
                inputs=[*arrays, mx.array(grid)],
                output_shapes=output_shapes,
                output_dtypes=output_dtypes,
                grid=grid,
                threadgroup=threadgroup,
                template=template or [],
                init_value=init_value,
                verbose=verbose,
                stream=stream or mx.gpu,
            )
        )


def metal_kernel(
    name: str,
    input_names: Sequence[str],
    output_names: Sequence[str],
    source: str,
    header: str = "",
    ensure_row_contiguous: bool = True,
) -> GraphKernel:
    """As mx.fast.metal_kernel, without what none of our kernels uses."""
    names = {"name": name, "input_names": list(input_names), "output_names": list(output_names)}
    return GraphKernel(**names, source=source, header=header, ensure_row_contiguous=ensure_row_contiguous)


def stand_in() -> None:
    """From now on mx.fast.metal_kernel makes such kernels, and Metal counts as available."""
    mx.fast.metal_kernel, mx.metal.is_available = metal_kernel, lambda: True


def pytest_configure() -> None:
    """As a plugin of pytest: all tests run with them."""
    stand_in()


def main() -> None:
    from longmamba_mlx.cli import main as command

    stand_in()
    command()


if __name__ == "__main__":
    main()
