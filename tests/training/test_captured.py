"""Recorded steps: a tape that repeats them blindly trains to the same bits as ordinary steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from ltrobust.methods.pgd_at import PGDAT
from torch import Tensor, nn

from ltrobust.bench.plan import make_plan
from ltrobust.bench.settings import make_settings
from ltrobust.config import Run
from ltrobust.data import LongTailedData, load_data
from ltrobust.method import METHODS, Citation, Context, register_method
from ltrobust.progress import Reporter
from ltrobust.tape import Tapes
from ltrobust.training.captured import Stepper
from ltrobust.training.checkpoint import state_from_bytes, state_to_bytes
from ltrobust.training.trainer import Trained, train

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data() -> LongTailedData:
    return load_data("digits-lt", limit_train=48, limit_test=10)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Stepper]:
    """The steppers of all trainings that follow."""
    made: list[Stepper] = []
    build = Stepper.__init__

    def noted(self: Stepper, *arguments: Any, **named: Any) -> None:
        build(self, *arguments, **named)
        made.append(self)

    monkeypatch.setattr(Stepper, "__init__", noted)
    return made


class Told(Reporter):
    """Keeps the lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


def make_run(method: str, **flags: Any) -> Run:
    asked = {"methods": method, "epochs": 2, "batch_size": 8, "device": "cpu", **flags}
    run = make_plan(make_settings(asked)).runs[0].run
    attack = run.recipe.attack.model_copy(update={"steps": 2})
    return run.model_copy(update={"recipe": run.recipe.model_copy(update={"attack": attack})})


def equal(one: Trained, other: Trained) -> bool:
    first, second = one.net.state_dict(), other.net.state_dict()
    # as text: an epoch without an attack has a robust accuracy of nan
    curves = [
        [str({**row, "seconds": 0, "cpu_seconds": 0}) for row in each.history]
        for each in (one, other)
    ]
    return curves[0] == curves[1] and all(torch.equal(first[n], second[n]) for n in first)


@pytest.mark.parametrize(
    ("method", "flags"),
    [
        ("pgd-at", {"precision": "bf16"}),
        ("trades+awp+ema", {}),
        ("taet", {"epochs": 3}),
        ("reat", {}),
        ("adt-expam", {"option": ["adt-expam.width=8"]}),
        ("pgd-at+udr", {}),
    ],
)
def test_blind_repetitions_equal_ordinary_steps(
    data: LongTailedData, counted: list[Stepper], method: str, flags: dict[str, Any]
) -> None:
    run, told = make_run(method, **flags), Told()
    ordinary = train(run, data, device=CPU)
    states: list[bytes] = []
    graphs = Tapes()
    recorded = train(
        run,
        data,
        device=CPU,
        graphs=graphs,
        reporter=told,
        save=lambda s: states.append(state_to_bytes(s)),
    )
    assert equal(recorded, ordinary)
    assert counted[-1].repeated >= 2, told.lines
    resumed = train(run, data, device=CPU, graphs=Tapes(), state=state_from_bytes(states[0]))
    assert equal(resumed, ordinary)


@pytest.mark.parametrize(
    ("method", "flags"), [("pgd-at", {}), ("adt-expam", {"option": ["adt-expam.width=8"]})]
)
def test_an_ordinary_step_between_repetitions_leaves_them_their_gradients(
    data: LongTailedData, counted: list[Stepper], method: str, flags: dict[str, Any]
) -> None:
    """The last batch of an epoch is smaller: its step is not recorded."""
    run = make_run(method, epochs=3, batch_size=9, **flags)
    run = run.model_copy(update={"recipe": run.recipe.model_copy(update={"drop_last": False})})
    assert len(data.train_labels) % 9
    recorded = train(run, data, device=CPU, graphs=Tapes())
    assert counted[-1].repeated >= 2
    assert equal(recorded, train(run, data, device=CPU))


def test_a_step_that_never_asks_for_the_epoch_is_recorded_once(data: LongTailedData) -> None:
    graphs = Tapes()
    train(make_run("pgd-at"), data, device=CPU, graphs=graphs)
    assert graphs.made == 1


