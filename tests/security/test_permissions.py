"""Whatever this program keeps is for its user alone, under any umask: files 0600, folders 0700."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from stat import S_IMODE

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Every way in which files come to be in LONGMAMBA_HOME; modes are listed while the stores are open, too.
USE = """
    import os, sys
    from pathlib import Path
    os.umask(int(sys.argv[1], 8))
    home, story, exported = map(Path, (os.environ["LONGMAMBA_HOME"], sys.argv[2], sys.argv[3]))

    def modes(name):
        for path in [home, *home.rglob("*")]:
            print(name, oct(path.stat().st_mode & 0o777), path.is_dir(), path.name)

    from longmamba_mlx import paths
    from longmamba_mlx.events import ReadProgress
    from longmamba_mlx.evaluation.samples import SampleLog
    from longmamba_mlx.registry.resolve import set_user_default
    from longmamba_mlx.session.session import Session
    from longmamba_mlx.states import checkpoints, size_limit
    from longmamba_mlx.states.store import StateStore
    from longmamba_mlx.states.transfer import export_state, import_state
    from longmamba_mlx.tui.history.records import Exchange
    from longmamba_mlx.tui.history.store import ConversationStore

    checkpoints.EVERY_TOKENS, checkpoints.MOST_COST, checkpoints.CLOSEST_PLACES = 1, 1e9, 512
    opened = (session := Session(chunk=256)).open([str(story)])
    for event in opened:
        if isinstance(event, ReadProgress) and event.done > 1000:
            break
    opened.close()
    modes("unfinished")
    list(session.open([str(story)]))
    list(session.ask("What is the access code of Zorvath?"))
    model = session.document.model
    list(model.calibration_steps(model.tokenizer.encode(story.read_text()), windows=1))
    store = StateStore(paths.state_folder())
    size_limit.set_limit(store, 10**9)
    digest = store.list()[0].digest
    export_state(store, digest, exported)
    print("exported", oct(exported.stat().st_mode & 0o777), False, exported.name)
    exported.chmod(0o666)  # as another program may hand it over
    store.remove(digest)
    import_state(store, exported)
    list(session.open([str(story)]))
    talks = ConversationStore(paths.conversations_file())
    with talks._database() as database:
        database.execute("INSERT INTO settings VALUES ('a', 'b')")
        modes("talking")
    set_user_default("demo")
    log = SampleLog(paths.evaluation_folder() / "niah.jsonl")
    log.add("run", [])
    modes("finished")
"""


@pytest.mark.parametrize("umask", ("000", "022", "077"))
def test_files_and_folders_are_for_the_user_alone(umask: str, tmp_path: Path, private_home: Path, story: str) -> None:
    document, exported = tmp_path / "story.txt", tmp_path / "exported"
    document.write_text(story, encoding="utf-8")
    home = private_home / "fresh"
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(USE), umask, str(document), str(exported)],
        cwd=ROOT, env={**os.environ, "LONGMAMBA_HOME": str(home)}, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
    rows = [line.split(maxsplit=3) for line in child.stdout.splitlines()]
    names = {row[3].rpartition(".")[2] for row in rows}
    assert {"reading", "places", "safetensors", "sqlite", "sqlite-wal", "sqlite-shm", "json", "jsonl"} <= names
    assert {row[0] for row in rows} == {"unfinished", "exported", "talking", "finished"}
    wrong = [row for row in rows if row[1] != ("0o700" if row[2] == "True" else "0o600")]
    assert not wrong
    assert not [path for path in home.rglob("*") if S_IMODE(path.stat().st_mode) & 0o077]
    assert S_IMODE(document.stat().st_mode) & 0o444 == 0o444, "the user's own files stay as they are"


def test_what_an_earlier_version_left_open_is_closed(tmp_path: Path, private_home: Path, story: str) -> None:
    from longmamba_mlx.paths import conversations_file, state_folder
    from longmamba_mlx.session.session import Session
    from longmamba_mlx.tui.history.store import ConversationStore

    document, foreign = tmp_path / "story.txt", tmp_path / "foreign"
    document.write_text(story[:900], encoding="utf-8")
    foreign.write_text("not ours")
    foreign.chmod(0o644)
    list(Session(chunk=256).open([str(document)]))
    ConversationStore(conversations_file()).begin("title", "d", [], "demo")
    (state_folder() / "link").symlink_to(foreign)
    loose = [path for path in private_home.rglob("*") if path.is_file() and not path.is_symlink()]
    assert {"safetensors", "sqlite"} <= {path.suffix[1:] for path in loose}
    for path in loose:
        path.chmod(0o644)
    list(Session(chunk=256).open([str(document)]))
    assert ConversationStore(conversations_file()).conversations()
    assert not [path for path in loose if path.exists() and S_IMODE(path.stat().st_mode) & 0o077]
    assert S_IMODE(foreign.stat().st_mode) == 0o644, "a link is not followed"
