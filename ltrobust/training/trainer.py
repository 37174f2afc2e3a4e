"""The one trainer. It reads top to bottom: build, resume, then epochs of attack, loss, step.

It owns data order, augmentation, precision, the schedule and resuming; the `Method` supplies the
head, the inner attack and the outer loss. It writes no files: `save` does, once an epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from ltrobust.combination import find, has_needs
from ltrobust.config import Recipe, Run
from ltrobust.context import HeldOut
from ltrobust.data import LongTailedData, dataset_spec
from ltrobust.data.augment import enlarge, policy_augment, random_crop_flip, to_float
from ltrobust.data.holdout import hold_out
from ltrobust.errors import RunError
from ltrobust.float32 import true_float32
from ltrobust.graphs import CudaGraphs, Graphs
from ltrobust.method import Context, Method
from ltrobust.models import Network, build_model
from ltrobust.modifier import PostHoc
from ltrobust.progress import Reporter
from ltrobust.seeds import derive_seed, generator
from ltrobust.stopwatch import Stopwatch
from ltrobust.team import Team
from ltrobust.training.captured import Stepper
from ltrobust.training.checkpoint import state_from_bytes, state_to_bytes
from ltrobust.training.engine import TrainingModel
from ltrobust.training.feed import chosen_images, fed, placed, reach
from ltrobust.training.overfitting import FEW_STEPS, pgd_accuracy, warning
from ltrobust.training.profile import UNTIMED, Clock
from ltrobust.training.schedule import learning_rates, rate_at
from ltrobust.training.selection import Judge, make_judge

State = dict[str, Any]
HistoryRow = dict[str, float]

ACCURACY_IMAGES = 1000
"""How many training images `train_acc` is measured on at the end of an epoch."""


@dataclass(frozen=True)
class Thrift:
    """How a training saves memory. It changes no result, apart from rounding.

    Attributes:
        grad_checkpointing: compute activations again in backward passes; equal bits on a CPU.
        micro_batch: run the inner attack on so many images at a time; None: on the whole batch.
            Images do not see each other there (eval mode), so that only rounding differs. The outer
            pass keeps the whole batch: batch norm and class-wise losses need it.
    """

    grad_checkpointing: bool = False
    micro_batch: int | None = None


WATCHED = "test_watched_"
"""Begins the names of columns of the history that show the test set: nothing may choose by them."""


@dataclass(frozen=True)
class Watch:
    """A look at the test set after some epochs, for the curve alone.

    It is given the network that would be evaluated, after the epoch's choice has been made, and
    what it finds goes into the history and nowhere else.

    Attributes:
        look: columns of the history, whose names begin with `WATCHED`.
        every: after each so manyth epoch, and after the last.
    """

    look: Callable[[Network, Method], dict[str, float]]
    every: int = 1

    def columns(self, trained: Trained, epoch: int, last: int) -> dict[str, float]:
        """What an epoch (from 1) adds to the history; nothing where it is not watched."""
        if epoch % self.every and epoch != last:
            return {}
        with evaluated(trained):
            found = self.look(trained.net, trained.method)
        assert all(name.startswith(WATCHED) for name in found)
        return found


@dataclass
class Trained:
    """A trained network with the defense it belongs to and its learning curve."""

    net: Network
    method: Method
    history: list[HistoryRow] = field(default_factory=list)
    epoch: int = 0
    """The epoch, from 1, whose weights these are; in a fine-tuning it goes on from the base's."""

    def as_base(self) -> Base:
        """What a post-hoc method takes over."""
        return Base(self.net.state_dict(), self.method.inference_state())


Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Base:
    """The trained run that a post-hoc method acts on.

    Attributes:
        weights: state dict of its network.
        kept: what its method needs at inference.
    """

    weights: Weights
    kept: Weights


def build(run: Run, class_counts: tuple[int, ...], image_shape: tuple[int, int, int]) -> Trained:
    """Build the untrained network and the method of a run, from the run's own init seed."""
    method = find(run.method)(torch.tensor(class_counts), **run.options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(run.seed, "init"))
        net = build_model(
            run.arch,
            num_classes=len(class_counts),
            in_channels=image_shape[0],
            image_size=image_shape[1],
            head=method.head,
        )
    return Trained(net, method)


