"""The interface of a defense, the context it is given, and the registry that finds it.

A defense decides four things: its head, its inner attack, its outer loss, and an adjustment of the
logits at inference. Everything else (data, precision, schedule, checkpoints, evaluation) belongs to
the trainer and the evaluation and is never seen here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import inspect
import os
import sys
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from ltrobust.attacks.pgd import pgd
from ltrobust.config import Recipe, TrainingAttack
from ltrobust.errors import UserError, unknown
from ltrobust.losses import cross_entropy_sum as cross_entropy_sum
from ltrobust.registry import Registry


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


@dataclass
class Context:
    """What the trainer tells a defense about the step.

    Attributes:
        class_counts: training images per class, int64 (C,), on the device of the batch.
        epoch: number of the epoch, from 0.
        epochs: number of epochs of the run.
        attack: the recipe's inner attack.
        generator: source of the attack's randomness, on the device of the batch.
        micro_batch: how many images `pgd` attacks at a time, to save memory; None: all.
    """

    class_counts: Tensor
    epoch: int
    epochs: int
    attack: TrainingAttack
    generator: torch.Generator
    micro_batch: int | None = None

    def start(self, x: Tensor) -> Tensor | None:
        """Draw the random start offset that the recipe asks for, shaped like `x`."""
        kind, eps = self.attack.start, self.attack.eps
        if kind == "none":
            return None
        noise = torch.empty_like(x)
        if kind == "gaussian":
            return noise.normal_(generator=self.generator).mul_(0.001)
        low = 0.0 if kind == "one-sided" else -eps
        return noise.uniform_(low, eps, generator=self.generator)

    def pgd(
        self, model: nn.Module, x: Tensor, y: Tensor, loss: Callable[..., Tensor], *rows: Tensor
    ) -> Tensor:
        """Run the recipe's PGD on `loss` from a fresh random start, drawn for the whole batch.

        The batch may be attacked in pieces (`micro_batch`), so a loss must not look at tensors of
        the whole batch on its own: it is given its rows of them.

        Args:
            model: maps images to logits.
            x: clean images (B, ...), float in [0, 1].
            y: labels (B,), int64.
            loss: maps logits (b, C), labels (b,), and its b rows of each of `rows`, to what is
                maximised, summed over the b images.
            rows: further tensors (B, ...) that the loss needs, such as clean logits.

        Returns:
            Adversarial images, shaped like `x`.
        """
        start, size = self.start(x), self.micro_batch or len(x)
        if size >= len(x):
            return self._pgd(model, x, y, loss, start, rows)
        pieces = [slice(first, first + size) for first in range(0, len(x), size)]
        return torch.cat(
            [
                self._pgd(
                    model,
                    x[piece],
                    y[piece],
                    loss,
                    None if start is None else start[piece],
                    tuple(tensor[piece] for tensor in rows),
                )
                for piece in pieces
            ]
        )

    def _pgd(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        loss: Callable[..., Tensor],
        start: Tensor | None,
        rows: tuple[Tensor, ...],
    ) -> Tensor:
        return pgd(
            model,
            x,
            y,
            eps=self.attack.eps,
            step_size=self.attack.step_size,
            steps=self.attack.steps,
            loss=lambda logits, labels: loss(logits, labels, *rows),
            start=start,
        )


@dataclass
class Method(ABC):
    """Base class of all defenses. Subclasses are dataclasses; their fields are their options.

    Attributes:
        class_counts: training images per class, int64 (C,), on the CPU.
    """

    class_counts: Tensor

    # set by @register_method
    name: ClassVar[str] = ""
    paper: ClassVar[Citation]
    recipe: ClassVar[PaperRecipe | None] = None
    quirks: ClassVar[tuple[str, ...]] = ()

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return len(self.class_counts)

    def head(self, in_features: int, num_classes: int) -> nn.Module:
        """Build the last layer, features (B, in_features) to logits (B, C). Default: linear."""
        return nn.Linear(in_features, num_classes)

    def attack(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        """Return the images to train on, shaped like `x`. Default: PGD on cross-entropy.

        Returning `x` itself means that this step needs no attack.
        """
        return ctx.pgd(model, x, y, cross_entropy_sum)

    @abstractmethod
    def loss(self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context) -> Tensor:
        """Return the outer loss, a scalar; the model is in train mode.

        Args:
            model: maps images to logits (B, C), float32.
            x: clean images (B, ...), float in [0, 1], augmented.
            y: labels (B,), int64.
            x_adv: what `attack` returned.
            ctx: class counts, epoch, recipe attack, generator.
        """

    def adjust(self, logits: Tensor) -> Tensor:
        """Adjust logits (B, C) at inference; attacks see through it. Default: identity."""
        return logits

    def on_epoch_start(self, ctx: Context) -> None:
        """Do what is due before the first step of an epoch. Default: nothing."""

    def on_epoch_end(self, ctx: Context) -> None:
        """Do what is due after the last step of an epoch. Default: nothing."""

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors to keep over epochs, saved with the checkpoint. Default: none."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what `state_dict` returned."""
        if state:
            raise ValueError(f"{type(self).__name__} keeps no state but was given {sorted(state)}")

    @classmethod
    def option_defaults(cls) -> dict[str, Any]:
        """Names and defaults of the method's options."""
        options = [f for f in dataclasses.fields(cls) if f.name != "class_counts"]
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
        return checked


