"""RoBal's long-tail tricks under adversarial training."""

from __future__ import annotations

from functools import partial
from typing import Any

from golden2_steps import HEAD, Builder, Case, Step, TinyNetwork, attack_of, build, tiny_network
from golden_store import Arguments, assert_close
from ltrobust.methods.pgd_at import robal_recipe

from ltrobust.method import Method
from ltrobust.modifier import PostHoc

PUBLISHED = {"direction": "moving_ed", "class_scale": "cla_scale"}


def with_head(case: Case, method: Method) -> TinyNetwork:
    """The stored network with the method's head, which holds the stored weights."""
    net = tiny_network(case.facts["net_key"])
    features, classes = net.head.in_features, net.head.out_features
    head = method.head(features, classes).double()
    for name, value in head.state_dict().items():
        own = PUBLISHED.get(name.split(".")[-1], name.split(".")[-1])
        found = [k for k in (f"head.fc.{own}", f"head.{own}") if case.has(k)]
        assert found or own == "moving_ed", name  # published cosine heads without one have it too
        if found:
            value.copy_(case.tensor(found[0]).reshape(value.shape))
    net[int(HEAD)] = head
    return net


def nested(case: Case, key: str, *path: str) -> Arguments:
    """The options of one loss, such as loss_opt: {LDAM: {...}}, of which it is the only one."""
    options = case.args.get(key)
    for name in path:
        assert list(options) == [name], f"{key} is {options}"
        options = options[name]
    return Arguments(options)


def classifier(case: Case, name: str) -> Arguments:
    """The options of the published head, which must be of this kind."""
    assert list(case.facts["classifier"]) == [name]
    return Arguments(case.facts["classifier"][name])


def step(case: Case, name: str, **options: Any) -> Step:
    """A step of one of our methods from the case's attack and epoch."""
    method = build(name, case, **options)
    return Step(method, attack_of(case), epoch=case.args.get("epoch"), net=with_head(case, method))


def outer_loss(case: Case, loss: str | None) -> dict[str, Any]:
    """The options of the outer loss, where the attack is on plain cross-entropy."""
    case.args.must_be("adv_loss_opt", None)
    if loss is None:
        case.args.must_be("loss_opt", None)
        return {}
    args = nested(case, "loss_opt", loss)
    args.must_be("weight", None)
    args.must_be("loss_type", "focal")
    found = {key: args.get(key) for key in ("tau", "max_m", "s", "beta", "gamma")}
    args.assert_all_read()
    return {key: value for key, value in found.items() if value is not None}


def inner_la(case: Case) -> Step:
    classifier(case, "FC_Classifier").assert_all_read()
    tau = nested(case, "loss_opt", "LogitAdjust").get("tau")
    assert nested(case, "adv_loss_opt", "LogitAdjust").get("tau") == tau
    return step(case, "at-la", tau=tau, inner=True)


def outer_la(case: Case) -> Step:
    classifier(case, "Dot_Classifier").assert_all_read()
    return step(case, "at-la", frozen_bias=True, **outer_loss(case, "LogitAdjust"))


def linear(name: str, loss: str, case: Case) -> Step:
    classifier(case, "FC_Classifier").assert_all_read()
    return step(case, name, **outer_loss(case, loss))


def ldam_drw(case: Case) -> Step:
    classifier(case, "FC_Classifier").assert_all_read()
    outer_loss(case, None)
    deferred = Arguments(case.args.get("deffer_opt"))
    weights, margin = Arguments(deferred.get("DRW")), Arguments(deferred.get("DM"))
    begins = [a.get("epoch_devides") for a in (weights, margin)]
    betas, margins = weights.get("DRW_betas"), margin.get("DM_maxs")
    for args in (deferred, weights, margin):
        args.assert_all_read()
    # each epoch of a list begins a stage; that of the case is on, which may switch nothing on
    epoch = case.args.get("epoch")
    epochs = 2 * epoch
    stages = [max(n for n, first in enumerate(firsts) if epoch >= first) for firsts in begins]
    method = build(
        "at-ldam+drw",
        case,
        max_m=margins[stages[1]],
        begin=begins[1][stages[1]] / epochs,
        **{"drw.begin": begins[0][stages[0]] / epochs, "drw.beta": betas[stages[0]]},
    )
    return Step(
        method,
        attack_of(case),
        epoch=epoch - 1,  # the release counts from 1
        epochs=epochs,
        net=with_head(case, method),
    )


def cosine(case: Case) -> Step:
    args = classifier(case, "Cos_Classifier")
    args.must_be("bias", False)
    found = step(case, "at-cosine", scale=args.get("scale"), **outer_loss(case, None))
    args.assert_all_read()
    return found


def tde(case: Case) -> Step:
    args = classifier(case, "TDESim_Classifier")
    args.must_be("bias", False)
    args.must_be("posthoc", True)
    options = {key: args.get(key) for key in ("alpha", "gamma", "scale", "mu")}
    args.assert_all_read()
    found = step(case, "at-tde", unit_direction=False, **options, **outer_loss(case, None))

    def direction(net: TinyNetwork) -> None:
        assert_close(net.head.direction[None], case.tensor("moving_ed_after"), 1e-7)

    found.check = direction
    return found


def avmixup(case: Case) -> Step:
    outer_loss(case, None)
    options = {key: case.args.get(key) for key in ("gamma", "lambda_1", "lambda_2")}
    found = step(case, "avmixup", clip_vertex=False, **options)
    found.method.draw = lambda x, ctx: case.tensor("alpha")  # type: ignore[attr-defined]
    return found


def lws(case: Case) -> Step:
    args = classifier(case, "PostNorm_Classifier")
    args.must_be("bias", False)
    args.must_be("lws", True)
    args.must_be("avg_T", 1)
    args.must_be("tau", 1)
    outer_loss(case, None)
    method = build("pgd-at+lws", case, **{"lws.drop_bias": True, "lws.normalise": args.get("norm")})
    args.assert_all_read()
    assert isinstance(method, PostHoc)
    recipe = method.fine_tuning(robal_recipe().recipe)
    assert recipe is not None
    settings = ("lr", "momentum", "weight_decay", "nesterov")
    return Step(
        method,
        attack_of(case),
        epoch=case.args.get("epoch"),
        net=with_head(case, method),
        names={f"{HEAD}.class_scale": "classifier.cla_scale"},
        optimizer={key: getattr(recipe, key) for key in settings},
        stepped=method.trainable,
    )


STEPS: dict[str, Builder] = {
    "robal_inner_la": inner_la,
    "robal_outer_la": outer_la,
    "robal_ldam": partial(linear, "at-ldam", "LDAM"),
    "robal_ldam_drw": ldam_drw,
    "robal_cb": partial(linear, "at-cb", "CB"),
    "robal_focal": partial(linear, "at-focal", "focal"),
    "robal_cdt": partial(linear, "at-cdt", "CDT"),
    "robal_cos": cosine,
    "robal_tde": tde,
    "robal_lws": lws,
    "robal_avmixup": avmixup,
}
