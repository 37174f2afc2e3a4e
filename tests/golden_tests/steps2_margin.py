"""MART, hypersphere embedding in all its forms, and GAIRAT."""

from __future__ import annotations

import math

import torch
from golden2_steps import (
    HEAD,
    Builder,
    Case,
    Step,
    TinyNetwork,
    attack_of,
    build,
    sgd_of,
    tiny_network,
)
from golden_store import assert_close
from torch import nn

from ltrobust.method import Method


def mart(case: Case) -> Step:
    return Step(build("mart", case, beta=case.args.get("beta")), attack_of(case))


def with_cosine_head(net: TinyNetwork, method: Method, weight: torch.Tensor) -> TinyNetwork:
    """The network with a method's own head, which has no bias, and the stored weight."""
    head = method.head(weight.shape[1], weight.shape[0]).double()
    assert "bias" not in dict(head.named_parameters())
    head.weight = nn.Parameter(weight)
    net[int(HEAD)] = head
    return net


def he(case: Case) -> Step:
    name = {"pgd_he": "he", "trades_he": "he-trades", "alp_he": "he-alp"}[case.args.get("loss")]
    options = case.args.given("m", "s", "beta")
    if name == "he":
        del options["beta"]  # of the other two
    method = build(name, case, overwritten_weight=True, **options)
    net = tiny_network(case.facts["net_key"])
    net.normalised = True
    with_cosine_head(net, method, net.head.weight.detach().clone())

    def check(net: TinyNetwork) -> None:
        assert_close(net.head.weight, case.tensor("head_weight_after"), 1e-7)

    return Step(method, attack_of(case), net=net, check=check)


def cos_he(case: Case) -> Step:
    case.args.must_be("adv_loss_opt", None)
    case.args.get("epoch")
    margin = dict(case.args.get("loss_opt")["UniMargin"])
    assert margin.pop("weight", None) is None
    head = case.facts["classifier"]["Cos_Classifier"]
    assert not head.get("bias", False)
    assert not case.tensor("head.bias").any()
    method = build("cos-he", case, **margin)
    net = tiny_network(case.facts["net_key"])
    with_cosine_head(net, method, case.tensor("head.weight"))
    net.head.scale = head.get("scale", 16)
    return Step(method, attack_of(case), net=net)


EPOCHS = 120
"""Of the released schedule; the case tells when the weights begin."""


def gairat(case: Case) -> Step:
    epoch, begin = case.args.get("epoch"), case.args.get("begin_epoch")
    offset = case.args.get("Lambda")
    method = build(
        "gairat",
        case,
        halve_down=True,
        assignment=case.args.get("weight_assignment_function").lower(),
        begin=begin / EPOCHS,
        **({"offset": offset} if math.isfinite(offset) else {}),
    )

    def check(_net: TinyNetwork) -> None:
        assert_close(method.watch.kappa, case.tensor("kappa").double(), 0)
        assert (method.given is not None) == (epoch + 1 >= begin) == case.has("weights")
        if case.has("weights"):
            assert_close(method.given, case.tensor("weights"), 1e-6)

    return Step(
        method,
        attack_of(case, steps="num_steps"),
        epoch=epoch,
        epochs=EPOCHS,
        optimizer=sgd_of(case),
        check=check,
    )


STEPS: dict[str, Builder] = {
    "mart": mart,
    "gairat": gairat,
    "gairat_warmup": gairat,
    "he_pgd": he,
    "he_trades": he,
    "he_alp": he,
    "robal_cos_he": cos_he,
}
