"""AutoAttack through pyautoattack's own attacks, in a driver that can stop and go on.

The attacks are the reference's, untouched (Croce and Hein 2020), but for faster sorting and
selecting of rows in FAB. The driver only decides the order, the batches and the verdicts, exactly
as the reference does with the same seed and batch size, and hands out its state after each batch:
pyautoattack's own state file cannot be read back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ltrobust.attacks.pgd import Norm
from ltrobust.attacks.rows import QuickRows
from ltrobust.errors import RunError
from ltrobust.team import Team

Part = str
TOLERANCE = {"Linf": 1e-5, "L2": 1e-4}
"""How far rounding may carry a float32 perturbation beyond eps."""
VERSIONS = {"autoattack": "standard", "aa-apgd": "apgd", "aa-rand": "rand"}
"""The attacks by name and what they are called in the row: `apgd` is APGD-CE and APGD-T alone."""


def parts(num_classes: int, version: str = "standard", restarts: int = 1) -> tuple[Part, ...]:
    """The attacks in a version for C classes, in order.

    The targeted DLR loss compares four logits and the DLR loss three: with C = 3 apgd-dlr replaces
    apgd-t, and with C = 2 neither can run. Further restarts repeat all of it with the next seed,
    `apgd-ce (seed + 1)` and so on.
    """
    if num_classes < 3:
        dlr: tuple[Part, ...] = ()
    else:
        dlr = ("apgd-t",) if num_classes >= 4 and version != "rand" else ("apgd-dlr",)
    rest = ("fab-t", "square") if version == "standard" else ()
    once = ("apgd-ce", *dlr, *rest)
    again = [f"{part} (seed + {turn})" for turn in range(1, restarts) for part in once]
    return (*once, *again)


def targets(num_classes: int) -> int:
    """Number of target classes of apgd-t and fab-t: 9, or all others when there are fewer."""
    return min(9, num_classes - 1)


@dataclass
class Progress:
    """Where a run of AutoAttack stands, as plain tensors.

    Attributes:
        pred: prediction on the worst image so far, int64 (N,).
        fell: number of the part (from 1, in the order of `parts`) after which an image was
            broken, 0 while it stands and -1 where the clean image is misclassified, int64 (N,).
        todo: images that stood when the present part began, int64 (M,).
        position: (part, batch) to do next, int64 (2,).
        claimed: images that the search network took for broken in this part and that stand, and
            on which it is to be run again, int64 (K,).
    """

    pred: Tensor
    fell: Tensor
    todo: Tensor
    position: Tensor
    claimed: Tensor

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
    norm: Norm = "Linf",
    version: str = "standard",
    restarts: int = 1,
    search: nn.Module | None = None,
    exact: nn.Module | None = None,
    together: bool = False,
    prepare: Callable[[Tensor], Tensor] = lambda images: images,
    clean: Tensor | None = None,
    resume: dict[str, Tensor] | None = None,
    save: Callable[[dict[str, Tensor]], None] = lambda state: None,
    tell: Callable[[str, float], None] = lambda part, share: None,
    keep: Callable[[Tensor, Tensor], None] = lambda chosen, images: None,
    team: Team | None = None,
) -> Progress:
    """Run a version of AutoAttack on a model in eval mode.

    Args:
        model: maps images in [0, 1] to logits (N, C); deterministic, but for version `rand`.
        x: images (N, ...): what `prepare` turns into float32 in [0, 1] on the model's device.
        y: labels (N,), int64.
        eps: radius in [0, 1] image units; for L2 of the whole image.
        num_classes: C; decides the parts and the number of targets.
        seed: seed given to every part and batch, as pyautoattack does.
        batch_size: images attacked at a time.
        norm: which ball.
        version: "standard", "apgd" (its first two parts alone) or "rand" (for randomised models:
            20 gradients averaged a step).
        restarts: how many times to run everything, each time with the next seed.
        search: computes the same as `model` up to rounding, only faster; the attacks run on it and
            `model` takes every verdict. Default: `model` itself.
        exact: where `search` claims an image that stands for `model`, the part is run again on
            this network; give it where `search` rounds coarsely. Default: not again.
        together: run a part again on the claims of all its batches at once, when the last is done,
            instead of batch by batch; a GPU takes as long for one image as for a batch. Attacks
            draw for a batch, so that verdicts on claimed images may differ.
        prepare: turns a batch of `x` into what the model takes, so that `x` can stay uint8 on the
            CPU. Default: leave it as it is.
        clean: predictions on the images as they are, int64 (N,); default: the model is asked.
        resume: what `save` was given last.
        save: called after every batch.
        tell: called after every batch with the part's name and the share of it that is done.
        keep: called after every batch with the positions of the images that it broke, int64 (M,)
            on the CPU, and what broke them.
        team: processes that do it together, each of which calls this alike: each attacks every
            so manyth batch. What is saved is the same with any number of them.

    Returns:
        Predictions on the worst images found, and after which part each image fell.

    Raises:
        RunError: an attack left the eps ball or [0, 1], or returned nan.
    """
    device = prepare(x[:1]).device
    setting = _Setting(eps, norm, version, num_classes, device)
    attacks = _Attacks(search or model, setting)
    again = _Attacks(exact, setting) if exact is not None else None
    names = parts(num_classes, version, restarts)
    size = 1 if team is None else team.size
    with torch.no_grad(), _own_random_state(device):
        if resume:
            state = Progress(**resume)
        else:
            pred = _predictions(model, x, batch_size, prepare) if clean is None else clean
            state = _begin(pred, y)
        at_once = None if together else again
        rounds = _Rounds(
            model, x, y, setting, names[: len(names) // restarts], seed, prepare, keep, again, team
        )
        for part, batch, last in _remaining(state, names, batch_size, size):
            batches = state.todo.split(batch_size)
            rounds.attack(attacks, part, batches[batch : batch + size], state, at_once)
            done = min(batch + size, last)
            if again is not None and len(state.claimed) and done == last:
                claims, state.claimed = state.claimed.split(batch_size), state.claimed[:0]
                for first in range(0, len(claims), size):
                    rounds.attack(again, part, claims[first : first + size], state)
            state.position = torch.tensor([part, done])
            save(state.tensors())
            tell(names[part], done / last)
    return state


@dataclass(frozen=True)
class _Rounds:
    """Attacks as many batches at once as there are processes.

    Attributes:
        model: takes the verdicts.
        x: all images.
        y: their labels.
        setting: of all attacks.
        names: of the parts, once.
        seed: of the first time.
        prepare: turns a batch of `x` into what the model takes.
        keep: given what broke images.
        again: what claims are tried on.
        team: the processes.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    setting: _Setting
    names: tuple[Part, ...]
    seed: int
    prepare: Callable[[Tensor], Tensor]
    keep: Callable[[Tensor, Tensor], None]
    again: _Attacks | None
    team: Team | None

    def attack(
        self,
        by: _Attacks,
        part: int,
        batches: Sequence[Tensor],
        state: Progress,
        then: _Attacks | None = None,
    ) -> None:
        """Attack a batch in each process, and note what came of all of them.

        Args:
            by: what attacks.
            part: its number.
            batches: positions of images, at most one batch a process.
            state: where it is noted.
            then: what each process tries the claims of its batch on at once; None: they are noted.
        """
        own = 0 if self.team is None else self.team.rank
        fallen = self._fallen(by, part, batches[own] if own < len(batches) else state.todo[:0])
        if then is not None:
            second = self._fallen(then, part, fallen.claimed)
            where = torch.cat([fallen.where, second.where])
            fallen = _Fallen(where, torch.cat([fallen.pred, second.pred]), second.claimed)
        if self.team is not None:
            found = (fallen.where, fallen.pred, fallen.claimed)
            fallen = _Fallen(*map(self.team.gathered, found))
        state.pred[fallen.where] = fallen.pred
        state.fell[fallen.where] = part + 1
        state.claimed = torch.cat([state.claimed, fallen.claimed])

    def _fallen(self, by: _Attacks, part: int, chosen: Tensor) -> _Fallen:
        """Attack images; tell which fall, and which are only claimed to."""
        if not len(chosen):
            return _Fallen(chosen, chosen, chosen)
        device = self.setting.device
        images = self.prepare(self.x[chosen.to(self.x.device)])
        labels = self.y[chosen.to(self.y.device)].to(device)
        turn, number = divmod(part, len(self.names))
        name = self.names[number]
        found = by.run(name, images.clone(), labels.clone(), self.seed + turn)
        _check(found, images, self.setting, name)
        pred = self.model(found).argmax(1)
        broken = (pred != labels).cpu()
        self.keep(chosen[broken], found[broken.to(device)])
        claimed = chosen[:0]
        if self.again is not None and by is not self.again:
            claims = (pred == labels) & (by.model(found).argmax(1) != labels)
            claimed = chosen[claims.cpu()]
        return _Fallen(chosen[broken], pred.cpu()[broken], claimed)


