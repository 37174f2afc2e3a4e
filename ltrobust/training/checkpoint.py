"""Reading and writing weights, as data only.

Models are safetensors files; resume states are torch files read with `weights_only=True`. Nothing
here ever unpickles an object. Where the files lie is the store's business.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from ltrobust.errors import UserError
from ltrobust.models import Network

StateDict = dict[str, Tensor]

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
"""Keys under which published checkpoints keep their state dict."""


def to_bytes(tensors: StateDict, metadata: dict[str, Any] | None = None) -> bytes:
    """Serialise tensors as safetensors; equal tensors and metadata give equal bytes."""
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    # one key only: safetensors does not promise an order among several
    text = {"ltrobust": json.dumps(metadata, sort_keys=True)} if metadata is not None else None
    return save_safetensors(plain, metadata=text)


def from_bytes(content: bytes, name: str) -> StateDict:
    """Read safetensors bytes; raise UserError naming the file when they are damaged."""
    try:
        return load_safetensors(content)
    except SafetensorError as error:
        raise UserError(f"{name} is not a readable safetensors file: {error}") from None


def state_to_bytes(state: dict[str, Any]) -> bytes:
    """Serialise a resume state (nested dicts and lists of tensors and numbers)."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def state_from_bytes(content: bytes) -> dict[str, Any]:
    """Read what `state_to_bytes` wrote; tensors and numbers only."""
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def read_state_dict(path: Path) -> StateDict:
    """Read a checkpoint file of ours or of anybody else's, weights only.

    Takes safetensors and torch files; looks inside the usual wrappers (`state_dict`, ...) and takes
    off DataParallel's `module.` prefix.

    Raises:
        UserError: no such file, not a checkpoint, or it holds more than weights.
    """
    if not path.is_file():
        raise UserError(f"checkpoint {path}: no such file")
    content = path.read_bytes()
    if path.suffix == ".safetensors":
        return _without_prefix(from_bytes(content, str(path)))
    try:
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as err:  # a damaged file can fail anywhere in the reader
        reason = str(err).strip().splitlines()[0] if str(err).strip() else type(err).__name__
        raise UserError(f"checkpoint {path} cannot be read as weights only: {reason}") from None
    for wrapper in WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
            break
    if not isinstance(loaded, dict) or not all(torch.is_tensor(v) for v in loaded.values()):
        raise UserError(f"checkpoint {path} holds no state dict (names to tensors)")
    return _without_prefix(loaded)


def _without_prefix(weights: StateDict) -> StateDict:
    """Take off DataParallel's prefix."""
    return {name.removeprefix("module."): value for name, value in weights.items()}


def to_our_layout(weights: StateDict, head: str) -> StateDict:
    """Rename the keys of RoBal's released networks to those of the architecture alone.

    They keep the network under `backbone.` and the last layer under `classifier.` (`classifier.fc.`
    for a linear one). Two entries that nothing reads are left out: the cosine head's running mean
    `moving_ed`, which starts as uninitialised memory, and its bias where it is frozen at zero.

    Args:
        weights: a state dict; one in another layout keeps its names.
        head: the architecture's own name for its last layer.
    """
    # TRADES' wide residual network carries a block that it never runs
    weights = {k: v for k, v in weights.items() if not k.startswith("sub_block1.")}
    if not any(name.startswith("backbone.") for name in weights):
        return weights
    renamed = {}
    for name, value in weights.items():
        if name.startswith("classifier."):
            part = name.removeprefix("classifier.")
            frozen = part == "bias" and "classifier.weight" in weights and not value.any()
            if part == "moving_ed" or frozen:
                continue
            name = f"{head}.{part.removeprefix('fc.')}"
        renamed[name.removeprefix("backbone.")] = value
    return renamed


def load_weights(net: Network, weights: StateDict, what: str) -> None:
    """Load a state dict strictly; raise UserError that says which keys do not fit."""
    weights = to_our_layout(weights, net.head_name)
    own = net.state_dict()
    problems = []
    missing = sorted(own.keys() - weights.keys())
    surplus = sorted(weights.keys() - own.keys())
    shapes = [
        f"{name} is {tuple(weights[name].shape)}, needed {tuple(own[name].shape)}"
        for name in own.keys() & weights.keys()
        if own[name].shape != weights[name].shape
    ]
    for title, names in (("missing", missing), ("unexpected", surplus), ("shape", sorted(shapes))):
        if names:
            problems.append(f"{title}: {', '.join(names)}")
    if problems:
        raise UserError(f"{what} does not fit the architecture ({'; '.join(problems)})")
    net.load_state_dict(weights)
