"""Which layers of a model are quantised and how, in mlx-lm's config.json format.

"quantization": {"group_size": 64, "bits": 4, "mode": "affine",
                 "backbone.layers.0.mixer.x_proj": {"group_size": 64, "bits": 8},
                 "backbone.layers.0.mixer.dt_proj": false}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

from longmamba_mlx.errors import ModelError
from longmamba_mlx.models.mixer import ScanMixer
from longmamba_mlx.storage.json_config import Reader, shown
from longmamba_mlx.system import total_bytes

PRECISE_BITS = 8  # what step sizes need: the filter compares them with thresholds
BITS = (2, 3, 4, 5, 6, 8)
GROUP_SIZES = (32, 64, 128)
# The only bits and group size of each mode but affine.
FIXED_MODES = {"mxfp4": (4, 32), "mxfp8": (8, 32), "nvfp4": (4, 16)}
_KEY = "quantization"
_OTHER_KEY = "quantization_config"  # mlx-lm writes it too, beside its own
_PACKED = (nn.QuantizedLinear, nn.QuantizedEmbedding)


@dataclass(frozen=True, slots=True)
class LayerFormat:
    """How one layer's weights are stored. Raises nothing: see `checked_format`."""

    bits: int
    group_size: int
    mode: str = "affine"

    @property
    def options(self) -> dict[str, int | str]:
        """As mlx-lm writes it and `nn.quantize` takes it."""
        return {"group_size": self.group_size, "bits": self.bits, "mode": self.mode}


@dataclass(frozen=True, slots=True)
class Quantisation:
    """A format for all layers, and other ones (None: not quantised) for the layers that `layers` names."""

    default: LayerFormat
    layers: Mapping[str, LayerFormat | None] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """E.g. "q4-g64"; part of what a calibration and a stored state belong to."""
        mode = "" if self.default.mode == "affine" else f"-{self.default.mode}"
        return f"q{self.default.bits}-g{self.default.group_size}{mode}"

    def as_config(self) -> dict[str, object]:
        """The value of "quantization" in config.json."""
        layers = {path: False if form is None else form.options for path, form in self.layers.items()}
        return {**self.default.options, **layers}

    def apply(self, model: nn.Module, weights: Mapping[str, mx.array] | None = None) -> None:
        """Turn the model's layers into quantised ones: those whose scales are in `weights`, or all.

        Raises ModelError if a layer's width is not a multiple of its group size.
        """

        def wanted(path: str, module: nn.Module) -> bool | dict[str, int | str]:
            form = self.layers.get(path, self.default)
            if not hasattr(module, "to_quantized") or form is None:
                return False
            if weights is not None and f"{path}.scales" not in weights:
                return False
            return form.options

        default = self.default
        try:
            nn.quantize(model, default.group_size, default.bits, mode=default.mode, class_predicate=wanted)
        except (ValueError, RuntimeError) as error:
            reason = (str(error).splitlines() or ["unknown"])[0][:160]
            raise ModelError(
                f"A layer cannot be quantised so: {reason}", hint="Is config.json this model's?"
            ) from error


def step_layers(model: nn.Module) -> list[str]:
    """Paths of the linears that step sizes come from: x_proj and dt_proj of Mamba-1, in_proj of Mamba-2."""
    mixers = [(path, module) for path, module in model.named_modules() if isinstance(module, ScanMixer)]
    return [f"{path}.{name}" for path, mixer in mixers for name in mixer.steps]


def few_bit_steps(model: nn.Module) -> int | None:
    """The fewest bits in which layers that step sizes come from are stored; None where all have 8 or more."""
    modules = dict(model.named_modules())
    bits = [modules[path].bits for path in step_layers(model) if isinstance(modules[path], nn.QuantizedLinear)]
    return min((count for count in bits if count < PRECISE_BITS), default=None)


