"""Defenses with modifiers, as they are written: `trades+awp+ema` is EMA around AWP around TRADES.

A combination behaves like a defense: it has a name, options, a recipe, and builds a `Method`. A
modifier's options are named after it, such as `awp.gamma`. A post-hoc modifier acts on the trained
run of what stands left of it (`base`). Which names exist is in `ltrobust.method`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from ltrobust.errors import UserError, unknown
from ltrobust.method import (
    METHODS,
    Citation,
    Kind,
    Method,
    PaperRecipe,
    part_source,
)
from ltrobust.modifier import Modifier, PostHoc

JOIN = "+"
SETS: Mapping[str, tuple[str, ...]] = {
    "core": ("pgd-at", "trades", "robal-r", "at-bsl", "taet"),
    "long-tail": (
        *("robal-r", "robal-n", "reat", "at-bsl", "trades-bsl", "taet", "cgr"),
        *("pgd-at+robustlt", "at-bsl+robustlt"),
    ),
    "baselines": (
        *("plain", "pgd-at", "trades", "mart", "he", "he-trades", "adt", "las-at", "gairat", "mma"),
        *("avmixup", "cfol", "pgd-at+awp", "trades+awp"),
    ),
    "tricks": (
        *("pgd-at", "at-cosine", "at-ldam", "cos-he", "at-cdt", "at-la", "at-focal"),
        *("pgd-at+resample", "at-cb", "pgd-at+crt", "pgd-at+rw", "pgd-at+lws", "pgd-at+rescale"),
        *("pgd-at+tau-norm", "pgd-at+posthoc-la", "at-cosine+tde"),
    ),
}
"""Names that stand for several methods, in the order of the tables; "all" is every defense."""


@dataclass(frozen=True)
class Combination:
    """A defense and the modifiers around it, innermost first.

    Attributes:
        parts: the classes, the defense first.
    """

    parts: tuple[type[Method], ...]

    @property
    def name(self) -> str:
        """As it is written, in canonical names."""
        return JOIN.join(part.name for part in self.parts)

    @property
    def defense(self) -> type[Method]:
        """The defense that is modified."""
        return self.parts[0]

    @property
    def kind(self) -> Kind:
        """That of the last part."""
        return self.parts[-1].kind

    @property
    def base(self) -> Combination | None:
        """What a post-hoc modifier acts on; None: this is trained from scratch."""
        return Combination(self.parts[:-1]) if self.kind == "post-hoc" else None

    @property
    def papers(self) -> tuple[Citation, ...]:
        """The papers of all parts, each once."""
        return tuple(dict.fromkeys(part.paper for part in self.parts))

    @property
    def quirks(self) -> tuple[str, ...]:
        """What the released code of the parts does differently from the papers."""
        return tuple(quirk for part in self.parts for quirk in part.quirks)

    @property
    def recipe(self) -> PaperRecipe | None:
        """The recipe of the last modifier whose authors publish one for what it modifies here.

        Else that of the defense. Quirks of released modifiers are options of it.
        """
        found = self.defense.recipe
        options: dict[str, Any] = {} if found is None else dict(found.options)
        for end, part in enumerate(self.parts[1:], start=1):
            options |= {f"{part.name}.{key}": value for key, value in part.released.items()}
            if issubclass(part, PostHoc):
                continue  # its base is trained by the recipe of its own
            own = part.recipes.get(Combination(self.parts[:end]).name)
            if own is not None:
                found, options = own, {**options, **own.options}
        return None if found is None else replace(found, options=options)

    @property
    def source(self) -> str:
        """SHA-256 of the files of parts that do not ship with the package, else ""."""
        sources = [text for text in map(part_source, self.parts) if text]
        if len(sources) < 2:
            return "".join(sources)
        return hashlib.sha256("".join(sources).encode()).hexdigest()

    def option_defaults(self) -> dict[str, Any]:
        """Names and defaults of all options."""
        defaults = self.defense.option_defaults()
        for part in self.parts[1:]:
            own = part.option_defaults()
            defaults |= {f"{part.name}.{key}": value for key, value in own.items()}
        return defaults

    def check_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Fill in defaults and check names and types; raise UserError otherwise."""
        checked: dict[str, Any] = {}
        by_part = self._by_part(options)
        for part, own in zip(self.parts, by_part, strict=True):
            mark = "" if part is self.defense else f"{part.name}."
            checked |= {f"{mark}{key}": value for key, value in part.check_options(own).items()}
        return checked

    def base_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the options that belong to the base of a post-hoc modifier."""
        mark = f"{self.parts[-1].name}."
        return {key: value for key, value in options.items() if not key.startswith(mark)}

    def __call__(self, class_counts: Tensor, **options: Any) -> Method:
        """Build the method for class counts (C,), int64 on the CPU.

        Raises:
            UserError: it cannot be used with these classes or options.
        """
        defense, *modifiers = zip(self.parts, self._by_part(options), strict=True)
        method = defense[0](class_counts, **defense[1])
        for part, own in modifiers:
            method = cast(type[Modifier], part)(class_counts, method, **own)
        return method

    def _by_part(self, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Options sorted by the part that they belong to."""
        names = [part.name for part in self.parts[1:]]
        sorted_out: list[dict[str, Any]] = [{} for _ in self.parts]
        for key, value in options.items():
            owner, dot, option = key.rpartition(".")
            if dot and owner not in names:
                raise unknown(f"option of method {self.name}", key, self.option_defaults())
            place = names.index(owner) + 1 if dot else 0
            sorted_out[place][option] = value
        return sorted_out


