"""The trainer against a plain loop written here: own optimizer, own crops, own attack, own losses.

Both run in float64 with the folded view off, so that they agree but for rounding. Random streams
are taken by name and epoch, as `ltrobust.seeds` promises them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import transforms

from ltrobust.config import DataSpec, Recipe, Run, TrainingAttack
from ltrobust.data import LongTailedData
from ltrobust.method import load_builtin_methods
from ltrobust.seeds import derive_seed
from ltrobust.training import engine, trainer
from ltrobust.training.schedule import ONE_CYCLE, Schedule
from ltrobust.training.trainer import Thrift, Trained, build, train

load_builtin_methods()

COUNTS = (17, 11, 7, 5, 3, 2)
SEED = 3
EPS, STEP = 0.06, 0.02
RATES = (0.05, 0.05, 0.005)
"""Of a multi-step schedule from 0.05 that falls tenfold after two epochs of three."""
STEPS_AN_EPOCH = 4


@pytest.fixture(autouse=True)
def in_float64(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Weights and images in float64, and attacks on the network itself."""
    monkeypatch.setattr(trainer, "to_float", lambda images: images.double() / 255)
    monkeypatch.setattr(engine, "fold", lambda *arguments, **options: None)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def data() -> LongTailedData:
    draw = torch.Generator().manual_seed(0)
    labels = torch.repeat_interleave(torch.arange(len(COUNTS)), torch.tensor(COUNTS))
    # of each class a colour of its own under noise: something to learn, never at the box's edge
    colours = torch.randint(60, 196, (len(COUNTS), 3, 1, 1), generator=draw)
    noise = torch.randint(-40, 41, (len(labels), 3, 8, 8), generator=draw)
    images = (colours[labels] + noise).to(torch.uint8)
    everything = torch.arange(len(labels))
    names = tuple(f"class {c}" for c in range(len(COUNTS)))
    return LongTailedData(
        "cifar10-lt", names, images, labels, everything, images, labels, everything
    )


def make_run(method: str, start: str, *, nesterov: bool, drop_last: bool, augment: str) -> Run:
    recipe = Recipe(
        epochs=len(RATES),
        batch_size=12,
        lr=RATES[0],
        momentum=0.9,
        nesterov=nesterov,
        weight_decay=5e-3,
        schedule=Schedule(kind="multistep", milestones=(3,), counted_from=1, published_epochs=3),
        attack=TrainingAttack(eps=EPS, step_size=STEP, steps=3, start=start),
        augment=augment,
        drop_last=drop_last,
    )
    return Run(
        method=method,
        data=DataSpec(name="cifar10-lt", imbalance_ratio=None),
        arch="small-cnn",
        recipe_name="unified",
        recipe=recipe,
        seed=SEED,
        precision="fp32",
    )


# the plain loop ------------------------------------------------------------------------------


def stream(name: str, *more: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(SEED, name, *more))


def crop_and_flip(images: Tensor, draw: torch.Generator) -> Tensor:
    """Image by image: mirror half of them, then a window of the zero-padded image."""
    mirrored = torch.randint(2, (len(images),), generator=draw)
    down = torch.randint(9, (len(images),), generator=draw)
    right = torch.randint(9, (len(images),), generator=draw)
    size = images.shape[-1]
    out = []
    for image, flip, top, left in zip(images, mirrored, down, right, strict=True):
        padded = torch.zeros(3, size + 8, size + 8, dtype=torch.uint8)
        padded[:, 4 : 4 + size, 4 : 4 + size] = image
        window = padded[:, top : top + size, left : left + size]
        out.append(window.flip(2) if flip else window)
    return torch.stack(out)


def randaugment(images: Tensor, draw: torch.Generator) -> Tensor:
    policy = transforms.RandAugment(num_ops=2, magnitude=8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=draw)))
        torch.set_default_dtype(torch.float32)  # in which torchvision mixes images
        found = torch.stack([policy(image) for image in images])
        torch.set_default_dtype(torch.float64)
        return found


def start_noise(kind: str, x: Tensor, draw: torch.Generator) -> Tensor:
    if kind == "gaussian":
        return 0.001 * torch.empty_like(x).normal_(generator=draw)
    if kind == "uniform-clipped":
        return torch.empty_like(x).uniform_(-2 * EPS, 2 * EPS, generator=draw)
    low = 0.0 if kind == "one-sided" else -EPS
    return torch.empty_like(x).uniform_(low, EPS, generator=draw)


