"""MLX's memory limits change only while something reads or answers, and are restored: on a fake GPU."""

from __future__ import annotations

from collections.abc import Iterator

import mlx.core as mx
import numpy as np
import pytest

from longmamba_mlx.errors import StoppedError
from longmamba_mlx.inference import gpu_memory
from longmamba_mlx.inference.decode import generate
from longmamba_mlx.inference.gpu_memory import Limits
from longmamba_mlx.inference.prefill import chunk_or_default, prefill
from longmamba_mlx.ops import backend
from tests.models.hybrids import hybrid
from tests.models.samples import random_model

GB = 1 << 30


class FakeGPU:
    """MLX's functions for a GPU's memory, and what was asked of them."""

    def __init__(self, recommended: int = 16 * GB, allowed: int = 16 * GB) -> None:
        self.info = {"max_recommended_working_set_size": recommended, "memory_size": 2 * recommended}
        self.allowed, self.wired, self.cache = allowed, 123, 456
        self.calls: list[str] = []

    def set_wired_limit(self, size: int) -> int:
        if size > self.allowed:
            raise ValueError("[metal::set_wired_limit] Setting a wired limit larger than the maximum is not allowed.")
        self.calls.append("wire")
        before, self.wired = self.wired, size
        return before

    def set_cache_limit(self, size: int) -> int:
        before, self.cache = self.cache, size
        return before

    def synchronize(self) -> None:
        self.calls.append("wait")

    def clear_cache(self) -> None:
        self.calls.append("clear")

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gpu_memory, "on_gpu", lambda: True)
        monkeypatch.setattr(mx, "device_info", lambda: self.info)
        for name in ("set_wired_limit", "set_cache_limit", "synchronize", "clear_cache"):
            monkeypatch.setattr(mx, name, getattr(self, name))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGPU]:
    fake = FakeGPU()
    fake.use(monkeypatch)
    yield fake
    assert (fake.wired, fake.cache) == (123, 456)


@pytest.mark.parametrize(
    ("recommended", "cache"), [(16 * GB, 2 * GB), (8 * GB, GB), (200 * GB, 2 * GB), (5_726_623_061, 715_827_882)]
)
def test_limits_follow_the_machine(recommended: int, cache: int, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeGPU(recommended).use(monkeypatch)
    assert gpu_memory.limits() == Limits(recommended, cache)


def test_without_a_gpu_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> int:
        raise AssertionError("a limit was changed")

    fake = FakeGPU()
    fake.use(monkeypatch)
    for name in ("set_wired_limit", "set_cache_limit", "synchronize", "clear_cache"):
        monkeypatch.setattr(mx, name, never)
    for without in ("on_gpu", "device_info"):
        with monkeypatch.context() as patch:
            patch.setattr(gpu_memory, "on_gpu", lambda without=without: without != "on_gpu")
            patch.setattr(mx, "device_info", dict if without == "device_info" else lambda: fake.info)
            assert gpu_memory.limits() is None
            with gpu_memory.resident():
                pass
    monkeypatch.setattr(gpu_memory, "on_gpu", lambda: False)
    gpu_memory.give_back()


def test_the_limits_are_restored_after_work_is_done(gpu: FakeGPU) -> None:
    with pytest.raises(StoppedError), gpu_memory.resident():
        assert (gpu.wired, gpu.cache) == (16 * GB, 2 * GB)
        raise StoppedError
    assert gpu.calls == ["wire", "wait", "wire"]  # the GPU is waited for before its limit changes


def test_several_users_share_the_limits_in_any_order(gpu: FakeGPU) -> None:
    first, second = gpu_memory.resident(), gpu_memory.resident()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert (gpu.wired, gpu.cache) == (16 * GB, 2 * GB)
    second.__exit__(None, None, None)
    assert (gpu.wired, gpu.cache) == (123, 456)


def test_a_system_that_allows_less_keeps_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeGPU(allowed=GB)
    fake.use(monkeypatch)
    with gpu_memory.resident():
        assert (fake.wired, fake.cache) == (123, 2 * GB)
    assert (fake.wired, fake.cache) == (123, 456)


def test_reading_a_hybrid_gives_buffers_back_after_each_chunk(gpu: FakeGPU) -> None:
    seen: list[tuple[int, int]] = []
    for model, cleared in ((hybrid("granite"), 3), (random_model("mamba2"), 0)):
        gpu.calls.clear()
        ids = np.arange(30, dtype=np.uint32)
        prefill(model, ids, None, chunk=10, on_progress=lambda _: seen.append((gpu.wired, gpu.cache)))
        assert gpu.calls.count("clear") == cleared
        assert (gpu.wired, gpu.cache) == (123, 456)
    assert set(seen) == {(16 * GB, 2 * GB)} and len(seen) == 6


def test_a_reading_that_is_stopped_restores_the_limits(gpu: FakeGPU) -> None:
    with pytest.raises(StoppedError):
        prefill(random_model("mamba"), np.arange(30, dtype=np.uint32), None, chunk=10, should_stop=lambda: True)
    assert "wire" in gpu.calls


def test_answering_gives_buffers_back_every_so_many_tokens(gpu: FakeGPU, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_memory, "CLEARED_EVERY", 4)
    model = random_model("mamba2")
    answer = generate(model, model.initial_state(), np.array([1], np.uint32), max_tokens=11)
    assert next(answer) >= 0 and (gpu.wired, gpu.cache) == (16 * GB, 2 * GB)
    assert len(list(answer)) == 10
    assert gpu.calls.count("clear") == 2


def test_an_answer_that_is_left_restores_the_limits(gpu: FakeGPU) -> None:
    model = random_model("mamba2")
    answer = generate(model, model.initial_state(), np.array([1], np.uint32), max_tokens=11)
    next(answer)
    assert gpu.wired == 16 * GB
    answer.close()  # type: ignore[attr-defined]


def test_a_gpu_reads_more_tokens_at_a_time(gpu: FakeGPU, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "name", lambda: "metal")
    assert [chunk_or_default(None), chunk_or_default(100)] == [2048, 100]
    monkeypatch.setattr(backend, "name", lambda: "cpu")  # NumPy, although there is a GPU
    assert chunk_or_default(None) == 512
    monkeypatch.setattr(backend, "name", lambda: "metal")
    monkeypatch.setattr(gpu_memory, "on_gpu", lambda: False)
    assert chunk_or_default(None) == 512
