"""Training steps recorded once and repeated: one CUDA graph in place of some two thousand launches.

Attack, outer loss and gradients are recorded. Random numbers are drawn, and the optimizer's step
and what follows it are taken, outside. A recording freezes what Python decided: it holds for one
shape of batch, for the attributes of the method that it read, and, where it asked for the epoch,
for one stage of the method. What cannot be recorded runs as ordinary steps, which is said once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ltrobust.combination import layers
from ltrobust.context import Context
from ltrobust.graphs import Graphs
from ltrobust.method import Method
from ltrobust.part import Part
from ltrobust.training.engine import TrainingModel
from ltrobust.training.frozen import REFUSED, Draws, Touched, recorded
from ltrobust.training.profile import UNTIMED, Clock
from ltrobust.training.step import find_gradients, take_step, train_step

WARM = 3
"""Ordinary steps before the first recording: libraries choose their algorithms in them."""
WARM_AGAIN = 2
"""The same before a later one."""
MOST_USELESS = 3
"""So many recordings may go stale before they are ever repeated; then none is made any more."""
NEVER = 2**40


class Recording:
    """The recorded part of a step, and what it takes to do it again with another batch."""

    def __init__(
        self,
        graphs: Graphs,
        model: TrainingModel,
        method: Method,
        x: Tensor,
        y: Tensor,
        ctx: Context,
        draws: Draws,
    ) -> None:
        self._model, self._draws = model, draws
        self.x, self.y = x.clone(), y.clone()
        self._index = None if ctx.index is None else ctx.index.clone()
        draws.fill(ctx.generator)
        draws.given = 0
        own = recorded(ctx, draws.handed_out, index=self._index)
        model.zero_grad(set_to_none=True)
        seen = model.seen
        self.touched = Touched(method)

        def work() -> tuple[Tensor, Tensor]:
            value, x_adv = find_gradients(model, method, self.x, self.y, own)
            return value.detach(), x_adv

        with self.touched:
            (self.loss, self.x_adv), self._again = graphs.record(work)
        self._seen = model.seen - seen
        parts = [value for layer in layers(method) for value in vars(layer).values()]
        nets = [model, *(one.net for one in parts if isinstance(one, Part) and one.net is not None)]
        self._gradients = [(p, p.grad) for net in nets for p in net.parameters()]
        self._bound = "epoch" in own.asked or _acts_between_epochs(method)
        self._stage = stage_of(method, ctx)
        self.repeated = 0

    def holds(self, method: Method, ctx: Context) -> bool:
        """Whether a step in this epoch, with the method as it is, would be recorded alike."""
        alike = not self._bound or self._stage == stage_of(method, ctx)
        return alike and self.touched.still_holds()

    def repeat(self, x: Tensor, y: Tensor, ctx: Context) -> None:
        """Do it with another batch of the same shape."""
        self.x.copy_(x)
        self.y.copy_(y)
        if self._index is not None and ctx.index is not None:
            self._index.copy_(ctx.index)
        self._draws.fill(ctx.generator)
        self._model.train()
        self._again()
        self._model.watch(self.x_adv if self.x_adv is not self.x else None, self.y)
        self._model.seen += self._seen
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        self.touched.write_again()
        self.repeated += 1


def stage_of(method: Method, ctx: Context) -> Hashable:
    """The stage that a method tells, or the epoch where a class below overrides what it speaks of.

    A defense that inherits `stage` and decides other things by the epoch would else be wrong.
    """
    for layer in layers(method):
        order = type(layer).__mro__
        told = next(n for n, cls in enumerate(order) if "stage" in vars(cls))
        if any(name in vars(cls) for cls in order[:told] for name in STEP):
            return ctx.epoch
    return method.stage(ctx)


STEP = ("attack", "terms", "loss", "backward")
EPOCH = ("on_epoch_start", "on_epoch_end")


def _acts_between_epochs(method: Method) -> bool:
    """Whether a method, or what it wraps, changes something that recordings cannot see."""
    return any(
        name in vars(cls)
        for layer in layers(method)
        for cls in type(layer).__mro__
        if cls.__module__ not in (Method.__module__, "ltrobust.modifier")
        for name in EPOCH
    )


class Stepper:
    """Takes training steps, by recordings as soon as there are some.

    Args:
        model: the network in training.
        method: the defense.
        optimizer: takes the steps.
        graphs: what records; None: every step is an ordinary one.
        tell: told once where steps cannot be recorded.

    Attributes:
        repeated: steps that were repetitions of a recorded one.
    """

    def __init__(
        self,
        model: TrainingModel,
        method: Method,
        optimizer: torch.optim.Optimizer,
        graphs: Graphs | None = None,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._model, self._method, self._optimizer = model, method, optimizer
        self._graphs, self._tell, self._wanted = graphs, tell, WARM
        self._recordings: dict[torch.Size, Recording] = {}
        self._prepared: dict[torch.Size, Prepared] = {}
        self._epoch, self._useless = -1, 0
        self.repeated = 0

    def __call__(self, x: Tensor, y: Tensor, ctx: Context, clock: Clock = UNTIMED) -> Tensor:
        """As `train_step`; the loss holds until the next step."""
        if self._graphs is None:
            return train_step(self._model, self._method, x, y, ctx, self._optimizer, clock)
        ctx = ctx.changed(optimizer=self._optimizer)
        if ctx.epoch != self._epoch:  # what was prepared in another epoch may not hold in this one
            self._epoch = ctx.epoch
            self._prepared.clear()
        recording = self._recordings.get(x.shape)
        if recording is not None and recording.holds(self._method, ctx):
            return self._repeated(recording, x, y, ctx)
        if recording is not None:
            self._drop(x.shape, recording)
        prepared = self._prepared.setdefault(x.shape, Prepared())
        if prepared.steps < self._wanted:
            return self._ordinary(self._graphs, prepared, x, y, ctx)
        return self._recorded(self._graphs, prepared, x, y, ctx)

    def set_rate(self, rate: float) -> None:
        """Give the optimizer the learning rate of the next step."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate

    def _repeated(self, recording: Recording, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        recording.repeat(x, y, ctx)
        self.repeated += 1
        take_step(self._model, self._method, recording.x, recording.y, recording.x_adv, ctx)
        return recording.loss

    def _ordinary(
        self, graphs: Graphs, prepared: Prepared, x: Tensor, y: Tensor, ctx: Context
    ) -> Tensor:
        """An ordinary step, in which is listed what a recorded one needs."""
        listing = recorded(ctx, prepared.draws.listed(ctx.generator))
        with graphs.aside():
            value, x_adv = find_gradients(self._model, self._method, x, y, listing)
        take_step(self._model, self._method, x, y, x_adv, ctx)
        prepared.steps += 1
        prepared.asked = listing.asked
        return value.detach()

    def _recorded(
        self, graphs: Graphs, prepared: Prepared, x: Tensor, y: Tensor, ctx: Context
    ) -> Tensor:
        """Record a step and do it once; an ordinary one where that is refused."""
        reasons = [reason for name, reason in REFUSED.items() if name in prepared.asked]
        if reasons:
            return self._given_up(reasons[0], x, y, ctx)
        state = ctx.generator.get_state()
        try:
            recording = Recording(graphs, self._model, self._method, x, y, ctx, prepared.draws)
        except Exception as error:  # a library may refuse anything; an ordinary step may not fail
            ctx.generator.set_state(state)
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            return self._given_up(reason, x, y, ctx)
        self._wanted = min(self._wanted, WARM_AGAIN)
        take_step(self._model, self._method, recording.x, recording.y, recording.x_adv, ctx)
        if recording.touched.changed:
            self._give_up(f"{recording.touched.changed[0]} changes from step to step")
        else:
            self._recordings[x.shape] = recording
        return recording.loss

    def _drop(self, shape: torch.Size, recording: Recording) -> None:
        """Forget a recording that no longer holds."""
        del self._recordings[shape]
        self._prepared.pop(shape, None)
        self._useless = 0 if recording.repeated else self._useless + 1
        if self._useless >= MOST_USELESS:
            self._wanted = NEVER
            self._tell_why("what it reads is replaced from step to step; change it in place")

    def _given_up(self, reason: str, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        self._give_up(reason)
        return train_step(self._model, self._method, x, y, ctx, self._optimizer).detach()

    def _give_up(self, reason: str) -> None:
        self._graphs = None
        self._recordings.clear()
        self._tell_why(reason)

    def _tell_why(self, reason: str) -> None:
        name = self._method.name
        self._tell(f"  steps are not captured, which is slower on a GPU: {name}: {reason}")


@dataclass
class Prepared:
    """What the ordinary steps of an epoch on batches of one shape have told.

    Attributes:
        steps: how many there were.
        draws: the random numbers of the last.
        asked: what the last asked its context for.
    """

    steps: int = 0
    draws: Draws = field(default_factory=Draws)
    asked: set[str] = field(default_factory=set)