def attacked(net: nn.Module, x: Tensor, loss: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    net.eval()
    x_adv = x + start
    for _ in range(3):
        x_adv = x_adv.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(net(x_adv)), x_adv)
        x_adv = x_adv.detach() + STEP * gradient.sign()
        x_adv = torch.min(torch.max(x_adv, x - EPS), x + EPS).clamp(0, 1)
    net.train()
    return x_adv


@dataclass
class Plain:
    """What the plain loop leaves: weights, and for each epoch the three numbers of its row."""

    net: nn.Module
    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    robust: list[float] = field(default_factory=list)
    other_accuracies: list[float] = field(default_factory=list)
    """Of the same network in train mode and without the adjustment: not to be mistaken."""


def plain_loop(run: Run, data: LongTailedData) -> Plain:
    recipe = run.recipe
    built = build(run, data.train_counts, data.image_shape)
    out = Plain(built.net)
    buffers = [torch.zeros_like(p) for p in built.net.parameters()]
    for epoch, rate in enumerate(RATES):
        order = torch.randperm(len(data.train_labels), generator=stream("data-order", epoch))
        draws = {name: stream(name, epoch) for name in ("augment", "policy", "attack")}
        total, right, seen = 0.0, 0, 0
        for first in range(0, len(order), recipe.batch_size):
            chosen = order[first : first + recipe.batch_size]
            if recipe.drop_last and len(chosen) < recipe.batch_size:
                continue
            images, y = data.train_images[chosen], data.train_labels[chosen]
            if recipe.augment == "randaugment":
                images = randaugment(images, draws["policy"])
            x = crop_and_flip(images, draws["augment"]).double() / 255
            start = start_noise(recipe.attack.start, x, draws["attack"])
            loss, hits = outer_loss(run.method, built, x, y, start)
            gradients = torch.autograd.grad(loss, list(built.net.parameters()))
            if recipe.schedule.kind == "one-cycle":
                done = (epoch + (first / recipe.batch_size + 0.5) / STEPS_AN_EPOCH) / len(RATES)
                rate = 2 * recipe.lr * min(done, 1 - done)
            descend(built.net, gradients, buffers, rate, recipe)
            total, right, seen = total + loss.item() * len(y), right + hits, seen + len(y)
        out.losses.append(total / seen)
        out.robust.append(right / seen)
        out.accuracies.append(accuracy(built, data, adjusted=True, training=False))
        out.other_accuracies += [
            accuracy(built, data, adjusted=False, training=False),
            accuracy(built, data, adjusted=True, training=True),
        ]
    return out


def outer_loss(
    method: str, built: Trained, x: Tensor, y: Tensor, start: Tensor
) -> tuple[Tensor, int]:
    """The loss of a step, and how many attacked images were right in its train-mode pass."""
    net, counts = built.net, torch.tensor(COUNTS, dtype=torch.float64)
    if method == FAST.method and start.abs().max() > EPS:
        robust = net(n_fgsm(net, x, y, start))
        return F.cross_entropy(robust + counts.log(), y), hits_of(robust, y)
    if method == "trades":
        net.eval()
        clean = F.softmax(net(x), 1).detach()
        x_adv = attacked(
            net, x, lambda z: (clean * (clean.log() - F.log_softmax(z, 1))).sum(), start
        )
        natural, robust = net(x), net(x_adv)
        p = F.softmax(natural, 1)
        divergence = (p * (p.log() - F.log_softmax(robust, 1))).sum() / len(y)
        return F.cross_entropy(natural, y) + 6.0 * divergence, hits_of(robust, y)
    x_adv = attacked(net, x, lambda z: F.cross_entropy(z, y, reduction="sum"), start)
    robust = net(x_adv)
    if method == "pgd-at":
        return F.cross_entropy(robust, y), hits_of(robust, y)
    if method == "at-bsl":
        return F.cross_entropy(robust + counts.log(), y), hits_of(robust, y)
    assert method == "robal-n"
    margins = torch.full_like(counts, 0.1)
    shifted = 10.0 * (robust - F.one_hot(y, len(COUNTS)) * margins[y][:, None])
    loss = F.cross_entropy(shifted + 1.2 * (counts / counts.sum()).log(), y)
    p, q = F.softmax(net(x), 1), F.softmax(robust, 1)
    return loss + 6.0 * (p * (p.log() - (q + 1e-12).log())).sum() / len(y), hits_of(robust, y)


