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
from torch.utils._pytree import tree_leaves, tree_map

from ltrobust.errors import UserError, unknown
from ltrobust.models import Network
from ltrobust.training.fitting import StateDict, fit_weights
from ltrobust.training.torch_files import (
    RESAVE,
    SAVE,
    blocked_type,
    is_safetensors,
    printable,
    read_file,
    read_torch,
)


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
    except (SafetensorError, KeyError) as error:  # KeyError: a type of numbers that torch has not
        raise UserError(f"{name} is not a readable safetensors file: {error}") from None


def state_to_bytes(state: dict[str, Any]) -> bytes:
    """Serialise a resume state (nested dicts and lists of tensors and numbers)."""
    buffer = io.BytesIO()
    torch.save(_on_host(state), buffer)
    return buffer.getvalue()


def _on_host(state: dict[str, Any]) -> dict[str, Any]:
    """The state with what lies on a GPU copied to pinned memory: one wait for all of it."""
    devices = {leaf.device for leaf in tree_leaves(state) if isinstance(leaf, Tensor)}

    def copied(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or not leaf.is_cuda:
            return leaf
        host = torch.empty_like(leaf, device="cpu", pin_memory=True)
        return host.copy_(leaf.detach(), non_blocking=True)

    if not any(device.type == "cuda" for device in devices):
        return state
    found: dict[str, Any] = tree_map(copied, state)
    for device in devices:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return found


def state_from_bytes(content: bytes) -> dict[str, Any]:
    """Read what `state_to_bytes` wrote; tensors and numbers only."""
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def read_state_dict(path: Path, key: str | None = None) -> StateDict:
    """Read a checkpoint file of ours or of anybody else's, as data only.

    Takes safetensors and torch files, and finds the state dict in them whatever it is called.

    Args:
        path: the file.
        key: which state dict to take where there are several, such as "state_dict_ema"; parts
            with dots lead inside.

    Raises:
        UserError: no such file, not a checkpoint, none or several state dicts in it, or code.
    """
    what = f"checkpoint {path}"
    file = read_file(path)
    safe = path.suffix.lower() == ".safetensors" or is_safetensors(file)
    content = from_bytes(file, str(path)) if safe else read_torch(file, what)
    blocked = blocked_type(content)
    if blocked is not None:
        raise UserError(
            f"{what} cannot be read as weights only: it is a whole pickled object ({blocked}), "
            f"which is code; {RESAVE}"
        )
    networks = _state_dicts(content)
    if key is not None:
        return _under_key(networks, key, what)
    largest = max((len(weights) for weights in networks.values()), default=0)
    # what is far smaller than the largest is no network
    likely = {name: w for name, w in networks.items() if 2 * len(w) >= largest}
    if not likely:
        raise _no_state_dict(content, what)
    if len(likely) > 1:
        keys = ", ".join(printable(name) or "." for name in likely)
        last = printable(list(likely)[-1])
        raise UserError(
            f"{what} holds several networks: {keys}; choose one, such as --checkpoint-key {last}"
        )
    return next(iter(likely.values()))


def _state_dicts(content: Any, name: str = "") -> dict[str, StateDict]:
    """All dicts of tensors in nested dicts, by their keys joined with dots; no optimiser's."""
    if not isinstance(content, dict):
        return {}
    tensors = {k: v for k, v in content.items() if isinstance(k, str) and torch.is_tensor(v)}
    found = {name: tensors} if any(v.dim() > 1 for v in tensors.values()) else {}
    for key, value in content.items():
        if isinstance(key, str) and not key.startswith("opt"):
            found |= _state_dicts(value, f"{name}.{key}" if name else key)
    return found


def _under_key(networks: dict[str, StateDict], key: str, what: str) -> StateDict:
    """The state dict of that name, or the part of one whose names begin with it."""
    if key in networks:
        return networks[key]
    for name, weights in networks.items():
        start = (key.removeprefix(f"{name}.") if name else key) + "."
        part = {n.removeprefix(start): v for n, v in weights.items() if n.startswith(start)}
        if part:
            return part
    parts = {n.partition(".")[0] for weights in networks.values() for n in weights}
    known = [printable(name) for name in (networks if any(networks) else parts)]
    raise unknown(f"key of {what}", key, known)


def _no_state_dict(content: Any, what: str) -> UserError:
    """The error for a file without weights, which names what it holds instead."""
    for key, value in content.items() if isinstance(content, dict) else []:
        kind = blocked_type(value)
        if kind is not None:
            kind = "numpy" if kind.startswith("numpy.") else f"a pickled {kind}, which is code"
            return UserError(
                f"{what} cannot be read as weights only: {printable(str(key))} is {kind}; {RESAVE}"
            )
    return UserError(f"{what} holds no state dict (names to tensors); {SAVE}")


def load_weights(net: Network, weights: StateDict, what: str) -> None:
    """Load a state dict strictly; raise UserError that says what does not fit and why."""
    fitted = fit_weights(net, weights, what)
    if fitted.normalization is not None:
        raise UserError(f"{what}: {fitted.notes[0]}; the network alone does not do that")
    net.load_state_dict(fitted.weights)
