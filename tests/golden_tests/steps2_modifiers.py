"""Modifiers of the outer step, the radii and the ball, on the bases that have released code."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
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
from ltrobust.methods.awp import AWP
from ltrobust.methods.cfa import CFA, class_beta
from ltrobust.methods.robustlt import RobustLT
from ltrobust.methods.udr import UDR
from torch import Tensor

from ltrobust.combination import layers
from ltrobust.method import Context, Method

EPOCHS = 200
RELEASED_AT = {"awp.mode": "train", "awp.restart_pass": True, "awp.passes_after": "clean"}


def part(method: Method, kind: type[Any]) -> Any:
    """The modifier of this class in a combination."""
    return next(layer for layer in layers(method) if isinstance(layer, kind))


def context(case: Case, step: Step) -> Context:
    """What the method was told of the step, for what it computes without images."""
    return Context(case.counts, step.epoch, step.epochs, step.attack, torch.Generator())


def watch_perturbation(method: Method) -> list[Tensor]:
    """Collect the weight tensors that AWP perturbs and what it adds."""
    awp, found = part(method, AWP), []
    perturbation = awp.perturbation

    def watched(*arguments: Any) -> Any:
        found.extend(perturbation(*arguments))
        return list(found)

    awp.perturbation = watched
    return found


def check_perturbation(case: Case, net: TinyNetwork, found: list[Any], gamma: float) -> None:
    """The perturbation, by the names of its tensors; stored without gamma."""
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    added = {names[id(weight)]: change / gamma for weight, change in found}
    mark = "awp_diff."
    assert set(added) == {k.removeprefix(mark) for k in case.keys if k.startswith(mark)}
    for name, change in added.items():
        assert_close(change, case.tensor(f"{mark}{name}"), 1e-6)


def awp_trades(case: Case) -> Step:
    case.args.must_be("norm", "l_inf")
    case.args.get("proxy_optimizer")  # its rate does not matter: only a direction is taken
    gamma = case.args.get("awp_gamma")
    options: dict[str, Any] = {
        "beta": case.args.get("beta"),
        "repeat_clean": True,
        "attacked_first": True,
        "awp.gamma": gamma,
        "awp.warmup": (case.args.get("awp_warmup") - 1) / EPOCHS,
    }
    method = build("trades+awp", case, **options)
    found = watch_perturbation(method)
    return Step(
        method,
        attack_of(case, steps="num_steps"),
        epoch=case.args.get("epoch") - 1,
        epochs=EPOCHS,
        optimizer=sgd_of(case),
        check=lambda net: check_perturbation(case, net, found, gamma),
    )


def released_at(case: Case, name: str, **options: Any) -> tuple[Step, list[Any], float]:
    """AWP as its authors release it for PGD-AT."""
    case.args.must_be("restarts", 1)
    case.args.get("proxy_optimizer")
    gamma = case.args.get("awp_gamma")
    method = build(name, case, **{**RELEASED_AT, "awp.gamma": gamma, **options})
    found = watch_perturbation(method)
    step = Step(
        method,
        attack_of(case, step_size="pgd_alpha", steps="attack_iters"),
        epoch=case.args.get("epoch"),
        epochs=EPOCHS,
        optimizer=sgd_of(case),
    )
    return step, found, gamma


def awp_at(case: Case) -> Step:
    step, found, gamma = released_at(case, "pgd-at+awp")
    step.net = tiny_network(case.facts["net_key"])
    passed: list[Tensor] = []
    step.net.register_forward_hook(lambda _net, _inputs, logits: passed.append(logits))

    def check(net: TinyNetwork) -> None:
        check_perturbation(case, net, found, gamma)
        # the last pass is that of the clean images after the step
        assert_close(F.cross_entropy(passed[-1], case.y), case.tensor("natural_loss"), 1e-6)

    step.check = check
    return step


def udr_awp_at(case: Case) -> Step:
    step, found, gamma = released_at(
        case,
        "pgd-at+awp+udr",
        **{
            "udr.lamda": case.args.get("lamda_init"),
            "udr.rate": case.args.get("lamda_lr"),
            "udr.period": case.args.get("lamda_period"),
            "udr.floor": None,
        },
    )
    step.context = {"batch": case.args.get("batch_index")}
    udr = part(step.method, UDR)
    gaps = udr.gaps  # filled by the attack; a new list takes its place after the update

    def check(net: TinyNetwork) -> None:
        check_perturbation(case, net, found, gamma)
        check_lamda(case, step)
        assert_close(step.attack.eps - gaps[0], case.tensor("mean_l1"), 1e-6)

    step.check = check
    return step


def check_lamda(case: Case, step: Step) -> None:
    """lambda after the step."""
    lamda = step.method.state_dict()["udr.lamda"]
    assert_close(lamda, case.tensor("lamda_after"), 1e-6)


def cgrm_udr(case: Case) -> Step:
    options = {
        "udr.lamda": case.args.get("lamda"),
        "udr.rate": case.args.get("lamda_lr"),
        "udr.floor": case.args.get("lamda_min"),
        "udr.tau": case.args.get("udr_tau"),
        "udr.stuck": True,
    }
    natural, beta = case.args.get("pgd_natural_weight"), case.args.get("beta")
    if case.args.get("loss") == "pgd":
        method = build("pgd-at+udr", case, **{**options, "udr.natural": natural, "udr.scale": beta})
    else:
        case.args.must_be("loss", "trades")
        method = build("trades+udr", case, **{**options, "beta": beta, "detached": True})
    step = Step(method, attack_of(case, step_size="pgd_step_size", steps="pgd_num_steps"))
    step.check = lambda net: check_lamda(case, step)
    return step


def cfa(case: Case, name: str, **options: Any) -> Step:
    chosen = {
        "cfa.lambda_1": case.args.get("lambda_1"),
        "cfa.lambda_2": case.args.get("lambda_2"),
        "cfa.begin": 0.0,
        "cfa.decay": 0.0,
        "cfa.equal_classes": True,
        "cfa.clean_pass": True,
    }
    method = build(name, case, **chosen, **options)
    known = torch.tensor(case.args.get("train_robust"), dtype=torch.float64)
    method.load_state_dict({"cfa.average": {}, "cfa.accuracy": {"robust": known}})
    step = Step(method, attack_of(case, steps="n_iters"), optimizer=sgd_of(case))
    modifier, beta = part(method, CFA), case.args.get("beta")

    def check(net: TinyNetwork) -> None:
        ctx = context(case, step)
        eps = step.attack.eps * modifier.calibration(ctx, modifier.lambda_1)
        assert_close(eps, case.tensor("class_epsilon"), 1e-6)
        share = class_beta(modifier.calibration(ctx, modifier.lambda_2), beta)
        assert_close(share, case.tensor("class_beta"), 1e-6)
        method.on_epoch_end(ctx)
        assert_close(modifier.robust.last, case.tensor("train_robust_after"), 1e-6)
        assert_close(modifier.clean.last, case.tensor("train_clean_after"), 1e-6)

    step.check = check
    return step


def cfa_at(case: Case) -> Step:
    return cfa(case, "pgd-at+cfa", **{"cfa.mode": "train"})


def cfa_trades(case: Case) -> Step:
    return cfa(case, "trades+cfa", beta=case.args.get("beta"), repeat_clean=True)


def robustlt(
    case: Case,
    base: str,
    options: dict[str, Any],
    *,
    after: Literal["attacked, clean", "clean, attacked"] = "attacked, clean",
    unused_clean: bool = False,
) -> Step:
    """RobustLT as its authors release it, around a base."""
    case.args.must_be("enhanced", True)
    released: dict[str, Any] = {
        "robustlt.alpha": case.args.get("robustlt_alpha"),
        "robustlt.beta": case.args.get("robustlt_beta"),
        "robustlt.mode": "train-kept",
        "robustlt.passes_after": after,
        "robustlt.unused_clean": unused_clean,
    }
    method = build(f"{base}+robustlt", case, **released, **options)
    step = Step(
        method,
        attack_of(case),
        epoch=case.args.get("current_epoch") - 1,
        epochs=case.args.get("num_epochs"),
        optimizer=sgd_of(case),
    )
    step.check = lambda net: check_radii(case, step)
    return step


def check_radii(case: Case, step: Step) -> None:
    """The radii of the epoch."""
    factors = part(step.method, RobustLT).factors(context(case, step))
    assert_close(step.attack.eps * factors, case.tensor("class_epsilon"), 1e-6)


def robustlt_atbsl(case: Case) -> Step:
    case.args.must_be("base", "atbsl")
    own = dict(case.args.get("method"))
    options = {"tau": own.pop("tau_b", 1.0)}
    assert not own
    return robustlt(case, "at-bsl", options, unused_clean=True)


def robustlt_awp(case: Case) -> Step:
    case.args.must_be("base", "awp")
    own = dict(case.args.get("method"))
    epochs = case.args.get("num_epochs")
    options = {
        "awp.gamma": own.pop("awp_gamma"),
        "awp.warmup": own.pop("awp_warmup") / epochs,
        "awp.rule": "optimizer",
    }
    assert not own
    return robustlt(case, "pgd-at+awp", options)


def robustlt_taet(case: Case) -> Step:
    case.args.must_be("base", "taet")
    own = dict(case.args.get("method"))
    options = {key: own.pop(key) for key in ("alpha", "beta", "gamma") if key in own}
    options["ce_fraction"] = (own.pop("ce_epochs", 40) - 1) / case.args.get("num_epochs")
    assert not own
    return robustlt(
        case,
        "taet",
        {"count_absent": True, **options},
        after="clean, attacked",
        unused_clean=True,
    )


def robustlt_robal(case: Case) -> Step:
    case.args.must_be("base", "robal")
    own = dict(case.args.get("method"))
    names = ("m", "s", "tau_b", "tau_m", "beta_adv", "beta_nat")
    options = {key: own.pop(key) for key in names if key in own}
    options["beta_reg"] = own.pop("beta")
    assert not own
    head = dict(case.facts["classifier"]["CosPlus_Classifier"])
    assert not head["bias"]
    step = robustlt(case, "robal-r", {**options, "gamma": head["gamma"]})
    step.net = with_head(case, step.method)
    step.net.head.scale = head["scale"]
    return step


def with_head(case: Case, method: Method) -> TinyNetwork:
    """The stored network with the method's head, and the stored weight in it."""
    net = tiny_network(case.facts["net_key"])
    weight = case.tensor("head.weight")
    head = method.head(weight.shape[1], weight.shape[0]).double()
    head.weight = torch.nn.Parameter(weight)
    net[int(HEAD)] = head
    return net


