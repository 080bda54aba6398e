"""The Python API: `load` a model, `read` a document, `ask` it questions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from longmamba_mlx import builtin
from longmamba_mlx.documents import read_document
from longmamba_mlx.errors import UsageError
from longmamba_mlx.filtering import Calibration
from longmamba_mlx.models.loading import load_model
from longmamba_mlx.models.weight_files import CALIBRATION
from longmamba_mlx.registry import resolve
from longmamba_mlx.registry.local_models import is_of_others
from longmamba_mlx.session.model import Model
from longmamba_mlx.session.read_document import ReadDocument
from longmamba_mlx.tokenization.tokenizer import NoTokenizer, Tokenizer, tokenizer_file

if TYPE_CHECKING:
    from longmamba_mlx.conversion.report import Report

__all__ = ["CALIBRATION", "Model", "ReadDocument", "calibrate", "load"]


def load(
    name: str | Path = resolve.DEFAULT,
    *,
    filter: str = "longmamba",
    attention_window: int | None = None,
    offline: bool = False,
    report: Report | None = None,
) -> Model:
    """Load a model: "demo", "demo-mamba1", a model folder, or a Hub id (downloaded and converted on first use).

    filter: a filter's name, with options as in "paper:last=64". attention_window: let the attention layers of a hybrid
    see only that many of the latest tokens, and the first four, so that prefill takes constant memory; None: all
    tokens. offline: never use the network. report: receives the progress of a download.

    Raises ModelError, CalibrationError or UsageError, each with a hint.
    """
    if attention_window is not None and attention_window < 1:
        raise UsageError("The attention window must be at least 1 token.", hint="Leave it out: all tokens.")
    name = str(name)
    folder = resolve.resolve(name, offline=offline, report=report)
    loaded = load_model(folder, attention_window=attention_window)
    has_tokenizer = tokenizer_file(loaded.folder) is not None
    tokenizer = Tokenizer.from_folder(loaded.folder) if has_tokenizer else NoTokenizer(loaded.folder)
    return Model(replace(loaded, name=name), tokenizer, filter)


def calibrate(
    model: Model,
    text: str | None = None,
    *,
    windows: int = 16,
    on_progress: Callable[[int, int], None] | None = None,
    save: bool = True,
) -> Calibration:
    """Measure `model` on windows of its training length from `text`, and store the result.

    It is stored beside the model, or in this program's own folder for a model of another program.

    `on_progress(done, total)` counts windows times layers. Raises CalibrationError for a text shorter than one window
    (paper section 4: calibration needs a few windows, no training), DiskError when it cannot be stored.
    """
    if text is None:
        text = read_document(builtin.sample_document()).text
    calibration = model.measure(model.tokenizer.encode(text), windows=windows, on_progress=on_progress)
    if save:
        path = calibration_file(model)
        calibration.save(path, private=path == model.remembered_calibration)  # beside a model, as its other files
    model.calibration = calibration
    return calibration


def calibration_file(model: Model) -> Path:
    """Where `calibrate` stores its result."""
    folder = model.loaded.folder
    return model.remembered_calibration if is_of_others(folder) else folder / CALIBRATION
