"""Runs a kernel's text on an NVIDIA GPU, where there is one, compiled by NVRTC as CUDA (`nvrtc`): threads that run at
the same time, real barriers, exchanges between the 32 lanes of a warp. Of the speed on Apple's GPUs it says nothing."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from tests.emulator import nvrtc
from tests.emulator.running import POISON, EmulatorError, place, reach

_BESIDE = 4096  # bytes of poison around a buffer of the second run; the first run's end where they end
_MAJOR, _MINOR = 75, 76  # attributes of a device: its compute capability


@cache
def _driver() -> ctypes.CDLL | None:
    """The driver with its first device's context current, or None where there is no such driver or device."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, context = ctypes.c_int(), ctypes.c_void_p()
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0):
        return None
    _check(driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device), "context")
    _check(driver.cuCtxSetCurrent(context), "context")
    return driver


def missing() -> str | None:
    """Why kernels cannot run on an NVIDIA GPU here, or None."""
    if _driver() is None:
        return "this machine has no NVIDIA GPU"
    return None if nvrtc.compiler() else "NVIDIA's run-time compiler (NVRTC) is not installed"


def _check(status: int, what: str) -> None:
    if status:
        raise EmulatorError(f"the GPU's driver reports error {status}: {what}")


def _device() -> ctypes.CDLL:
    driver = _driver()
    if driver is None:
        raise EmulatorError("this machine has no NVIDIA GPU")
    return driver


@cache
def _architecture() -> str:
    numbers = []
    for attribute in (_MAJOR, _MINOR):
        number = ctypes.c_int()
        _check(_device().cuDeviceGetAttribute(ctypes.byref(number), attribute, 0), "capability")
        numbers.append(number.value)
    return "sm_{}{}".format(*numbers)


@cache
def _function(text: str, fused: bool) -> ctypes.c_void_p:
    """The kernel as a function of the device; `fused`: products and sums that the text leaves apart may be one."""
    image = nvrtc.machine_code(nvrtc.as_cuda(text), _architecture(), fused=fused)
    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    _check(_device().cuModuleLoadData(ctypes.byref(module), image), "loading the kernel")
    _check(_device().cuModuleGetFunction(ctypes.byref(function), module, b"compiled"), "finding the kernel")
    return function


class NvidiaRun:
    """One of the two runs on the GPU. With `adversarial` products and sums are fused where the compiler likes to."""

    def __init__(self, which: int, adversarial: int) -> None:
        self.driver, self.which, self.fused = _device(), which, bool(adversarial)
        self.beside = _BESIDE * which
        self.blocks: list[tuple[ctypes.c_uint64, bytearray]] = []  # on the device, and here
        self.pointers: list[ctypes.c_uint64] = []
        self.inputs: dict[int, bytes] = {}

    def __enter__(self) -> NvidiaRun:
        return self

    def __exit__(self, *error: object) -> None:
        for address, _ in self.blocks:
            self.driver.cuMemFree_v2(address)

    def _buffer(self, size: int, below: int) -> bytearray:
        address = ctypes.c_uint64()
        memory = bytearray([POISON[self.which]]) * (max(size, 1) + 2 * self.beside)
        _check(self.driver.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(len(memory))), "memory")
        self.blocks.append((address, memory))
        self.pointers.append(ctypes.c_uint64(address.value + self.beside + below))
        return memory

    def give(self, array: np.ndarray) -> None:
        """An input, its strides kept: what lies between its elements is poison."""
        below, size = reach(array)
        memory = self._buffer(size, below)
        place(array, memory, self.beside + below)
        self.inputs[len(self.blocks) - 1] = bytes(memory)

    def take(self, shape: tuple[int, ...], dtype: np.dtype, initial: object) -> np.ndarray:
        """An output; poison unless it has an initial value."""
        memory = self._buffer(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize, 0)
        values: np.ndarray = np.ndarray(shape, dtype, memory, self.beside)
        if initial is not None:
            values[...] = initial
        return values

    def launch(self, text: str, grid: Sequence[int], group: Sequence[int]) -> None:
        function = _function(text, self.fused)
        for address, memory in self.blocks:
            _check(self.driver.cuMemcpyHtoD_v2(address, _address(memory), ctypes.c_size_t(len(memory))), "to the GPU")
        blocks = [-(-threads // size) for threads, size in zip(grid, group, strict=True)]
        arguments: list[Any] = [*self.pointers, (ctypes.c_uint * 3)(*grid)]
        given = (ctypes.c_void_p * len(arguments))(*(ctypes.addressof(argument) for argument in arguments))
        _check(self.driver.cuLaunchKernel(function, *blocks, *group, 0, None, given, None), "launching the kernel")
        _check(self.driver.cuCtxSynchronize(), "running the kernel")
        for i, (address, memory) in enumerate(self.blocks):
            _check(self.driver.cuMemcpyDtoH_v2(_address(memory), address, ctypes.c_size_t(len(memory))), "from the GPU")
            if i in self.inputs and self.inputs[i] != memory:
                raise EmulatorError(f"wrote to input {i}")

    def spilled(self, which: int) -> bool:
        memory, poison = self.blocks[which][1], bytes([POISON[self.which]])
        return bool((memory[: self.beside] + memory[len(memory) - self.beside :]).strip(poison))


def _address(memory: bytearray) -> ctypes.Array[ctypes.c_char]:
    return (ctypes.c_char * len(memory)).from_buffer(memory)
