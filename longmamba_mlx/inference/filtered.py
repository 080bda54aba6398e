"""The model as a plan's tokens meet it."""

from __future__ import annotations

from longmamba_mlx.filtering import FilterPlan
from longmamba_mlx.models import LanguageModel
from longmamba_mlx.models.scaled import scaled


def filtered_model(model: LanguageModel, plan: FilterPlan | None) -> LanguageModel:
    """The model with A and dt scaled as `plan` says, for the tokens that it filters; thresholds are given apart."""
    if plan is None or not plan.is_scaled:
        return model
    return scaled(model, [layer.factors for layer in plan.layers])
