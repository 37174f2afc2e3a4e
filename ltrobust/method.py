"""The interface of defenses and modifiers, and the registry that finds them.

A defense decides four things: its head, its inner attack, its outer loss, and an adjustment of the
logits at inference. A modifier wraps a defense and changes one thing of it. Everything else (data,
precision, schedule, checkpoints, evaluation) belongs to the trainer and the evaluation and is never
seen here. How names are combined is in `ltrobust.combination`.
"""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from abc import ABC
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from ltrobust.config import Recipe
from ltrobust.context import Context as Context
from ltrobust.errors import UserError, unknown
from ltrobust.losses import cross_entropy_sum as cross_entropy_sum
from ltrobust.plugins import load_installed, load_plugin
from ltrobust.registry import Registry
from ltrobust.sources import source_of


@dataclass(frozen=True)
class Citation:
    """The paper of a defense: authors, title, venue with year, and where to read it."""

    authors: str
    title: str
    venue: str
    year: int
    url: str = ""

    def __str__(self) -> str:
        return f"{self.authors}. {self.title}. {self.venue} {self.year}."


@dataclass(frozen=True)
class PaperRecipe:
    """How the authors' released code trains: architecture, recipe, and options of the method.

    Attributes:
        arch: architecture the paper's main table uses.
        recipe: the training recipe, quirks included.
        datasets: the paper's own data sets; elsewhere the recipe needs explicit arch and epochs.
        options: method options that switch on quirks of the released code.
        checkpoint: which epoch the authors report; told, never followed.
        test_set: which test set the authors report on; told, never followed.
        source: where the values were read: repository, commit, file.
        sources: the same for single values that stand elsewhere, by field.
    """

    arch: str
    recipe: Recipe
    datasets: tuple[str, ...] = ("cifar10-lt", "cifar100-lt")
    options: dict[str, Any] = field(default_factory=dict)
    checkpoint: str = "last epoch"
    test_set: str = "balanced"
    source: str = ""
    sources: dict[str, str] = field(default_factory=dict)


class Sampler(Protocol):
    """Which training images an epoch shows, in which order."""

    def __len__(self) -> int:
        """Images in an epoch."""

    def take(self, n: int) -> Tensor:
        """Positions of the next n images in the training set, int64 (n,), on the CPU."""


Kind = Literal["defense", "modifier", "post-hoc"]
Loss = Callable[[], Tensor]
"""Computes the outer loss of the present step, a scalar with a graph, at the present weights."""


