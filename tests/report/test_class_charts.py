"""Per-class charts: which test images stand behind a number."""

from __future__ import annotations

import pandas as pd
import pytest
from report_fixtures import suite

from ltrobust.report.class_charts import class_results
from ltrobust.report.groups import comparable_groups


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


def test_each_group_tells_its_own_test_images_and_intervals():
    metrics, per_class = judged_twice()
    groups = comparable_groups(metrics)
    assert sorted(group.key["n"] for group in groups) == [500, 1000]
    for group in groups:
        results = class_results(group, per_class)
        assert len(results.frame) == 20
        part = 1000 // group.key["n"]
        readings = results.readings(results.frame)
        for row, reading in zip(results.frame.to_dict("records"), readings, strict=True):
            test = results.test(row)
            assert test is not None
            assert test.n == group.key["n"] // 10
            assert test.high - test.low == pytest.approx(0.02 * part)
            assert (reading.low, reading.high) == (test.low, test.high)


def test_without_attack_ids_nothing_uncertain_is_told():
    metrics, per_class = judged_twice()
    for group in comparable_groups(metrics):
        results = class_results(group, per_class.drop(columns="attack_id"))
        assert len(results.frame) == 20
        assert not results.tests


def test_rows_of_older_metrics_without_attack_id_keep_their_test_images():
    metrics, per_class, _ = suite(methods=("trades",), attacks=("clean",))
    (group,) = comparable_groups(metrics)
    per_class = per_class.assign(attack_id="clean-1")
    results = class_results(group, per_class)
    assert {test.n for test in results.tests.values()} == {100}
