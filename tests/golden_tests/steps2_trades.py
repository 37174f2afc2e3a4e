"""TRADES with the balanced softmax, a third party's combination."""

from __future__ import annotations

from golden2_steps import Builder, Case, Step, attack_of, build


def bsl(case: Case) -> Step:
    case.args.must_be("base_algorithm", "trades")
    return Step(
        build("trades-bsl", case, beta=case.args.get("beta")),
        attack_of(case, step_size="pgd_step_size", steps="pgd_num_steps"),
    )


STEPS: dict[str, Builder] = {"cgrm_atbsl_trades": bsl}