@dataclass
class Method(ABC):
    """Base class of all defenses. Subclasses are dataclasses; their fields are their options.

    Attributes:
        class_counts: training images per class, int64 (C,), on the CPU.
    """

    class_counts: Tensor

    kind: ClassVar[Kind] = "defense"
    needs_held_out: ClassVar[bool] = False
    """Whether `ctx.held_out` must be there: feedback on images that are not trained on."""

    # set by @register_method
    name: ClassVar[str] = ""
    paper: ClassVar[Citation]
    recipe: ClassVar[PaperRecipe | None] = None
    recipes: ClassVar[Mapping[str, PaperRecipe]] = {}
    quirks: ClassVar[tuple[str, ...]] = ()
    released: ClassVar[Mapping[str, Any]] = {}
    passes: ClassVar[str] = ""

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return len(self.class_counts)

    def head(self, in_features: int, num_classes: int) -> nn.Module:
        """Build the last layer, features (B, in_features) to logits (B, C). Default: linear."""
        return nn.Linear(in_features, num_classes)

    def sampler(self, labels: Tensor, ctx: Context) -> Sampler | None:  # noqa: ARG002
        """Choose the images of an epoch; draw from `ctx.sampling`. Default: all, shuffled.

        Args:
            labels: labels of the training set (N,), int64, on the CPU.
            ctx: the epoch's context.
        """
        return None

    def attack(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        """Return the images to train on, shaped like `x`. Default: PGD on cross-entropy.

        Returning `x` itself means that this step needs no attack.
        """
        return ctx.pgd(model, x, y, cross_entropy_sum)

    def terms(
        self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
    ) -> dict[str, Tensor]:
        """Return the outer loss image by image, as named terms (B,) whose sum's mean it is.

        Modifiers that weigh images or classes need it. Names: "natural" for the loss of clean
        images, "attacked" for that of attacked ones, "consistency" for what ties the two.
        Arguments as for `loss`. Default: none; a defense whose loss is no mean overrides `loss`.
        """
        raise NotImplementedError(f"the loss of {self.name} is no mean over images")

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context) -> Tensor:
        """Return the outer loss, a scalar; the model is in train mode. Default: from `terms`.

        Args:
            model: maps images to logits (B, C), float32.
            x: clean images (B, ...), float in [0, 1], augmented.
            y: labels (B,), int64.
            x_adv: what `attack` returned.
            ctx: class counts, epoch, recipe attack, generator.
        """
        return total(self.terms(model, x, y, x_adv, ctx)).mean()

    def backward(self, loss: Loss, model: nn.Module, ctx: Context) -> Tensor:  # noqa: ARG002
        """Leave gradients in the parameters, and return the outer loss. Default: of the loss."""
        value = loss()
        value.backward()
        return value

    def after_step(
        self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
    ) -> None:
        """Do what is due after the optimizer's step. Arguments as for `loss`. Default: nothing."""

    def adjust(self, logits: Tensor) -> Tensor:
        """Adjust logits (B, C) at inference; attacks see through it. Default: identity."""
        return logits

    def weights(self) -> dict[str, Tensor] | None:
        """The network's state dict to evaluate, such as an average. Default: the trained one."""
        return None

    def stage(self, ctx: Context) -> Hashable:
        """What attack and loss decide by the epoch, where they ask for it. Default: the epoch.

        A GPU repeats recorded steps as long as this stays the same. Say it where a threshold is
        all that counts, such as two stages of a training.
        """
        return ctx.epoch

    def on_epoch_start(self, ctx: Context) -> None:
        """Do what is due before the first step of an epoch. Default: nothing."""

    def on_epoch_end(self, ctx: Context) -> None:
        """Do what is due after the last step of an epoch. Default: nothing."""

    def state_dict(self) -> dict[str, Any]:
        """What to keep over epochs: tensors, numbers, and dicts and lists of them. Default: none.

        It is saved with the run's state, so that a resumed training is as an unbroken one.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        if state:
            raise ValueError(f"{type(self).__name__} keeps no state but was given {sorted(state)}")

    def inference_state(self) -> dict[str, Tensor]:
        """The tensors that `adjust` needs, stored with the weights. Default: all that is kept."""
        return self.state_dict()

    def load_inference_state(self, state: dict[str, Tensor]) -> None:
        """Take back what `inference_state` returned."""
        self.load_state_dict(state)

    def has_terms(self) -> bool:
        """Whether the loss is told image by image."""
        return type(self).terms is not Method.terms

    @classmethod
    def option_defaults(cls) -> dict[str, Any]:
        """Names and defaults of the method's options."""
        given = ("class_counts",) if cls.kind == "defense" else ("class_counts", "base")
        options = [f for f in dataclasses.fields(cls) if f.name not in given]
        return {
            option.name: option.default
            if option.default_factory is dataclasses.MISSING
            else option.default_factory()
            for option in options
        }

    @classmethod
    def check_options(cls, options: dict[str, Any]) -> dict[str, Any]:
        """Fill in defaults and check names and types; raise UserError otherwise."""
        defaults = cls.option_defaults()
        types = typing.get_type_hints(cls)
        checked = dict(defaults)
        for key, value in options.items():
            if key not in defaults:
                raise unknown(f"option of method {cls.name}", key, defaults or ["none"])
            try:
                checked[key] = TypeAdapter(types.get(key, Any)).validate_python(value)
            except ValidationError as error:
                problem = error.errors()[0]["msg"]
                raise UserError(f"option {key} of method {cls.name}: {problem}") from None
            if not _finite(checked[key]):
                raise UserError(f"option {key} of method {cls.name} must be finite, got {value}")
        for key in (one for one, value in checked.items() if value is dataclasses.MISSING):
            raise UserError(
                f"option {key} of method {cls.name} has no default; give it one in its file, or a "
                f"value with --option {cls.name}.{key}=VALUE"
            )
        return checked


