"""Is a model given the images that it was trained on? Its own statistics and other inputs tell.

A network with batch norm remembers the inputs of its first batch norm: mean and variance of each
channel. Images that are normalised once too often, or not at all, have others, however little the
accuracy suffers. Without such statistics only the accuracy under other usual normalisations can
tell. Experiments alone are made here; `reliability` judges them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ltrobust.evaluation.evaluate import Evaluator
from ltrobust.evaluation.foreign import STATISTICS

SCREENED = 64
"""Test images on which every normalisation is tried."""
CONFIRMED = 1000
"""Test images on which a normalisation that seems to help is tried again."""
NORMALISATIONS = {
    **STATISTICS,
    "cifar10, as often copied": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "MNIST": ((0.1307,) * 3, (0.3081,) * 3),
    "0.5/0.5": ((0.5,) * 3, (0.5,) * 3),
}
"""Usual means and standard deviations of images in [0, 1]."""
VERY_FAR = 1e6
UNSETTLED = 0.02
"""Share of its initial values in a running statistic from which on it tells little."""

Change = Callable[[Tensor], Tensor]
_Norm = nn.modules.batchnorm._BatchNorm


@torch.no_grad()
def normalisations(part: Evaluator, more: Evaluator) -> dict[str, Any]:
    """What other inputs would do for a model, and how far the given ones are from its statistics.

    Args:
        part: a few test images, on which every change is tried.
        more: more test images, on which a change that seems to help is tried again.

    Returns:
        "statistics": None without usable ones, else {"given", "name", "best"}: distance (see
        `_distance`) of the images as they are given, and the change with the smallest one;
        "batch_norm": whether there is any; and "tried": of the changes that undo a normalisation
        and of the others, the one that helps most: {"undoes", "name", "n", "given", "gained",
        "lost"} in images.
    """
    x = part.x(torch.arange(len(part.test.labels)))
    changes = _changes(x.cpu())
    distances, verdicts, norms = {}, {}, 0
    for name, change in changes.items():
        with _first_norm(part.model) as seen:
            verdicts[name] = part.model(change(x)).argmax(1).cpu() == part.test.labels
        distances[name] = _distance(*seen[0]) if seen else None
        norms += len(seen)
    given = verdicts.pop("none")
    tried: list[dict[str, Any]] = []
    for undoes in (True, False):
        names = [name for name in verdicts if _undoes(name) == undoes]
        best = max(names, key=lambda name: int(verdicts[name].sum()))
        tried.append({"undoes": undoes, "name": best, **_compared(given, verdicts[best])})
    for one in tried:
        if one["gained"] > one["lost"]:
            one |= _compared(_right(more, changes["none"]), _right(more, changes[one["name"]]))
    return {"statistics": _nearest(distances), "batch_norm": norms > 0, "tried": tried}


def _nearest(distances: dict[str, float | None]) -> dict[str, Any] | None:
    known = {name: float(value) for name, value in distances.items() if value is not None}
    given = known.pop("none", None)
    if given is None or not known:
        return None
    best = min(known, key=lambda name: known[name])
    return {"given": given, "name": best, "best": known[best]}


def _compared(given: Tensor, helped: Tensor) -> dict[str, int]:
    return {
        "n": len(given),
        "given": int(given.sum()),
        "gained": int((helped & ~given).sum()),
        "lost": int((given & ~helped).sum()),
    }


def _right(part: Evaluator, change: Change) -> Tensor:
    """Which changed images are classified correctly, bool (N,)."""
    batches = torch.arange(len(part.test.labels)).split(part.batch_size)
    found = [part.model(change(part.x(chosen))).argmax(1).cpu() for chosen in batches]
    return torch.cat(found) == part.test.labels


def _distance(norm: _Norm, inputs: Tensor) -> float | None:
    """How far inputs (B, C, ...) are from those that a batch norm remembers, if it does.

    Kullback and Leibler's divergence of the normal distributions with the remembered and the given
    mean and variance, averaged over channels; in nats. Inputs that are not finite are very far.
    """
    if norm.running_mean is None or norm.running_var is None or not _settled(norm):
        return None
    rows = inputs.double().transpose(0, 1).flatten(1)
    mean, var = rows.mean(1), rows.var(1).clamp_min(1e-12)
    usual_mean, usual_var = norm.running_mean.double(), norm.running_var.double().clamp_min(1e-12)
    apart = ((mean - usual_mean) ** 2 + usual_var) / var - 1 + (var / usual_var).log()
    return min(VERY_FAR, float(torch.nan_to_num(apart, VERY_FAR, VERY_FAR).mean()) / 2)


@contextmanager
def _first_norm(model: nn.Module) -> Iterator[list[tuple[_Norm, Tensor]]]:
    """The first batch norm that a pass meets, with its inputs (B, C, ...)."""
    seen: list[tuple[_Norm, Tensor]] = []

    def note(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if not seen and isinstance(norm, _Norm):
            seen.append((norm, inputs[0].detach()))

    handles = [m.register_forward_pre_hook(note) for m in model.modules() if isinstance(m, _Norm)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _settled(norm: _Norm) -> bool:
    """Whether running statistics have forgotten the values that they began with.

    A checkpoint may have lost the number of batches; it is believed unless its values are initial.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    if bool((norm.running_mean == 0).all()) and bool((norm.running_var == 1).all()):
        return False
    seen = 0 if norm.num_batches_tracked is None else int(norm.num_batches_tracked)
    return not seen or norm.momentum is None or (1 - norm.momentum) ** seen <= UNSETTLED


UNDONE = ", undone"
DIVIDED = "divided by 255"


def _undoes(name: str) -> bool:
    return name.endswith(UNDONE) or name == DIVIDED


def _changes(x: Tensor) -> dict[str, Change]:
    """Usual normalisations of images in [0, 1], and what undoes each of them."""
    channels = x.shape[1]
    over = [d for d in range(x.dim()) if d != 1]
    own = (x.mean(over), x.std(over).clamp_min(1e-3))
    usual = {
        name: (_per_channel(mean, channels), _per_channel(std, channels))
        for name, (mean, std) in NORMALISATIONS.items()
    }
    changes: dict[str, Change] = {"none": lambda x: x}
    for name, (mean, std) in {"mean and std of these images": own, **usual}.items():
        changes[name] = _affine(1 / std, -mean / std)
        changes[f"{name}{UNDONE}"] = _affine(std, mean)
    changes["times 255"] = lambda x: x * 255
    changes[DIVIDED] = lambda x: x / 255
    return changes


def _per_channel(values: Sequence[float], channels: int) -> Tensor:
    known = torch.tensor(values)
    return known if len(known) == channels else known.mean().expand(channels)


def _affine(factor: Tensor, offset: Tensor) -> Change:
    def change(x: Tensor) -> Tensor:
        shape = (1, -1, *[1] * (x.dim() - 2))
        return x * factor.to(x).view(shape) + offset.to(x).view(shape)

    return change