def test_a_stage_is_recorded_once(data: LongTailedData) -> None:
    graphs = Tapes()
    train(make_run("taet", epochs=3), data, device=CPU, graphs=graphs)
    assert graphs.made == 2


@pytest.mark.parametrize(("method", "why"), [("las-at", "number of the batch")])
def test_what_cannot_be_recorded_trains_as_ever_and_is_told_once(
    data: LongTailedData, method: str, why: str
) -> None:
    run, told = make_run(method, epochs=2), Told()
    recorded = train(run, data, device=CPU, graphs=Tapes(), reporter=told)
    assert equal(recorded, train(run, data, device=CPU))
    (line,) = [line for line in told.lines if "captured" in line]
    assert why in line or "waits" in line


NOBODY = Citation(authors="Nobody", title="None", venue="none", year=2000)


@pytest.fixture
def registered() -> Iterator[None]:
    """Defenses that keep in Python what a recording would freeze."""

    @register_method("counts-steps", paper=NOBODY)
    @dataclass
    class CountsSteps(PGDAT):
        """Its loss grows with the number of steps."""

        def __post_init__(self) -> None:
            self.steps = 0

        def terms(
            self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
        ) -> dict[str, Tensor]:
            self.steps += 1
            return {k: v * self.steps for k, v in super().terms(model, x, y, x_adv, ctx).items()}

    @register_method("replaces-tensor", paper=NOBODY)
    @dataclass
    class ReplacesTensor(PGDAT):
        """Its weight is another tensor after each step."""

        def __post_init__(self) -> None:
            self.weight = torch.ones(())

        def terms(
            self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
        ) -> dict[str, Tensor]:
            return {k: v * self.weight for k, v in super().terms(model, x, y, x_adv, ctx).items()}

        def after_step(
            self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
        ) -> None:
            self.weight = self.weight * 0.9

    @register_method("draws-itself", paper=NOBODY)
    @dataclass
    class DrawsItself(PGDAT):
        """Draws from the generator without the context's help."""

        def attack(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
            noise = torch.empty_like(x).uniform_(-0.1, 0.1, generator=ctx.generator)
            return (x + noise).clamp(0, 1)

    @register_method("by-epoch", paper=NOBODY)
    @dataclass
    class ByEpoch(PGDAT):
        """Weighs by the epoch, though what it inherits does not."""

        def terms(
            self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
        ) -> dict[str, Tensor]:
            terms = super().terms(model, x, y, x_adv, ctx)
            return {k: v * (1 + ctx.epoch) for k, v in terms.items()}

    @register_method("by-image", paper=NOBODY)
    @dataclass
    class ByImage(PGDAT):
        """Weighs each training image by its place in the training set."""

        def terms(
            self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
        ) -> dict[str, Tensor]:
            assert ctx.index is not None
            terms = super().terms(model, x, y, x_adv, ctx)
            return {k: v * (1 + ctx.index) / 24 for k, v in terms.items()}

    yield
    for name in ("counts-steps", "replaces-tensor", "draws-itself", "by-epoch", "by-image"):
        METHODS.discard(name)


def test_a_recorded_step_knows_which_images_it_is_given(
    data: LongTailedData, counted: list[Stepper], registered: None
) -> None:
    run = make_run("by-image")
    recorded = train(run, data, device=CPU, graphs=Tapes())
    assert counted[-1].repeated >= 2
    assert equal(recorded, train(run, data, device=CPU))


@pytest.mark.parametrize("method", ["counts-steps", "replaces-tensor", "draws-itself", "by-epoch"])
def test_a_plugin_that_a_recording_would_freeze_is_never_wrong(
    data: LongTailedData, registered: None, method: str
) -> None:
    run, told = make_run(method, epochs=3), Told()
    recorded = train(run, data, device=CPU, graphs=Tapes(), reporter=told)
    assert equal(recorded, train(run, data, device=CPU))
    assert any("captured" in line for line in told.lines) == (method != "by-epoch")
