"""Every method learns: after a few epochs on digits its own loss is well below where it began."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from _pytest.mark.structures import ParameterSet

from ltrobust.bench.plan import make_plan
from ltrobust.bench.settings import make_settings
from ltrobust.combination import SETS
from ltrobust.config import Run
from ltrobust.data import LongTailedData, load_data
from ltrobust.data.augment import to_float
from ltrobust.method import METHODS, Context, load_builtin_methods
from ltrobust.modifier import Modifier
from ltrobust.seeds import generator
from ltrobust.training.engine import TrainingModel
from ltrobust.training.trainer import Trained, build, train

load_builtin_methods()
EPOCHS = 8


@pytest.fixture(scope="module")
def data() -> LongTailedData:
    return load_data("digits-lt", limit_train=120)


def planned_run(method: str) -> Run:
    flags = {"methods": method, "epochs": EPOCHS, "limit_train": 120, "batch_size": 32}
    return make_plan(make_settings({**flags, "device": "cpu"})).runs[0].run


def last_stage_loss(run: Run, trained: Trained, data: LongTailedData) -> float:
    """The method's loss of the last epoch, over all training images and a fixed attack."""
    x, y = to_float(data.train_images), data.train_labels
    model = TrainingModel(trained.net, "fp32").train()
    ctx = Context(
        class_counts=torch.tensor(data.train_counts),
        epoch=EPOCHS - 1,
        epochs=EPOCHS,
        attack=run.recipe.attack,
        generator=generator("cpu", 0, "test"),
        sampling=generator("cpu", 0, "sampling"),
        model=model,
        index=torch.arange(len(y)),
    )
    x_adv = trained.method.attack(model, x, y, ctx)
    with torch.no_grad():
        return float(trained.method.loss(model, x, y, x_adv, ctx))


def trained_names() -> Iterator[ParameterSet]:
    """Every defense, and every modifier of a training on the defense that it is tried on."""
    for part in (METHODS.get(name) for name in METHODS):
        if part.kind != "post-hoc":
            name = f"{part.trial}+{part.name}" if issubclass(part, Modifier) else part.name
            yield pytest.param(name, marks=() if name in SETS["core"] else pytest.mark.slow)


@pytest.mark.parametrize("name", trained_names())
def test_loss_falls(name: str, data: LongTailedData) -> None:
    run = planned_run(name)
    before = last_stage_loss(run, build(run, data.train_counts, data.image_shape), data)
    trained = train(run, data, device=torch.device("cpu"))
    after = last_stage_loss(run, trained, data)
    assert after < 0.8 * before
    assert trained.history[-1]["train_acc"] > 0.3
