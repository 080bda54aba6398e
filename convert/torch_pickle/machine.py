"""A stack machine for pickles that can build only plain values.

A pickle is a program, and Python's own machine runs any function it names. This one knows the instructions
that tables of plain values need. Names, calls and external references are passed to `Meanings`, which
returns values of its own or refuses; there is no fallback.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from longmamba_mlx.errors import ModelError

_MAX_STEPS = 400_000  # some ten thousand tensors
_MAX_TEXT = 4096


class PickleError(ModelError):
    """A pickle that is broken or not allowed. Callers add the file's name."""


class Meanings(Protocol):
    """Values for the parts of a pickle beyond plain values. All methods raise PickleError to refuse."""

    def name(self, module: str, name: str) -> object:
        """A global: a value that stands for it, never the thing itself."""
        ...

    def call(self, function: object, arguments: tuple[object, ...]) -> object:
        """The value that calling `function` (from `name`) stands for."""
        ...

    def state(self, value: object, state: object) -> None:
        """Attributes that the pickle wants to set on `value`."""
        ...

    def reference(self, identity: object) -> object:
        """Something that is kept outside the pickle."""
        ...


@dataclass(slots=True)
class Machine:
    """`frames` holds the stacks below each open mark."""

    data: bytes
    meanings: Meanings
    position: int = 0
    stack: list[object] = field(default_factory=list)
    frames: list[list[object]] = field(default_factory=list)
    memo: dict[int, object] = field(default_factory=dict)

    def run(self) -> object:
        """The value that the pickle describes. Raises PickleError."""
        for _ in range(_MAX_STEPS):
            code = self.take(1)
            if code == b".":
                if len(self.stack) != 1 or self.frames:
                    raise PickleError("its pickle ends in the middle")
                return self.stack[0]
            step = _STEPS.get(code)
            if step is None:
                raise PickleError(f"its pickle uses the instruction {code!r}, which a table of tensors does not need")
            step(self)
        raise PickleError(f"its pickle has more than {_MAX_STEPS:,} instructions")

    def take(self, count: int) -> bytes:
        taken = self.data[self.position : self.position + count]
        if len(taken) != count:
            raise PickleError("its pickle is cut short")
        self.position += count
        return taken

    def number(self, form: str) -> int:
        return int(struct.unpack(form, self.take(struct.calcsize(form)))[0])

    def text(self, count: int) -> str:
        if count > _MAX_TEXT:
            raise PickleError(f"its pickle holds a text of {count} bytes")
        try:
            return self.take(count).decode("utf-8")
        except UnicodeDecodeError:
            raise PickleError("its pickle holds a string that is not UTF-8") from None

    def line(self) -> str:
        end = self.data.find(b"\n", self.position, self.position + _MAX_TEXT)
        if end < 0:
            raise PickleError("its pickle is cut short")
        text = self.text(end - self.position)
        self.position += 1
        return text

    def pop(self) -> object:
        if not self.stack:
            raise PickleError("its pickle takes from an empty stack")
        return self.stack.pop()

    def popped(self, count: int) -> list[object]:
        """The last `count` values, the oldest first."""
        return [self.pop() for _ in range(count)][::-1]

    def marked(self) -> list[object]:
        """What was pushed since the last mark."""
        if not self.frames:
            raise PickleError("its pickle lacks a mark")
        items, self.stack = self.stack, self.frames.pop()
        return items

    def extend(self, items: list[object]) -> None:
        """Put items into the list on top."""
        target = self.stack[-1] if self.stack else None
        if type(target) is not list:
            raise PickleError("its pickle puts items into something that is not a list")
        target.extend(items)

    def fill(self, items: list[object]) -> None:
        """Put keys and values in turn into the table on top."""
        # Exactly a dict: putting items into anything else is how other readers were broken.
        table = self.stack[-1] if self.stack else None
        if type(table) is not dict or len(items) % 2:
            raise PickleError("its pickle puts items into something that is not a dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str):  # hashing deeply shared tuples would take for ever
                raise PickleError("a dictionary in its pickle has a key that is not a string")
            if key in table:
                raise PickleError(f"its pickle holds {ascii(key)[:60]} twice")
            table[key] = value

    def remember(self, key: int) -> None:
        self.memo[key] = self.pop()
        self.stack.append(self.memo[key])

    def recall(self, key: int) -> None:
        if key not in self.memo:
            raise PickleError("its pickle asks for something it never made")
        self.stack.append(self.memo[key])


_Step = Callable[[Machine], None]


def _proto(machine: Machine) -> None:
    if machine.position != 1 or machine.take(1)[0] > 5:
        raise PickleError("its pickle is of an unknown protocol")


def _frame(machine: Machine) -> None:
    machine.take(8)  # a hint about lengths


def _mark(machine: Machine) -> None:
    machine.frames.append(machine.stack)
    machine.stack = []


def _tuple(count: int) -> _Step:
    return lambda machine: machine.stack.append(tuple(machine.popped(count)))


def _marked_tuple(machine: Machine) -> None:
    items = machine.marked()
    machine.stack.append(tuple(items))


def _constant(value: object) -> _Step:
    return lambda machine: machine.stack.append(value)


def _integer(form: str) -> _Step:
    return lambda machine: machine.stack.append(machine.number(form))


def _long1(machine: Machine) -> None:
    count = machine.number("<B")
    if count > 8:
        raise PickleError(f"its pickle holds a number of {count} bytes")
    machine.stack.append(int.from_bytes(machine.take(count), "little", signed=True))


def _float(machine: Machine) -> None:
    machine.stack.append(float(struct.unpack(">d", machine.take(8))[0]))


def _text(form: str) -> _Step:
    return lambda machine: machine.stack.append(machine.text(machine.number(form)))


def _append(machine: Machine) -> None:
    machine.extend(machine.popped(1))


def _appends(machine: Machine) -> None:
    items = machine.marked()
    machine.extend(items)


def _set_item(machine: Machine) -> None:
    machine.fill(machine.popped(2))


def _set_items(machine: Machine) -> None:
    items = machine.marked()
    machine.fill(items)


def _global(machine: Machine) -> None:
    module = machine.line()
    machine.stack.append(machine.meanings.name(module, machine.line()))


def _stack_global(machine: Machine) -> None:
    module, name = machine.popped(2)
    if not isinstance(module, str) or not isinstance(name, str):
        raise PickleError("its pickle names something by no text")
    machine.stack.append(machine.meanings.name(module, name))


def _reduce(machine: Machine) -> None:
    function, arguments = machine.popped(2)
    if not isinstance(arguments, tuple):
        raise PickleError("its pickle builds something from no arguments")
    machine.stack.append(machine.meanings.call(function, arguments))


def _build(machine: Machine) -> None:
    value, state = machine.popped(2)
    machine.meanings.state(value, state)
    machine.stack.append(value)


def _reference(machine: Machine) -> None:
    machine.stack.append(machine.meanings.reference(machine.pop()))


_STEPS: dict[bytes, _Step] = {
    b"\x80": _proto,
    b"\x95": _frame,
    b"(": _mark,
    b")": _constant(()),
    b"\x85": _tuple(1),
    b"\x86": _tuple(2),
    b"\x87": _tuple(3),
    b"t": _marked_tuple,
    b"N": _constant(None),
    b"\x88": _constant(True),
    b"\x89": _constant(False),
    b"K": _integer("<B"),
    b"M": _integer("<H"),
    b"J": _integer("<i"),
    b"\x8a": _long1,
    b"G": _float,
    b"X": _text("<I"),
    b"\x8c": _text("<B"),
    b"q": lambda machine: machine.remember(machine.number("<B")),
    b"r": lambda machine: machine.remember(machine.number("<I")),
    b"\x94": lambda machine: machine.remember(len(machine.memo)),
    b"h": lambda machine: machine.recall(machine.number("<B")),
    b"j": lambda machine: machine.recall(machine.number("<I")),
    b"}": lambda machine: machine.stack.append({}),
    b"]": lambda machine: machine.stack.append([]),
    b"s": _set_item,
    b"u": _set_items,
    b"a": _append,
    b"e": _appends,
    b"c": _global,
    b"\x93": _stack_global,
    b"R": _reduce,
    b"b": _build,
    b"Q": _reference,
}
