"""Choosing a checkpoint: by held-out images, or, marked as leaking, by the test set."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from ltrobust.bench.loader import Loader
from ltrobust.bench.plan import PlannedRun, make_plan
from ltrobust.bench.settings import make_settings
from ltrobust.config import TestSpec
from ltrobust.data import LongTailedData
from ltrobust.training import selection
from ltrobust.training.selection import make_judge
from ltrobust.training.trainer import State, train


def planned(select: str, epochs: int = 3) -> tuple[PlannedRun, LongTailedData]:
    plan = make_plan(
        make_settings(
            {
                "methods": "at-bsl",
                "select": select,
                "epochs": epochs,
                "limit_train": 150,
                "limit_test": 20,
                "attacks": "clean",
                "device": "cpu",
            }
        )
    )
    run = plan.runs[0]
    return run, Loader(plan)(run)


def fit(select: str, state: State | None = None) -> tuple[list[State], object]:
    run, data = planned(select)
    states: list[State] = []

    def keep(saved: State) -> None:
        copied = {name: value.clone() for name, value in saved["net"].items()}
        states.append({**saved, "net": copied, "history": list(saved["history"])})

    trained = train(run.run, data, device=torch.device("cpu"), state=state, save=keep)
    return states, trained


def test_last_looks_at_nothing_and_ends_with_the_last_epoch() -> None:
    run, data = planned("last")
    assert make_judge(run.run, data) is None
    assert not len(data.val_labels)


@pytest.mark.parametrize("select", ["best", "best-on-test"])
def test_the_weights_are_those_of_the_best_epoch(
    select: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the second epoch is made the best one: the first that takes part, then the leader, then worse
    monkeypatch.setattr(selection, "LEAK_STARTS", 0.0)
    scores = iter([0.3, 0.3, 0.9, 0.9, 0.1, 0.1])
    monkeypatch.setattr(selection.Judge, "_score", lambda *_: next(scores))
    states, trained = fit(select)
    assert trained.epoch == 2  # type: ignore[attr-defined]
    for name, value in trained.net.state_dict().items():  # type: ignore[attr-defined]
        assert torch.equal(value, states[1]["net"][name])


def test_best_judges_on_held_out_images_and_never_on_the_test_set() -> None:
    run, data = planned("best")
    judge = make_judge(run.run, data)
    assert judge is not None
    assert torch.equal(judge.images.index, data.val_index)
    assert judge.score == "balanced_accuracy"


def test_best_on_test_is_the_authors_way() -> None:
    run, data = planned("best-on-test", epochs=100)
    judge = make_judge(run.run, data)
    assert judge is not None
    assert torch.equal(judge.images.index, data.test_index)
    assert (judge.attack, judge.score, judge.first_epoch) == ("pgd20", "accuracy", 75)


def test_what_chooses_the_checkpoint_is_part_of_the_key() -> None:
    base = {"methods": "at-bsl", "attacks": "clean", "device": "cpu"}
    ids = set()
    for select in ("last", "best", "best-on-test"):
        for limit in (20, 30):
            settings = make_settings({**base, "select": select, "limit_test": limit})
            ids.add(make_plan(settings).runs[0].run.run_id)
    # only best-on-test depends on which test images there are
    assert len(ids) == 4
    assert planned("best-on-test")[0].run.select_on == TestSpec(limit=20)


def test_a_stopped_run_remembers_its_best_epoch() -> None:
    states, whole = fit("best")
    _, resumed = fit("best", state=states[1])
    assert resumed.epoch == whole.epoch  # type: ignore[attr-defined]
    for name, value in whole.net.state_dict().items():  # type: ignore[attr-defined]
        assert torch.equal(value, resumed.net.state_dict()[name])  # type: ignore[attr-defined]


@pytest.mark.usefixtures("light_figures")
def test_tables_say_that_the_choice_leaks(tmp_path: Path) -> None:
    from ltrobust.bench.reports import build_report
    from ltrobust.bench.runner import run_plan
    from ltrobust.progress import Reporter
    from ltrobust.results.store import SuiteStore

    flags = {"methods": "at-bsl", "epochs": 1, "limit_train": 60, "limit_test": 10}
    plan = make_plan(
        make_settings({**flags, "select": "best-on-test", "attacks": "clean,pgd2", "device": "cpu"})
    )
    store = SuiteStore(tmp_path)
    assert run_plan(plan, store, Loader(plan), Reporter()) == []
    build_report(store)
    tables = list((tmp_path / "tables").glob("*.md"))
    assert tables
    assert all("CHOSEN ON THE TEST SET" in table.read_text() for table in tables)
    assert set(pd.read_csv(tmp_path / "metrics.csv")["select"]) == {"best-on-test"}
