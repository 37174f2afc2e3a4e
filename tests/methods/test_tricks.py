"""What the long-tail tricks do beyond the published numbers: stages, samplers, post-hoc changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltrobust.combination import find
from ltrobust.config import TrainingAttack
from ltrobust.context import Context
from ltrobust.data.class_aware import ClassAware, shuffled_by
from ltrobust.errors import UserError
from ltrobust.losses import class_balanced_weights
from ltrobust.method import Method, load_builtin_methods
from ltrobust.modifier import PostHoc
from ltrobust.testing import Trial, check_method, make_trial
from ltrobust.training.trainer import Trained, train

load_builtin_methods()
COUNTS = torch.tensor([3, 40, 9])
"""Not sorted."""
Y = torch.tensor([1, 1, 2, 0, 1, 2])


def context(epoch: int = 0, epochs: int = 10) -> Context:
    attack = TrainingAttack(eps=0.1, step_size=0.05, steps=2)
    return Context(
        class_counts=COUNTS,
        epoch=epoch,
        epochs=epochs,
        attack=attack,
        generator=torch.Generator().manual_seed(0),
        sampling=torch.Generator().manual_seed(0),
    )


def build(name: str, **options: Any) -> Method:
    return find(name)(COUNTS, **options)


def tiny() -> tuple[nn.Module, Tensor]:
    """A network of three logits, and images."""
    draw = torch.Generator().manual_seed(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(generator=draw)
    return net, torch.rand(6, 1, 2, 2, generator=draw)


def outer(name: str, epoch: int = 0, **options: Any) -> Tensor:
    net, x = tiny()
    return build(name, **options).loss(net, x, Y, x, context(epoch)).detach()


@pytest.mark.parametrize("epoch", range(10))
def test_deferred_weights_begin_at_their_share_of_the_epochs(epoch: int) -> None:
    net, x = tiny()
    weights = class_balanced_weights(COUNTS, x, beta=0.9)
    plain = F.cross_entropy(net(x), Y)
    weighted = F.cross_entropy(net(x), Y, weights)
    assert (plain - weighted).abs() > 0.01
    # epoch number 3 of 10 from 1 on, which is the one after two
    expected = (plain if epoch < 2 else weighted).detach()
    loss = outer("pgd-at+drw", epoch, **{"drw.begin": 0.3, "drw.beta": 0.9})
    assert loss == pytest.approx(float(expected), rel=1e-6)


def test_a_deferred_margin_begins_at_its_share_of_the_epochs() -> None:
    plain, margin = outer("pgd-at"), outer("at-ldam")
    assert margin > plain + 0.01
    found = [outer("at-ldam", epoch, begin=0.5) for epoch in (0, 3, 4, 9)]
    assert found == [plain, plain, margin, margin]


def test_a_class_aware_epoch_shows_all_classes_and_all_images_equally_often() -> None:
    labels = torch.tensor([0] * 8 + [1] * 4 + [2] * 2)[torch.randperm(14)]
    sampler = ClassAware(labels, shuffled_by(torch.Generator().manual_seed(0)))
    assert len(sampler) == 24
    shown = torch.bincount(sampler.take(24), minlength=14)
    assert [shown[labels == c].tolist() for c in range(3)] == [[1] * 8, [2] * 4, [4] * 2]


def test_resampling_is_drawn_from_the_runs_stream_alone() -> None:
    labels = torch.tensor([0] * 30 + [1] * 5)
    method = build("pgd-at+resample")
    one, same, other = (
        method.sampler(
            labels, context().changed(sampling=torch.Generator().manual_seed(seed))
        ).take(60)  # type: ignore[union-attr]
        for seed in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_rows_of_a_class_and_their_refusal() -> None:
    labels = torch.tensor([0] * 6 + [1] * 6)
    sampler = build("pgd-at+resample", **{"resample.num_samples_cls": 3}).sampler(labels, context())
    assert sampler is not None
    rows = labels[sampler.take(12)].view(4, 3)
    assert (rows == rows[:, :1]).all()
    with pytest.raises(UserError, match="num_samples_cls is 0; it must be at least 1"):
        build("pgd-at+resample", **{"resample.num_samples_cls": 0})


def test_focal_training_begins_at_the_odds_of_the_classes() -> None:
    share = torch.sigmoid(build("at-focal").head(4, 3).bias)  # type: ignore[arg-type]
    assert share.tolist() == pytest.approx((COUNTS / COUNTS.sum()).tolist())


def fine_tuned(name: str, **options: Any) -> tuple[dict[str, Tensor], Trained]:
    """The weights of a base, and a post-hoc method trained on it."""
    trial = make_trial(name, options)
    base = trial.base(0)
    assert base is not None
    before = {key: value.clone() for key, value in base.weights.items()}
    trained = train(trial.run, trial.data, device=torch.device("cpu"), base=base)
    return before, trained


def changed(before: dict[str, Tensor], trained: Trained) -> set[str]:
    """Names of tensors of both that training moved, without running statistics."""
    after = trained.net.state_dict()
    names = before.keys() & dict(trained.net.named_parameters()).keys()
    return {name for name in names if not torch.equal(before[name], after[name])}


def test_classifier_retraining_moves_the_last_layer_alone() -> None:
    before, trained = fine_tuned("pgd-at+crt", **{"crt.epochs": 1})
    assert changed(before, trained) == {"linear.weight", "linear.bias"}
    assert [row["lr"] for row in trained.history] == [0.1]
    assert trained.epoch == 6


@pytest.mark.parametrize("reinit", [True, False])
def test_classifier_retraining_begins_anew_unless_it_is_the_released_one(reinit: bool) -> None:
    trial = make_trial("pgd-at+crt", {"crt.reinit": reinit})
    base = trial.base(0)
    assert base is not None
    net = trial.build().net
    assert torch.equal(net.head.weight, base.weights["linear.weight"]) is not reinit  # type: ignore[arg-type]
    body = [name for name in base.weights if not name.startswith("linear.")]
    assert all(torch.equal(net.state_dict()[name], base.weights[name]) for name in body)


@pytest.mark.parametrize("drop_bias", [True, False])
def test_weight_scaling_learns_the_factors_alone(drop_bias: bool) -> None:
    before, trained = fine_tuned("pgd-at+lws", **{"lws.drop_bias": drop_bias})
    assert not changed(before, trained)
    scale = trained.net.head.class_scale
    assert (scale != 1).any()
    bias = 0 if drop_bias else before["linear.bias"]
    features = torch.rand(5, before["linear.weight"].shape[1])
    expected = scale * (features @ before["linear.weight"].T + bias)
    assert torch.allclose(trained.net.head.eval()(features), expected, atol=1e-5)


def test_weight_scaling_of_normalised_rows_needs_the_bias_dropped() -> None:
    with pytest.raises(UserError, match="set drop_bias=true too"):
        build("pgd-at+lws", **{"lws.normalise": True})


def test_reweighting_moves_the_whole_network_or_its_last_layer() -> None:
    whole, head = (
        changed(*fine_tuned("pgd-at+rw", **{"rw.head_only": only})) for only in (False, True)
    )
    assert head == {"linear.weight", "linear.bias"}
    assert len(whole) > len(head)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["crt", "lws", "rw"])
def test_longer_fine_tunings_conform_and_resume(name: str) -> None:
    check_method(name, options={"epochs": 3})


def logits_of(trial: Trial) -> Tensor:
    trained, x = trial.build(), trial.batches()[0][0]
    with torch.no_grad():
        return trained.method.adjust(trained.net.eval()(x))


def base_net(trial: Trial) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Logits and features of the base on the trial's images, and its weights."""
    base = trial.base(0)
    assert base is not None
    net = make_trial(trial.run.method.rpartition("+")[0], {}).build().net.eval()
    net.load_state_dict(base.weights)
    with torch.no_grad():
        x = trial.batches()[0][0]
        return net(x), net.features(x), base.weights


