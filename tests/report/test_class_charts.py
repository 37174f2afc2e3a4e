"""Per-class charts: which test images stand behind a number."""

from __future__ import annotations

import pandas as pd
import pytest
from report_fixtures import settings, suite


def judged_twice() -> tuple[pd.DataFrame, pd.DataFrame]:
    """One run, judged on 1000 and on 500 test images, with other intervals by class."""
    metrics, per_class, _ = suite(methods=("trades",), attacks=("clean", "pgd20"))
    both = []
    for part, images in ((1, 100), (2, 50)):
        ids = f"-{images}"
        rows = metrics.assign(n=metrics["n"] // part, attack_id=metrics["attack"] + ids)
        classes = per_class.assign(
            n_test=images,
            attack_id=per_class["attack"] + ids,
            ci_low=per_class["accuracy"] - 0.01 * part,
            ci_high=per_class["accuracy"] + 0.01 * part,
        )
        both.append((rows, classes))
    return tuple(pd.concat(frames, ignore_index=True) for frames in zip(*both, strict=True))


def test_each_setting_tells_its_own_test_images_and_intervals():
    metrics, per_class = judged_twice()
    found = settings(metrics, per_class)
    assert sorted(setting.key["n"] for setting in found) == [500, 1000]
    for setting in found:
        part = 1000 // setting.key["n"]
        cells = setting.classes.cells
        assert len(cells) == 20
        for cell in cells.values():
            assert cell.n == setting.key["n"] // 10
            assert cell.high - cell.low == pytest.approx(0.02 * part)
