"""What there is to know about a method, as plain data: for `ltrobust methods` and for reports."""

from __future__ import annotations

import inspect
import re
import sys
import typing
from typing import Annotated, Any, Literal

from ltrobust.combination import JOIN, Combination, find
from ltrobust.method import METHODS, Method, PaperRecipe
from ltrobust.modifier import Modifier


def describe_method(name: str) -> dict[str, Any]:
    """Return a method's names, paper, equations, options, recipe and quirks, JSON-ready.

    Args:
        name: a defense, a modifier, or a combination such as "trades+awp".

    Raises:
        UserError: the name is unknown, or its parts do not go together.
    """
    if JOIN in name:
        combination = find(name)
        recipe, options = combination.recipe, combination.option_defaults()
        cls, name, aliases = combination.parts[-1], combination.name, []
    else:
        name = METHODS.canonical(name)
        cls, aliases = METHODS.get(name), METHODS.aliases(name)
        combination = Combination((cls,))
        recipe, options = cls.recipe, cls.option_defaults()
    return {
        "name": name,
        "aliases": aliases,
        "kind": cls.kind,
        "passes": cls.passes,
        "title": ((cls.__doc__ or "").strip() or name).splitlines()[0],
        "explanation": "\n\n".join(dict.fromkeys(map(_explanation, combination.parts))),
        "paper": "; ".join(map(str, combination.papers)),
        "venue": cls.paper.venue,
        "year": cls.paper.year,
        "url": cls.paper.url,
        "options": options,
        "recipes": sorted(cls.recipes),
        "paper_recipe": None
        if recipe is None
        else {
            "arch": recipe.arch,
            "datasets": list(recipe.datasets),
            "options": recipe.options,
            "checkpoint": recipe.checkpoint,
            "test_set": recipe.test_set,
            **recipe.recipe.model_dump(mode="json"),
            "source": recipe.source,
            "sources": recipe.sources,
        },
        "quirks": list(combination.quirks),
    }


def recipe_rows(name: str) -> list[tuple[str, str, str]]:
    """Rows (value, published setting, source) of a method's paper recipe; none without one."""
    paper = _recipe(name)
    if paper is None:
        return []
    recipe, attack, schedule = paper.recipe, paper.recipe.attack, paper.recipe.schedule
    milestones = ", ".join(str(m) for m in schedule.milestones)
    kind = "compounding every epoch from" if schedule.kind == "robal-compounding" else "at"
    factor = "/".join(f"{f:g}" for f in schedule.factors) or f"{schedule.gamma:g}"
    warm_up = f"; warm-up of {schedule.warmup_epochs} epochs" if schedule.warmup_epochs else ""
    shown = {
        "arch": paper.arch,
        "epochs": str(recipe.epochs),
        "batch_size": f"{recipe.batch_size}, last one {'dropped' if recipe.drop_last else 'kept'}",
        "optimizer": f"SGD lr {recipe.lr:g}, momentum {recipe.momentum:g}"
        + (", Nesterov" if recipe.nesterov else ""),
        "weight_decay": f"{recipe.weight_decay:g}",
        "schedule": f"x {factor} {kind} {milestones}; first epoch is number "
        f"{schedule.counted_from}{warm_up}",
        "augment": f"{recipe.augment} (with crop and flip)",
        "attack": f"PGD-{attack.steps}, step {attack.step_size:.4g}, eps {attack.eps:.4g}",
        "start": START_WORDS[attack.start],
        "options": ", ".join(f"{k}={v}" for k, v in paper.options.items()) or "-",
        "checkpoint": f"{paper.checkpoint} (theirs; ours follows --select)",
        "test set": f"{paper.test_set} (theirs; ours follows --test-protocol)",
    }
    return [(key, text, paper.sources.get(key, paper.source)) for key, text in shown.items()]


def _recipe(name: str) -> PaperRecipe | None:
    """The recipe of a defense or combination; of a bare modifier, on the base it is tried on."""
    cls = None if JOIN in name else METHODS.get(name)
    if cls is not None and issubclass(cls, Modifier):
        name = f"{cls.trial}{JOIN}{cls.name}"
    return find(name).recipe


def option_rows(name: str) -> list[tuple[str, str, str, str, str]]:
    """Rows (option, type, default, what is allowed, meaning) of a method's options."""
    parts = find(name).parts if JOIN in name else (METHODS.get(name),)
    rows = []
    for place, part in enumerate(parts):
        mark = f"{part.name}." if place or part.kind != "defense" else ""
        types, meanings = typing.get_type_hints(part, include_extras=True), _meanings(part)
        for option, default in part.option_defaults().items():
            kind, allowed = _type_words(types.get(option, Any))
            rows.append((f"{mark}{option}", kind, str(default), allowed, meanings.get(option, "")))
    return rows


def _type_words(kind: Any) -> tuple[str, str]:
    """A type as a reader knows it, and which of its values are allowed."""
    inner, *notes = typing.get_args(kind) if typing.get_origin(kind) is Annotated else (kind,)
    if typing.get_origin(inner) is Literal:
        return "choice", ", ".join(map(str, typing.get_args(inner)))
    if inner is bool:
        return "bool", "true, false"
    signs = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    bounds = [
        f"{sign} {getattr(bound, name):g}"
        for note in notes
        for bound in getattr(note, "metadata", [note])
        for name, sign in signs.items()
        if hasattr(bound, name)
    ]
    words = (
        inner.__name__ if isinstance(inner, type) and inner.__module__ == "builtins" else str(inner)
    )
    if not bounds and inner in (int, float):
        bounds = ["any number" if inner is float else "any whole number"]
    return words.replace("typing.", ""), ", ".join(bounds)


def _meanings(part: type[Method]) -> dict[str, str]:
    """Option to what the class' docstring says of it."""
    found: dict[str, str] = {}
    for cls in reversed(part.__mro__):
        _, _, attributes = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")
        name = ""
        for line in attributes.splitlines():
            if head := re.match(r" {4}(\w+): (.*)", line):
                name, found[head[1]] = head[1], head[2]
            elif line.startswith(" " * 8) and name:
                found[name] += f" {line.strip()}"
            elif line.strip():
                break
    return found


START_WORDS = {
    "uniform": "uniform(-eps, eps)",
    "uniform-clipped": "uniform(-eps, eps), clipped to [0, 1]",
    "one-sided": "uniform(0, eps)",
    "gaussian": "0.001 * N(0, 1)",
    "none": "no random start",
}


def _explanation(cls: type[Method]) -> str:
    """The docstring of the method's file: its equations, in short."""
    module = sys.modules[cls.__module__]
    return inspect.cleandoc(module.__doc__ or cls.__doc__ or "")
