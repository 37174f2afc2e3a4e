"""Properties of the losses that stored numbers do not cover."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ltrobust import losses

COUNTS = torch.tensor([5, 4999, 40])


def logits(batch: int = 6, classes: int = 3) -> Tensor:
    return torch.randn(batch, classes, generator=torch.Generator().manual_seed(0))


def test_harl_over_present_classes_ignores_classes_without_examples() -> None:
    labels = torch.tensor([0, 2, 2, 0, 2, 0])
    per_class = torch.stack(
        [F.cross_entropy(logits()[labels == c], labels[labels == c]) for c in (0, 2)]
    )
    terms = losses.harl_terms(logits(), labels, count_absent=False)
    assert terms.balanced == pytest.approx(per_class.mean().item())
    assert terms.hierarchical == pytest.approx(per_class.var(correction=0).item())
    assert terms.rare == pytest.approx(((per_class / per_class.sum()) ** 2).sum().item())


def test_harl_weighs_its_three_terms_by_a_tenth_each() -> None:
    labels = torch.tensor([0, 0, 1, 2])
    terms = losses.harl_terms(logits(4), labels, count_absent=False)
    expected = 0.1 * (terms.balanced + terms.hierarchical + terms.rare)
    assert losses.harl_loss(logits(4), labels) == pytest.approx(float(expected))


def test_harl_is_finite_when_every_example_is_right_beyond_doubt() -> None:
    certain = torch.eye(3).mul(1e4).requires_grad_()
    loss = losses.harl_loss(certain, torch.arange(3))
    loss.backward()
    assert loss.isfinite()
    assert certain.grad is not None
    assert certain.grad.isfinite().all()


def test_balanced_softmax_of_bfloat16_logits_keeps_the_counts_exact() -> None:
    # 4999 is no bfloat16 number; rounded counts would shift the loss
    zeros = torch.zeros(1, 3, dtype=torch.bfloat16)
    loss = losses.balanced_softmax_loss(zeros, torch.tensor([0]), COUNTS)
    assert loss.item() == pytest.approx(-torch.log(COUNTS[0] / COUNTS.sum()).item(), rel=1e-6)


def test_rare_classes_get_the_larger_ldam_margin_and_the_smaller_robal_margin() -> None:
    flat = torch.zeros(3, 3)

    def per_class(loss: object) -> list[float]:
        return [loss(flat[:1], torch.tensor([c]), COUNTS).item() for c in range(3)]  # type: ignore[operator]

    ldam = per_class(lambda z, y, n: losses.ldam_loss(z, y, n, max_m=0.5))
    robal = per_class(lambda z, y, n: losses.robal_margin_loss(z, y, n, m=0.1, s=10, tau_m=0.3))
    assert ldam[0] > ldam[2] > ldam[1]
    assert robal[0] < robal[2] < robal[1]


@pytest.mark.parametrize("divergence", [losses.trades_kl, losses.robal_kl])
def test_divergences_stay_finite_for_opposite_certain_predictions(divergence: object) -> None:
    clean = torch.tensor([[1e3, -1e3]], requires_grad=True)
    attacked = torch.tensor([[-1e3, 1e3]], requires_grad=True)
    loss = divergence(clean, attacked)  # type: ignore[operator]
    gradients = torch.autograd.grad(loss, [clean, attacked])
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_class_balanced_weights_tend_to_inverse_counts_and_to_one() -> None:
    nearly_inverse = losses.class_balanced_weights(COUNTS, logits(), beta=1 - 1e-7)
    inverse = 1 / COUNTS
    assert torch.allclose(nearly_inverse, 3 * inverse / inverse.sum(), rtol=1e-3)
    assert torch.equal(losses.class_balanced_weights(COUNTS, logits(), beta=0), torch.ones(3))


def test_cw_margin_compares_with_the_best_other_class_only() -> None:
    scores = torch.tensor([[3.0, 1.0, 2.5]])
    loss = losses.cw_margin_loss(scores, torch.tensor([0]), confidence=1.0)
    assert loss.item() == pytest.approx(-(3.0 - 2.5 + 1.0))


def test_tail_term_is_the_signed_weighted_mean_over_pairs() -> None:
    features, labels = logits(5, 4), torch.tensor([0, 1, 0, 2, 1])
    tail = torch.tensor([True, False, True])
    q = features.softmax(1)
    weights = (COUNTS.sum() / COUNTS).sqrt()
    anchors = []
    for i in (0, 2, 3):
        terms = [
            (-1 if labels[i] == labels[j] else 1)
            * (weights[labels[i]] + weights[labels[j]])
            * (q[i] * (q[i] / q[j]).log()).sum()
            for j in range(5)
        ]
        anchors.append(torch.stack(terms).mean())
    expected = torch.stack(anchors).mean()
    loss = losses.tail_term(features, labels, COUNTS, tail)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("term", [losses.tail_term, losses.tail_term_released])
def test_tail_terms_are_zero_without_a_tail_example(term: object) -> None:
    features = logits(4, 5).requires_grad_()
    loss = term(features, torch.tensor([0, 1, 0, 1]), COUNTS, torch.tensor([False, False, True]))  # type: ignore[operator]
    loss.backward()
    assert loss.item() == 0
    assert features.grad is not None
    assert not features.grad.any()


@pytest.mark.parametrize("name", ["balanced_softmax_loss", "logit_adjusted_loss", "cdt_loss"])
def test_a_class_without_images_counts_as_one_image(name: str) -> None:
    loss, labels = getattr(losses, name), torch.tensor([0, 1, 2, 1, 0, 2])
    absent, one = torch.tensor([50, 0, 4]), torch.tensor([50, 1, 4])
    found = loss(logits(), labels, absent)
    assert found.isfinite()
    assert torch.equal(found, loss(logits(), labels, one))


def test_balanced_softmax_is_cross_entropy_under_the_training_counts() -> None:
    labels = torch.tensor([0, 1, 2, 1, 0, 2])
    weighted = COUNTS * logits().exp()
    shares = weighted / weighted.sum(1, keepdim=True)
    expected = -shares[torch.arange(6), labels].log().mean()
    assert losses.balanced_softmax_loss(logits(), labels, COUNTS).item() == pytest.approx(
        expected.item(), rel=1e-5
    )


def test_robals_bias_and_margins_are_off_at_and_below_zero() -> None:
    labels = torch.tensor([0, 1, 2, 1, 0, 2])
    plain = F.cross_entropy(10 * logits(), labels)

    def robal(**weights: float) -> Tensor:
        return losses.robal_margin_loss(logits(), labels, COUNTS, s=10.0, **weights)

    for off in (0.0, -1.5):
        assert torch.equal(robal(tau_b=off), plain)
        assert torch.equal(robal(m=off, tau_m=off), plain)
    assert not torch.equal(robal(tau_b=0.5), plain)
    # either of the two margins alone switches both on
    assert not torch.equal(robal(m=0.1, tau_m=-0.3), robal(m=0.1))
    assert not torch.equal(robal(m=-0.1, tau_m=0.3), robal(tau_m=0.3))
