"""What a recorded step freezes, and how it is seen: attributes, questions, random numbers.

The context of a recorded step notes what it is asked for and hands out numbers that are drawn
outside; a method is watched for what it reads and writes. What follows from it is decided in
`captured`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from ltrobust.combination import layers
from ltrobust.context import Context, Fill
from ltrobust.method import Method


class NotRecordableError(RuntimeError):
    """Why a step cannot be repeated blindly, as the end of a sentence."""


REFUSED = {
    "batch": "it looks at the number of the batch",
    "lr": "it looks at the learning rate",
    "generator": "it draws from the generator itself; ctx.drawn does so outside",
    "sampling": "it draws on the CPU",
}
"""What attack and loss may not ask the context for, and why."""


@dataclass
class Recorded(Context):
    """A context that notes what it is asked for, and hands out random numbers from elsewhere.

    Attributes:
        asked: names of the fields that were read, of those that change from step to step.
        source: makes the tensors of `drawn`.
    """

    asked: set[str] = field(default_factory=set)
    source: Callable[[Tensor, Fill], Tensor] | None = None

    def __getattribute__(self, name: str) -> Any:
        if name == "epoch" or name in REFUSED:
            object.__getattribute__(self, "asked").add(name)
        return object.__getattribute__(self, name)

    def changed(self, **changes: Any) -> Context:
        """A copy with other values, which notes in the same place."""
        before = set(self.asked)
        copy = replace(self, **changes)
        self.asked &= before
        return copy

    def drawn(self, like: Tensor, fill: Fill) -> Tensor:
        """Random numbers shaped like `like`, from the source."""
        assert self.source is not None
        return self.source(like, fill)


def recorded(ctx: Context, source: Callable[[Tensor, Fill], Tensor], **changes: Any) -> Recorded:
    """A context as it is but for some values, noted and with numbers from a source."""
    values = {one.name: getattr(ctx, one.name) for one in fields(Context)}
    return Recorded(**{**values, **changes}, source=source)


@dataclass
class Draws:
    """The random numbers of a step: memory that is filled anew before each repetition."""

    made: list[tuple[Tensor, Fill]] = field(default_factory=list)
    given: int = 0

    def listed(self, generator: torch.Generator) -> Callable[[Tensor, Fill], Tensor]:
        """A source that draws as ordinary steps do, and takes note."""
        self.made = []

        def draw(like: Tensor, fill: Fill) -> Tensor:
            self.made.append((torch.empty_like(like), fill))
            return fill(torch.empty_like(like), generator)

        return draw

    def fill(self, generator: torch.Generator) -> None:
        """Draw all of them, in the order of the step."""
        for values, fill in self.made:
            fill(values, generator)

    def handed_out(self, like: Tensor, _fill: Fill) -> Tensor:
        """The next of them."""
        if self.given == len(self.made) or self.made[self.given][0].shape != like.shape:
            raise NotRecordableError("it draws other random numbers from step to step")
        self.given += 1
        return self.made[self.given - 1][0]


class Touched:
    """Which attributes of a method, and of what it wraps, are read and written while it is entered.

    Attributes:
        changed: names of those that hold other numbers afterwards, or that were appended to.
    """

    def __init__(self, method: Method) -> None:
        self._layers = {id(layer): layer for layer in layers(method)}
        self._read: dict[tuple[int, str], Any] = {}
        self._written: dict[tuple[int, str], Any] = {}
        self.changed: list[str] = []

    def __enter__(self) -> Touched:
        read, written = self._read, self._written
        self._before = {i: {n: _told(v) for n, v in vars(a).items()} for i, a in self._each()}

        def get(layer: Any, name: str) -> Any:
            value, key = object.__getattribute__(layer, name), (id(layer), name)
            if key not in written and name in object.__getattribute__(layer, "__dict__"):
                read.setdefault(key, (value, _told(value)))
            return value

        def put(layer: Any, name: str, value: Any) -> None:
            written[id(layer), name] = value
            object.__setattr__(layer, name, value)

        for _, layer in self._each():
            cls = type(layer)
            hooks = {"__getattribute__": get, "__setattr__": put}
            layer.__class__ = type(cls.__name__, (cls,), hooks)
        return self

    def __exit__(self, *error: object) -> None:
        for number, layer in self._each():
            layer.__class__ = type(layer).__bases__[0]
            for name, before in self._before[number].items():
                value = vars(layer).get(name)
                made_anew = (number, name) in self._written and _size(value) is not None
                if _told(value) != before and not made_anew:
                    self.changed.append(name)

    def _each(self) -> Iterable[tuple[int, Method]]:
        return self._layers.items()

    def still_holds(self) -> bool:
        """Whether all that was read is what it was."""
        for (number, name), (value, told) in self._read.items():
            now = vars(self._layers[number]).get(name)
            if _told(now) != told or (now is not value and told is None):
                return False
        return True

    def write_again(self) -> None:
        """Set the attributes that were written to what they were set to."""
        for (number, name), value in self._written.items():
            setattr(self._layers[number], name, value)


def _size(value: object) -> int | None:
    """Entries of a container; None: it is none."""
    return len(value) if isinstance(value, list | dict | set) else None


def _told(value: object) -> object:
    """A number or a text as it is, of a container who it is and its size; None for all else."""
    if isinstance(value, int | float | str):
        return value
    size = _size(value)
    return None if size is None else (id(value), size)
