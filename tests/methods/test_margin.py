"""MART, hypersphere embedding, GAIRAT, REAT and plain training: what conformance does not see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltrobust.combination import find
from ltrobust.config import TrainingAttack
from ltrobust.context import Context
from ltrobust.errors import UserError
from ltrobust.losses import gairat_weights, tail_term, tail_term_released
from ltrobust.method import Method, load_builtin_methods
from ltrobust.models.cosine_heads import HEHead
from ltrobust.models.heads import CosineHead
from ltrobust.training.step import train_step

load_builtin_methods()
COUNTS = torch.tensor([10, 40, 20])
FEATURES = 4


class Net(nn.Sequential):
    """A network of two layers with features and a head, as the trainer's."""

    @property
    def head(self) -> nn.Module:
        return self[-1]

    def with_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self[1](self[0](x))
        return features, self.head(features)


def network(method: Method) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = nn.Linear(12, FEATURES)
        return Net(nn.Flatten(), body, method.head(FEATURES, len(COUNTS)))


def context(**changes: Any) -> Context:
    ctx = Context(
        class_counts=COUNTS,
        epoch=9,
        epochs=10,
        attack=TrainingAttack(eps=0.1, step_size=0.05, steps=4, start="none"),
        generator=torch.Generator().manual_seed(0),
    )
    return ctx.changed(**changes)


def batch() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return torch.rand(6, 3, 2, 2, generator=draw), torch.tensor([0, 1, 2, 1, 1, 0])


def test_plain_trains_on_the_images_as_they_are() -> None:
    method = find("plain")(COUNTS)
    net, (x, y) = network(method), batch()
    expected = F.cross_entropy(net(x), y)
    assert torch.equal(train_step(net, method, x, y, context()), expected)
    assert method.attack(net, x, y, context()) is x


@pytest.mark.parametrize("name", ["he", "he-trades", "he-alp"])
def test_normalisation_is_differentiated_unless_as_released(name: str) -> None:
    x, y = batch()
    along: dict[bool, Tensor] = {}
    for released in (False, True):
        method = find(name)(COUNTS, overwritten_weight=released)
        net = network(method)
        train_step(net, method, x, y, context())
        weight = net.head.weight
        # a function of unit rows does not change along the rows
        along[released] = (weight.grad * weight).sum(dim=1).abs().max().detach()
    assert along[False] < 1e-5 < 1e-3 < along[True]


def test_overwritten_head_gives_the_cosines_and_changes_only_where_it_is_trained() -> None:
    head = HEHead(FEATURES, 3, differentiate=False)
    plain = CosineHead(FEATURES, 3, gamma=0)
    plain.load_state_dict(head.state_dict())
    before = head.weight.detach().clone()
    features = torch.rand(5, FEATURES)
    expected = plain(features)
    with torch.no_grad():
        assert torch.allclose(head(features), expected)
    assert torch.equal(head.weight, before)
    assert torch.allclose(head.eval()(features), expected)
    assert torch.equal(head.weight, before)
    assert torch.allclose(head.train()(features), expected)
    assert torch.allclose(head.weight.norm(dim=1), torch.ones(3))


def test_attacks_see_the_scale_of_he() -> None:
    method = find("he-trades")(COUNTS)
    logits = torch.tensor([[0.5, -0.1, 0.2]])
    assert torch.equal(method.adjust(logits), 15 * logits)


def test_images_fooled_early_weigh_more_and_weights_sum_to_the_batch() -> None:
    kappa = torch.tensor([0.0, 1.0, 3.0, 3.0])
    for assignment in ("tanh", "sigmoid", "discrete"):
        weights = gairat_weights(kappa, steps=3, offset=-1.0, assignment=assignment)
        assert weights[0] > weights[1] > weights[2] == weights[3]
        assert weights.sum() == pytest.approx(4)
    equal = gairat_weights(kappa, steps=3, offset=float("inf"))
    assert torch.equal(equal, torch.ones(4))
    released = gairat_weights(kappa, steps=3, offset=-1.0, halve_down=True)
    assert not torch.allclose(released, gairat_weights(kappa, steps=3, offset=-1.0))