@true_float32(search_algorithms=True)
def train(
    run: Run,
    data: LongTailedData,
    *,
    device: torch.device,
    state: State | None = None,
    save: Callable[[State], None] = lambda state: None,
    reporter: Reporter | None = None,
    thrift: Thrift = Thrift(),
    clock: Clock = UNTIMED,
    base: Base | None = None,
    graphs: Graphs | None = None,
    capture: bool = True,
    watch: Watch | None = None,
    team: Team | None = None,
) -> Trained:
    """Train one run, from its beginning or from a saved state, to its last epoch.

    A run that is stopped and resumed from its last saved state ends with the same weights as an
    unbroken one, bit for bit on a CPU: every random stream is seeded by run, name and epoch.

    Args:
        run: what to train.
        data: its training images.
        device: where to train.
        state: what `save` was given last, to go on from there.
        save: called after every epoch with all that is needed to resume (tensors and numbers).
        reporter: told of epochs and steps.
        thrift: how to save memory.
        clock: told of epochs, steps and their phases.
        base: the trained run that a post-hoc method acts on.
        graphs: what records steps; default on CUDA its graphs, unless a clock looks into steps or
            activations are computed again.
        capture: whether steps may be recorded by default.
        watch: looks at the test set, for the history alone.
        team: processes that train this run together, each of which calls this alike: they share out
            the attack, and nothing is recorded. Only in process 0 `save` is called.

    Raises:
        RunError: the loss is not finite, or the device is out of memory.
    """
    reporter = reporter or Reporter()
    trained = build(run, data.train_counts, data.image_shape)
    recipe = take_over(run, trained, base)
    first = epochs_before(run)
    trained.net.to(device)
    if recipe is None:
        trained.epoch = first
        return trained
    model = TrainingModel(trained.net, run.precision, grad_checkpointing=thrift.grad_checkpointing)
    optimizer = make_optimizer(model, recipe)
    plain = clock is UNTIMED and not thrift.grad_checkpointing  # which looks at generators
    if graphs is None and capture and plain and device.type == "cuda":
        if team is None:
            graphs = CudaGraphs(device)
        else:
            reporter.line("  steps are not captured: their attack is shared out")
    stepper = Stepper(model, trained.method, optimizer, graphs, reporter.line)
    if state is not None:
        _restore(state, trained, optimizer)
    judge = None if first else make_judge(run, data)
    if judge and state is not None:
        judge.best = state["best"]
    rates = learning_rates(recipe.schedule, recipe.lr, recipe.epochs)
    data = spare_feedback(data, trained)
    epochs = first + recipe.epochs
    common = run_context(run, recipe, data, trained, model, device, thrift, team)
    images, labels = placed(data.train_images, device), data.train_labels.to(device)
    title = f"{run.method} seed {run.seed}: epochs"
    reporter.begin("run", title, recipe.epochs, len(trained.history))
    shared = 0 if team is None else team.shared

    for epoch in range(first + len(trained.history), epochs):
        stopwatch = Stopwatch(device, alone=team is None)
        rate = rates[epoch - first]
        ctx = epoch_context(common, run, epoch, rate)
        trained.method.on_epoch_start(ctx)
        loss = _train_epoch(
            run, recipe, images, labels, model, trained.method, stepper, ctx, reporter, clock
        )
        trained.method.on_epoch_end(ctx)
        row = {
            "epoch": epoch + 1,
            "lr": rate,
            "train_loss": loss,
            "train_acc": _clean_accuracy(model, trained.method, images, labels, run.seed),
            "train_robust_acc": model.take_accuracy(),
        }
        if recipe.attack.steps <= FEW_STEPS and not math.isnan(row["train_robust_acc"]):
            stands = pgd_accuracy(
                trained.net, trained.method, images, labels, recipe.attack, run.seed
            )
            row["train_pgd_acc"] = stands
            if caution := warning(stands, row["train_robust_acc"]):
                reporter.line(caution)
        if judge:
            with evaluated(trained):
                row.update(judge.look(trained.net, trained.method, epoch, device, team))
        if watch:
            row.update(watch.columns(trained, epoch + 1, epochs))
        taken = stopwatch.read()
        row["seconds"] = taken.seconds
        if taken.cpu_seconds is not None:
            row["cpu_seconds"] = taken.cpu_seconds
        clock.end_epoch(taken.seconds)
        trained.history.append(row)
        reporter.advance("run")
        reporter.line(describe_epoch(row, epochs))
        if team is not None:
            if team.shared == shared and epoch == first:
                reporter.line(f"  the attack of {run.method} is not shared out: it is as in one")
            _fall_in(team, trained, optimizer, judge)
        if team is None or team.leads:
            save(_snapshot(trained, optimizer, judge))
    reporter.end("run")
    trained.epoch = epochs
    if judge:
        trained.net.load_state_dict(judge.best["net"])
        trained.method.load_state_dict(judge.best["method"])
        trained.epoch = judge.best["epoch"]
    elif (chosen := trained.method.weights()) is not None:
        trained.net.load_state_dict(chosen)
    return trained


