"""What a flagged reliability check means and what to do about it, in two sentences for readers.

The texts lie in `checks.yaml`, the long version with its thresholds in docs/evaluation.md; the
checks are made in `ltrobust.evaluation.reliability`, which needs models and is not imported here.
"""

from __future__ import annotations

from importlib.resources import files
from typing import NamedTuple

import yaml


class Advice(NamedTuple):
    """What a check saw, and what to do before quoting the number."""

    meaning: str
    remedy: str


CHECKS: dict[str, Advice] = {
    check: Advice(**texts)
    for check, texts in yaml.safe_load(
        files("ltrobust.report").joinpath("checks.yaml").read_text("utf-8")
    ).items()
}


def advice(check: str) -> Advice:
    """Explain a check; one that this version does not know is named as such."""
    unknown = Advice(
        "This version of ltrobust does not know the check.",
        "Look it up in docs/evaluation.md of the version that made the report.",
    )
    return CHECKS.get(check, unknown)
