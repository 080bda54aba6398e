"""Settings: what is refused, what a mode resolves to, which constants a model gets."""

from __future__ import annotations

import math

import pytest

from longmamba_mlx.errors import UsageError
from longmamba_mlx.filtering import DEFAULT_MODE, FilterSettings, constants_for, settings_for
from tests.filtering.samples import TinyConfig


def test_longmamba_names_the_default_mode() -> None:
    settings = FilterSettings()
    assert settings.mode == "longmamba" and settings.resolved_mode == DEFAULT_MODE == "paper"
    assert settings.canonical() == FilterSettings(mode=DEFAULT_MODE).canonical()


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "magic"},
        {"theta": 1.0},
        {"theta": -0.1},
        {"theta": math.nan},
        {"clamp": 1.0},
        {"clamp": -0.01},
        {"reduction": "mean"},
        {"combine": "sum"},
        {"budget_factor": 0.0},
        {"budget_factor": math.inf},
        {"mode": "paper", "budget_factor": 0.5},
        {"mode": "curve", "combine": "max"},
    ],
)
def test_settings_without_meaning_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        FilterSettings(**wrong)  # type: ignore[arg-type]


def test_unused_constants_do_not_change_the_canonical_form() -> None:
    assert FilterSettings("document", clamp=0.2).canonical() == FilterSettings("document", clamp=0).canonical()
    assert FilterSettings("curve", clamp=0.2).canonical() != FilterSettings("curve", clamp=0).canonical()
    assert FilterSettings("off", theta=0.5).canonical() == FilterSettings("off").canonical()
    assert FilterSettings("paper").effective().reduction == "step_mean"
    assert FilterSettings("paper").effective().combine == "avg"


def test_theta_far_below_float32_keeps_its_logarithm() -> None:
    assert FilterSettings(theta=1e-40).log_theta == pytest.approx(-40 * math.log(10))
    assert FilterSettings(theta=0.0).log_theta == -math.inf


def test_published_constants() -> None:
    mamba = constants_for(TinyConfig(model_type="mamba", training_length=2048))
    assert (mamba.theta, mamba.clamp, mamba.training_length) == (1e-30, 0.20, 2000)
    mamba2 = constants_for(TinyConfig(model_type="mamba2", training_length=2048))
    assert (mamba2.theta, mamba2.clamp, mamba2.training_length) == (5e-2, 0.05, 2000)
    zamba2 = constants_for(TinyConfig(model_type="zamba2", training_length=4096))
    assert (zamba2.theta, zamba2.clamp, zamba2.training_length) == (1e-5, 0.05, 4000)


def test_models_nobody_published_for_keep_their_own_length() -> None:
    falcon = constants_for(TinyConfig(model_type="falcon_mamba", training_length=8192))
    assert (falcon.theta, falcon.training_length) == (1e-30, 8192)
    assert constants_for(TinyConfig(model_type="mamba", training_length=8192)).training_length == 8192


def test_a_model_folders_own_block_wins() -> None:
    block = {"theta": 1e-5, "clamp": 0.1, "training_length": 512, "question": "\nQuestion: {question}"}
    own = constants_for(TinyConfig(), block)
    assert (own.theta, own.slowest_theta, own.clamp, own.training_length) == (1e-5, 1e-5, 0.1, 512)
    with pytest.raises(UsageError):
        constants_for(TinyConfig(), {"theta": "small"})


def test_theta_fits_the_reduction() -> None:
    config = TinyConfig(model_type="mamba", training_length=2048)
    assert settings_for(config, "paper").theta == 1e-30
    assert settings_for(config, "document", reduction="step_mean").theta == 1e-30
    assert settings_for(config).canonical() == settings_for(config, "paper").canonical()
    assert settings_for(config, "document").theta == 3e-4
    assert settings_for(config, "paper").combine == "avg"
