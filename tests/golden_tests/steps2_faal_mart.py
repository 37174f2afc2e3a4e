"""FAAL on MART."""

from __future__ import annotations

from functools import partial

from golden2_steps import Builder
from steps2_feedback import faal

# the divergence weighs 6 whatever MART's own beta is
STEPS: dict[str, Builder] = {"faal_mart": partial(faal, base="mart", beta=6.0)}
