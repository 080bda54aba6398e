"""What states and measurements record of a filter stays byte for byte what the first version wrote.

`records.json` holds, for both built-in models, what commit aba4a56 gave: a filter's canonical text, the plans' digests
for 700, 4,096 and 200,000 tokens, and their notices. A state's key is made of these. The `demo` of then is kept beside
the files that it wrote.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from longmamba_mlx.session.api import Model, load
from tests.session.test_old_files import MODEL

LENGTHS = (700, 4096, 200_000)
OF_THEN = {"demo": MODEL}
RECORDS: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "records.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    return {name: load(OF_THEN.get(name, name), filter="off") for name in RECORDS}


@pytest.mark.parametrize(("name", "filter"), [(name, filter) for name in RECORDS for filter in RECORDS[name]])
def test_records_are_those_of_the_first_version(models: dict[str, Model], name: str, filter: str) -> None:
    model, expected = models[name].with_filter(filter), RECORDS[name][filter]
    plans = [model.plan(length) for length in LENGTHS]
    assert model.filter == expected["filter"]
    assert model.policy.canonical() == expected["canonical"]
    assert [None if plan is None else plan.digest() for plan in plans] == expected["digests"]
    assert [None if plan is None else list(plan.notices) for plan in plans] == expected["notices"]
