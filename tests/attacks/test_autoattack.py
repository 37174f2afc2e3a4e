"""Our AutoAttack driver against the reference's own, and what the driver adds: resuming.

The attacks are pyautoattack's. Where only the driver is in question, both sides run them with few
iterations (`SHORT`), which changes no decision of the driver.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from pyautoattack import AutoAttack
from torch import Tensor, nn

import ltrobust
from ltrobust.attacks import autoattack as ours
from ltrobust.attacks.autoattack import autoattack, parts, targets
from ltrobust.attacks.pgd import attack_mode
from ltrobust.attacks.rows import QuickRows
from ltrobust.attacks.suite import attack_spec
from ltrobust.data.augment import to_float
from ltrobust.errors import RunError
from ltrobust.evaluation.evaluate import Evaluator, TestSet
from ltrobust.models import build_model

CPU = torch.device("cpu")
EPS = 0.1
SEED = 7
SHORT = {"apgd": 3, "apgd_targeted": 2, "fab": 2, "square": 10}
MEDIUM = {"apgd": 20, "apgd_targeted": 10, "fab": 10, "square": 500}


@dataclass
class Problem:
    """A model that withstands some of the images, and the images."""

    model: nn.Module
    x: Tensor
    y: Tensor
    index: Tensor


@pytest.fixture(scope="module")
def problem() -> Iterator[Problem]:
    trained = ltrobust.train("pgd-at", epochs=6, imbalance_ratio=2, limit_train=300, device="cpu")
    data = trained.data
    # of each class one image, and two more
    chosen = torch.cat([torch.arange(0, 500, 50), torch.tensor([3, 4])])
    with attack_mode(trained.model):
        x = to_float(data.test_images[chosen])
        yield Problem(trained.model, x, data.test_labels[chosen], data.test_index[chosen])


def shorten(attacks: AutoAttack, lengths: dict[str, int] = SHORT) -> None:
    """Few iterations for every attack in a pyautoattack object."""
    for name, steps in lengths.items():
        attack = getattr(attacks, name)
        setattr(attack, "n_queries" if name == "square" else "n_iter", steps)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the driver run every attack with few iterations."""
    build = ours._Attacks.__init__

    def short_build(self: Any, *arguments: Any) -> None:
        build(self, *arguments)
        shorten(self._aa)

    monkeypatch.setattr(ours._Attacks, "__init__", short_build)


def drive(problem: Problem, batch_size: int, **more: Any) -> ours.Progress:
    return autoattack(
        problem.model,
        problem.x,
        problem.y,
        eps=EPS,
        num_classes=10,
        seed=SEED,
        batch_size=batch_size,
        **more,
    )


def reference(problem: Problem) -> AutoAttack:
    return AutoAttack(
        problem.model, eps=EPS, seed=SEED, version="standard", device=problem.x.device
    )


def verdicts(
    attacks: AutoAttack, problem: Problem, batch_size: int
) -> tuple[list[int], list[bool]]:
    """Predictions, and which images stand, as pyautoattack itself finds them."""
    with torch.random.fork_rng():
        adversarial, pred = attacks.run_standard_evaluation(
            problem.x, problem.y, batch_size=batch_size
        )
    with torch.no_grad():
        stands = problem.model(adversarial).argmax(1) == problem.y
    return pred.tolist(), stands.tolist()


def stands(progress: ours.Progress) -> list[bool]:
    return (progress.fell == 0).tolist()


@pytest.mark.parametrize("batch_size", [pytest.param(1, marks=pytest.mark.slow), 5, 12, 250])
def test_every_verdict_is_the_references_own(
    problem: Problem, short: None, batch_size: int
) -> None:
    attacks = reference(problem)
    shorten(attacks)
    found = drive(problem, batch_size)
    assert (found.pred.tolist(), stands(found)) == verdicts(attacks, problem, batch_size)
    assert 0 < sum(stands(found)) < len(problem.y)


