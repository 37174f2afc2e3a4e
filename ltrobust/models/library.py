"""Any image classifier of torchvision or timm as one of our networks, with fresh weights.

The library's network gives the features; its last layer is ours to build, as the method wants it.
Weights are never downloaded, and input normalisation is not done: images stay in [0, 1].
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ltrobust.errors import UserError, unknown
from ltrobust.models.network import Network, NetworkSpec

Stem = Literal["own", "cifar"]
LIBRARIES = ("torchvision", "timm")
HIDDEN = "body"
"""Where the library's network stands among the parameter names: `body.*`, and `linear` behind."""


class LibraryNetwork(Network):
    """A network of a library without its last layer, and a last layer of ours.

    Args:
        spec: the shape of the data and the last layer.
        library: "torchvision" or "timm".
        name: what the library calls the network.
        stem: "own" as it is; "cifar" for small images: the first convolution becomes one of 3x3
            with stride 1, and the max pooling behind it, if there is one, goes.

    Raises:
        UserError: the network does not exist or does not fit images of this size.
    """

    def __init__(self, spec: NetworkSpec, *, library: str, name: str, stem: Stem) -> None:
        title = f"{library}:{name}"
        try:
            body = _body(library, name, spec)
            if stem == "cifar":
                _adapt_stem(body, spec.in_channels, title)
            dimension = _feature_dimension(body, spec)
        except UserError:
            raise
        except Exception as error:  # anything that a library's network may raise
            text = " ".join(str(error).split())[:200]
            raise UserError(
                f"architecture {title} does not take images of {spec.image_size} pixels with "
                f"{spec.in_channels} channels ({type(error).__name__}: {text}); use another, or "
                "larger images"
            ) from error
        super().__init__(spec, feature_dim=dimension)
        self.add_module(HIDDEN, body)
        self.attach_head(spec.head)

    def features(self, x: Tensor) -> Tensor:
        """Map images (B, in_channels, H, W) to what the library's last layer would see, (B, D)."""
        return self.get_submodule(HIDDEN)(x)


def library_names(library: str) -> list[str]:
    """What a library calls its image classifiers.

    Raises:
        UserError: it is not installed.
    """
    if library == "torchvision":
        from torchvision import models  # slow to import

        return sorted(models.list_models(module=models))
    try:
        import timm
    except ImportError as error:
        raise UserError(
            "--arch timm:NAME needs the package timm: pip install 'ltrobust[timm]'"
        ) from error
    return sorted(timm.list_models())


def check_name(library: str, name: str) -> None:
    """Raise UserError, with the nearest match, unless a library has such a network."""
    names = library_names(library)
    if name in names:
        return
    bare = name.partition(".")[0]
    if bare in names:
        raise UserError(
            f"architecture {library}:{name}: weights are always fresh; write {library}:{bare}"
        )
    error = str(unknown(f"architecture of {library}", name, names))
    raise UserError(error.partition(" known: ")[0].rstrip(";") + f"; it has {len(names)}")


def check_stem(value: str) -> None:
    """Raise UserError unless a stem is known."""
    if value not in get_args(Stem):
        raise unknown("stem", value, get_args(Stem))


def _body(library: str, name: str, spec: NetworkSpec) -> nn.Module:
    if library == "timm":
        return _timm_body(name, spec)
    return _torchvision_body(name, spec)


def _timm_body(name: str, spec: NetworkSpec) -> nn.Module:
    import timm

    settings: dict[str, Any] = {"pretrained": False, "num_classes": 0, "in_chans": spec.in_channels}
    try:  # transformers are built for a size
        return timm.create_model(name, img_size=spec.image_size, **settings)
    except TypeError:
        return timm.create_model(name, **settings)


def _torchvision_body(name: str, spec: NetworkSpec) -> nn.Module:
    from torchvision import models  # slow to import

    try:  # transformers are built for a size
        body = models.get_model(name, weights=None, image_size=spec.image_size)
    except TypeError:
        body = models.get_model(name, weights=None)
    if getattr(body, "aux_logits", False):
        raise UserError(f"architecture torchvision:{name} has auxiliary outputs; use another")
    layers = [path for path, m in body.named_modules() if isinstance(m, nn.Linear)]
    if not layers:
        raise UserError(f"architecture torchvision:{name} does not end in a linear layer")
    _replace(body, layers[-1], nn.Identity())
    if spec.in_channels != 3:
        path, first = _first_convolution(body)
        _replace(body, path, _convolution(first, spec.in_channels, stride=first.stride))
    return body


def _convolution(
    old: nn.Conv2d, channels: int, *, small: bool = False, stride: tuple[int, ...] = (1, 1)
) -> nn.Conv2d:
    """A first convolution like an old one, for other channels or small images."""
    kernel = (3, 3) if small else old.kernel_size
    return nn.Conv2d(
        channels,
        old.out_channels,
        kernel,  # type: ignore[arg-type]
        stride=(1, 1) if small else stride,  # type: ignore[arg-type]
        padding=(1, 1) if small else old.padding,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )


def _first_convolution(body: nn.Module) -> tuple[str, nn.Conv2d]:
    found = ((path, m) for path, m in body.named_modules() if isinstance(m, nn.Conv2d))
    return next(found)


def _adapt_stem(body: nn.Module, channels: int, title: str) -> None:
    """Let a network see small images whole: no stride and no pooling before its first block."""
    path, first = _first_convolution(body)
    if max(first.stride) == 1:
        raise UserError(
            f"architecture {title}: its first layer has stride 1 already; leave out stem=cifar"
        )
    _replace(body, path, _convolution(first, channels, small=True))
    pool = next((p for p, m in body.named_modules() if isinstance(m, nn.MaxPool2d)), None)
    if pool is not None:
        _replace(body, pool, nn.Identity())


def _replace(body: nn.Module, path: str, new: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(body.get_submodule(parent), name, new)


@torch.no_grad()
def _feature_dimension(body: nn.Module, spec: NetworkSpec) -> int:
    """Length of the features of an image; draws no random number."""
    body.eval()
    found = body(torch.zeros(2, spec.in_channels, spec.image_size, spec.image_size))
    body.train()
    if not isinstance(found, Tensor) or found.dim() != 2:
        raise ValueError("it gives no plain features")
    return int(found.shape[1])
