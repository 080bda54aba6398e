"""Settings: what is refused, what a mode resolves to, which constants a model gets."""

from __future__ import annotations

import math

import pytest

from longmamba_mlx.errors import UsageError
from longmamba_mlx.filtering import constants_for, policy_for
from longmamba_mlx.filtering.policies.paper import Paper
from longmamba_mlx.filtering.registry import DEFAULT, DEFAULT_NAME, names, policy_class
from tests.filtering.samples import TinyConfig, policy


def test_longmamba_names_the_default_mode() -> None:
    assert DEFAULT == "paper" and policy_class(DEFAULT_NAME) is policy_class(DEFAULT)
    assert policy(DEFAULT_NAME).canonical() == policy(DEFAULT).canonical()


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("paper", {"theta": 1.0}),
        ("curve", {"theta": -0.1}),
        ("document", {"theta": math.nan}),
        ("paper", {"clamp": 1.0}),
        ("curve", {"clamp": -0.01}),
        ("curve", {"reduction": "mean"}),
        ("document", {"reduction": "mean"}),
        ("document", {"combine": "sum"}),
        ("paper", {"combine": "pooled"}),
        ("curve", {"budget_factor": 0.0}),
        ("document", {"budget_factor": math.inf}),
        ("document", {"budget_window": -1}),
        ("paper", {"threshold_factor": 0.0}),
        ("curve", {"threshold_factor": math.nan}),
        ("decimamba", {"beta": math.inf}),
        ("decimamba", {"base": -5}),
        ("off", {"protect_last": -1}),
        ("document", {"protect_first": -1}),
    ],
)
def test_options_without_meaning_are_refused(name: str, wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        policy_class(name)(**wrong)  # type: ignore[arg-type]


def test_an_unknown_name_is_refused_with_all_that_are_known() -> None:
    with pytest.raises(UsageError, match="Unknown filter 'magic'") as refused:
        policy_for(TinyConfig(), "magic")
    assert refused.value.hint is not None and all(name in refused.value.hint for name in names())


def test_theta_far_below_float32_keeps_its_logarithm() -> None:
    assert Paper(theta=1e-40).log_theta == pytest.approx(-40 * math.log(10))
    assert Paper(theta=0.0).log_theta == -math.inf


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
    wanted = {"paper": 1e-30, "document:reduction=step_mean": 1e-30, "document": 3e-4, "curve": 3e-4}
    for name, theta in wanted.items():
        assert policy_for(config, name).record()["theta"] == theta
    assert policy_for(config).canonical() == policy_for(config, "paper").canonical()