def test_weights_begin_at_a_share_of_the_epochs() -> None:
    x, y = batch()
    losses = {}
    for name in ("gairat", "pgd-at", "pgd-at+gairat-w"):
        for epoch in (3, 4):  # the fourth of ten, and the fifth
            method = find(name)(COUNTS)
            losses[name, epoch] = train_step(network(method), method, x, y, context(epoch=epoch))
    assert torch.equal(losses["gairat", 3], losses["pgd-at", 3])
    assert not torch.allclose(losses["gairat", 4], losses["pgd-at", 4])
    assert torch.equal(losses["pgd-at+gairat-w", 3], losses["pgd-at", 3])
    assert torch.equal(losses["pgd-at+gairat-w", 4], losses["gairat", 4])


def test_pieces_of_a_batch_are_counted_as_the_whole() -> None:
    x, y = batch()
    kappas = []
    for size in (None, 4):
        method = find("gairat")(COUNTS)
        train_step(network(method), method, x, y, context(micro_batch=size))
        assert method.watch.steps == 4
        kappas.append(method.watch.kappa)
    assert torch.equal(*kappas)
    assert kappas[0].unique().numel() > 1


def test_weights_on_trades_multiply_both_terms() -> None:
    method = find("trades+gairat-w")(COUNTS)
    net, (x, y) = network(method), batch()
    ctx = context()
    x_adv = method.attack(net, x, y, ctx)
    ours, plain = method.terms(net, x, y, x_adv, ctx), method.base.terms(net, x, y, x_adv, ctx)
    assert method.given.std() > 0
    for name, term in plain.items():
        assert torch.allclose(ours[name], method.given * term)


def test_a_loss_that_is_no_mean_over_images_cannot_be_weighed() -> None:
    with pytest.raises(UserError, match="the loss of reat is no mean over them"):
        find("reat+gairat-w")


def test_reat_counts_predictions_of_an_epoch_for_the_next() -> None:
    method = find("reat")(COUNTS)
    net, (x, y) = network(method), batch()
    assert torch.equal(method.state_dict()["predicted"], COUNTS)
    for _ in range(2):
        train_step(net, method, x, y, context())
    assert torch.equal(method.state_dict()["predicted"], COUNTS)
    method.on_epoch_end(context())
    x_adv = method.attack(net, x, y, context())
    expected = 2 * torch.bincount(net(x_adv).argmax(1), minlength=3)
    assert torch.equal(method.state_dict()["predicted"], expected)
    resumed = find("reat")(COUNTS)
    resumed.load_state_dict(method.state_dict())
    assert torch.equal(resumed.state_dict()["predicted"], expected)


@pytest.mark.parametrize(
    ("options", "term", "tail"),
    [
        ({}, tail_term, [0, 2, 4]),
        ({"tail_by_index": True}, tail_term, [7, 8, 9]),
        ({"collapsed_tail": True}, tail_term_released, [0, 2, 4]),
    ],
)
def test_tail_classes_of_reat_are_the_rarest_unless_as_released(
    options: dict[str, bool], term: Callable[..., Tensor], tail: list[int]
) -> None:
    counts = torch.tensor([1, 50, 3, 80, 2, 90, 60, 70, 40, 30])
    draw = torch.Generator().manual_seed(0)
    x, y = torch.rand(8, 3, 2, 2, generator=draw), torch.tensor([0, 0, 2, 4, 6, 7, 8, 9])
    method = find("reat")(counts, **options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Net(nn.Flatten(), nn.Linear(12, FEATURES), nn.Linear(FEATURES, 10))
    loss = method.loss(net, x, y, x, context(class_counts=counts))
    features, logits = net.with_features(x)
    mask = torch.isin(torch.arange(10), torch.tensor(tail))
    expected = F.cross_entropy(logits + counts.log(), y) + term(features, y, counts, mask)
    assert torch.allclose(loss, expected, rtol=1e-6)


def test_mart_weighs_the_divergence_by_doubt() -> None:
    x, y = batch()
    method = find("mart")(COUNTS, beta=3.0)
    net = network(method)
    x_adv = method.attack(net, x, y, context())
    terms = method.terms(net, x, y, x_adv, context())
    clean, attacked = net(x).softmax(1), net(x_adv).softmax(1)
    divergence = (clean * (clean / attacked).log()).sum(1)
    doubt = 1 - clean[range(6), y]
    assert torch.allclose(terms["consistency"], 3 * divergence * doubt, atol=1e-6)
    wrong = attacked.scatter(1, y[:, None], 0).amax(1)
    boosted = -attacked[range(6), y].log() - (1 - wrong).log()
    assert torch.allclose(terms["attacked"], boosted, atol=1e-3)
