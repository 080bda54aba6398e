"""Writes the small files of tests/convert/files with torch, which the tests themselves do without.

python tests/convert/make_torch_files.py
"""

from __future__ import annotations

from pathlib import Path

import torch

FILES = Path(__file__).parent / "files"


def tensors() -> dict[str, torch.Tensor]:
    """What test_torch_zip.py computes again with numpy."""
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6) / 7
    shared = torch.linspace(-1, 1, 12).reshape(3, 4)
    whole = {
        "f64": torch.float64, "f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16, "i64": torch.int64,
        "i32": torch.int32, "i16": torch.int16, "i8": torch.int8, "u8": torch.uint8, "bool": torch.bool,
    }  # fmt: skip
    table = {name: torch.arange(5).to(dtype) for name, dtype in whole.items()}
    table |= {
        "turned": base.T,
        "slice": base[1:3, ::2],
        "tied.a": shared,
        "tied.b": shared,
        "scalar": torch.tensor(2.5),
    }
    table |= {"empty": torch.zeros(0, 3), "parameter": torch.nn.Parameter(torch.ones(2, 3) / 3)}
    return table


def main() -> None:
    FILES.mkdir(exist_ok=True)
    for protocol in (2, 4):
        torch.save(tensors(), FILES / f"tensors-protocol{protocol}.bin", pickle_protocol=protocol)
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))
    for number, parameter in enumerate(module.parameters()):
        parameter.data = torch.arange(parameter.numel(), dtype=torch.float32).reshape(parameter.shape) + number
    torch.save(module.state_dict(), FILES / "state-dict.bin")
    torch.save(module, FILES / "module.bin")
    torch.save({"one": torch.ones(2)}, FILES / "legacy.bin", _use_new_zipfile_serialization=False)
    torch.save({"conj": torch.ones(2, dtype=torch.complex64)}, FILES / "complex.bin")


if __name__ == "__main__":
    main()