def take_over(run: Run, trained: Trained, base: Base | None) -> Recipe | None:
    """Give a post-hoc method the weights that it acts on; others begin with what was drawn.

    Returns:
        How to train; None where nothing is trained.
    """
    method = trained.method
    if not isinstance(method, PostHoc):
        return run.recipe
    if base is None:
        raise RunError(f"{run.method} acts on a trained run of {find(run.method).base.name}")  # type: ignore[union-attr]
    method.load_inference_state(base.kept)
    method.adopt(trained.net, base.weights)
    recipe = own_recipe(run, method)
    if recipe is not None:
        chosen = {id(parameter) for parameter in method.trainable(trained.net)}
        for parameter in trained.net.parameters():
            parameter.requires_grad_(id(parameter) in chosen)
    return recipe


def own_recipe(run: Run, method: Method | None = None) -> Recipe | None:
    """What a run trains itself: of a post-hoc one the fine-tuning; None where that is nothing."""
    if find(run.method).base is None:
        return run.recipe
    method = method or find(run.method)(torch.full((2,), 100), **run.options)
    return cast(PostHoc, method).fine_tuning(run.recipe)


def own_epochs(run: Run) -> int:
    """Epochs that a run trains itself: of a post-hoc one those of its fine-tuning."""
    recipe = own_recipe(run)
    return recipe.epochs if recipe else 0


def epochs_before(run: Run) -> int:
    """Epochs that the base of a post-hoc run was trained for, those of its own base included."""
    return 0 if find(run.method).base is None else total_epochs(base_run(run))


def total_epochs(run: Run) -> int:
    """Epochs that a run takes in all, those of its base included."""
    return epochs_before(run) + own_epochs(run)


def base_run(run: Run) -> Run:
    """The run whose weights a post-hoc run acts on."""
    combination = find(run.method)
    base = combination.base
    assert base is not None
    return run.model_copy(
        update={
            "method": base.name,
            "options": combination.base_options(run.options),
            "method_source": base.source,
        }
    )


@contextmanager
def evaluated(trained: Trained) -> Iterator[None]:
    """Put the weights that a method wants evaluated into its network for a while."""
    chosen = trained.method.weights()
    if chosen is None:
        yield
        return
    before = {name: value.clone() for name, value in trained.net.state_dict().items()}
    trained.net.load_state_dict(chosen)
    try:
        yield
    finally:
        trained.net.load_state_dict(before)


def spare_feedback(data: LongTailedData, trained: Trained) -> LongTailedData:
    """Hold images out of training for a method that needs them, unless some are already."""
    needed = has_needs(trained.method) and not len(data.val_labels)
    return hold_out(data) if needed else data


