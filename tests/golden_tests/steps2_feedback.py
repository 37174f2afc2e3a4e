"""DAFA, CGR, FRL and FAAL: class weights and radii that follow what the network answers."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from golden2_steps import Builder, Case, Step, TinyNetwork, attack_of, build, sgd_of
from golden_steps import StoredStart
from golden_store import Arguments, assert_close
from ltrobust.methods.frl import frl_weights

from ltrobust.losses.counts import log_prior


def dafa(case: Case, base: str, **options: object) -> Step:
    method = build(f"{base}+dafa", case, **options, **{"dafa.attacked_first": True})
    weights = torch.tensor(case.args.get("class_weights"), dtype=torch.float64)
    method.load_own_state({"class_weights": weights})  # type: ignore[attr-defined]

    def check(_: TinyNetwork) -> None:
        of_class = torch.nn.functional.one_hot(case.y, len(case.counts)).double()
        sums = of_class.T @ case.tensor("memory_probs")
        assert_close(method.sums, sums, 1e-6)  # type: ignore[attr-defined]

    last = round(method.warm_up * 110)  # type: ignore[attr-defined]
    attack = attack_of(case, steps="num_steps")
    return Step(method, attack, epoch=last - 1, epochs=110, check=check)


def dafa_trades(case: Case) -> Step:
    return dafa(case, "trades", beta=case.args.get("beta"))


def dafa_pgd(case: Case) -> Step:
    return dafa(case, "pgd-at", **{"dafa.double_step": True})


def frl(case: Case, *, remargin: bool) -> Step:
    method = build(
        "pgd-at+frl",
        case,
        **{
            "frl.remargin": remargin,
            "frl.beta": case.args.get("beta"),
            "frl.largest_step": True,
            "frl.repeat_clean": True,
        },
    )
    lambdas = torch.tensor(case.args.get("lambda_"), dtype=torch.float64)
    method.load_own_state({"lambdas": lambdas})  # type: ignore[attr-defined]

    def check(_: TinyNetwork) -> None:
        for key, values in zip(
            ("natural", "boundary", "epsilon"), frl_weights(lambdas), strict=True
        ):
            assert_close(values, case.tensor(f"weights_{key}"), 1e-6)

    attack = attack_of(case, steps="num_steps")
    return Step(method, attack, optimizer=sgd_of(case), check=check)


CGR_OPTIONS = (
    "beta",
    "prior_tau",
    "feedback_momentum",
    "weight_lambda",
    "conf_lambda",
    "weight_max",
    "weight_natural",
    "beta_lambda",
    "beta_min_scale",
    "beta_max_scale",
    "margin_lambda",
    "margin_m",
    "graph_momentum",
    "graph_topk",
    "graph_eps",
    "head_gamma",
    "geometry_gamma",
)


def cgr_options(args: Arguments) -> dict[str, Any]:
    """Our options from the arguments of the released script."""
    options = {name: args.get(name) for name in CGR_OPTIONS}
    options["alpha"] = args.get("robustlt_alpha")
    options["ramp"] = 0.0 if args.get("disable_aiw") else args.get("robustlt_beta")
    if not args.get("use_balanced_ce"):
        options["prior_tau"] = 0.0
    if not args.get("use_classwise_beta"):
        options["beta_lambda"] = 0.0
    if not args.get("use_feedback_weight"):  # scores and weights stay as they are
        options |= {"weight_lambda": 0.0, "feedback_momentum": 1.0}
    if not args.get("use_cgr_margin"):  # so does the graph
        options |= {"margin_lambda": 0.0, "graph_momentum": 1.0}
    radii = args.given("eps_lambda", "eps_min", "eps_max")
    if args.get("use_feedback_eps"):
        shares = {name: radii[name] / args.get("epsilon") for name in ("eps_min", "eps_max")}
        options |= {**radii, **shares}
    return {"base": args.get("base_algorithm"), "wasted_clean": True, **options}


def cgr(case: Case) -> Step:
    method = build("cgr", case, **cgr_options(case.args))
    state = method.state_dict()
    for ours, theirs in (
        ("class_weights", "weights"),
        ("class_betas", "betas"),
        ("graph", "graph"),
    ):
        state[ours] = case.tensor(f"class_{theirs}")
    method.load_state_dict(state)
    attack = attack_of(case, step_size="pgd_step_size", steps="pgd_num_steps")
    epoch, epochs = case.args.get("epoch") - 1, case.args.get("epochs")

    def check(_: TinyNetwork) -> None:
        ctx = StoredStart(case.counts, epoch, epochs, attack, torch.Generator())
        assert_close(method.class_eps(ctx), case.tensor("class_epsilon"), 1e-6)  # type: ignore[attr-defined]
        assert_close(log_prior(case.counts, case.x), case.tensor("log_prior"), 1e-6)

    return Step(method, attack, epoch=epoch, epochs=epochs, check=check)


def faal(case: Case, base: str, **options: Any) -> Step:
    released = {f"faal.{name}": True for name in RELEASED_FAAL}
    radius = {"faal.radius": case.args.get("r")}
    method = build(f"{base}+faal", case, **options, **released, **radius)

    def check(_: TinyNetwork) -> None:
        assert_close(method.class_margins, case.tensor("class_margin"), 1e-6)  # type: ignore[attr-defined]
        assert_close(method.class_weights, case.tensor("weights"), 2e-6)  # type: ignore[attr-defined]

    attack = attack_of(case, step_size="alpha", steps="steps")
    return Step(method, attack, optimizer=sgd_of(case), check=check)


RELEASED_FAAL = ("sum_over_images", "attacked_first", "wasted_clean", "kl_attack")
STEPS: dict[str, Builder] = {
    "dafa_trades": dafa_trades,
    "dafa_pgd": dafa_pgd,
    "frl_rw": partial(frl, remargin=False),
    "frl_rmrw": partial(frl, remargin=True),
    "cgr_at": cgr,
    "cgr_trades": cgr,
    "faal_at": partial(faal, base="pgd-at"),
    "faal_trades": partial(faal, base="trades", beta=6.0),
}
