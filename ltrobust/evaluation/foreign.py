"""Models that were not trained here: given their normalisation, checked, and told apart.

Everything is told before the first attack: a model that fails, or whose output is not one row of
logits an image, is refused in one line. `evaluation.callables` finds models by name; checkpoint
files are `training.checkpoint`'s.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

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
        """Logits (B, C), float32 on the device of `x`, which stays as it is."""
        return plain_logits(self.model(x.clone()), x.device)


def plain_logits(output: Any, device: torch.device) -> Any:
    """A model's logits as attacks need them: float32, alone, and where the images are.

    Takes what holds them as "logits", such as the outputs of Hugging Face's models; anything else
    that is no tensor stays as it is, and `check_outputs` refuses it.
    """
    if isinstance(output, Mapping) and "logits" in output:
        output = output["logits"]
    elif not torch.is_tensor(output):
        output = getattr(output, "logits", output)
    return output.to(device, torch.float32) if torch.is_tensor(output) else output


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


def normalized(
    model: nn.Module, normalize: str | tuple[Tensor, Tensor], channels: int
) -> Normalized:
    """Wrap a model that expects what `parse_normalize` reads; its mode stays.

    Args:
        model: maps normalised images to logits.
        normalize: text for `parse_normalize`, or mean and standard deviation themselves.
        channels: channels of the images.
    """
    values = parse_normalize(normalize, channels) if isinstance(normalize, str) else normalize
    wrapped = Normalized(model, *values)
    wrapped.training = model.training
    return wrapped


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
        raise UserError(
            f"the model must return a tensor of logits, or hold it as 'logits', got "
            f"{type(logits).__name__}; return the logits alone"
        )
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


def model_sha256(model: nn.Module, callable_name: str, file: str | None = None) -> str:
    """SHA-256 (hex) of all that is known of what a model computes, so that a mended one is new.

    That is the source files of the callable and of every module's class, the modules' plain
    settings, and all parameters and buffers.

    Args:
        model: what the callable returned.
        callable_name: its `module:callable`.
        file: where that module lies, if anywhere.
    """
    digest = hashlib.sha256(callable_name.encode())
    kinds = {type(module) for module in model.modules()}
    files = {_source(kind) for kind in kinds if not kind.__module__.startswith("torch.")}
    files.add(file)
    for file in sorted(file for file in files if file):
        with suppress(OSError):
            digest.update(Path(file).read_bytes())
    # addresses of functions in it differ from process to process
    digest.update(re.sub(r"\b0x[0-9a-f]+", "", repr(model)).encode())
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