def test_standard_settings_are_the_references_own(problem: Problem) -> None:
    setting = ours._Setting(EPS, "Linf", "standard", 10, torch.device("cpu"))
    driver = ours._Attacks(problem.model, setting)
    bare = reference(problem)
    assert tuple(bare.attacks_to_run) == parts(10)
    for name in SHORT:
        mine, theirs = vars(getattr(driver._aa, name)), vars(getattr(bare, name))
        plain = {k: v for k, v in theirs.items() if isinstance(v, int | float | str | None)}
        # the reference sets these two just before it runs the attack
        plain |= {"seed": vars(getattr(driver._aa, name))["seed"]} | (
            {"targeted": True} if name == "fab" else {}
        )
        assert {k: mine[k] for k in plain} == plain


@pytest.mark.slow
@pytest.mark.parametrize("full", [False, True])
def test_in_useful_lengths_verdicts_agree_and_weaker_attacks_do_not_break_more(
    problem: Problem, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    """The attacks' own lengths take a minute, so that a tenth of them is tried by default."""
    if not full:
        make = ours._Attacks.__init__

        def shorter(self: Any, *arguments: Any) -> None:
            make(self, *arguments)
            shorten(self._aa, MEDIUM)

        monkeypatch.setattr(ours._Attacks, "__init__", shorter)
    few = Problem(problem.model, problem.x[-6:], problem.y[-6:], problem.index[-6:])
    found = drive(few, 250)
    expected = reference(few)
    if not full:
        shorten(expected, MEDIUM)
    assert (found.pred.tolist(), stands(found)) == verdicts(expected, few, 250)
    robust = sum(stands(found))
    assert 0 < robust < len(few.y)
    test = TestSet(few.x, few.y, few.index)
    evaluator = Evaluator(few.model, test, num_classes=10, device=torch.device("cpu"))
    for name in ("clean", "fgsm", "pgd20", "cw20", "mim20"):
        assert robust <= int((evaluator.run(attack_spec(name, EPS)).pred == few.y).sum())


def test_robust_accuracy_is_never_above_that_of_a_single_part(
    problem: Problem, short: None
) -> None:
    robust = sum(stands(drive(problem, 250)))
    for name in parts(10):
        alone = reference(problem)
        shorten(alone)
        alone.attacks_to_run = [name]
        assert robust <= sum(verdicts(alone, problem, 250)[1])


def test_resuming_from_any_saved_state_changes_nothing(problem: Problem, short: None) -> None:
    saved: list[dict[str, Tensor]] = []
    whole = drive(problem, 5, save=saved.append)
    assert len(saved) >= 6
    for state in saved:
        copy = {name: value.clone() for name, value in state.items()}
        later: list[dict[str, Tensor]] = []
        resumed = drive(problem, 5, resume=copy, save=later.append)
        assert torch.equal(resumed.pred, whole.pred)
        assert torch.equal(resumed.fell, whole.fell)
        assert len(later) < len(saved)


def test_a_saved_state_is_not_changed_by_what_follows(problem: Problem, short: None) -> None:
    saved: list[dict[str, Tensor]] = []
    copies: list[dict[str, Tensor]] = []

    def save(state: dict[str, Tensor]) -> None:
        saved.append(state)
        copies.append({name: value.clone() for name, value in state.items()})

    drive(problem, 5, save=save)
    for state, copy in zip(saved, copies, strict=True):
        assert all(torch.equal(state[name], copy[name]) for name in copy)


def test_it_tells_of_each_part_up_to_its_end(problem: Problem, short: None) -> None:
    told: list[tuple[str, float]] = []
    drive(problem, 5, tell=lambda part, share: told.append((part, share)))
    assert list(dict.fromkeys(part for part, _ in told)) == list(parts(10))
    assert dict(told) == dict.fromkeys(parts(10), 1.0)


def test_clean_mistakes_are_broken_with_their_clean_prediction(
    problem: Problem, short: None
) -> None:
    wrong = problem.y.clone()
    wrong[:4] = (problem.model(problem.x[:4]).argmax(1) + 1) % 10
    found = drive(Problem(problem.model, problem.x, wrong, problem.index), 250)
    assert found.fell[:4].tolist() == [-1] * 4
    assert torch.equal(found.pred[:4], problem.model(problem.x[:4]).argmax(1))


def test_nothing_right_on_clean_images_ends_at_once(problem: Problem) -> None:
    wrong = (problem.model(problem.x).argmax(1) + 1) % 10
    found = drive(Problem(problem.model, problem.x, wrong, problem.index), 250)
    assert found.fell.tolist() == [-1] * len(wrong)


def test_global_random_states_are_untouched(problem: Problem, short: None) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index]
    drive(problem, 12)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index]
    assert random.getstate() == before[2]


