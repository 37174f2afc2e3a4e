"""Planted bad models are found out, each by the check for it; well-trained ones are not flagged."""

from __future__ import annotations

import copy
import json
import math
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import planted
import pytest
import torch
from torch import Tensor, nn

import ltrobust
from ltrobust.attacks.suite import attack_spec
from ltrobust.bench.runner import load_defended
from ltrobust.config import Run
from ltrobust.data import load_data
from ltrobust.data.augment import to_float
from ltrobust.evaluation.evaluate import Evaluator, TestSet, outcomes
from ltrobust.evaluation.probe import probe, spread
from ltrobust.evaluation.reliability import Evaluation, Finding, findings
from ltrobust.results.store import SuiteStore

CPU = torch.device("cpu")
EPS = 26 / 255
"""About the digits' own 0.1, and a whole number of grey values, as some planted models need."""
RESULTS = Path(__file__).parents[2] / "results" / "cifar10-lt-cpu"
ORDER = [
    "non-finite-outputs",
    "probability-outputs",
    "tiny-logits",
    "wrong-normalisation",
    "random-outputs",
    "batch-dependent-outputs",
    "came-in-train-mode",
    "changes-its-images",
    "vanishing-gradients",
    "noise-stronger-than-fgsm",
    "more-steps-not-stronger",
    "accuracy-at-large-eps",
    "square-stronger-than-gradients",
    "pgd-above-cw-or-lsa",
    "pgd-above-autoattack",
    "autoattack-above-weaker-attack",
    "catastrophic-overfitting",
]


@pytest.fixture(scope="module")
def template() -> nn.Module:
    data = load_data("digits-lt")
    return planted.nearest_template(to_float(data.train_images), data.train_labels)


@pytest.fixture
def net(template: nn.Module) -> nn.Module:
    """Nothing about it was trained, so that no planted model is found out by luck."""
    return copy.deepcopy(template)


def test_network_of_the_planted_models_has_no_flag_itself(net: nn.Module) -> None:
    found = judge(net)
    assert flags(found) == []
    unchecked = [check for check, finding in found.items() if finding.value is None]
    assert unchecked == [
        "pgd-above-autoattack",
        "autoattack-above-weaker-attack",
        "catastrophic-overfitting",
    ]


def evaluator(model: nn.Module, limit: int | None = None) -> Evaluator:
    data = load_data("digits-lt", limit_test=limit)
    test = TestSet(data.test_images, data.test_labels, data.test_index)
    return Evaluator(model, test, num_classes=10, device=CPU)


def judge(model: nn.Module, evaluations: Sequence[Evaluation] = ()) -> dict[str, Finding]:
    record = probe(evaluator(model), eps=EPS)
    found = findings(json.loads(json.dumps(record, allow_nan=False)), evaluations)
    json.dumps([asdict(finding) for finding in found], allow_nan=False)
    return {finding.check: finding for finding in found}


def flags(found: dict[str, Finding]) -> list[str]:
    return [check for check, finding in found.items() if finding.flagged]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "epochs"), [("pgd-at", 12), ("taet", 20)])
def test_well_trained_model_has_no_flag(method: str, epochs: int) -> None:
    model = ltrobust.train(method, epochs=epochs, device="cpu").model
    made = []
    tested = evaluator(model)
    for name in ("clean", "noise", "fgsm", "pgd20", "pgd40", "mim20", "cw20", "lsa20", "dlr20"):
        spec = attack_spec(name, EPS)
        frame = outcomes(tested.test, spec, "id", tested.run(spec))
        made.append(Evaluation(spec.name, spec.eps, spec.norm, frame))
    found = judge(model, made)
    assert flags(found) == []
    unchecked = [check for check, finding in found.items() if finding.value is None]
    assert unchecked == [
        "pgd-above-autoattack",
        "autoattack-above-weaker-attack",
        "catastrophic-overfitting",
    ]


