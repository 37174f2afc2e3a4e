"""RobustLT on REAT."""

from __future__ import annotations

from golden2_steps import Builder, Case, Step
from steps2_modifiers import robustlt


def robustlt_reat(case: Case) -> Step:
    # what was predicted in the epoch before is, in the first epoch, the class counts
    case.args.must_be("base", "reat")
    case.args.must_be("method", {})
    return robustlt(case, "reat", {"collapsed_tail": True, "tail_by_index": True})


STEPS: dict[str, Builder] = {"robustlt_reat": robustlt_reat}
