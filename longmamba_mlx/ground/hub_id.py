"""Recognise names of Hugging Face Hub repositories."""

from __future__ import annotations

import re

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


def is_hub_id(name: str) -> bool:
    """Whether `name` has the form "owner/name". A local path such as "./a" or "~/a" has not."""
    return _HUB_ID.fullmatch(name) is not None