def unpack_layers(model: nn.Module) -> None:
    """Replace quantised linears and embeddings by plain ones with the unpacked weights.

    For a CPU without a fast product of packed weights; a model that would then need more than half of the machine's
    memory stays packed.
    """
    plain = []
    for path, module in to_be_unpacked(model).items():
        layer = nn.Embedding(1, 1) if isinstance(module, nn.QuantizedEmbedding) else nn.Linear(1, 1, bias=False)
        layer.weight = unpacked_weight(module)
        if "bias" in module:
            layer.bias = module.bias
        plain.append((path, layer))
    model.update_modules(tree_unflatten(plain))


def to_be_unpacked(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that `unpack_layers` turns into plain ones, by their paths."""
    packed: dict[str, nn.Module] = {path: m for path, m in model.named_modules() if isinstance(m, _PACKED)}
    unpacked = 4 * sum(map(numbers, packed.values()))
    return packed if unpacked <= total_bytes() // 2 else {}


def numbers(packed: nn.Module) -> int:
    """How many numbers the weight of a quantised layer stands for."""
    return int(packed.weight.size) * 32 // int(packed.bits)


def unpacked_weight(module: nn.Module, rows: slice = slice(None)) -> mx.array:
    """The weight of a linear or embedding, or some rows of it, as plain numbers."""
    if not isinstance(module, _PACKED):
        plain: mx.array = module.weight[rows]
        return plain
    biases = module.get("biases")
    unpacked: mx.array = mx.dequantize(
        module.weight[rows],
        module.scales[rows],
        None if biases is None else biases[rows],
        module.group_size,
        module.bits,
        module.mode,
    )
    return unpacked


def checked_format(bits: int, group_size: int, mode: str) -> LayerFormat:
    """A format that MLX has. Raises ModelError, naming those there are."""
    if mode in FIXED_MODES and (bits, group_size) != FIXED_MODES[mode]:
        fixed_bits, fixed_group = FIXED_MODES[mode]
        raise ModelError(
            f"{mode} has {fixed_bits} bits in groups of {fixed_group}, not {bits} in groups of {group_size}.",
            hint="Leave out --q-bits and --q-group-size",
        )
    if mode not in FIXED_MODES and (mode != "affine" or bits not in BITS or group_size not in GROUP_SIZES):
        raise ModelError(
            f"There is no quantisation with {bits} bits, groups of {group_size}, mode {mode[:20]}.",
            hint=f"Bits: {_listed(BITS)}; group size: {_listed(GROUP_SIZES)}; mode: affine, {', '.join(FIXED_MODES)}",
        )
    return LayerFormat(bits, group_size, mode)


def parse_quantisation(raw: Mapping[str, object]) -> Quantisation | None:
    """Parse the quantisation of a config.json; None for weights that are not quantised.

    Raises ModelError, also for the formats of other programs (GPTQ, AWQ, FP8, bitsandbytes, ...).
    """
    if raw.get(_KEY) is None and raw.get(_OTHER_KEY) is not None:
        method = Reader(raw).table(_OTHER_KEY).raw.get("quant_method", "another program")
        raise ModelError(
            f"The weights are quantised by {shown(method)}, which is not read.",
            hint="Use the publisher's 16-bit checkpoint, or one in MLX format (mlx-community)",
        )
    if raw.get(_KEY) is None:
        return None
    reader = Reader(raw).table(_KEY)
    default = _format(reader, "affine")
    layers: dict[str, LayerFormat | None] = {}
    for path, value in reader.raw.items():
        if isinstance(value, Mapping):
            layers[path] = _format(reader.table(path), default.mode)
        elif value is False:
            layers[path] = None
    return Quantisation(default, layers)


def _format(reader: Reader, mode: str) -> LayerFormat:
    named = reader.raw.get("mode", mode)
    if not isinstance(named, str):
        raise reader.fail("mode", f"must be a text, not {shown(named)}")
    bits, group_size = FIXED_MODES.get(named, (4, 64))
    bits = reader.integer("bits", 8, minimum=2, default=bits)
    return checked_format(bits, reader.integer("group_size", 128, minimum=16, default=group_size), named)


def _listed(values: tuple[int, ...]) -> str:
    return ", ".join(map(str, values))
