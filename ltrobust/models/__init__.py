"""The architectures by name, and the one function that builds them.

Networks are built with fresh weights; loading a checkpoint is not done here.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from torch import nn

from ltrobust.errors import UserError, unknown
from ltrobust.models.library import LIBRARIES, LibraryNetwork, check_name, check_stem
from ltrobust.models.network import HeadFactory, Network, NetworkSpec
from ltrobust.models.preact_resnet import PreActResNet18
from ltrobust.models.resnet import ResNet18, check_depth, check_width
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
    name = _parsed(arch)[0]
    return source_of(ARCHS.get(name)) if name in ARCHS else ""  # else of a library, or a depth


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
        arch: a name in `ARCHS`, `wrn-DEPTH-WIDTH`, `torchvision:NAME` or `timm:NAME`, with
            parameters where it has some: "resnet18:width=16", "timm:resnet18:stem=cifar".
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
    return _builder(name)(spec, **given)


def canonical_arch(arch: str) -> str:
    """The one spelling of an architecture: parameters in order, those at their default left out.

    Raises:
        UserError: the name or a parameter is unknown, or a value is not allowed.
    """
    name, given = _parsed(arch)
    defaults = _parameters(name)
    chosen = {key: given.get(key, default) for key, default in defaults.items()}
    changed = [f"{key}={value}" for key, value in chosen.items() if value != defaults[key]]
    return PARAMETER.join([name, *changed])


WIDE = re.compile(r"wrn-(?P<depth>[0-9]+)-(?P<widen>[0-9]+)")
PARAMETER = ":"
"""Before each parameter in an architecture's name."""


def _parsed(arch: str) -> tuple[str, dict[str, Any]]:
    """Name and parameters of "resnet18:width=16"."""
    name, texts = _name(arch)
    known = _parameters(name)
    given: dict[str, Any] = {}
    for text in texts:
        key, _, value = text.partition("=")
        if not known:
            raise UserError(f"architecture {name} takes no parameters, got '{text}'")
        if key not in known:
            raise unknown(f"parameter of {name}:", key, known)
        if key in given:
            raise UserError(f"architecture '{arch}': {key} is to be given once")
        if isinstance(known[key], str):
            check_stem(value)
            given[key] = value
            continue
        if not (value.isascii() and value.isdecimal() and int(value) > 0):
            raise UserError(
                f"architecture '{arch}': {key} is a positive integer, such as "
                f"{name}{PARAMETER}{key}={known[key]}"
            )
        given[key] = int(value)
        if key == "depth":
            check_depth(name, given[key])
        elif "depth" in known:  # the same networks
            check_width(name, given[key])
    return name, given


def _name(arch: str) -> tuple[str, list[str]]:
    """Name and texts of the parameters; UserError when there is no such network."""
    first, *texts = arch.split(PARAMETER)
    if first in LIBRARIES:
        name = texts.pop(0) if texts else ""
        check_name(first, name)
        return f"{first}{PARAMETER}{name}", texts
    if first not in ARCHS and (wide := WIDE.fullmatch(first)):
        depth, widen = int(wide["depth"]), int(wide["widen"])
        if (depth - 4) % 6 or depth < 10 or widen < 1:
            raise UserError(
                f"architecture '{first}': a wide ResNet is wrn-DEPTH-WIDTH with DEPTH 10, 16, 22, "
                "28, ... (6n + 4)"
            )
        return f"wrn-{depth}-{widen}", texts
    if first not in ARCHS:
        libraries = [f"{library}{PARAMETER}NAME" for library in LIBRARIES]
        raise unknown("architecture", first, [*ARCHS, *libraries])
    return ARCHS.canonical(first), texts


def _builder(name: str) -> Callable[..., Network]:
    """What builds a network of this name."""
    library, _, own = name.partition(PARAMETER)
    if own:
        return lambda spec, *, stem="own": LibraryNetwork(
            spec, library=library, name=own, stem=stem
        )
    if name not in ARCHS and (wide := WIDE.fullmatch(name)):
        return partial(WideResNet, depth=int(wide["depth"]), widen=int(wide["widen"]))
    return ARCHS.get(name)


def _parameters(name: str) -> dict[str, Any]:
    """An architecture's parameters with their defaults: keyword-only arguments of its builder."""
    builder = _builder(name)
    if isinstance(builder, partial):  # its arguments are its name
        return {}
    found = inspect.signature(builder).parameters.values()
    return {p.name: p.default for p in found if p.kind is p.KEYWORD_ONLY}
