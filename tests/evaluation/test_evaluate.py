"""From a model and test images to verdicts: what counts, and what must not matter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ltrobust
from ltrobust.attacks.pgd import pgd
from ltrobust.attacks.suite import attack_spec
from ltrobust.data import LongTailedData, load_data
from ltrobust.data.augment import to_float
from ltrobust.errors import UserError
from ltrobust.evaluation.evaluate import AttackResult, DefendedModel, Evaluator, TestSet, outcomes
from ltrobust.models import build_model
from ltrobust.stopwatch import Taken

CPU = torch.device("cpu")
EPS = 0.1


@pytest.fixture(scope="module")
def trained() -> ltrobust.TrainedModel:
    return ltrobust.train("pgd-at", epochs=4, imbalance_ratio=2, limit_train=200, device="cpu")


def a_fifth(data: LongTailedData) -> TestSet:
    """Every fifth test image."""
    chosen = torch.arange(0, len(data.test_labels), 5)
    return TestSet(data.test_images[chosen], data.test_labels[chosen], data.test_index[chosen])


def run(model: nn.Module, test: TestSet, name: str, **changes: object) -> AttackResult:
    settings = {"num_classes": 10, "device": CPU, **changes}
    return Evaluator(model, test, **settings).run(attack_spec(name, EPS))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["fgsm", "pgd3", "cw3", "mim3"])
def test_clean_mistakes_stay_broken_with_their_clean_prediction(
    trained: ltrobust.TrainedModel, name: str
) -> None:
    test = a_fifth(trained.data)
    clean = run(trained.model, test, "clean").pred
    attacked = run(trained.model, test, name).pred
    wrong = clean != test.labels
    assert 0 < wrong.sum() < len(wrong)
    assert torch.equal(attacked[wrong], clean[wrong])
    assert (attacked == test.labels).sum() < (clean == test.labels).sum()


@pytest.mark.parametrize("name", ["clean", "fgsm", "pgd3", "cw3", "mim3"])
def test_verdicts_depend_on_neither_batch_nor_subset_nor_order(
    trained: ltrobust.TrainedModel, name: str
) -> None:
    whole = a_fifth(trained.data)
    expected = run(trained.model, whole, name).pred
    assert torch.equal(run(trained.model, whole, name, batch_size=7).pred, expected)
    some = torch.randperm(len(expected), generator=torch.Generator().manual_seed(1))[:31]
    subset = TestSet(whole.images[some], whole.labels[some], whole.index[some])
    assert torch.equal(run(trained.model, subset, name).pred, expected[some])


def test_limit_test_gives_the_verdicts_of_the_whole_test_set(
    trained: ltrobust.TrainedModel,
) -> None:
    words = {"device": "cpu", "no_checks": True}
    frames = [
        ltrobust.evaluate(trained.model, "digits-lt", "pgd3", limit_test=limit, **words)
        for limit in (None, 50)
    ]
    whole, part = (f.attrs["outcomes"].set_index("index")["pred"] for f in frames)
    assert len(part) == 50
    assert whole.loc[part.index].equals(part)


def test_start_of_an_image_is_its_own_in_any_batch(trained: ltrobust.TrainedModel) -> None:
    test = a_fifth(trained.data)
    evaluator = Evaluator(trained.model, test, num_classes=10, device=CPU)
    spec, order = attack_spec("pgd3", EPS), torch.tensor([7, 2, 5])
    x = to_float(test.images)
    together = evaluator._start(spec, torch.arange(len(x)), x)
    alone = evaluator._start(spec, order, x[order])
    assert torch.equal(alone, together[order])  # type: ignore[arg-type,index]
    assert not torch.equal(alone[0], alone[1])  # type: ignore[index]


def test_the_seed_of_the_attack_draws_other_starts(trained: ltrobust.TrainedModel) -> None:
    test = a_fifth(trained.data)
    evaluator = Evaluator(trained.model, test, num_classes=10, device=CPU)
    chosen = torch.arange(4)
    x = to_float(test.images[chosen])
    starts = [evaluator._start(attack_spec("pgd3", EPS, seed=s), chosen, x) for s in (0, 0, 1)]
    assert torch.equal(starts[0], starts[1])  # type: ignore[arg-type]
    assert not torch.equal(starts[0], starts[2])  # type: ignore[arg-type]
    assert starts[0].abs().max() <= EPS  # type: ignore[union-attr]
    assert starts[0].min() < -0.9 * EPS  # type: ignore[union-attr]
    assert starts[0].max() > 0.9 * EPS  # type: ignore[union-attr]
    assert evaluator._start(attack_spec("fgsm", EPS), chosen, x) is None


def test_every_restart_draws_other_starts(trained: ltrobust.TrainedModel) -> None:
    test = a_fifth(trained.data)
    evaluator = Evaluator(trained.model, test, num_classes=10, device=CPU)
    spec, chosen = attack_spec("pgd3x3", EPS), torch.arange(4)
    x = to_float(test.images[chosen])
    starts = [evaluator._start(spec, chosen, x, restart) for restart in range(3)]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert not torch.equal(starts[first], starts[second])  # type: ignore[arg-type]


def test_restarts_attack_from_their_own_starts(
    trained: ltrobust.TrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    real = Evaluator._start

    def start(self: Evaluator, spec: Any, chosen: Any, x: Any, restart: int = 0) -> Any:
        asked.append(restart)
        return real(self, spec, chosen, x, restart)

    monkeypatch.setattr(Evaluator, "_start", start)
    run(trained.model, a_fifth(trained.data), "noisex4")
    assert asked == [0, 1, 2, 3]


class Witness(nn.Module):
    """A network that notes the dtypes and the mode it is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.net = build_model("small-cnn", num_classes=10, in_channels=1, image_size=8)
        self.seen: set[tuple[torch.dtype, torch.dtype, bool]] = set()

    def forward(self, x: Tensor) -> Tensor:
        self.seen.add((x.dtype, self.net.conv1.weight.dtype, self.net.bn1.training))
        return self.net(x)


