"""One small registry class, used for methods, datasets and architectures alike.

It maps a public name to an object and turns a mistyped name into an error that names the nearest
match. What fills it at the first lookup is given by its owner, such as `ltrobust.method`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from ltrobust.errors import UserError, unknown

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to objects of one kind.

    Args:
        kind: what the objects are, in the user's words ("method", "dataset"); used in errors.
        fill: registers what ships, called once, before the first lookup; one that fails is called
            again by the next.
        hint: ends the error for an unknown name.
    """

    def __init__(
        self, kind: str, fill: Callable[[], None] | None = None, *, hint: str = ""
    ) -> None:
        self.kind = kind
        self._hint = hint
        self._fill = fill
        self._items: dict[str, T] = {}
        self._aliases: dict[str, str] = {}

    def add(self, name: str, item: T, *, aliases: tuple[str, ...] = ()) -> T:
        """Register `item` under `name`; raise UserError when the name is taken."""
        for key in (name, *aliases):
            if key in self._items or key in self._aliases:
                raise UserError(f"{self.kind} '{key}' is registered twice; names must be unique")
        self._items[name] = item
        self._aliases.update(dict.fromkeys(aliases, name))
        return item

    def register(self, name: str, *, aliases: tuple[str, ...] = ()) -> Callable[[T], T]:
        """Return a decorator that registers what it decorates under `name`."""
        return lambda item: self.add(name, item, aliases=aliases)

    def canonical(self, name: str) -> str:
        """Resolve an alias; raise UserError with the nearest match when the name is unknown."""
        self._filled()
        name = self._aliases.get(name, name)
        if name not in self._items:
            error = unknown(self.kind, name, [*self._items, *self._aliases])
            raise UserError(f"{error}{self._hint}")
        return name

    def get(self, name: str) -> T:
        """Return the object registered under `name` (or an alias of it)."""
        return self._items[self.canonical(name)]

    def _filled(self) -> None:
        fill, self._fill = self._fill, None  # it may look up what is there already
        if fill is not None:
            try:
                fill()
            except BaseException:
                self._fill = fill
                raise

    def discard(self, name: str) -> None:
        """Forget `name` if it is there (a plugin that failed half-way is taken back out)."""
        self._items.pop(name, None)
        for alias in [a for a, target in self._aliases.items() if target == name]:
            del self._aliases[alias]

    def names(self) -> list[str]:
        """All canonical names, in the order of registration."""
        self._filled()
        return list(self._items)

    def aliases(self, name: str) -> list[str]:
        """Other names for `name`."""
        self._filled()
        return [alias for alias, target in self._aliases.items() if target == name]

    def __contains__(self, name: object) -> bool:
        self._filled()
        return name in self._items or name in self._aliases

    def __iter__(self) -> Iterator[str]:
        self._filled()
        return iter(self._items)
