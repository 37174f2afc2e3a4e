"""An evaluation that several processes share out has the outcomes of one, image by image."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from processes import in_team
from torch import Tensor

import ltrobust
from ltrobust.attacks.autoattack import Progress, autoattack
from ltrobust.attacks.custom import ATTACKS, register_attack
from ltrobust.attacks.pgd import attack_mode
from ltrobust.attacks.suite import attack_spec
from ltrobust.config import AttackSpec
from ltrobust.data.augment import to_float
from ltrobust.evaluation.evaluate import Evaluator, TestSet
from ltrobust.team import Team

CPU, EPS, IMAGES = torch.device("cpu"), 0.1, 50
NAMES = ("clean", "fgsm", "pgd3", "pgd3x2", "mim3-l2", "tpgd2", "noise")
pytestmark = pytest.mark.usefixtures("short_autoattack")


@pytest.fixture(scope="module")
def trained() -> ltrobust.TrainedModel:
    """A model that is right about most of the images."""
    return ltrobust.train("pgd-at", epochs=4, imbalance_ratio=2, limit_train=200, device="cpu")


@pytest.fixture(scope="module")
def test(trained: ltrobust.TrainedModel) -> TestSet:
    data = trained.data
    chosen = torch.arange(0, 500, 500 // IMAGES)
    return TestSet(data.test_images[chosen], data.test_labels[chosen], data.test_index[chosen])


def evaluator(trained: ltrobust.TrainedModel, test: TestSet, team: Team | None) -> Evaluator:
    return Evaluator(trained.model, test, num_classes=10, device=CPU, batch_size=7, team=team)


Told = tuple[list[int], list[str]]


def outcome(by: Evaluator, spec: AttackSpec) -> Told:
    result = by.run(spec)
    return result.pred.tolist(), result.fell


@pytest.mark.parametrize("size", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_each_image_has_the_same_verdict(
    trained: ltrobust.TrainedModel, test: TestSet, size: int
) -> None:
    specs = [attack_spec(name, EPS) for name in NAMES]
    one = evaluator(trained, test, None)
    expected = [outcome(one, spec) for spec in specs]
    assert 20 < expected[0][1].count("") > expected[2][1].count("") > 0, "nothing stands or falls"

    def work(team: Team) -> list[Told]:
        shared = evaluator(trained, test, team)
        return [outcome(shared, spec) for spec in specs]

    assert in_team(size, work) == [expected] * size


def test_few_images_are_attacked_by_each(trained: ltrobust.TrainedModel, test: TestSet) -> None:
    few, spec = torch.arange(5), attack_spec("pgd3", EPS)
    expected = outcome(evaluator(trained, test, None).subset(few), spec)

    def work(team: Team) -> tuple[Told, Told]:
        part = evaluator(trained, test, team).subset(few)
        return outcome(part, spec), outcome(part.subset(few[:0]), spec)

    assert in_team(2, work) == [(expected, ([], []))] * 2


def test_memory_that_runs_out_in_one_process_is_its_own_matter(
    trained: ltrobust.TrainedModel, test: TestSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = attack_spec("pgd3", EPS)
    expected = outcome(evaluator(trained, test, None), spec)
    search = Evaluator._search_images

    def tight(own: Evaluator, spec: AttackSpec, chosen: Tensor, *more: Any) -> Tensor:
        if own.team is not None and own.team.rank == 1 and len(chosen) > 2:
            raise torch.OutOfMemoryError
        return search(own, spec, chosen, *more)

    monkeypatch.setattr(Evaluator, "_search_images", tight)

    def work(team: Team) -> Told:
        return outcome(evaluator(trained, test, team), spec)

    assert in_team(2, work) == [expected] * 2


@pytest.fixture
def registered() -> Iterator[str]:
    """An attack that draws for its batch."""

    @register_attack("shaky")
    def shaky(model: Any, x: Tensor, y: Tensor, eps: float, generator: torch.Generator) -> Tensor:
        return (x + eps * torch.randn(x.shape, generator=generator).sign()).clamp(0, 1)

    yield "shaky"
    ATTACKS.discard("shaky")


def test_an_attack_of_a_plugin_keeps_its_batches(
    trained: ltrobust.TrainedModel, test: TestSet, registered: str
) -> None:
    spec = attack_spec(registered, EPS).model_copy(update={"batch_size": 9})
    expected = outcome(evaluator(trained, test, None), spec)
    assert registered in expected[1]

    def work(team: Team) -> Told:
        return outcome(evaluator(trained, test, team), spec)

    assert in_team(2, work) == [expected] * 2


@dataclass
class Problem:
    """A model, a coarse copy that claims images which stand for it, and images."""

    model: torch.nn.Module
    coarse: torch.nn.Module
    x: Tensor
    y: Tensor

    def attack(self, team: Team | None = None, **more: Any) -> Progress:
        with attack_mode(self.model), attack_mode(self.coarse):
            return autoattack(
                self.model,
                self.x,
                self.y,
                eps=EPS / 2,
                num_classes=10,
                seed=0,
                batch_size=4,
                version="apgd",
                search=self.coarse,
                exact=self.model,
                team=team,
                **more,
            )


@pytest.fixture(scope="module")
def problem(trained: ltrobust.TrainedModel, test: TestSet) -> Problem:
    coarse = copy.deepcopy(trained.model)
    with torch.no_grad():
        for weights in coarse.parameters():
            weights.add_(0.15 * weights.std() * torch.randn(weights.shape))
    return Problem(trained.model, coarse, to_float(test.images[::2]), test.labels[::2])


def tensors(progress: Progress) -> dict[str, list[int]]:
    return {name: value.tolist() for name, value in progress.tensors().items()}


@pytest.mark.parametrize("together", [False, True])
def test_autoattack_is_shared_out_by_batches(problem: Problem, together: bool) -> None:
    """What is claimed is tried again as in one process, and each state that is saved is whole."""
    saved: list[dict[str, Tensor]] = []
    expected = tensors(problem.attack(together=together, save=saved.append))
    assert 0 in expected["fell"], "nothing stands"
    assert max(expected["fell"]) > 0, "nothing falls"
    assert together == any(len(state["claimed"]) for state in saved)

    def work(team: Team) -> tuple[dict[str, list[int]], bool]:
        states: list[dict[str, Tensor]] = []
        found = tensors(problem.attack(team, together=together, save=states.append))
        known = [{k: v.tolist() for k, v in state.items()} for state in saved]
        return found, all({k: v.tolist() for k, v in s.items()} in known for s in states)

    assert in_team(2, work) == [(expected, True)] * 2


@pytest.mark.slow
def test_autoattack_goes_on_with_more_or_fewer_processes(problem: Problem) -> None:
    saved: list[dict[str, Tensor]] = []
    expected = tensors(problem.attack(save=saved.append))
    begun = saved[1]

    def work(team: Team) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
        states: list[dict[str, list[int]]] = []

        def save(state: dict[str, Tensor]) -> None:
            states.append({name: value.tolist() for name, value in state.items()})

        return tensors(problem.attack(team, resume=begun, save=save)), states[1]

    (first, state), (second, _) = in_team(2, work)
    assert first == second == expected
    resumed = {name: torch.tensor(values, dtype=torch.int64) for name, values in state.items()}
    assert tensors(problem.attack(resume=resumed)) == expected