def test_tau_normalisation_by_hand() -> None:
    trial = make_trial("pgd-at+tau-norm", {"tau-norm.tau": 0.5})
    _, features, weights = base_net(trial)
    rows = weights["linear.weight"]
    expected = features @ (rows / rows.norm(dim=1, keepdim=True).sqrt()).T
    assert torch.allclose(logits_of(trial), expected, atol=1e-5)


def test_post_hoc_prior_and_rescaling_by_hand() -> None:
    trial = make_trial("pgd-at+posthoc-la", {"posthoc-la.tau": 2.0})
    logits, _, _ = base_net(trial)
    counts = torch.tensor(trial.data.train_counts).float()
    expected = logits - 2 * (counts / counts.sum()).log()
    assert torch.allclose(logits_of(trial), expected, atol=1e-5)
    trial = make_trial("pgd-at+rescale", {"rescale.tau": 0.5})
    assert torch.allclose(logits_of(trial), logits / counts.sqrt(), atol=1e-5)


def test_post_hoc_methods_stack() -> None:
    method = build("robal-n+posthoc-la+rescale", **{"rescale.tau": 1.0})
    cosines = torch.tensor([[0.1, -0.2, 0.3]])
    base = build("robal-n").adjust(cosines)
    prior = (COUNTS / COUNTS.sum()).log()
    assert torch.allclose(method.adjust(cosines), (base - prior) / COUNTS)


