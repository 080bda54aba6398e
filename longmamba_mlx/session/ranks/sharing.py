"""Many documents over several ranks: each is read by one rank as if by one machine, and rank 0 remembers all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.documents.gathering import gather
from longmamba_mlx.errors import StateError
from longmamba_mlx.events import Event, Notice, ReadDone
from longmamba_mlx.ground.steps import Stop
from longmamba_mlx.inference.prefill import chunk_or_default
from longmamba_mlx.inference.ranks.ring import Ring
from longmamba_mlx.paths import state_folder
from longmamba_mlx.session.each import open_one
from longmamba_mlx.session.open_document import open_document
from longmamba_mlx.session.ranks.agreement import Fact, agree, version_fact
from longmamba_mlx.session.sources import text_of
from longmamba_mlx.session.text_model import TextModel
from longmamba_mlx.states.store import StateStore
from longmamba_mlx.states.transfer import import_state

_DIGEST = 32  # bytes of a key's digest


def read_shares(
    model: TextModel,
    files: Sequence[str],
    ring: Ring,
    version: str,
    *,
    chunk: int | None = None,
    encoding: str = "",
    should_stop: Stop | None = None,
) -> Iterator[Event]:
    """Read this rank's share of all files, each as a document of its own, and give rank 0 the states it has not.

    Raises UsageError where the ranks' files or models differ, RankLostError, and what reading raises.
    """
    everything = gather(files)
    sizes = [_size(found.path) for found in everything]
    hint = "Copy the model and the documents to every machine, under the same paths."
    titles = [found.title for found in everything]
    model_facts = (model.filter, sorted(model.identity().items()))
    same = (titles, sizes, chunk_or_default(chunk), encoding, model_facts)
    agree(ring, (version_fact(version), Fact("model, options or documents", same, hint)), 0)

    def opener(names: list[str]) -> Iterator[Event]:
        document = text_of(names, hold_text=False, encoding=encoding, should_stop=should_stop)
        yield from open_document(model, document, chunk=chunk, should_stop=should_stop)

    digests = np.zeros((len(everything), _DIGEST), np.uint8)
    for number in shares(sizes, ring.size)[ring.rank]:
        for event in open_one(everything[number], opener):
            if isinstance(event, ReadDone) and event.stored is not None:
                digests[number] = np.frombuffer(bytes.fromhex(event.stored), np.uint8)
            yield event
    yield from _collect(ring, digests)


def shares(sizes: Sequence[int], ranks: int) -> list[list[int]]:
    """The numbers of the documents of each rank: the largest first, each to the rank with least to read."""
    dealt: list[list[int]] = [[] for _ in range(ranks)]
    loads = [0] * ranks
    for number in sorted(range(len(sizes)), key=lambda number: (-sizes[number], number)):
        rank = loads.index(min(loads))
        dealt[rank].append(number)
        loads[rank] += sizes[number]
    return [sorted(own) for own in dealt]


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # reading it says why
        return 0


def _collect(ring: Ring, digests: NDArray[np.uint8]) -> Iterator[Notice]:
    """Send rank 0 the stored states it does not have, one after the other around the ring."""
    store = StateStore(state_folder())
    all_digests = ring.gather(digests.reshape(-1)).reshape(ring.size, *digests.shape)
    lengths = np.array([_length(store, row) for row in digests], np.int64)
    all_lengths = ring.gather(lengths.view(np.uint8)).view(np.int64).reshape(ring.size, -1)
    for number in range(len(digests)):
        owners = np.flatnonzero(all_digests[:, number].any(axis=1))
        if not len(owners) or owners[0] == 0:
            continue
        owner = int(owners[0])
        has = np.array([_length(store, all_digests[owner, number]) > 0], np.uint8)
        if ring.gather(has)[0, 0]:
            continue
        data = _passed_on(ring, owner, store, all_digests[owner, number], int(all_lengths[owner, number]))
        if data is not None:
            yield from _stored(store, data)


def _passed_on(ring: Ring, owner: int, store: StateStore, digest: NDArray[np.uint8], length: int) -> bytes | None:
    """Let a state file go from its owner around the ring; what rank 0 gets, None at the others."""
    if ring.rank == owner:
        ring.send(mx.array(np.frombuffer(_file(store, digest).read_bytes(), np.uint8)))
    elif ring.rank > owner or ring.rank == 0:
        found = ring.receive(length)
        if ring.rank == 0:
            return np.array(found).tobytes()
        ring.send(found)
    ring.flush()
    return None


def _stored(store: StateStore, data: bytes) -> Iterator[Notice]:
    with TemporaryDirectory() as folder:
        path = Path(folder, "state.safetensors")
        path.write_bytes(data)
        try:
            import_state(store, path)
        except StateError as error:
            yield Notice(f"A state that another rank sent is not stored: {error}")


def _file(store: StateStore, digest: NDArray[np.uint8]) -> Path:
    return store.path_of(digest.tobytes().hex())


def _length(store: StateStore, digest: NDArray[np.uint8]) -> int:
    """The size of the state stored under a digest; 0 without one."""
    return _size(_file(store, digest)) if digest.any() else 0
