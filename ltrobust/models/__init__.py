"""The architectures by name, and the one function that builds them.

Networks are built with fresh weights; loading a checkpoint is not done here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from torch import nn

from ltrobust.errors import UserError, unknown
from ltrobust.models.network import HeadFactory, Network, NetworkSpec
from ltrobust.models.preact_resnet import PreActResNet18
from ltrobust.models.resnet import ResNet18
from ltrobust.models.resnet50 import ResNet50At224
from ltrobust.models.small_cnn import SmallCNN
from ltrobust.models.wideresnet import WideResNet
from ltrobust.registry import Registry
from ltrobust.sources import source_of

__all__ = [
    "ARCHS",
    "HeadFactory",
    "Network",
    "NetworkSpec",
    "arch_source",
    "build_model",
    "canonical_arch",
    "register_network",
]

Builder = TypeVar("Builder", bound=Callable[..., Network])
ARCHS: Registry[Callable[[NetworkSpec], Network]] = Registry("architecture")
ARCHS.add("resnet18", ResNet18)
ARCHS.add("preactresnet18", PreActResNet18)
ARCHS.add("wrn-28-10", partial(WideResNet, depth=28, widen=10))
ARCHS.add("wrn-34-10", partial(WideResNet, depth=34, widen=10))
ARCHS.add("wrn-16-2", partial(WideResNet, depth=16, widen=2))
ARCHS.add("resnet50-224", ResNet50At224)
ARCHS.add("small-cnn", SmallCNN)


def register_network(name: str) -> Callable[[Builder], Builder]:
    """Register a `Network` class, or a function of a `NetworkSpec`, for `--arch`.

    Its keyword-only arguments with integer defaults are parameters: `name:width=16`.
    """
    if PARAMETER in name:
        raise UserError(f"architecture name '{name}' must not hold '{PARAMETER}'")
    return ARCHS.register(name)  # type: ignore[return-value]


def arch_source(arch: str) -> str:
    """SHA-256 of the file of an architecture that does not ship with the package, else ""."""
    return source_of(ARCHS.get(_parsed(arch)[0]))


def build_model(
    arch: str,
    *,
    num_classes: int,
    in_channels: int = 3,
    image_size: int = 32,
    head: HeadFactory | None = None,
) -> Network:
    """Build a network with fresh weights, drawn from torch's current random state.

    Args:
        arch: a name in `ARCHS`, with parameters where it has some: "resnet18:width=16".
        num_classes: number of logits C.
        in_channels: channels of the images.
        image_size: height and width of the images in pixels, 8 or more.
        head: builds the last layer from `(in_features, num_classes)`; default `nn.Linear`.

    Returns:
        A network that maps float images (B, in_channels, H, W) in [0, 1] to logits (B, C).

    Raises:
        UserError: the name or a parameter is unknown, or the images are too small for the
            architecture.
    """
    name, given = _parsed(arch)
    spec = NetworkSpec(num_classes, in_channels, image_size, head or nn.Linear)
    return ARCHS.get(name)(spec, **given)


def canonical_arch(arch: str) -> str:
    """The one spelling of an architecture: parameters in order, those at their default left out.

    Raises:
        UserError: the name or a parameter is unknown, or a value is no positive integer.
    """
    name, given = _parsed(arch)
    defaults = _parameters(name)
    chosen = {key: given.get(key, default) for key, default in defaults.items()}
    changed = [f"{key}={value}" for key, value in chosen.items() if value != defaults[key]]
    return PARAMETER.join([name, *changed])


PARAMETER = ":"
"""Before each parameter in an architecture's name."""


def _parsed(arch: str) -> tuple[str, dict[str, int]]:
    """Name and parameters of "resnet18:width=16"."""
    first, *texts = arch.split(PARAMETER)
    name = ARCHS.canonical(first)
    known = _parameters(name)
    given: dict[str, int] = {}
    for text in texts:
        key, _, value = text.partition("=")
        if not known:
            raise UserError(f"architecture {name} takes no parameters, got '{text}'")
        if key not in known:
            raise unknown(f"parameter of {name}:", key, known)
        if not (value.isascii() and value.isdecimal() and int(value) > 0) or key in given:
            raise UserError(
                f"architecture '{arch}': {key} is given once, as a positive integer, "
                f"such as {name}{PARAMETER}{key}={known[key]}"
            )
        given[key] = int(value)
    return name, given


def _parameters(name: str) -> dict[str, Any]:
    """An architecture's parameters with their defaults: keyword-only arguments of its builder."""
    builder = ARCHS.get(name)
    if isinstance(builder, partial):  # its arguments are its name
        return {}
    found = inspect.signature(builder).parameters.values()
    return {p.name: p.default for p in found if p.kind is p.KEYWORD_ONLY}
