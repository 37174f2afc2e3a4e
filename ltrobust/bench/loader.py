"""The data of a plan's runs: loaded once per split, and an identity for the test images."""

from __future__ import annotations

from ltrobust.bench.evaluations import images_sha256
from ltrobust.bench.plan import Plan, PlannedRun
from ltrobust.config import DataSpec, TestSpec
from ltrobust.data import LongTailedData, load_data
from ltrobust.data.holdout import hold_out


class Loader:
    """Loads the split of a planned run; splits that several runs share are loaded once."""

    def __init__(self, plan: Plan) -> None:
        self._settings = plan.settings
        self._loaded: dict[tuple[DataSpec, TestSpec, bool], LongTailedData] = {}

    def __call__(self, planned: PlannedRun) -> LongTailedData:
        """Return the data of a run; UserError when it cannot be loaded."""
        spec, test = planned.run.data, planned.test
        key = (spec, test, planned.run.select == "best")
        if key not in self._loaded:
            loaded = load_data(
                spec.name,
                data_dir=self._settings.data_dir,
                download=self._settings.download,
                imbalance_ratio=spec.imbalance_ratio,
                imbalance_type=spec.imbalance_type,
                split_seed=spec.split_seed,
                limit_train=spec.limit_train,
                test_protocol=test.protocol,
                limit_test=test.limit,
            )
            self._loaded[key] = hold_out(loaded) if key[2] else loaded
        return self._loaded[key]


def test_sha256(data: LongTailedData) -> str:
    """Tells the test images of a data set: see `images_sha256`."""
    return images_sha256(data.test_index, data.test_labels)