@pytest.mark.parametrize("name", ["clean", "pgd2"])
def test_float32_and_eval_mode_whatever_state_the_model_comes_in(name: str) -> None:
    data = load_data("digits-lt", limit_test=20)
    model = Witness().to(torch.bfloat16).train()
    run(model, TestSet(data.test_images, data.test_labels, data.test_index), name)
    assert model.seen == {(torch.float32, torch.float32, False)}


def test_evaluation_changes_no_weight_and_no_batch_statistic(
    trained: ltrobust.TrainedModel,
) -> None:
    before = {k: v.clone() for k, v in trained.model.state_dict().items()}
    trained.model.zero_grad(set_to_none=True)
    run(trained.model, a_fifth(trained.data), "pgd3")
    after = trained.model.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())
    assert all(p.grad is None and p.requires_grad for p in trained.model.parameters())


def test_the_inference_adjustment_is_part_of_what_is_judged_and_attacked() -> None:
    data = load_data("digits-lt", limit_test=20)
    test = TestSet(data.test_images, data.test_labels, data.test_index)
    net = build_model("small-cnn", num_classes=10, in_channels=1, image_size=8)
    always = DefendedModel(net, lambda logits: logits + 1e4 * torch.eye(10)[3])
    for name in ("clean", "pgd2", "cw2"):
        assert run(always, test, name).pred.tolist() == [3] * 20


def test_float_images_are_taken_as_they_are(trained: ltrobust.TrainedModel) -> None:
    test = a_fifth(trained.data)
    as_float = TestSet(to_float(test.images), test.labels, test.index)
    for name in ("clean", "pgd3"):
        expected = run(trained.model, test, name).pred
        assert torch.equal(run(trained.model, as_float, name).pred, expected)


def test_one_outcome_per_image_with_the_contracts_columns() -> None:
    test = TestSet(torch.zeros(3, 1), torch.tensor([2, 0, 1]), torch.tensor([11, 7, 30]))
    result = AttackResult(torch.tensor([2, 1, 1]), ["", "pgd3", "clean"], Taken(0.0, None), {})
    frame = outcomes(test, attack_spec("pgd3", EPS), "pgd3-abc", result)
    assert list(frame) == ["index", "label", "attack", "attack_id", "pred", "correct", "fell"]
    assert frame["index"].tolist() == [11, 7, 30]
    assert frame["correct"].tolist() == [True, False, True]
    assert set(frame["attack"]) == {"pgd3"}
    assert set(frame["attack_id"]) == {"pgd3-abc"}


def test_more_steps_and_larger_eps_are_not_weaker(trained: ltrobust.TrainedModel) -> None:
    test = a_fifth(trained.data)
    evaluator = Evaluator(trained.model, test, num_classes=10, device=CPU)

    def robust(name: str, eps: float) -> int:
        return int((evaluator.run(attack_spec(name, eps)).pred == test.labels).sum())

    assert robust("pgd10", 0.0) == robust("clean", 0.0)
    by_eps = [robust("pgd10", eps) for eps in (0.0, 0.05, 0.1, 0.3)]
    assert by_eps == sorted(by_eps, reverse=True)
    assert by_eps[-1] < by_eps[0]
    assert robust("pgd20", EPS) <= robust("pgd2", EPS)


def test_every_image_says_what_broke_it(trained: ltrobust.TrainedModel) -> None:
    test = a_fifth(trained.data)
    clean = run(trained.model, test, "clean")
    assert clean.fell == ["clean" if w else "" for w in (clean.pred != test.labels).tolist()]
    for name, parts in {"pgd3": {"pgd3"}, "pgd3x3": {f"restart {i}" for i in (1, 2, 3)}}.items():
        result = run(trained.model, test, name)
        right = (result.pred == test.labels).tolist()
        assert [fell == "" for fell in result.fell] == right
        assert [fell == "clean" for fell in result.fell] == (clean.pred != test.labels).tolist()
        assert set(result.fell) <= parts | {"", "clean"}


