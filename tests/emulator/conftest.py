"""Metal kernels run in the emulator where there is no Metal."""

from tests.emulator.fixtures import emulated as emulated