PLANTED: dict[str, tuple[Callable[[nn.Module], nn.Module], str]] = {
    "logits x1000": (partial(planted.scaled, factor=1e3), "vanishing-gradients"),
    "logits x300": (partial(planted.scaled, factor=300.0), "accuracy-at-large-eps"),
    "logits x0.001": (partial(planted.scaled, factor=1e-3), "tiny-logits"),
    "cosine x0.05": (planted.cosine_logits, "tiny-logits"),
    "rounded inputs": (partial(planted.rounded_inputs, levels=16), "vanishing-gradients"),
    "rounded inputs, searched": (
        partial(planted.rounded_inputs, levels=16),
        "square-stronger-than-gradients",
    ),
    "sigmoid steps": (planted.sigmoid_steps, "vanishing-gradients"),
    "softer sigmoid steps": (partial(planted.sigmoid_steps, sharpness=20.0), "vanishing-gradients"),
    "thermometer": (planted.thermometer, "vanishing-gradients"),
    "brightest pixels": (planted.top_pixels, "vanishing-gradients"),
    "jpeg": (planted.jpeg_like, "square-stronger-than-gradients"),
    "numpy inside": (planted.detached, "vanishing-gradients"),
    "rounded logits": (planted.rounded_logits, "vanishing-gradients"),
    "clipped logits": (planted.clipped_logits, "vanishing-gradients"),
    "abstaining": (planted.abstaining, "accuracy-at-large-eps"),
    "constant": (planted.constant, "accuracy-at-large-eps"),
    "reversed gradient": (planted.reversed_gradient, "accuracy-at-large-eps"),
    "invented gradient": (planted.invented_gradient, "square-stronger-than-gradients"),
    "ripple": (planted.misled_between_bytes, "more-steps-not-stronger"),
    "fragile": (partial(planted.fragile_between_bytes, depth=1.0), "noise-stronger-than-fgsm"),
    "noise": (planted.noisy_inputs, "random-outputs"),
    "little noise": (partial(planted.noisy_inputs, std=0.01), "random-outputs"),
    "random size": (planted.random_size, "random-outputs"),
    "dropout": (planted.dropout_on, "random-outputs"),
    "feels gradients": (planted.FeelsGradients, "random-outputs"),
    "noise by place": (planted.noise_by_batch, "batch-dependent-outputs"),
    "batch statistics": (planted.BatchStatistics, "batch-dependent-outputs"),
    "eval refused": (planted.StuckInTrainMode, "batch-dependent-outputs"),
    "batch norm in train mode": (
        lambda net: planted.norm_behind(net).train(),
        "came-in-train-mode",
    ),
    "dropout in train mode": (lambda net: planted.WithDropout(net).train(), "came-in-train-mode"),
    "normalisation missing": (planted.expects_normalised, "wrong-normalisation"),
    "normalised twice": (planted.normalised_twice, "wrong-normalisation"),
    "0 to 255 expected": (planted.expects_bytes, "wrong-normalisation"),
    "softmax": (planted.softmax_outputs, "probability-outputs"),
    "sigmoid": (planted.sigmoid_outputs, "probability-outputs"),
    "one-hot": (planted.one_hot_outputs, "probability-outputs"),
    "nan": (planted.nan_logits, "non-finite-outputs"),
    "infinite": (planted.infinite_logits, "non-finite-outputs"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_model_is_flagged_by_the_check_for_it(net: nn.Module, name: str) -> None:
    plant, check = PLANTED[name]
    found = judge(plant(net.train() if "train mode" in name else net))[check]
    assert found.flagged
    assert found.value is not None
    assert found.threshold is not None
    assert found.value > found.threshold + 0.1 * abs(found.threshold)  # by no hair's breadth


@pytest.mark.parametrize("name", ["batch norm in train mode", "dropout in train mode"])
def test_model_handed_over_in_train_mode_is_flagged_for_that_alone(
    net: nn.Module, name: str
) -> None:
    plant, check = PLANTED[name]
    found = judge(plant(net))
    assert flags(found) == [check]
    kind = "Dropout" if "dropout" in name else "BatchNorm1d"
    assert kind in found[check].explanation
    assert "evaluated in eval mode" in found[check].explanation


def test_network_without_layers_that_read_the_mode_may_come_in_train_mode() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).train()
    found = judge(model)["came-in-train-mode"]
    assert (found.value, found.flagged) == (0.0, False)


def test_nan_that_only_an_attack_meets_is_found(net: nn.Module) -> None:
    def fragile(x: Tensor) -> Tensor:
        off = ((255 * x - (255 * x).round()).abs() > 0.1).flatten(1).any(1)
        return torch.where(off.view(-1, 1, 1, 1), torch.nan, x)

    found = judge(planted.Wrapped(net, before=fragile))["non-finite-outputs"]
    assert found.flagged
    assert found.explanation.startswith("0.0% of the clean images")


def test_model_that_fails_on_single_images_is_compared_in_pairs(net: nn.Module) -> None:
    def no_singles(x: Tensor) -> Tensor:
        if len(x) == 1:
            raise ValueError("expected more than 1 value")
        return x

    found = judge(planted.Wrapped(net, before=no_singles))["batch-dependent-outputs"]
    assert not found.flagged
    assert "in pairs" in found.explanation


def test_an_experiment_that_the_model_does_not_survive_is_not_checked(net: nn.Module) -> None:
    def only_in_range(x: Tensor) -> Tensor:
        if x.min() < 0 or x.max() > 1:
            raise ValueError("images are in [0, 1]")
        return x

    found = judge(planted.Wrapped(net, before=only_in_range))
    assert found["wrong-normalisation"].value is None
    assert "images are in [0, 1]" in found["wrong-normalisation"].explanation
    assert found["tiny-logits"].value is not None


def test_probe_leaves_model_and_random_states_as_they_were(net: nn.Module) -> None:
    model = planted.StuckInTrainMode(planted.WithDropout(net, share=0.1))
    tested = evaluator(model, limit=60)
    next(iter(model.parameters())).requires_grad_(False)
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    frozen = [p.requires_grad for p in model.parameters()]
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    probe(tested, eps=EPS)
    after = (torch.rand(1).item(), np.random.rand(), random.random())
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    assert after == (torch.rand(1).item(), np.random.rand(), random.random())
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == frozen
    assert all(p.grad is None for p in model.parameters())
    assert not model._forward_hooks


def test_probe_of_a_random_model_is_repeatable(net: nn.Module) -> None:
    model = planted.noisy_inputs(net).eval()
    first, second = (probe(evaluator(model, limit=60), eps=EPS) for _ in range(2))
    assert first == second


def test_spread_lets_the_classes_take_turns() -> None:
    labels = torch.tensor([0] * 50 + [1] * 3 + [2] * 10)
    chosen = spread(labels, 12)
    assert labels[chosen].bincount().tolist() == [5, 3, 4]
    assert torch.equal(chosen, spread(labels, 12))
    assert len(spread(labels, 100)) == 63


# --- outcomes alone --------------------------------------------------------------------------


def evaluation(attack: str, right: int, n: int = 1000, eps: float = EPS, **more: str) -> Evaluation:
    """The first `right` of n images stand."""
    correct = np.arange(n) < right
    frame = pd.DataFrame(
        {"index": np.arange(n), "label": 1, "pred": correct.astype(int), "correct": correct}
    )
    return Evaluation(attack, eps, "L2" if "-l2" in attack else "Linf", frame.assign(**more))


def finding(check: str, *evaluations: Evaluation) -> Finding:
    return next(f for f in findings(None, evaluations) if f.check == check)


def test_every_check_in_the_same_order_and_none_made_of_nothing() -> None:
    found = findings(None, [])
    assert [f.check for f in found] == ORDER
    assert not any(f.flagged for f in found)
    assert all(f.value is None and f.explanation.startswith("Not checked: ") for f in found)


@pytest.mark.parametrize(
    ("check", "high", "low", "limit"),
    [
        ("autoattack-above-weaker-attack", "autoattack", "pgd20", 10),
        ("autoattack-above-weaker-attack", "autoattack", "aa-rand", None),
        ("autoattack-above-weaker-attack", "aa-apgd", "cw20", 10),
        ("autoattack-above-weaker-attack", "autoattack-l2", "pgd20-l2", 10),
        ("autoattack-above-weaker-attack", "autoattack", "somebody-elses", 10),
        ("pgd-above-autoattack", "pgd20", "autoattack", 80),
        ("pgd-above-autoattack", "pgd100x5", "aa-apgd", 80),
        ("pgd-above-autoattack", "pgd10", "autoattack", None),
        ("pgd-above-cw-or-lsa", "pgd20", "cw20", 80),
        ("pgd-above-cw-or-lsa", "pgd20", "lsa20a100", 80),
        ("more-steps-not-stronger", "pgd100", "pgd20", 10),
        ("more-steps-not-stronger", "cw40", "cw20", 10),
        ("more-steps-not-stronger", "pgd20", "fgsm", 10),
        ("more-steps-not-stronger", "pgd3", "fgsm", None),
        ("more-steps-not-stronger", "cw100", "pgd20", None),
        ("noise-stronger-than-fgsm", "fgsm", "noise", 10),
    ],
)
def test_gaps_are_flagged_beyond_their_limit_and_only_between_fit_attacks(
    check: str, high: str, low: str, limit: int | None
) -> None:
    """`limit` images of 1,000; as many more differ as two standard errors take, and ten fewer."""
    if limit is None:
        assert finding(check, evaluation(high, 500), evaluation(low, 300)).value is None
        return
    beyond = finding(check, evaluation(high, 300 + limit + 5), evaluation(low, 300))
    below = finding(check, evaluation(high, 300 + limit - 1), evaluation(low, 300))
    assert (beyond.flagged, below.flagged) == (True, False)
    assert beyond.value == pytest.approx((limit + 5) / 10)
    assert f"{30 + (limit + 5) / 10:.1f}%" in beyond.explanation
    assert "30.0%" in beyond.explanation
    swapped = finding(check, evaluation(high, 300), evaluation(low, 500))
    assert not swapped.flagged


def test_noise_is_two_standard_errors_of_the_paired_difference() -> None:
    strong, weak = evaluation("autoattack", 500), evaluation("pgd20", 500)
    # 60 images differ: 40 for AutoAttack, 20 against; the rest agree
    correct = strong.frame["correct"].to_numpy().copy()
    correct[480:500], correct[500:540] = False, True
    strong = Evaluation("autoattack", EPS, "Linf", strong.frame.assign(correct=correct))
    found = finding("autoattack-above-weaker-attack", strong, weak)
    assert found.value == pytest.approx(2.0)
    error = 100 * math.sqrt((60 / 1000 - 0.02**2) / 1000)
    assert found.threshold == pytest.approx(2 * error)
    assert found.flagged


def test_few_images_prove_nothing() -> None:
    pair = evaluation("autoattack", 1, n=2), evaluation("pgd20", 0, n=2)
    assert not finding("autoattack-above-weaker-attack", *pair).flagged


def test_only_shared_images_and_equal_balls_are_compared() -> None:
    strong, weak = evaluation("autoattack", 600), evaluation("pgd20", 500)
    shifted = Evaluation("pgd20", EPS, "Linf", weak.frame.assign(index=weak.frame["index"] + 900))
    found = finding("autoattack-above-weaker-attack", strong, shifted)
    assert "(100 images)" in found.explanation
    assert found.value == -100.0
    far = Evaluation("pgd20", EPS, "Linf", weak.frame.assign(index=weak.frame["index"] + 5000))
    assert finding("autoattack-above-weaker-attack", strong, far).value is None
    other = evaluation("pgd20", 100, eps=0.2)
    assert finding("autoattack-above-weaker-attack", strong, other).value is None


def test_clean_accuracy_is_the_weakest_attack() -> None:
    found = finding(
        "autoattack-above-weaker-attack",
        evaluation("autoattack", 700),
        evaluation("clean", 500, eps=0.0),
    )
    assert found.flagged


def test_worst_of_several_pairs_is_told() -> None:
    found = finding(
        "autoattack-above-weaker-attack",
        evaluation("autoattack", 300),
        evaluation("pgd20", 310),
        evaluation("lsa20", 250),
        evaluation("cw20", 290),
    )
    assert found.flagged
    assert "lsa20 leaves" not in found.explanation
    assert "lsa20 25.0%" in found.explanation


@pytest.mark.parametrize(("share", "flagged"), [(5, False), (30, True)])
def test_images_that_only_square_broke_in_autoattack(share: int, flagged: bool) -> None:
    run = evaluation("autoattack", 300)
    fell = ["square"] * share + ["apgd-ce"] * (500 - share) + [""] * 500
    told = Evaluation("autoattack", EPS, "Linf", run.frame.assign(fell=fell))
    found = finding("square-stronger-than-gradients", told)
    assert (found.flagged, found.value) == (flagged, share / 10)
    assert finding("square-stronger-than-gradients", run).value is None


@pytest.mark.parametrize(("right", "flagged"), [(30, False), (100, True)])
def test_accuracy_left_at_a_large_radius(right: int, flagged: bool) -> None:
    found = finding("accuracy-at-large-eps", evaluation("pgd20", right, eps=0.5))
    assert (found.flagged, found.value) == (flagged, right / 10)
    for other in (evaluation("noise", 900, eps=0.5), evaluation("pgd20-l2", 900, eps=0.5)):
        assert finding("accuracy-at-large-eps", other).value is None


def test_autoattack_is_compared_with_the_probe_on_their_shared_images(net: nn.Module) -> None:
    """AutoAttack that breaks nothing, beside a probe whose PGD breaks 15 points and more."""
    tested = evaluator(net)
    record = probe(tested, eps=EPS)
    spec = attack_spec("clean", 0.0)
    frame = outcomes(tested.test, spec, "id", tested.run(spec))
    found = {f.check: f for f in findings(record, [Evaluation("autoattack", EPS, "Linf", frame)])}
    assert flags(found) == ["autoattack-above-weaker-attack"]
    assert "(128 images)" in found["autoattack-above-weaker-attack"].explanation


# --- real images -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("method", ["pgd-at", "taet"])
def test_published_run_on_real_images_has_no_flag(method: str) -> None:
    if "LTROBUST_DATA_DIR" not in os.environ:
        pytest.skip("LTROBUST_DATA_DIR is not set, so there are no real CIFAR-10 images")
    suite = SuiteStore(RESULTS)
    name = next((path.name for path in RESULTS.glob(f"runs/{method}-*")), None)
    if name is None:
        pytest.skip(f"{RESULTS.name} has no run of {method}")
    stored = suite.run(name)
    run = stored.begun_record().run
    assert isinstance(run, Run)
    data = load_data("cifar10-lt", imbalance_ratio=50)
    model = load_defended(run, data, stored, CPU)
    test = TestSet(data.test_images, data.test_labels, data.test_index)
    record = probe(Evaluator(model, test, num_classes=10, device=CPU), eps=8 / 255)
    attacks = stored.attacks().values()
    made = [Evaluation(a.attack, a.eps, "Linf", stored.outcomes(a)) for a in attacks]
    found = findings(record, made)
    assert [f.check for f in found if f.flagged] == []
    assert [f.check for f in found if f.value is None] == ["catastrophic-overfitting"]
