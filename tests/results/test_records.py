"""Records: whole or told in one line, whatever is missing from them or changed in them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from synthetic_runs import attack, finding, write_run

from ltrobust.errors import UserError
from ltrobust.results import records
from ltrobust.results.collect import collect
from ltrobust.results.digest import digest_of
from ltrobust.results.frames import confusion_table, metrics_table
from ltrobust.results.records import (
    FailureRecord,
    PlaceRecord,
    ProfileRecord,
    TrainedRecord,
    read_record,
    seal,
    to_bytes,
)
from ltrobust.results.store import RunStore


@pytest.fixture
def run(tmp_path: Path) -> RunStore:
    """A run with every record that there is."""
    right = [True, False, True, True]
    run = write_run(
        tmp_path, "one", [attack("clean", correct=right), attack("pgd2", correct=right[::-1])]
    )
    run.write_reliability([finding("noise", True)], run.attack_ids())
    run.add_probe("abc-0.1", {"eps": 0.1, "errors": {"x": [1.0, float("nan")]}})
    run.write_place(PlaceRecord(path="/images", notes=["one"], name="mine", threads=2))
    run.write_profile(ProfileRecord(training={"epochs": 1}, evaluation={"seconds": {"a": 1.0}}))
    run.round(b"weights", {"clean": 4})
    run.fail("no luck")
    return run


def read(run: RunStore) -> object:
    """Everything that anybody reads of a run."""
    runs = collect([run.path.parent.parent])
    metrics, classes = metrics_table(runs)
    own = (run.probes(), run.profile(), run.failure, run.place(), run.reliability())
    own = (*own, run.rounded())
    return metrics.to_csv(), classes.to_csv(), confusion_table(runs).to_csv(), repr(own)


def paths(content: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every key and item."""
    items: Any = content.items() if isinstance(content, dict) else ()
    items = enumerate(content) if isinstance(content, list) else items
    for key, value in items:
        yield (*before, key)
        yield from paths(value, (*before, key))


def without(content: Any, path: tuple[Any, ...]) -> Any:
    changed = json.loads(json.dumps(content))
    place = changed
    for key in path[:-1]:
        place = place[key]
    del place[path[-1]]
    return changed


def told_or_read(run: RunStore) -> tuple[str, object]:
    try:
        return "", read(run)
    except UserError as error:
        return str(error), None


def record_files(run: RunStore) -> list[Path]:
    return sorted(run.path.rglob("*.json"))


@pytest.mark.parametrize("sealed", [False, True], ids=["as it is", "with a seal that fits"])
def test_without_any_key_of_any_record_there_is_one_line_or_the_same_results(
    run: RunStore, sealed: bool
) -> None:
    whole = read(run)
    told, same = 0, []
    for file in record_files(run):
        kept = file.read_bytes()
        for path in paths(json.loads(kept)):
            changed = without(json.loads(kept), path)
            if sealed and path != ("seal",):
                changed["seal"] = seal(changed)
            file.write_text(json.dumps(changed))
            line, result = told_or_read(run)
            told += bool(line)
            assert not line or ("\n" not in line and file.name in line), (path, line)
            if result == whole:
                same.append((file.name, path))
        file.write_bytes(kept)
    assert told > 100
    if not sealed:
        assert same == []
    assert read(run) == whole


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", "3", "{}", "[" * 100_000, "\udcff"])
def test_what_is_no_record_is_one_line(run: RunStore, content: str) -> None:
    for file in record_files(run):
        kept = file.read_bytes()
        file.write_bytes(content.encode("utf-8", "surrogateescape"))
        with pytest.raises(UserError, match=rf"{file.name} is damaged") as told:
            read(run)
        assert "\n" not in str(told.value)
        assert "delete" in str(told.value)
        file.write_bytes(kept)


def test_without_any_file_there_are_fewer_results_and_no_traceback(
    run: RunStore, tmp_path: Path
) -> None:
    files = [path for path in run.path.rglob("*") if path.is_file()]
    assert len(files) > 8
    for file in files:
        copy = tmp_path / "copy"
        shutil.copytree(run.path.parent.parent / "runs", copy / "runs")
        (copy / file.relative_to(run.path.parent.parent)).unlink()
        read(RunStore(copy / "runs" / run.run_id)) if file.name != "run.json" else collect([copy])
        shutil.rmtree(copy)


def test_a_changed_number_is_told(run: RunStore) -> None:
    file = next((run.path / "attacks").glob("pgd2*.json"))
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "seconds": 1.0}))
    with pytest.raises(UserError, match="its seal does not fit"):
        read(run)


def test_a_changed_setting_is_not_the_run_of_its_name(run: RunStore) -> None:
    content = json.loads((run.path / "run.json").read_text())
    content["run"]["seed"] = 5
    content["seal"] = seal(content)
    (run.path / "run.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"run\.json is damaged: run has the key one-\w+, not one-"):
        read(run)


def test_a_record_of_a_later_schema_asks_for_a_newer_version(run: RunStore) -> None:
    content = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps({**content, "schema": 99}))
    with pytest.raises(UserError, match=r"has schema 99, this ltrobust reads up to .*newer"):
        read(run)


def test_a_record_of_an_earlier_schema_is_upgraded(
    run: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run.training()
    file = run.path / "trained.json"
    content = without(json.loads(file.read_text()), ("earlier_threads",))
    content["seal"] = seal(content)
    file.write_text(json.dumps(content))
    monkeypatch.setattr(records, "SCHEMA", 2)
    monkeypatch.setitem(records.UPGRADES, 1, lambda said: {**said, "earlier_threads": []})
    assert run.training() == whole


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    failure = FailureRecord(run_id="a", reason="† no é", made="now")
    (tmp_path / "a.json").write_bytes(to_bytes(failure))
    assert read_record(FailureRecord, tmp_path / "a.json") == failure
    assert (tmp_path / "a.json").read_text().count("\n") == 7
    with pytest.raises(UserError, match="train_seconds is missing"):
        read_record(TrainedRecord, tmp_path / "a.json")


def test_a_digest_counts_what_the_outcomes_say() -> None:
    rows = pd.DataFrame(
        [(0, 0, True, ""), (0, 2, False, "clean"), (2, 0, False, "pgd"), (0, 2, False, "pgd")],
        columns=["label", "pred", "correct", "fell"],
    )
    digest = digest_of(rows, 4)
    assert digest.right == [1, 0, 0, 0]
    assert digest.tested == [3, 0, 1, 0]
    assert (digest.n, digest.natural) == (4, 1)
    assert digest.confusion() == [(0, 0, 1), (0, 2, 2), (2, 0, 1)]
