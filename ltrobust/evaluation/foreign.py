"""Models that were not trained here: found by name, given their normalisation, and checked.

Everything is told before the first attack: a model that cannot be called, or whose output is not
one row of logits an image, is refused in one line. Checkpoint files are `training.checkpoint`'s.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from ltrobust.attacks.pgd import attack_mode
from ltrobust.errors import UserError

STATISTICS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Channel means and standard deviations that models are usually trained with, by name."""


class OnCopies(nn.Module):
    """A model of somebody else's that is given copies, so that it may write over its images.

    Code that normalises in place would change the caller's tensors, and every later pass over the
    same tensor would see images that were normalised before.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = model.training

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, C); `x` stays as it is."""
        return self.model(x.clone())


class Normalized(nn.Module):
    """A model that expects normalised images, made to take images in [0, 1].

    Args:
        model: maps (x - mean) / std to logits.
        mean: one value, or one a channel.
        std: the same, positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", mean.view(-1, 1, 1))
        self.register_buffer("std", std.view(-1, 1, 1))

    @property
    def input_size(self) -> int | None:
        """Side length that the model wants images enlarged to, if any."""
        return getattr(self.model, "input_size", None)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, C) of images (B, ...) in [0, 1]."""
        return self.model((x - self.mean) / self.std)


def parse_normalize(text: str, channels: int) -> tuple[Tensor, Tensor]:
    """Read channel means and standard deviations.

    Args:
        text: `cifar10`, `cifar100`, `imagenet`; or numbers with commas: mean,std for all channels
            alike, or all means and then all standard deviations.
        channels: channels of the images.

    Raises:
        UserError: anything else, or a standard deviation that is not positive.
    """
    if text in STATISTICS:
        mean, std = STATISTICS[text]
        numbers = [*mean, *std]
    else:
        try:
            numbers = [float(part) for part in text.split(",")]
        except ValueError:
            numbers = []
    if len(numbers) not in (2, 2 * channels):
        raise UserError(
            f"--normalize: give mean,std or {channels} means and {channels} standard deviations "
            f"with commas, or one of {', '.join(STATISTICS)}; got '{text}'"
        )
    half = len(numbers) // 2
    mean_values, std_values = torch.tensor(numbers[:half]), torch.tensor(numbers[half:])
    if not (bool(torch.isfinite(mean_values).all()) and bool((std_values > 0).all())):
        raise UserError(f"--normalize: standard deviations must be positive, got '{text}'")
    return mean_values, std_values


def normalized(model: nn.Module, text: str, channels: int) -> Normalized:
    """Wrap a model that expects what `parse_normalize` reads from `text`; its mode stays."""
    wrapped = Normalized(model, *parse_normalize(text, channels))
    wrapped.training = model.training
    return wrapped


def load_callable(spec: str) -> nn.Module:
    """Import `module:callable` and call it without arguments; the current folder is importable.

    Raises:
        UserError: the module cannot be imported, has no such callable, or calling it fails or
            gives no `nn.Module`.
    """
    module_name, colon, name = spec.partition(":")
    if not (colon and module_name and name):
        raise UserError(
            f"--model: give module:callable, such as my_models:robust_net; got '{spec}'"
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(f"--model: module {module_name} cannot be imported ({reason})") from error
    found = getattr(module, name, None)
    if not callable(found):
        raise UserError(f"--model: module {module_name} has no callable '{name}'")
    try:
        model = found()
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(f"--model: {spec}() failed ({reason})") from error
    if not isinstance(model, nn.Module):
        raise UserError(
            f"--model: {spec}() must return a torch.nn.Module, got {type(model).__name__}"
        )
    return model


def check_outputs(model: nn.Module, images: Tensor, num_classes: int | None) -> int:
    """Run a model on a few images; return its number of logits.

    Args:
        model: maps images (B, C, H, W) to logits; its mode and buffers are left alone.
        images: float in [0, 1], on the model's device.
        num_classes: how many logits there must be; None: at least two.

    Raises:
        UserError: the model fails, or gives something else than (B, num_classes) numbers.
    """
    try:
        with attack_mode(model), torch.no_grad():
            logits = OnCopies(model)(images)
    except Exception as error:
        shape = tuple(images.shape)
        reason = " ".join(str(error).split())
        raise UserError(
            f"the model fails on images of shape {shape} ({type(error).__name__}: {reason})"
        ) from error
    if not torch.is_tensor(logits):
        raise UserError(f"the model must return a tensor of logits, got {type(logits).__name__}")
    if logits.dim() != 2 or len(logits) != len(images) or logits.shape[1] < 2:
        raise UserError(
            f"the model must return logits ({len(images)}, C), got shape {tuple(logits.shape)}"
        )
    if num_classes is not None and logits.shape[1] != num_classes:
        raise UserError(
            f"the model has {logits.shape[1]} logits, the data {num_classes} classes; they must "
            "agree"
        )
    return int(logits.shape[1])


def model_sha256(model: nn.Module, callable_name: str) -> str:
    """SHA-256 (hex) of all that is known of what a model computes, so that a mended one is new.

    That is the source files of the callable and of every module's class, the modules' plain
    settings, and all parameters and buffers.

    Args:
        model: what the callable returned.
        callable_name: its `module:callable`.
    """
    digest = hashlib.sha256(callable_name.encode())
    kinds = {type(module) for module in model.modules()}
    files = {_source(kind) for kind in kinds if not kind.__module__.startswith("torch.")}
    files.add(getattr(sys.modules.get(callable_name.partition(":")[0]), "__file__", None))
    for file in sorted(file for file in files if file):
        with suppress(OSError):
            digest.update(Path(file).read_bytes())
    digest.update(repr(model).encode())
    for name, module in model.named_modules():
        plain = {k: v for k, v in vars(module).items() if isinstance(v, PLAIN) and k != "training"}
        digest.update(f"{name} {sorted(plain.items())}".encode())
    for name, value in sorted(model.state_dict().items()):
        if torch.is_tensor(value):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


PLAIN = (int, float, str, bool, tuple)


def _source(kind: type) -> str | None:
    with suppress(TypeError, OSError):  # built in, or defined without a file
        return inspect.getfile(kind)
    return None