METHODS: Registry[type[Method]] = Registry("method", lambda: load_builtin_methods())

M = TypeVar("M", bound=type[Method])


def register_method(
    name: str,
    *,
    paper: Citation,
    recipe: PaperRecipe | None = None,
    quirks: tuple[str, ...] = (),
    aliases: tuple[str, ...] = (),
) -> Callable[[M], M]:
    """Register a `Method` subclass under `name`, with its paper and the recipe of its authors.

    Args:
        name: what users type after `--methods`.
        paper: the paper to cite.
        recipe: how the authors train; without it `--recipe paper` is refused for this method.
        quirks: what the released code does differently from the paper, and to what effect.
        aliases: other names for it.
    """

    def decorate(cls: M) -> M:
        cls.name, cls.paper, cls.recipe, cls.quirks = name, paper, recipe, quirks
        METHODS.add(name, cls, aliases=aliases)
        return cls

    return decorate


ALL_METHODS = ("pgd-at", "trades", "robal", "at-bsl", "taet")
"""What `--methods all` means, in the order of the tables."""


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

    for point in entry_points(group="ltrobust.methods"):
        if point.name not in METHODS:
            before = METHODS.names()
            try:
                point.load()
            except (Exception, SystemExit) as error:
                _forget(point.module, before)
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                raise UserError(f"entry point {point.name} ({point.value}): {reason}") from error


def load_plugin(path: Path) -> None:
    """Import a user's method file; raise UserError when it cannot be read or registers nothing.

    Loading a file runs it: it is the user's own program, named on the command line.
    """
    if not path.is_file():
        raise UserError(f"plugin {path}: no such file; give the path of a Python file")
    # the name holds the content: an edited file is another module, loaded anew
    identity = os.fsencode(path.resolve()) + b"\0" + path.read_bytes()
    name = "ltrobust_plugin_" + hashlib.sha256(identity).hexdigest()[:12]
    if name in sys.modules:
        return
    for old in [n for n in METHODS if _defined_in(METHODS.get(n), path)]:
        METHODS.discard(old)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"plugin {path}: not a Python file; its name must end in .py")
    before = METHODS.names()
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except UserError as error:
        _forget(name, before)
        raise UserError(f"plugin {path}: {error}") from error
    except (Exception, SystemExit) as error:
        _forget(name, before)
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"plugin {path} cannot be loaded: {reason}") from error
    if METHODS.names() == before:
        _forget(name, before)
        raise UserError(f"plugin {path} registers no method; decorate one with @register_method")


def _defined_in(cls: type[Method], path: Path) -> bool:
    module = sys.modules.get(cls.__module__)
    return Path(getattr(module, "__file__", None) or "").resolve() == path.resolve()


def _forget(module: str, before: list[str]) -> None:
    sys.modules.pop(module, None)
    for name in set(METHODS.names()) - set(before):
        METHODS.discard(name)


def method_source(cls: type[Method]) -> str:
    """SHA-256 of the file of a method that does not ship with the package, else "".

    It is part of a run's key, so that an edited plugin is trained anew.
    """
    if cls.__module__.startswith("ltrobust.methods."):
        return ""
    try:
        return hashlib.sha256(Path(inspect.getfile(cls)).read_bytes()).hexdigest()
    except (OSError, TypeError):
        return ""
