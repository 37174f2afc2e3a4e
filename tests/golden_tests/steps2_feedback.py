"""DAFA, CGR, FRL and FAAL: class weights and radii that follow what the network answers."""

from __future__ import annotations

from functools import partial

import torch
from golden2_steps import Builder, Case, Step, TinyNetwork, attack_of, build, sgd_of
from golden_store import assert_close
from ltrobust.methods.frl import frl_weights


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


STEPS: dict[str, Builder] = {
    "dafa_trades": dafa_trades,
    "dafa_pgd": dafa_pgd,
    "frl_rw": partial(frl, remargin=False),
    "frl_rmrw": partial(frl, remargin=True),
}