@dataclass(frozen=True)
class _Fallen:
    """What came of the attack on a batch.

    Attributes:
        where: positions of the images that fell, int64 (M,).
        pred: predictions on them, int64 (M,).
        claimed: positions of the images that the search network alone took for broken, int64 (K,).
    """

    where: Tensor
    pred: Tensor
    claimed: Tensor


def _remaining(
    state: Progress, names: tuple[Part, ...], batch_size: int, step: int
) -> Iterator[tuple[int, int, int]]:
    """Yield (part, batch, batches of the part), opening each part with the images that stand.

    So many batches as `step` are done at once.
    """
    part, batch = (int(v) for v in state.position)
    while part < len(names):
        count = -(-len(state.todo) // batch_size)
        while batch < count:
            yield part, batch, count
            batch += step
        part, batch = part + 1, 0
        state.todo = (state.fell == 0).nonzero().flatten()
        state.position = torch.tensor([part, 0])


def _predictions(
    model: nn.Module, x: Tensor, batch_size: int, prepare: Callable[[Tensor], Tensor]
) -> Tensor:
    return torch.cat([model(prepare(part)).argmax(1).cpu() for part in x.split(batch_size)])


def _begin(pred: Tensor, y: Tensor) -> Progress:
    fell = torch.where(pred == y.cpu(), 0, -1)
    todo = (fell == 0).nonzero().flatten()
    return Progress(pred.clone(), fell, todo, torch.tensor([0, 0]), todo[:0])


def _check(found: Tensor, x: Tensor, setting: _Setting, name: str) -> None:
    change = (found - x).flatten(1)
    size = change.abs().max() if setting.norm == "Linf" else change.norm(dim=1).max()
    allowed = setting.eps + TOLERANCE[setting.norm]
    if not bool(size <= allowed) or found.min() < 0 or found.max() > 1:
        raise RunError(
            f"{name} left the eps ball: largest change {float(size):.6f}, eps {setting.eps:.6f}"
        )


class _own_random_state:  # noqa: N801  (a context manager)
    """Keep pyautoattack's reseeding of the global generators to itself."""

    def __init__(self, device: torch.device) -> None:
        devices = [device] if device.type == "cuda" else []
        self._fork = torch.random.fork_rng(devices=devices)

    def __enter__(self) -> None:
        self._fork.__enter__()

    def __exit__(self, *error: object) -> None:
        self._fork.__exit__(None, None, None)


@dataclass(frozen=True)
class _Setting:
    """What all attacks of one run share."""

    eps: float
    norm: Norm
    version: str
    num_classes: int
    device: torch.device


class _Attacks:
    """pyautoattack's attacks with the settings of one of its versions."""

    def __init__(self, model: nn.Module, setting: _Setting) -> None:
        from pyautoattack import AutoAttack

        # the reference logs advice about zero gradients and class counts; ours stands in the rows
        logging.getLogger("auto-attack").setLevel(logging.ERROR)
        self.model = model
        self._aa = AutoAttack(
            model,
            eps=setting.eps,
            norm=setting.norm,
            device=setting.device,
            version="rand" if setting.version == "rand" else "standard",
        )
        self._aa.apgd_targeted.n_target_classes = targets(setting.num_classes)
        self._aa.fab.n_target_classes = targets(setting.num_classes)
        self._aa.fab.targeted = True

    def run(self, name: Part, x: Tensor, y: Tensor, seed: int) -> Tensor:
        if name in ("apgd-ce", "apgd-dlr"):
            attack = self._aa.apgd
            attack.loss = name.removeprefix("apgd-")
        else:
            attack = {
                "apgd-t": self._aa.apgd_targeted,
                "fab-t": self._aa.fab,
                "square": self._aa.square,
            }[name]
        attack.seed = seed
        with QuickRows() if name == "fab-t" and x.device.type == "cpu" else nullcontext():
            return attack.perturb(x, y)
