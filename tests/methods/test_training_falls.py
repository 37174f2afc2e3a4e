"""Every method learns: after a few epochs on digits its own loss is well below where it began."""

from __future__ import annotations

import pytest
import torch

from ltrobust.bench.plan import make_plan
from ltrobust.bench.settings import make_settings
from ltrobust.config import Run
from ltrobust.data import LongTailedData, load_data
from ltrobust.data.augment import to_float
from ltrobust.method import METHODS, Context, load_builtin_methods
from ltrobust.modifier import Modifier
from ltrobust.seeds import generator
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
    ctx = Context(
        class_counts=torch.tensor(data.train_counts),
        epoch=EPOCHS - 1,
        epochs=EPOCHS,
        attack=run.recipe.attack,
        generator=generator("cpu", 0, "test"),
    )
    trained.net.train()
    x_adv = trained.method.attack(trained.net, x, y, ctx)
    with torch.no_grad():
        return float(trained.method.loss(trained.net, x, y, x_adv, ctx))


def trained_names() -> list[str]:
    """Every defense, and every modifier of a training on the defense that it is tried on."""
    parts = [METHODS.get(name) for name in METHODS]
    return [
        f"{part.trial}+{part.name}" if issubclass(part, Modifier) else part.name
        for part in parts
        if part.kind != "post-hoc"
    ]


@pytest.mark.parametrize("name", trained_names())
def test_loss_falls(name: str, data: LongTailedData) -> None:
    run = planned_run(name)
    before = last_stage_loss(run, build(run, data.train_counts, data.image_shape), data)
    trained = train(run, data, device=torch.device("cpu"))
    after = last_stage_loss(run, trained, data)
    assert after < 0.8 * before
    assert trained.history[-1]["train_acc"] > 0.3