def cgrm_robustlt_trades(case: Case) -> Step:
    case.args.must_be("base_algorithm", "trades")
    method = build(
        "trades+robustlt",
        case,
        **{
            "beta": case.args.get("beta"),
            "detached": True,
            "robustlt.alpha": case.args.get("robustlt_alpha"),
            "robustlt.beta": case.args.get("robustlt_beta"),
        },
    )
    step = Step(
        method,
        attack_of(case, step_size="pgd_step_size", steps="pgd_num_steps"),
        epoch=case.args.get("epoch") - 1,
        epochs=case.args.get("epochs"),
    )
    # the start point that is stored is projected onto the ball of the class
    radius = case.tensor("class_epsilon")[case.y].view(-1, 1, 1, 1)
    start = (case.x + case.tensor("start_delta").clamp(-radius, radius)).clamp(0, 1) - case.x
    step.context = {"delta": start}
    step.check = lambda net: check_radii(case, step)
    return step


STEPS: dict[str, Builder] = {
    "awp_at": awp_at,
    "awp_trades": awp_trades,
    "udr_awp_at": udr_awp_at,
    "cgrm_udr_pgd": cgrm_udr,
    "cgrm_udr_trades": cgrm_udr,
    "cfa_at": cfa_at,
    "cfa_trades": cfa_trades,
    "robustlt_atbsl": robustlt_atbsl,
    "robustlt_awp": robustlt_awp,
    "robustlt_taet": robustlt_taet,
    "robustlt_robal": robustlt_robal,
    "cgrm_robustlt_trades": cgrm_robustlt_trades,
}