@pytest.mark.parametrize(
    ("num_classes", "expected", "count"),
    [
        (2, ("apgd-ce", "fab-t", "square"), 1),
        (3, ("apgd-ce", "apgd-dlr", "fab-t", "square"), 2),
        (4, ("apgd-ce", "apgd-t", "fab-t", "square"), 3),
        (10, ("apgd-ce", "apgd-t", "fab-t", "square"), 9),
        (100, ("apgd-ce", "apgd-t", "fab-t", "square"), 9),
    ],
)
def test_few_classes_choose_parts_that_can_run(
    num_classes: int, expected: tuple[str, ...], count: int, short: None
) -> None:
    assert parts(num_classes) == expected
    assert targets(num_classes) == count
    told: list[str] = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model("small-cnn", num_classes=num_classes, in_channels=1, image_size=8)
        x = torch.rand(6, 1, 8, 8)
    with attack_mode(model):
        y = model(x).argmax(1)
        found = autoattack(
            model,
            x,
            y,
            eps=0.001,
            num_classes=num_classes,
            seed=0,
            batch_size=3,
            tell=lambda part, _: told.append(part),
        )
    assert found.pred.shape == y.shape
    assert tuple(dict.fromkeys(told)) == expected


class AlwaysWrong(nn.Module):
    """A network that errs on every image that the model gets right."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).roll(1, dims=1)


def test_verdicts_are_the_models_own_whatever_network_searches(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ours._Attacks, "run", lambda self, name, x, y, seed: x)
    found = drive(problem, 250, search=AlwaysWrong(problem.model))
    clean = problem.model(problem.x).argmax(1)
    assert torch.equal(found.pred, clean)
    assert stands(found) == (clean == problem.y).tolist()


@pytest.mark.parametrize("fault", [lambda x: x + 0.2, lambda x: x - 1.0, lambda x: x * torch.nan])
def test_an_attack_that_leaves_the_ball_is_an_error(
    problem: Problem, monkeypatch: pytest.MonkeyPatch, fault: Any
) -> None:
    monkeypatch.setattr(ours._Attacks, "run", lambda self, name, x, y, seed: fault(x))
    with pytest.raises(RunError, match="apgd-ce left the eps ball"):
        drive(problem, 250)


@pytest.mark.parametrize("edge", [0.0, 1.0])
def test_an_attack_that_leaves_the_box_is_an_error(
    problem: Problem, monkeypatch: pytest.MonkeyPatch, edge: float
) -> None:
    """Half of eps beyond the edge of [0, 1]: within the ball, and no image."""
    at_the_edge = Problem(problem.model, torch.full_like(problem.x, edge), problem.y, problem.index)
    beyond = (edge - 0.5) * EPS
    monkeypatch.setattr(ours._Attacks, "run", lambda self, name, x, y, seed: x + beyond)
    clean = at_the_edge.y.clone()
    with pytest.raises(RunError, match="apgd-ce left"):
        drive(at_the_edge, 250, clean=clean)


def test_other_versions_run_their_parts(problem: Problem, short: None) -> None:
    assert parts(10, "apgd") == ("apgd-ce", "apgd-t")
    assert parts(3, "apgd") == ("apgd-ce", "apgd-dlr")
    assert parts(10, "rand") == ("apgd-ce", "apgd-dlr")
    assert parts(2, "rand") == ("apgd-ce",)
    assert parts(10, "apgd", 2)[2:] == ("apgd-ce (seed + 1)", "apgd-t (seed + 1)")
    for version in ("apgd", "rand"):
        told: list[str] = []
        drive(problem, 250, version=version, tell=lambda part, _, told=told: told.append(part))
        assert tuple(dict.fromkeys(told)) == parts(10, version)


def test_rand_averages_gradients_as_the_reference_does(problem: Problem) -> None:
    driver = ours._Attacks(problem.model, ours._Setting(EPS, "Linf", "rand", 10, CPU))
    bare = AutoAttack(problem.model, eps=EPS, seed=SEED, version="rand", device=CPU)
    assert driver._aa.apgd.eot_iter == bare.apgd.eot_iter == 20
    assert tuple(bare.attacks_to_run) == parts(10, "rand")


def test_l2_verdicts_are_the_references_own(problem: Problem, short: None) -> None:
    attacks = AutoAttack(problem.model, norm="L2", eps=0.4, seed=SEED, version="standard")
    shorten(attacks)
    found = autoattack(
        problem.model,
        problem.x,
        problem.y,
        eps=0.4,
        norm="L2",
        num_classes=10,
        seed=SEED,
        batch_size=250,
    )
    assert (found.pred.tolist(), stands(found)) == verdicts(attacks, problem, 250)
    assert 0 < sum(stands(found)) < len(problem.y)


def test_restarts_go_on_with_the_next_seed_on_what_stands(problem: Problem, short: None) -> None:
    once, twice = drive(problem, 250), drive(problem, 250, restarts=2)
    assert torch.equal(twice.fell.clamp_max(4) == 0, twice.fell == 0)
    held = once.fell != 0
    assert torch.equal(twice.fell[held], once.fell[held])
    assert sum(stands(twice)) <= sum(stands(once))


def test_every_part_of_a_turn_is_given_the_turns_seed(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[str, int]] = []

    def run(self: Any, name: str, x: Tensor, y: Tensor, seed: int) -> Tensor:
        given.append((name, seed))
        return x

    monkeypatch.setattr(ours._Attacks, "run", run)
    drive(problem, 250, restarts=3)
    assert given == [(name, SEED + turn) for turn in range(3) for name in parts(10)]


def test_where_a_coarse_search_is_wrong_about_an_image_the_exact_one_decides(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def run(self: Any, name: str, x: Tensor, y: Tensor, seed: int) -> Tensor:
        if self.model is not problem.model:
            return x
        asked.append(len(x))
        return (x + 0.05).clamp(0, 1)

    monkeypatch.setattr(ours._Attacks, "run", run)
    right = int((problem.model(problem.x).argmax(1) == problem.y).sum())
    drive(problem, 250, search=AlwaysWrong(problem.model), exact=problem.model)
    assert asked[0] == right


def test_rows_are_quick_in_fab_alone(
    problem: Problem, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered = []

    class Watched(QuickRows):
        def __enter__(self) -> Any:
            entered.append(running[-1])
            return super().__enter__()

    running: list[str] = []
    run = ours._Attacks.run
    monkeypatch.setattr(ours, "QuickRows", Watched)
    monkeypatch.setattr(
        ours._Attacks,
        "run",
        lambda self, name, *rest: running.append(name) or run(self, name, *rest),
    )
    drive(problem, 50)
    assert set(running) == {"apgd-ce", "apgd-t", "fab-t", "square"}
    assert set(entered) == {"fab-t"}


def test_claims_of_a_part_are_run_again_together(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def run(self: Any, name: str, x: Tensor, y: Tensor, seed: int) -> Tensor:
        if self.model is problem.model:
            asked.append(len(x))
        return x.clone()

    monkeypatch.setattr(ours._Attacks, "run", run)
    right = int((problem.model(problem.x).argmax(1) == problem.y).sum())
    states: list[dict[str, Tensor]] = []
    options = {"search": AlwaysWrong(problem.model), "exact": problem.model, "together": True}
    whole = drive(problem, 3, save=states.append, **options)
    pieces = [3] * (right // 3) + [right % 3] * (right % 3 > 0)
    assert asked == pieces * len(parts(10))
    # a killed attack knows what it still has to run again
    begun = next(state for state in states if len(state["claimed"]))
    asked.clear()
    again = drive(problem, 3, resume=begun, **options)
    assert torch.equal(again.pred, whole.pred)
    assert sum(asked) == right * len(parts(10))