def _finite(value: Any) -> bool:
    """Whether all numbers in a value can stand in a file: others have no name in JSON."""
    if isinstance(value, list | tuple):
        return all(map(_finite, value))
    if isinstance(value, Mapping):
        return all(map(_finite, value.values()))
    return not isinstance(value, float) or math.isfinite(value)


def total(terms: dict[str, Tensor]) -> Tensor:
    """The sum of the terms of a loss, image by image (B,)."""
    first, *others = terms.values()
    return sum(others, start=first)


METHODS: Registry[type[Method]] = Registry(
    "method", lambda: load_builtin_methods(), hint="; one of your own comes with --plugin FILE"
)

M = TypeVar("M", bound=type[Method])
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def register_method(
    name: str,
    *,
    paper: Citation,
    recipe: PaperRecipe | None = None,
    recipes: Mapping[str, PaperRecipe] | None = None,
    released: Mapping[str, Any] | None = None,
    quirks: tuple[str, ...] = (),
    passes: str = "",
    aliases: tuple[str, ...] = (),
) -> Callable[[M], M]:
    """Register a `Method` or `Modifier` under `name`, with its paper and its authors' recipe.

    Args:
        name: what users type after `--methods`.
        paper: the paper to cite.
        recipe: how the authors train; without it `--recipe paper` is refused for this method.
        recipes: of a modifier, how its authors train with it, by base ("trades"). Options are
            named as in a combination: the base's own, and `name.option` of modifiers.
        quirks: what the released code does differently from the paper, and to what effect.
        released: of a modifier, the options that switch on quirks of its released code, which
            `--recipe paper` does on any base.
        passes: forward and backward passes of a step with K attack steps, such as "K + 1".
        aliases: other names for it.

    Raises:
        UserError: the name is taken, or cannot stand in a combination.
    """

    for text in (name, *aliases):
        check_method_name(text)

    def decorate(cls: M) -> M:
        _check_class(name, cls)
        cls.name, cls.paper, cls.recipe, cls.quirks = name, paper, recipe, quirks
        cls.recipes, cls.released, cls.passes = dict(recipes or {}), dict(released or {}), passes
        METHODS.add(name, cls, aliases=aliases)
        return cls

    return decorate


def check_method_name(name: str) -> None:
    """Raise UserError for a name that no method can have."""
    from ltrobust.combination import SETS  # which is made of methods

    if not NAME.fullmatch(name):
        raise UserError(
            f"method name '{name}' may hold letters, digits, '-' and '_' only: + joins names, "
            "and a dot parts them from options"
        )
    if name == "all" or name in SETS:
        raise UserError(f"method name '{name}' stands for a set of methods; choose another")


def _check_class(name: str, cls: type[Method]) -> None:
    """Refuse what could only fail later."""
    for option, default in cls.option_defaults().items():
        if not _finite(default):
            raise UserError(
                f"option {option} of method {name} has the default {default}; give it a finite one"
            )
    if cls.kind == "defense" and cls.loss is Method.loss and cls.terms is Method.terms:
        raise UserError(
            f"method {name} has no loss; write loss(self, model, x, y, x_adv, ctx), or terms"
        )


def load_methods(plugins: Iterable[Path] = ()) -> None:
    """Fill the registry: the methods that ship, those of installed plugins, those of files.

    Raises:
        UserError: a plugin cannot be loaded or registers nothing.
    """
    load_builtin_methods()
    for path in plugins:
        load_plugin(path)


def load_builtin_methods() -> None:
    """Import the methods that ship with the package, then those of installed plugins."""
    import ltrobust.methods  # noqa: F401  (each file registers itself)

    load_installed()


def part_source(cls: type[Method]) -> str:
    """SHA-256 of the file of a method that does not ship with the package, else "".

    It is part of a run's key, so that an edited plugin is trained anew.
    """
    return source_of(cls)