def test_the_direction_that_a_cosine_head_kept_is_taken_away() -> None:
    trial = make_trial("at-cosine+tde", {"tde.alpha": 1.0})
    logits, features, weights = base_net(trial)
    direction = F.normalize(weights["linear.direction"], dim=0)
    assert direction.norm() == pytest.approx(1)
    unit = F.normalize(features, dim=1)
    rest = unit - (unit @ direction)[:, None] * direction
    expected = 16 * rest @ F.normalize(weights["linear.weight"], dim=1).T
    found = logits_of(trial)
    assert torch.allclose(found, expected, atol=1e-4)
    assert not torch.allclose(found, logits, atol=0.1)


@pytest.mark.parametrize("clip_vertex", [True, False])
def test_mixed_images_and_labels_by_hand(clip_vertex: bool) -> None:
    net, x = tiny()
    x = x.round()  # at the edges of [0, 1], where clipping acts
    method = build("avmixup", clip_vertex=clip_vertex, lambda_2=0.4)
    share = torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    method.draw = lambda x, ctx: share  # type: ignore[attr-defined]
    found = method.attack(net, x, Y, context())
    x_adv = build("pgd-at").attack(net, x, Y, context())
    vertex = x + 2 * (x_adv - x)
    vertex = vertex.clamp(0, 1) if clip_vertex else vertex
    part = share.view(-1, 1, 1, 1)
    assert torch.allclose(found, (part * x + (1 - part) * vertex).clamp(0, 1))
    mass = share + 0.4 * (1 - share)
    targets = ((1 - mass) / 2)[:, None].repeat(1, 3)
    targets[range(6), Y] = mass
    assert method.loss(net, x, Y, found, context()) == F.cross_entropy(net(found), targets)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_network_is_attacked_in_the_mode_that_is_asked_for(mode: str) -> None:
    net, x = tiny()
    modes: set[bool] = set()
    net.register_forward_hook(lambda *_: modes.add(net.training))
    build("avmixup", mode=mode).attack(net.train(), x, Y, context())
    assert modes == {mode == "train"}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("pgd-at+crt", {"crt.reinit": False}),
        ("pgd-at+lws", {"lws.drop_bias": True}),
        ("at-cosine+tde", {"tde.alpha": 0.1, "tde.unit_direction": False}),
        ("at-ldam+drw", {"begin": 0.5}),
        ("at-la", {"frozen_bias": True}),
        ("avmixup", {"clip_vertex": False}),
    ],
)
def test_published_recipes_switch_the_quirks_on(name: str, options: dict[str, Any]) -> None:
    recipe = find(name).recipe
    assert recipe is not None
    assert recipe.options == options


def test_the_published_resampling_has_fewer_and_longer_epochs() -> None:
    recipe = find("pgd-at+resample").recipe
    assert recipe is not None
    assert recipe.recipe.epochs == 25


def test_fine_tuning_is_what_the_base_trained_with_but_for_length_and_rate() -> None:
    method = build("trades+crt")
    assert isinstance(method, PostHoc)
    base = find("trades").recipe
    assert base is not None
    own = method.fine_tuning(base.recipe)
    assert own is not None
    same = {"epochs", "lr", "schedule"}
    assert own.model_dump(exclude=same) == base.recipe.model_dump(exclude=same)
