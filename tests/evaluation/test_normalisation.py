"""Wrong normalisation is found by what a network remembers, or by a gain that is none of chance."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import planted
import pytest
import torch
from torch import Tensor, nn

from ltrobust.data import load_data
from ltrobust.data.augment import to_float
from ltrobust.evaluation.evaluate import Evaluator, TestSet
from ltrobust.evaluation.normalisation import NORMALISATIONS, normalisations
from ltrobust.evaluation.probe import spread
from ltrobust.evaluation.reliability import Finding, findings

CHECK = "wrong-normalisation"
DATA = load_data("digits-lt")
TRAIN, LABELS = to_float(DATA.train_images), DATA.train_labels


def tried(model: nn.Module, images: int = 1000) -> dict[str, Any]:
    chosen = spread(DATA.test_labels, images)
    test = TestSet(DATA.test_images[chosen], DATA.test_labels[chosen], DATA.test_index[chosen])
    whole = Evaluator(model, test, num_classes=10, device=torch.device("cpu"))
    return normalisations(whole.subset(spread(test.labels, 64)), whole)


def judged(record: dict[str, Any]) -> Finding:
    outputs = dict.fromkeys(("bad", "probabilities", "values in [0, 1]"), 0.0)
    probes = {
        "normalisation": record,
        "num_classes": 10,
        "bad_under_attack": 0.0,
        "outputs": {**outputs, "accuracy": 0.5, "confidence": 0.5},
    }
    return next(f for f in findings(probes, []) if f.check == CHECK)


def constants(name: str) -> tuple[float, float]:
    mean, std = NORMALISATIONS[name]
    return sum(mean) / len(mean), sum(std) / len(std)


def twice(net: nn.Module, name: str) -> nn.Module:
    mean, std = constants(name)
    return planted.Wrapped(net, before=lambda x: (x - mean) / std)


def missing(net: nn.Module, name: str) -> nn.Module:
    mean, std = constants(name)
    return planted.Wrapped(net, before=lambda x: x * std + mean)


def convolutional(seed: int, norm: Callable[[int], nn.Module]) -> nn.Sequential:
    """Random weights: it tells nothing right, so that no accuracy can give it away."""
    torch.manual_seed(seed)
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1, bias=False), norm(16), nn.ReLU()),
        *(nn.Conv2d(16, 16, 3, padding=1, bias=False), norm(16), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(1024, 10)),
    )


def remembering(seed: int) -> nn.Module:
    net = convolutional(seed, lambda c: nn.BatchNorm2d(c, momentum=None))
    net.train()(TRAIN)
    return net.eval()


def perceptron(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


PLANTS: dict[str, Callable[[nn.Module], nn.Module]] = {
    **{f"{name} twice": lambda net, name=name: twice(net, name) for name in NORMALISATIONS},  # type: ignore[misc]
    **{f"{name} missing": lambda net, name=name: missing(net, name) for name in NORMALISATIONS},  # type: ignore[misc]
    "bytes": planted.expects_bytes,
}


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("seed", range(3))
def test_a_network_with_batch_norm_knows_its_inputs_however_accurate_it_is(
    seed: int, plant: str
) -> None:
    found = judged(tried(PLANTS[plant](remembering(seed))))
    assert found.flagged
    assert found.value is not None
    assert found.value > 2 * found.threshold  # type: ignore[operator]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("images", [16, 1000])
def test_an_honest_network_with_batch_norm_is_not_flagged(seed: int, images: int) -> None:
    found = judged(tried(remembering(seed), images))
    assert not found.flagged
    assert found.value is not None
    assert found.value < 0


@pytest.mark.parametrize("images", [20, 200])
@pytest.mark.parametrize("kind", ["perceptron", "fresh batch norm", "no norm"])
def test_fresh_networks_are_never_flagged(kind: str, images: int) -> None:
    for seed in range(10):
        nets = {
            "perceptron": perceptron(seed),
            "fresh batch norm": convolutional(seed, nn.BatchNorm2d),
            "no norm": convolutional(seed, lambda _: nn.Identity()),
        }
        found = judged(tried(nets[kind].eval(), images))
        assert not found.flagged, seed


@pytest.mark.parametrize("passes", [1, 3, 10])
def test_statistics_that_have_seen_few_batches_are_not_believed(passes: int) -> None:
    net = convolutional(0, nn.BatchNorm2d).train()
    for _ in range(passes):
        net(TRAIN[:64])
    record = tried(net.eval())
    assert record["statistics"] is None
    assert record["batch_norm"]
    assert not judged(record).flagged


@pytest.fixture(scope="module")
def linear() -> nn.Module:
    """The nearest template with plain numbers in place of its batch norm."""
    norm, *rest = planted.nearest_template(TRAIN, LABELS)
    mean, std = float(norm.running_mean), float((norm.running_var + norm.eps).sqrt())
    return planted.Wrapped(nn.Sequential(*rest), before=lambda x: (x - mean) / std)


def test_only_what_seems_to_help_is_tried_again_on_more_images(linear: nn.Module) -> None:
    record = tried(twice(linear, "imagenet"), images=200)
    assert {one["undoes"]: one["n"] for one in record["tried"]} == {True: 200, False: 64}


def test_without_batch_norm_the_accuracy_decides(linear: nn.Module) -> None:
    honest = tried(linear)
    assert honest["statistics"] is None
    assert not honest["batch_norm"]
    assert not judged(honest).flagged
    for plant in (planted.expects_bytes, planted.expects_normalised, planted.normalised_twice):
        assert judged(tried(plant(copy.deepcopy(linear)))).flagged, plant


def counts(
    gained: int, lost: int, n: int, given: int, *, undoes: bool = False, batch_norm: bool = False
) -> dict[str, Any]:
    nothing = {"undoes": not undoes, "name": "b", "n": n, "given": given, "gained": 0, "lost": 0}
    helps = {"undoes": undoes, "name": "a", "gained": gained, "lost": lost, "n": n, "given": given}
    return {"statistics": None, "batch_norm": batch_norm, "tried": [nothing, helps]}


@pytest.mark.parametrize(
    ("record", "flagged"),
    [
        (counts(6, 0, 20, 10), False),  # 30 points, and a coin does as much in 3 of 100
        (counts(60, 0, 500, 300), True),
        (counts(160, 100, 500, 300), False),  # 12 points, p = 0.0002
        (counts(20, 0, 500, 300), False),  # certain, but 4 points
        (counts(20, 0, 500, 300, undoes=True), True),  # to undo helps nobody who needs no undoing
        (counts(60, 0, 500, 300, batch_norm=True), False),  # fits no statistics: hardly trained
        (counts(150, 0, 500, 300, batch_norm=True), True),
    ],
)
def test_a_gain_counts_where_it_is_large_and_none_of_chance(
    record: dict[str, Any], flagged: bool
) -> None:
    found = judged(record)
    assert found.flagged == flagged
    assert found.value is not None


def test_a_model_that_has_learnt_nothing_is_not_judged_by_its_accuracy() -> None:
    found = judged(counts(100, 0, 1000, 100))
    assert found.value is None
    assert "20.0% of the images, 10.0% being chance" in found.explanation


@pytest.mark.parametrize(
    ("given", "best", "flagged"),
    [(0.3, 0.01, True), (0.01, 0.3, False), (0.09, 0.01, False), (0.01, 0.005, False)],
)
def test_statistics_outvote_the_accuracy(given: float, best: float, flagged: bool) -> None:
    record = counts(0 if flagged else 200, 0, 500, 300)
    record["statistics"] = {"given": given, "name": "a", "best": best}
    assert judged(record).flagged == flagged


def test_the_images_of_the_test_are_left_alone() -> None:
    def spoil(x: Tensor) -> Tensor:
        return x.mul_(2)

    before = DATA.test_images.clone()
    tried(planted.Wrapped(remembering(0), before=spoil))
    assert torch.equal(DATA.test_images, before)