def run_context(
    run: Run,
    recipe: Recipe,
    data: LongTailedData,
    trained: Trained,
    model: nn.Module,
    device: torch.device,
    thrift: Thrift = Thrift(),
    team: Team | None = None,
) -> Context:
    """What a method is told of its run: what is the same in all epochs.

    Args:
        run: the run.
        recipe: what it trains itself; see `own_recipe`.
        data: its training images, those for feedback held out; see `spare_feedback`.
        trained: its network and method.
        model: the network as it is trained.
        device: where it is trained.
        thrift: how to save memory.
        team: processes that share out the attack.
    """
    first = epochs_before(run)
    return Context(
        class_counts=torch.tensor(data.train_counts, device=device),
        epoch=first,
        epochs=first + recipe.epochs,
        attack=recipe.attack,
        generator=generator(device, run.seed, "attack", first),
        micro_batch=thrift.micro_batch,
        team=team,
        first_epoch=first,
        model=model,
        held_out=feedback_images(data, trained, device) if has_needs(trained.method) else None,
    )


def epoch_context(common: Context, run: Run, epoch: int, rate: float) -> Context:
    """What a method is told of an epoch, whose random streams are its own."""
    return common.changed(
        epoch=epoch,
        generator=generator(common.class_counts.device, run.seed, "attack", epoch),
        sampling=generator("cpu", run.seed, "sampling", epoch),
        lr=rate,
    )


def feedback_images(data: LongTailedData, trained: Trained, device: torch.device) -> HeldOut:
    """The held-out images, and of classes that could spare none their training images."""
    spared = torch.bincount(data.val_labels, minlength=data.num_classes) > 0
    rest = (~spared)[data.train_labels]
    images = torch.cat([data.val_images, data.train_images[rest]])
    labels = torch.cat([data.val_labels, data.train_labels[rest]])
    size = trained.net.input_size
    return HeldOut(to_float(enlarge(images.to(device), size)), labels.to(device))


def describe_epoch(row: HistoryRow, epochs: int) -> str:
    """One line about an epoch: loss, accuracies in percent, seconds."""
    robust = row["train_robust_acc"]
    shown = "" if math.isnan(robust) else f", robust {100 * robust:.2f}"
    return (
        f"  epoch {row['epoch']:.0f}/{epochs}: loss {row['train_loss']:.4f}, "
        f"train clean {100 * row['train_acc']:.2f}{shown} ({row['seconds']:.1f} s)"
    )


def _train_epoch(
    run: Run,
    recipe: Recipe,
    images: Tensor,
    labels: Tensor,
    model: TrainingModel,
    method: Method,
    stepper: Stepper,
    ctx: Context,
    reporter: Reporter,
    clock: Clock,
) -> float:
    """Run one epoch and return its mean loss. Nothing waits for the device before the end."""
    device = labels.device
    total = torch.zeros((), device=device)
    seen = 0
    own = method.sampler(labels.cpu(), ctx)
    sampler = own or Shuffled(run, len(labels), ctx.epoch, images.device)
    sizes = list(_batch_sizes(recipe, len(sampler)))
    reporter.begin("part", f"epoch {ctx.epoch + 1}", len(sizes))
    clock.begin_epoch(len(sizes))
    spec = dataset_spec(run.data.name)
    draw = generator(device, run.seed, "augment", ctx.epoch)
    draw_policy = generator("cpu", run.seed, "policy", ctx.epoch)
    # what another sampler draws may depend on the step before
    ahead = reach(images, device) if own is None else 0
    taken = (sampler.take(size) for size in sizes)
    if ctx.team is not None and own is not None:
        taken = (_same(ctx.team, positions) for positions in taken)
    batches = fed(images, taken, device, ahead)
    for number, size in enumerate(sizes):
        if recipe.schedule.kind == "one-cycle":
            position = ctx.epoch - ctx.first_epoch + (number + 0.5) / len(sizes)
            ctx = ctx.changed(lr=rate_at(recipe.schedule, recipe.lr, recipe.epochs, position))
        stepper.set_rate(ctx.lr)
        with clock.step(size):
            with clock.phase("data"):
                chosen, found = next(batches)
                y = labels[chosen]
                batch = policy_augment(found, recipe.augment, generator=draw_policy)
                batch = random_crop_flip(
                    enlarge(batch, model.net.input_size),
                    padding=spec.crop_padding,
                    flip=spec.flip,
                    generator=draw,
                )
                x = to_float(batch)
            step = ctx.changed(index=chosen, batch=number)
            loss = stepper(x, y, step, clock)
        if ctx.team is not None:
            ctx.team.make_alike(model.net.state_dict().values())
        total += loss.detach() * len(y)
        seen += len(y)
        reporter.advance("part")
    reporter.end("part")
    mean = float(total) / seen
    if not math.isfinite(mean):
        raise RunError(
            f"the loss is not finite in epoch {ctx.epoch + 1}; "
            "a smaller learning rate or fp32 precision may help"
        )
    return mean