def test_the_first_restart_is_the_attack_itself_and_more_break_no_less(
    trained: ltrobust.TrainedModel,
) -> None:
    test = a_fifth(trained.data)
    once, often = (run(trained.model, test, name) for name in ("pgd2", "pgd2x4"))
    first = [fell == "restart 1" for fell in often.fell]
    assert first == [fell == "pgd2" for fell in once.fell]
    assert sum(fell == "" for fell in often.fell) <= sum(fell == "" for fell in once.fell)


def test_targeted_pgd_tries_every_other_class_likeliest_first(
    trained: ltrobust.TrainedModel,
) -> None:
    test = a_fifth(trained.data)
    result = run(trained.model, test, "tpgd5")
    assert set(result.fell) <= {f"target {i}" for i in range(1, 10)} | {"", "clean"}
    assert "target 1" in result.fell
    ranked = Evaluator(trained.model, test, num_classes=10, device=CPU)._classes_by_logit()
    assert ranked.shape == (len(test.labels), 9)
    assert not bool((ranked == test.labels[:, None]).any())
    logits = trained.model(to_float(test.images))
    logits[torch.arange(len(logits)), test.labels] = -torch.inf
    assert torch.equal(ranked[:, 0], logits.argmax(1))


def test_dlr_refuses_two_classes() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    test = TestSet(torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0]), torch.arange(3))
    with pytest.raises(UserError, match="three logits"):
        run(model, test, "dlr3", num_classes=2)


@pytest.mark.parametrize("name", ["pgd3", "mim3", "lsa3"])
def test_search_in_bfloat16_gives_float32_verdicts_near_those_of_float32(
    trained: ltrobust.TrainedModel, name: str
) -> None:
    test = a_fifth(trained.data)
    evaluator = Evaluator(trained.model, test, num_classes=10, device=CPU)
    exact = evaluator.run(attack_spec(name, EPS))
    coarse = evaluator.run(attack_spec(name, EPS, search="bf16"))
    differ = (exact.pred == test.labels) != (coarse.pred == test.labels)
    assert int(differ.sum()) <= 0.05 * len(test.labels)
    assert evaluator.model(to_float(test.images)).dtype == torch.float32


def test_a_subset_shares_model_and_verdicts(trained: ltrobust.TrainedModel) -> None:
    test = a_fifth(trained.data)
    whole = Evaluator(trained.model, test, num_classes=10, device=CPU)
    chosen = torch.tensor([5, 3, 17])
    part = whole.subset(chosen)
    spec = attack_spec("pgd3", EPS)
    assert torch.equal(part.run(spec).pred, whole.run(spec).pred[chosen])
    assert part.model is whole.model


def test_modules_handed_over_in_train_mode_are_remembered() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(4, 3))
    model[2].eval()
    test = TestSet(torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 2]), torch.arange(3))
    evaluator = Evaluator(model, test, num_classes=3, device=CPU)
    assert evaluator.found_training == [model, model[0], model[1]]
    assert not model.training


class Detached(nn.Module):
    """Autograd cannot follow it."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tensor(x.detach().flatten(1).numpy()[:, :3])


class NotANumber(nn.Module):
    """Its gradients are not numbers."""

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1)[:, :3] - x.flatten(1)[:, :3]).sqrt() + x.flatten(1)[:, :3]


@pytest.mark.parametrize("model", [Detached(), NotANumber()])
@pytest.mark.parametrize("name", ["pgd3", "mim3", "autoattack"])
def test_models_without_a_usable_gradient_are_attacked_all_the_same(
    model: nn.Module, name: str
) -> None:
    if name == "autoattack" and isinstance(model, NotANumber):
        pytest.skip("the reference itself fails on gradients that are no numbers")
    images = torch.rand(4, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    test = TestSet(images, images.flatten(1)[:, :3].argmax(1), torch.arange(4))
    result = run(model, test, name, num_classes=3)
    assert len(result.fell) == 4


def test_batches_shrink_until_they_fit_and_verdicts_stay(
    trained: ltrobust.TrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    test, spec = a_fifth(trained.data), attack_spec("pgd3", EPS)
    expected = Evaluator(trained.model, test, num_classes=10, device=CPU).run(spec)
    sizes: list[int] = []

    def tight(model: nn.Module, x: Tensor, *words: object, **more: object) -> Tensor:
        if len(x) > 9:
            raise torch.OutOfMemoryError("no more")
        sizes.append(len(x))
        return pgd(model, x, *words, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("ltrobust.evaluation.evaluate.pgd", tight)
    evaluator = Evaluator(trained.model, test, num_classes=10, device=CPU)
    found = evaluator.run(spec)
    assert torch.equal(found.pred, expected.pred)
    assert found.fell == expected.fell
    assert max(sizes) <= 9
    assert sum(sizes) == int((evaluator.clean_predictions() == test.labels).sum())


def test_an_image_that_alone_does_not_fit_is_an_error(
    trained: ltrobust.TrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*words: object, **more: object) -> Tensor:
        raise torch.OutOfMemoryError("no more")

    monkeypatch.setattr("ltrobust.evaluation.evaluate.pgd", never)
    with pytest.raises(torch.OutOfMemoryError):
        run(trained.model, a_fifth(trained.data), "pgd3")
