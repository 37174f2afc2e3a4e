"""RoBal's published constants, and which way its inference moves rare classes."""

from __future__ import annotations

import pytest
import torch

from ltrobust.method import METHODS, load_builtin_methods

load_builtin_methods()

PUBLISHED = {
    ("robal-n", 10): "m .1 tau_m 0 tau_b 1.2 tau_p .1 gamma .03125 scale 10 beta_reg 6",
    ("robal-r", 10): "m .1 tau_m .3 tau_b 1.5 tau_p 0 gamma .03125 scale 1 beta_reg 6",
    ("robal-n", 100): "m .2 tau_m 0 tau_b 0 tau_p 1.5 gamma .03125 scale 10 beta_reg 3",
    ("robal-r", 100): "m .3 tau_m 0 tau_b 0 tau_p 1.7 gamma .0625 scale 10 beta_reg 6",
}
"""Of Wu et al. 2021's released configurations: CIFAR-10 and CIFAR-100."""


@pytest.mark.parametrize(("name", "classes"), PUBLISHED)
def test_constants_of_the_released_configurations(name: str, classes: int) -> None:
    method = METHODS.get(name)(torch.ones(classes, dtype=torch.int64))
    words = PUBLISHED[name, classes].split()
    expected = dict(zip(words[::2], map(float, words[1::2]), strict=True))
    assert {key: getattr(method, key) for key in expected} == expected
    assert (method.s, method.beta_adv, method.beta_nat) == (10, 1, 0)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["robal-n", "robal-r"])
@pytest.mark.parametrize(("classes", "like"), [(2, 10), (20, 10), (21, 100), (1000, 100)])
def test_other_data_takes_the_constants_of_the_nearer_set(
    name: str, classes: int, like: int
) -> None:
    cls = METHODS.get(name)
    assert cls.published(classes) == cls.published(like)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "classes"), PUBLISHED)
def test_inference_scales_cosines_and_lifts_rare_classes(name: str, classes: int) -> None:
    counts = torch.arange(classes, 0, -1) * 10
    method = METHODS.get(name)(counts)
    cosines = torch.rand(4, classes) * 2 - 1
    prior = (counts / counts.sum()).log()
    expected = method.scale * cosines - method.tau_p * prior  # type: ignore[attr-defined]
    assert torch.allclose(method.adjust(cosines), expected)
    if method.tau_p:  # type: ignore[attr-defined]
        lifted = method.adjust(torch.zeros(1, classes))[0]
        assert (lifted.diff() > 0).all()  # the rarer, the higher
