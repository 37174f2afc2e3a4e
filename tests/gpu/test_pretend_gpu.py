"""What a GPU would wait for or refuse, shown on a pretend one: steps never wait, attacks never mix.

The numbers of launches are a ratchet: they may only go down.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from pretend_gpu import DEVICE, MixedDevicesError, OnDevice, PretendGPU

from ltrobust.attacks.suite import attack_spec
from ltrobust.bench.plan import make_plan
from ltrobust.bench.settings import make_settings
from ltrobust.combination import find
from ltrobust.config import Run
from ltrobust.data import LongTailedData, load_data
from ltrobust.data.augment import policy_augment, to_float
from ltrobust.evaluation.evaluate import DefendedModel, Evaluator, TestSet
from ltrobust.evaluation.probe import probe
from ltrobust.method import METHODS, Context, load_builtin_methods
from ltrobust.modifier import Modifier, PostHoc
from ltrobust.seeds import generator
from ltrobust.training import trainer
from ltrobust.training.engine import TrainingModel
from ltrobust.training.step import train_step
from ltrobust.training.trainer import build, make_optimizer, train

load_builtin_methods()
CORE = {"pgd-at": 230, "trades": 363, "robal-r": 465, "at-bsl": 234, "taet": 282}
"""Launches of a step of small-cnn with two attack steps; lower them when they fall."""
WAIT_BY_DESIGN = {
    "las-at": "every 20th batch its reward is a number",
    "cfol": "each batch is drawn by how the one before went",
}
NAMES = [
    name if not issubclass(METHODS.get(name), Modifier) else f"{METHODS.get(name).trial}+{name}"
    for name in METHODS
    if not issubclass(METHODS.get(name), PostHoc)
]
HELD_OUT = [name for name in NAMES if any(p.needs_held_out for p in find(name).parts)]
IN_SHORT = {*CORE, "robal-n", "reat", "mma", "pgd-at+awp", "pgd-at+udr", "trades+dafa", "adt-expam"}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendGPU]:
    def on_cpu(_device: object, *stream: Any) -> torch.Generator:
        return generator("cpu", *stream)  # the device has none

    monkeypatch.setattr(trainer, "generator", on_cpu)
    with PretendGPU() as mode:
        yield mode


@pytest.fixture(scope="module")
def data() -> LongTailedData:
    return load_data("digits-lt", limit_train=60, limit_test=20)


def make_run(method: str, **flags: Any) -> Run:
    asked = {"methods": method, "epochs": 2, "batch_size": 16, "device": "cpu", **flags}
    run = make_plan(make_settings({"arch": "small-cnn", **asked})).runs[-1].run
    attack = run.recipe.attack.model_copy(update={"steps": 2})
    return run.model_copy(update={"recipe": run.recipe.model_copy(update={"attack": attack})})


def counted_step(gpu: PretendGPU, method: str, data: LongTailedData) -> PretendGPU:
    """Three steps on the pretend device, of which the last is counted."""
    run = make_run(method)
    built = build(run, data.train_counts, data.image_shape)
    built.net.to(DEVICE)
    model = TrainingModel(built.net, "fp32")
    optimizer = make_optimizer(model, run.recipe)
    ctx = Context(
        class_counts=torch.tensor(data.train_counts, device=DEVICE),
        epoch=1,
        epochs=2,
        attack=run.recipe.attack,
        generator=generator("cpu", 0, "attack"),
        sampling=generator("cpu", 0, "sampling"),
        model=model,
        index=torch.arange(16, device=DEVICE),
        lr=0.1,
    )
    built.method.on_epoch_start(ctx)
    x = to_float(data.train_images[:16]).to(DEVICE)
    y = data.train_labels[:16].to(DEVICE)
    for number in range(1, 4):
        gpu.launches.clear()
        gpu.waits.clear()
        train_step(model, built.method, x, y, ctx.changed(batch=number), optimizer)
    return gpu


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(n, marks=() if n in IN_SHORT else pytest.mark.slow)
        for n in NAMES
        if n not in HELD_OUT
    ],
)
def test_a_step_never_waits(gpu: PretendGPU, data: LongTailedData, method: str) -> None:
    waits = dict(counted_step(gpu, method, data).waits)
    assert not waits or method in WAIT_BY_DESIGN, waits


@pytest.mark.slow
@pytest.mark.parametrize("method", HELD_OUT)
def test_epochs_with_feedback_mix_no_devices(
    gpu: PretendGPU, data: LongTailedData, method: str
) -> None:
    train(make_run(method), data, device=DEVICE)


@pytest.mark.parametrize("method", CORE)
def test_launches_of_a_step_only_go_down(
    gpu: PretendGPU, data: LongTailedData, method: str
) -> None:
    launches = sum(counted_step(gpu, method, data).launches.values())
    assert launches <= CORE[method]


def test_an_epoch_waits_a_few_times_and_not_once_a_step(
    gpu: PretendGPU, data: LongTailedData
) -> None:
    train(make_run("pgd-at", epochs=1, batch_size=4), data, device=DEVICE)
    few = sum(gpu.waits.values())
    gpu.waits.clear()
    train(make_run("pgd-at", epochs=1, batch_size=16), data, device=DEVICE)
    assert few == sum(gpu.waits.values())


@pytest.mark.parametrize("policy", ["randaugment", "autoaugment"])
def test_a_policy_takes_at_most_a_hundred_launches_a_batch(gpu: PretendGPU, policy: Any) -> None:
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(256, (128, 3, 32, 32), dtype=torch.uint8, generator=draw).to(DEVICE)
    for _ in range(3):  # tables are made in the first
        gpu.launches.clear()
        gpu.waits.clear()
        policy_augment(images, policy, generator=draw)
    assert sum(gpu.launches.values()) <= 100
    assert not gpu.waits


ATTACKS = ("clean", "fgsm", "pgd2", "cw2", "mim2", "lsa2", "dlr2", "tpgd2", "pgd2x2-l2", "noise")


@pytest.mark.parametrize("method", ["robal-n", "pgd-at"])
@pytest.mark.usefixtures("short_autoattack")
def test_no_attack_mixes_devices(gpu: PretendGPU, data: LongTailedData, method: str) -> None:
    run = make_run(method)
    built = build(run, data.train_counts, data.image_shape)
    few = torch.arange(6)
    test = TestSet(data.test_images[few], data.test_labels[few], data.test_index[few])
    model = DefendedModel(built.net, built.method.adjust)
    evaluator = Evaluator(model, test, num_classes=10, device=DEVICE)
    names = ATTACKS if method == "pgd-at" else ("clean", "pgd2")
    for name in (*names, "autoattack") if method == "pgd-at" else names:
        result = evaluator.run(attack_spec(name, 0.1))
        assert result.pred.device.type == "cpu"


def test_a_mixture_would_be_seen(gpu: PretendGPU) -> None:
    with pytest.raises(MixedDevicesError):
        torch.ones(3, device=DEVICE) + torch.ones(3)
    assert isinstance(torch.ones(3, device=DEVICE) + 1, OnDevice)
    float(torch.ones(3, device=DEVICE).sum())
    assert sum(gpu.waits.values()) == 1


@pytest.mark.slow
def test_the_reliability_checks_mix_no_devices(gpu: PretendGPU, data: LongTailedData) -> None:
    run = make_run("pgd-at")
    built = build(run, data.train_counts, data.image_shape)
    test = TestSet(data.test_images, data.test_labels, data.test_index)
    model = DefendedModel(built.net, built.method.adjust)
    record = probe(Evaluator(model, test, num_classes=10, device=DEVICE), eps=0.1)
    assert not record["errors"]
