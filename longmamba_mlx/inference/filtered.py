"""The model as a plan's tokens meet it."""

from __future__ import annotations

from dataclasses import dataclass

from longmamba_mlx.filtering import FilterPlan
from longmamba_mlx.models import LanguageModel
from longmamba_mlx.models.scaled import scaled


def filtered_model(model: LanguageModel, plan: FilterPlan | None) -> LanguageModel:
    """The model with A and dt scaled as `plan` says, for the tokens that it filters; thresholds are given apart."""
    if plan is None or not plan.is_scaled:
        return model
    return scaled(model, [layer.factors for layer in plan.layers])


@dataclass(frozen=True, eq=False)
class PlannedModel:
    """A model and the plan it reads with (None: nothing is filtered); `filtered` is it for the tokens that are."""

    model: LanguageModel
    filtered: LanguageModel
    plan: FilterPlan | None

    @classmethod
    def of(cls, model: LanguageModel, plan: FilterPlan | None) -> PlannedModel:
        return cls(model, filtered_model(model, plan), plan)

    def filters(self, start: int) -> bool:
        """Whether the tokens from `start` on, up to the plan's next edge, may be filtered."""
        return self.plan is not None and self.plan.filters(start)
