"""Files that an earlier version wrote still open: written_by_aba4a56/ holds a state and a calibration of that commit.

They were made there with `load("demo").read("story.txt").save("story.state")` and
`calibrate(load("demo"), "sample.txt", windows=4, save=False).save("longmamba.safetensors")`. model/ is
the `demo` of then, sample.txt its sample document.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from longmamba_mlx.events import Answered, Passage, ReadDone
from longmamba_mlx.filtering import Calibration, build_plan
from longmamba_mlx.paths import private_folder, state_folder
from longmamba_mlx.session import text_model
from longmamba_mlx.session.api import Model, load
from longmamba_mlx.session.session import Session
from longmamba_mlx.states.store import StateStore

OLD = Path(__file__).parent / "written_by_aba4a56"
KEY = "78018806e3eb542bba92d9b10a26a694431f68154a1904a621c01cc14202ba4a"
KERNEL = "cpu"  # that wrote it
MODEL = str(OLD / "model")
QUESTION = "What is the access code of Zorvath?"


@pytest.fixture(scope="module")
def writer() -> Model:
    """The model that wrote the files."""
    return load(MODEL)


def test_a_state_opens_with_its_text_and_answers(writer: Model) -> None:
    book = writer.open(OLD / "story.state", OLD / "story.txt")
    assert (book.tokens, book.filter, book.key.digest()) == (2154, "paper", KEY)
    answer = book.ask(QUESTION)
    assert answer.text == "48213" and answer.found and isinstance(answer.passages[0], Passage)
    assert answer.passages[0].quoted and "Zorvath is 48213" in answer.passages[0].text


def test_reading_the_text_now_gives_the_old_state_and_the_old_key(writer: Model) -> None:
    old, new = writer.open(OLD / "story.state", OLD / "story.txt"), writer.read(OLD / "story.txt")
    assert replace(new.key, kernel=KERNEL, reader=1) == old.key
    for name, array in old.state.arrays().items():
        now = np.array(new.state.arrays()[name])
        np.testing.assert_allclose(np.array(array), now, rtol=1e-3, atol=1e-3 * np.abs(now).max(), err_msg=name)
    assert old.kept is not None and new.kept is not None and (old.kept == new.kept).mean() > 0.999
    for before, now in zip(old.thresholds(), new.thresholds(), strict=True):
        assert (before is None) == (now is None)
        if before is not None and now is not None:
            np.testing.assert_allclose(before, now, rtol=1e-5)


def test_a_stored_state_is_found_and_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_model, "kernel", lambda: KERNEL)
    store = StateStore(state_folder())
    target = store.folder / KEY[:2] / f"{KEY}.safetensors"
    private_folder(target.parent)
    shutil.copyfile(OLD / "story.state", target)
    session = Session(MODEL)
    *_, done = session.open([str(OLD / "story.txt")])
    assert isinstance(done, ReadDone) and done.reopened and done.stored == KEY
    *_, answered = session.ask(QUESTION)
    assert isinstance(answered, Answered) and answered.answer.text == "48213"


def test_a_calibration_opens_and_gives_the_thresholds_of_one_measured_now(writer: Model) -> None:
    path, loaded = OLD / "longmamba.safetensors", writer.loaded
    old = Calibration.load(path, fingerprint=loaded.fingerprint, quantisation=loaded.quantisation)
    new = writer.measure(writer.tokenizer.encode((OLD / "sample.txt").read_text(encoding="utf-8")), windows=4)
    assert old.text_digest == new.text_digest
    for name in ("paper", "curve"):
        policy = writer.with_filter(name).policy
        before, now = (build_plan(calibration, policy, 20_000) for calibration in (old, new))
        assert any(before.thresholds(index) is not None for index in range(len(before.layers)))
        for index in range(len(before.layers)):
            a, b = before.thresholds(index), now.thresholds(index)
            assert (a is None) == (b is None)
            if a is not None and b is not None:
                np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)