def _same(team: Team, positions: Tensor) -> Tensor:
    """The positions that process 0 drew."""
    team.make_alike([positions])
    return positions


class Shuffled:
    """All training images once, in an order drawn from the run's seed and the epoch.

    Args:
        run: gives the seed.
        n: number of training images.
        epoch: number of the epoch, from 0.
        device: where the positions are wanted, if not on the CPU: they go there once an epoch.
    """

    def __init__(self, run: Run, n: int, epoch: int, device: torch.device | None = None) -> None:
        order = torch.randperm(n, generator=generator("cpu", run.seed, "data-order", epoch))
        self._left = order if device is None else order.to(device)

    def __len__(self) -> int:
        return len(self._left)

    def take(self, n: int) -> Tensor:
        """Positions of the next n images."""
        taken, self._left = self._left[:n], self._left[n:]
        return taken


def _batch_sizes(recipe: Recipe, n: int) -> Iterator[int]:
    """Sizes of an epoch's batches; an only batch is never dropped."""
    size = recipe.batch_size
    for first in range(0, n, size):
        if recipe.drop_last and first > 0 and first + size > n:
            return
        yield min(size, n - first)


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """SGD as the recipe wants it; one fused kernel a step on CUDA devices."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.SGD(
        parameters,
        fused=True if all(p.is_cuda for p in parameters) else None,
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
    )


@torch.no_grad()
def _clean_accuracy(
    model: TrainingModel, method: Method, images: Tensor, labels: Tensor, seed: int
) -> float:
    """Share of right answers, eval mode, on a fixed sample of training images as they are."""
    order = torch.randperm(len(labels), generator=generator("cpu", seed, "accuracy-sample"))
    chosen = order[:ACCURACY_IMAGES].to(labels.device)
    model.eval()
    right = torch.zeros((), device=labels.device)
    for part in chosen.split(250):
        found = chosen_images(images, part, labels.device)
        x = to_float(enlarge(found, model.net.input_size))
        logits = method.adjust(model(x))
        right += (logits.argmax(1) == labels[part]).sum()
    return float(right) / len(chosen)


def _snapshot(trained: Trained, optimizer: torch.optim.Optimizer, judge: Judge | None) -> State:
    return {
        "best": judge.best if judge else {},
        "net": trained.net.state_dict(),
        "method": trained.method.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": trained.history,
    }


def _fall_in(
    team: Team, trained: Trained, optimizer: torch.optim.Optimizer, judge: Judge | None
) -> None:
    """Let all processes go on from where process 0 stands, as if they had resumed from there."""
    state = team.told(state_to_bytes(_snapshot(trained, optimizer, judge)) if team.leads else b"")
    if not team.leads:
        found = state_from_bytes(state)
        _restore(found, trained, optimizer)
        if judge:
            judge.best = found["best"]


def _restore(state: State, trained: Trained, optimizer: torch.optim.Optimizer) -> None:
    trained.net.load_state_dict(state["net"])
    trained.method.load_state_dict(state["method"])
    optimizer.load_state_dict(state["optimizer"])
    trained.history = list(state["history"])
