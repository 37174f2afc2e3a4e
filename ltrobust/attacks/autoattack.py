"""AutoAttack through pyautoattack's own attacks, in a driver that can stop and go on.

The attacks are the reference's, untouched (Croce and Hein 2020). The driver only decides the order,
the batches and the verdicts, exactly as the reference does with the same seed and batch size, and
hands out its state after each batch: pyautoattack's own state file cannot be read back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ltrobust.errors import RunError

Part = str
TOLERANCE = 1e-5
"""How far rounding may carry a pixel of a float32 perturbation beyond eps."""


def parts(num_classes: int) -> tuple[Part, ...]:
    """The attacks in the standard version for C classes.

    The targeted DLR loss compares four logits and the DLR loss three: with C = 3 apgd-dlr replaces
    apgd-t, and with C = 2 neither can run.
    """
    dlr: tuple[Part, ...] = ("apgd-t",) if num_classes >= 4 else ("apgd-dlr",)
    return ("apgd-ce", *(dlr if num_classes >= 3 else ()), "fab-t", "square")


def targets(num_classes: int) -> int:
    """Number of target classes of apgd-t and fab-t: 9, or all others when there are fewer."""
    return min(9, num_classes - 1)


@dataclass
class Progress:
    """Where a run of AutoAttack stands, as plain tensors.

    Attributes:
        pred: prediction on the worst image so far, int64 (N,).
        fell: number of the part (from 1) after which an image was broken, 0 while it stands and
            -1 where the clean image is misclassified, int64 (N,).
        todo: images that stood when the present part began, int64 (M,).
        position: (part, batch) to do next, int64 (2,).
    """

    pred: Tensor
    fell: Tensor
    todo: Tensor
    position: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """The state as a dict of tensors, to be stored."""
        return {name: getattr(self, name).clone() for name in self.__dataclass_fields__}


def autoattack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    num_classes: int,
    seed: int,
    batch_size: int,
    search: nn.Module | None = None,
    prepare: Callable[[Tensor], Tensor] = lambda images: images,
    resume: dict[str, Tensor] | None = None,
    save: Callable[[dict[str, Tensor]], None] = lambda state: None,
    tell: Callable[[str, float], None] = lambda part, share: None,
) -> Progress:
    """Run the standard version of AutoAttack (L-inf) on a model in eval mode.

    Args:
        model: maps images in [0, 1] to logits (N, C); deterministic.
        x: images (N, ...): what `prepare` turns into float32 in [0, 1] on the model's device.
        y: labels (N,), int64.
        eps: radius in [0, 1] image units.
        num_classes: C; decides the parts and the number of targets.
        seed: seed given to every part and batch, as pyautoattack does.
        batch_size: images attacked at a time.
        search: computes the same as `model` up to rounding, only faster; the attacks run on it and
            `model` takes every verdict. Default: `model` itself.
        prepare: turns a batch of `x` into what the model takes, so that `x` can stay uint8 on the
            CPU. Default: leave it as it is.
        resume: what `save` was given last.
        save: called after every batch.
        tell: called after every batch with the part's name and the share of it that is done.

    Returns:
        Predictions on the worst images found, and after which part each image fell.

    Raises:
        RunError: an attack left the eps ball or [0, 1], or returned nan.
    """
    device = prepare(x[:1]).device
    attacks = _Attacks(search or model, eps, num_classes, seed, device)
    names = parts(num_classes)
    with torch.no_grad(), _own_random_state(device):
        state = Progress(**resume) if resume else _begin(model, x, y, batch_size, prepare)
        for part, batch, last in _remaining(state, names, batch_size):
            chosen = state.todo[batch * batch_size : (batch + 1) * batch_size]
            images = prepare(x[chosen.to(x.device)])
            labels = y[chosen.to(y.device)].to(device)
            found = attacks.run(names[part], images.clone(), labels.clone())
            _check(found, images, eps, names[part])
            pred = model(found).argmax(1)
            broken = (pred != labels).cpu()
            where = chosen[broken]
            state.pred[where] = pred.cpu()[broken]
            state.fell[where] = part + 1
            state.position = torch.tensor([part, batch + 1])
            save(state.tensors())
            tell(names[part], (batch + 1) / last)
    return state


def _remaining(
    state: Progress, names: tuple[Part, ...], batch_size: int
) -> Iterator[tuple[int, int, int]]:
    """Yield (part, batch, batches of the part), opening each part with the images that stand."""
    part, batch = (int(v) for v in state.position)
    while part < len(names):
        count = -(-len(state.todo) // batch_size)
        while batch < count:
            yield part, batch, count
            batch += 1
        part, batch = part + 1, 0
        state.todo = (state.fell == 0).nonzero().flatten()
        state.position = torch.tensor([part, 0])


def _begin(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    batch_size: int,
    prepare: Callable[[Tensor], Tensor],
) -> Progress:
    pred = torch.cat([model(prepare(part)).argmax(1).cpu() for part in x.split(batch_size)])
    fell = torch.where(pred == y.cpu(), 0, -1)
    return Progress(pred, fell, (fell == 0).nonzero().flatten(), torch.tensor([0, 0]))


def _check(found: Tensor, x: Tensor, eps: float, name: str) -> None:
    size = (found - x).abs().max()
    if not bool(size <= eps + TOLERANCE) or found.min() < 0 or found.max() > 1:
        raise RunError(f"{name} left the eps ball: largest change {float(size):.6f}, eps {eps:.6f}")


class _own_random_state:  # noqa: N801  (a context manager)
    """Keep pyautoattack's reseeding of the global generators to itself."""

    def __init__(self, device: torch.device) -> None:
        devices = [device] if device.type == "cuda" else []
        self._fork = torch.random.fork_rng(devices=devices)

    def __enter__(self) -> None:
        self._fork.__enter__()

    def __exit__(self, *error: object) -> None:
        self._fork.__exit__(None, None, None)


class _Attacks:
    """pyautoattack's four attacks with the settings of its standard version."""

    def __init__(
        self, model: nn.Module, eps: float, num_classes: int, seed: int, device: torch.device
    ) -> None:
        from pyautoattack import AutoAttack

        # the reference logs advice about zero gradients and class counts; ours stands in the rows
        logging.getLogger("auto-attack").setLevel(logging.ERROR)
        self._aa = AutoAttack(model, eps=eps, seed=seed, device=device, version="standard")
        self._aa.apgd_targeted.n_target_classes = targets(num_classes)
        self._aa.fab.n_target_classes = targets(num_classes)
        self._aa.fab.targeted = True
        self._seed = seed

    def run(self, name: Part, x: Tensor, y: Tensor) -> Tensor:
        if name in ("apgd-ce", "apgd-dlr"):
            attack = self._aa.apgd
            attack.loss = name.removeprefix("apgd-")
        else:
            attack = {
                "apgd-t": self._aa.apgd_targeted,
                "fab-t": self._aa.fab,
                "square": self._aa.square,
            }[name]
        attack.seed = self._seed
        return attack.perturb(x, y)