def find(name: str) -> Combination:
    """The combination that a name such as "robal+awp" stands for.

    Raises:
        UserError: an unknown name, or parts that do not go together.
    """
    texts = [text.strip() for text in name.split(JOIN)]
    if not all(texts):
        raise UserError(f"method '{name}': a name is missing beside a +; write trades+awp+ema")
    parts = tuple(METHODS.get(text) for text in texts)
    if issubclass(parts[0], Modifier):
        raise UserError(
            f"'{parts[0].name}' modifies a defense and does not stand alone; write "
            f"{parts[0].trial}+{parts[0].name}"
        )
    for end in range(1, len(parts)):
        _check(parts[:end], parts[end])
    return Combination(parts)


def _check(base: tuple[type[Method], ...], part: type[Method]) -> None:
    """Raise UserError unless `part` can stand right of `base`."""
    left = Combination(base)
    if not issubclass(part, Modifier):
        raise UserError(
            f"method '{left.name}+{part.name}': {part.name} is a defense; only modifiers follow a +"
        )
    if part in base:
        raise UserError(f"method '{left.name}+{part.name}' has {part.name} twice; name it once")
    if left.kind == "post-hoc" and not issubclass(part, PostHoc):
        first = next(p for p in base if issubclass(p, PostHoc))
        raise UserError(
            f"method '{left.name}+{part.name}': {part.name} changes the training, and {first.name} "
            f"acts on a trained run; {part.name} must stand left of it"
        )
    reason = part.refuses(left(torch.full((2,), 100)))
    if reason:
        raise UserError(f"method '{left.name}+{part.name}': {reason}")


def canonical(name: str) -> str:
    """The name of a defense or combination in canonical names; UserError as `find`."""
    return find(name).name


def named(name: str) -> tuple[str, ...]:
    """The methods that a name of `--methods` stands for: those of a set, or itself."""
    if name == "all":
        return tuple(n for n in METHODS.names() if METHODS.get(n).kind == "defense")
    return SETS.get(name, (name,))


def has_needs(method: Method) -> bool:
    """Whether a method, or something that it modifies, needs held-out images."""
    return any(part.needs_held_out for part in layers(method))


def layers(method: Method) -> Iterable[Method]:
    """A method and what it wraps, outermost first."""
    yield method
    while isinstance(method, Modifier):
        method = method.base
        yield method
