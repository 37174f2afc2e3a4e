"""Weights and states of a stored run as tensors; the store itself knows only bytes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ltrobust.errors import UserError
from ltrobust.results.store import RunStore
from ltrobust.training import checkpoint


def save_state(store: RunStore, state: dict[str, Any]) -> None:
    """Keep what is needed to resume training, and the learning curve so far."""
    store.save_state(checkpoint.state_to_bytes(state), state["history"])


def load_state(store: RunStore) -> dict[str, Any] | None:
    """The last resume state, if any; UserError when it is damaged."""
    content = store.state()
    if content is None:
        return None
    try:
        return checkpoint.state_from_bytes(content)
    except Exception:  # a damaged file can fail anywhere in the reader
        file = store.path / "state.pt"
        raise UserError(f"{file} is damaged; delete it to train from epoch 1") from None


def load_model(store: RunStore) -> dict[str, Tensor]:
    """The final weights; UserError where they are gone or damaged."""
    return checkpoint.from_bytes(store.weights(), str(store.path / "model.safetensors"))


def save_attack_state(store: RunStore, part: str, tensors: dict[str, Tensor]) -> None:
    """Keep where a long attack stands."""
    store.save_attack_state(part, checkpoint.to_bytes(tensors))


def load_attack_state(store: RunStore, part: str) -> dict[str, Tensor] | None:
    """Where a long attack stood, if it was begun."""
    file = store.attack_state_file(part)
    return checkpoint.from_bytes(file.read_bytes(), str(file)) if file.is_file() else None