def n_fgsm(net: nn.Module, x: Tensor, y: Tensor, start: Tensor) -> Tensor:
    """One step of eps from noise of twice eps, neither of them clipped to the ball."""
    net.eval()
    noisy = (x + start).clamp(0, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(net(noisy), y), noisy)
    net.train()
    return (noisy.detach() + EPS * gradient.sign()).clamp(0, 1)


def hits_of(logits: Tensor, y: Tensor) -> int:
    return int((logits.argmax(1) == y).sum())


@torch.no_grad()
def descend(
    net: nn.Module,
    gradients: tuple[Tensor, ...],
    buffers: list[Tensor],
    rate: float,
    recipe: Recipe,
) -> None:
    """SGD by its formula: v = m v + (g + wd w), then w -= rate * (g + wd w + m v  or  v)."""
    for weight, gradient, buffer in zip(net.parameters(), gradients, buffers, strict=True):
        direction = gradient + recipe.weight_decay * weight
        buffer.mul_(recipe.momentum).add_(direction)
        weight -= rate * (direction + recipe.momentum * buffer if recipe.nesterov else buffer)


@torch.no_grad()
def accuracy(built: Trained, data: LongTailedData, *, adjusted: bool, training: bool) -> float:
    net = copy.deepcopy(built.net)
    logits = net.train(training)(data.train_images.double() / 255)
    logits = built.method.adjust(logits) if adjusted else logits
    return hits_of(logits, data.train_labels) / len(data.train_labels)


FAST = make_run("at-bsl", "uniform-clipped", nesterov=True, drop_last=False, augment="none")
FAST = FAST.model_copy(
    update={
        "recipe": FAST.recipe.model_copy(
            update={
                "schedule": ONE_CYCLE,
                "attack": TrainingAttack(
                    eps=EPS,
                    step_size=EPS,
                    steps=1,
                    start="uniform-clipped",
                    start_scale=2.0,
                    project=False,
                ),
            }
        )
    }
)
CASES = {
    "fast": FAST,
    "pgd-at": make_run("pgd-at", "uniform", nesterov=True, drop_last=False, augment="none"),
    "trades": make_run("trades", "gaussian", nesterov=False, drop_last=True, augment="none"),
    "at-bsl": make_run(
        "at-bsl", "one-sided", nesterov=False, drop_last=False, augment="randaugment"
    ),
    "robal-n": make_run("robal-n", "uniform", nesterov=True, drop_last=True, augment="none"),
}


@pytest.mark.parametrize("run", CASES.values(), ids=CASES)
@pytest.mark.parametrize("thrift", [Thrift(), Thrift(micro_batch=5)], ids=["whole", "pieces"])
def test_the_trainer_equals_a_plain_loop(run: Run, thrift: Thrift, data: LongTailedData) -> None:
    expected = plain_loop(run, data)
    trained = train(run, data, device=torch.device("cpu"), thrift=thrift)
    found, wanted = trained.net.state_dict(), expected.net.state_dict()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-7, atol=1e-9, msg=name)
    history = trained.history
    if run is not FAST:
        assert [row["lr"] for row in history] == pytest.approx(RATES)
    assert [row["train_loss"] for row in history] == pytest.approx(expected.losses, rel=1e-8)
    assert [row["train_acc"] for row in history] == expected.accuracies
    assert [row["train_robust_acc"] for row in history] == expected.robust


def test_the_cases_tell_accuracies_apart(data: LongTailedData) -> None:
    """Adjusted logits in eval mode are right about other images than any other reading."""
    plain = plain_loop(CASES["robal-n"], data)
    unadjusted, in_train_mode = plain.other_accuracies[0::2], plain.other_accuracies[1::2]
    assert plain.accuracies != unadjusted
    assert plain.accuracies != in_train_mode


def test_initial_weights_have_a_stream_of_their_own(data: LongTailedData) -> None:
    run = CASES["pgd-at"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(SEED, "init"))
        first = nn.Conv2d(3, 32, 3, padding=1, bias=False)
    net = build(run, data.train_counts, data.image_shape).net
    assert torch.equal(net.state_dict()["conv1.weight"], first.weight)
