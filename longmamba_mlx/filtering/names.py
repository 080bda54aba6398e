"""Filters by name, with options after colons: "paper", "document:nats=3:last=64", "decimamba:layers=12+20"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from longmamba_mlx.errors import UsageError
from longmamba_mlx.filtering.constants import ModelFacts, constants_for
from longmamba_mlx.filtering.policies.base import Policy
from longmamba_mlx.filtering.registry import DEFAULT_NAME, policy_class


def parse_filter(text: str) -> tuple[type[Policy], dict[str, Any]]:
    """A filter's policy and the fields its options set. Raises UsageError for a name or an option that is unknown."""
    name, *options = text.split(":")
    policy = policy_class(name)
    known = {option.key: option for option in policy.options}
    fields: dict[str, Any] = {"by_default": True} if name == DEFAULT_NAME else {}
    for option in options:
        key, _, value = option.partition("=")
        if key not in known:
            hint = f"{name} takes: {', '.join(known)}; as in {name}:last=64."
            raise UsageError(f"Unknown filter option {key!r} in {text!r}.", hint=hint)
        try:
            fields[known[key].field] = known[key].read(value)
        except (ValueError, OverflowError):
            raise UsageError(f"Invalid value {value!r} for the filter option {key}.", hint=known[key].meaning) from None
    return policy, fields


def policy_for(config: ModelFacts, filter: str = DEFAULT_NAME, block: Mapping[str, object] | None = None) -> Policy:
    """The policy of a filter's name with the model's own constants where the name gives no others.

    `block`: see `constants_for`. Raises UsageError for a name or an option without a meaning.
    """
    policy, fields = parse_filter(filter)
    return policy.for_model(constants_for(config, block), **fields)
