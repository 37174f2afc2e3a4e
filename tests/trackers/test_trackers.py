"""Trackers show what the files say, each epoch and attack once, and never stop a run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ltrobust.errors import Notice, UserError
from ltrobust.progress import Reporter
from ltrobust.results.store import RunStore
from ltrobust.trackers import Mirror, open_trackers, send

PUBLISHED = Path(__file__).parents[2] / "results" / "cifar10-lt-cpu"
RUN = "at-bsl-1a91e21ed173"


class Notes:
    """A tracker that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def begin(self, run_id: str, config: Mapping[str, Any]) -> None:
        self.told.append(("begin", run_id, config))

    def epoch(self, run_id: str, epoch: int, numbers: Mapping[str, float]) -> None:
        self.told.append(("epoch", run_id, epoch, numbers))

    def attack(self, run_id: str, attack: str, numbers: Mapping[str, float]) -> None:
        self.told.append(("attack", run_id, attack, numbers))

    def figures(self, files: Sequence[Path]) -> None:
        self.told.append(("figures", [file.stem for file in files]))

    def close(self) -> None:
        self.told.append(("close",))


class Broken(Notes):
    def epoch(self, run_id: str, epoch: int, numbers: Mapping[str, float]) -> None:
        raise OSError("no space left")


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A published run and its suite's figures, without the weights."""
    run = tmp_path / "suite" / "runs" / RUN
    run.mkdir(parents=True)
    for name in ("run.json", "history.csv"):
        (run / name).write_bytes((PUBLISHED / "runs" / RUN / name).read_bytes())
    shutil.copytree(PUBLISHED / "runs" / RUN / "attacks", run / "attacks")
    (tmp_path / "suite" / "figures").mkdir()
    figure = tmp_path / "suite" / "figures" / "balance.png"
    figure.write_bytes((PUBLISHED / "figures" / "balance.png").read_bytes())
    return tmp_path / "suite"


def history() -> pd.DataFrame:
    return RunStore(PUBLISHED / "runs" / RUN).history()


def published(column: str) -> float:
    """A number of the run under CW-20, as the suite's tables have it."""
    metrics = pd.read_csv(PUBLISHED / "metrics.csv").set_index(["run_id", "attack"])
    return float(metrics.loc[(RUN, "cw20"), column])


def test_everything_is_told_once(suite: Path) -> None:
    notes = Notes()
    mirror = Mirror(suite, [notes])
    mirror.sync()
    mirror.sync()
    mirror.close()
    kinds = [one[0] for one in notes.told]
    made = len(list((suite / "runs" / RUN / "attacks").glob("*.json")))
    assert kinds == ["begin", *["epoch"] * len(history()), *["attack"] * made, "figures", "close"]
    assert notes.told[0][2]["recipe.attack.steps"] == 1
    assert notes.told[1][2] == 1
    assert notes.told[1][3]["train_loss"] == pytest.approx(history()["train_loss"][0])
    scores = {one[2]: one[3]["balanced_accuracy"] for one in notes.told if one[0] == "attack"}
    assert scores["cw20"] == pytest.approx(published("balanced_accuracy"))
    assert notes.told[-2] == ("figures", ["balance"])


def test_a_run_is_told_while_it_grows(suite: Path) -> None:
    file = suite / "runs" / RUN / "history.csv"
    rows = file.read_text().splitlines()
    file.write_text("\n".join(rows[:3]) + "\n")
    notes = Notes()
    mirror = Mirror(suite, [notes])
    reporter = Reporter(watch=mirror.sync)
    reporter.begin("run", "epochs", 2)
    reporter.advance("run")
    file.write_text("\n".join(rows[:5]) + "\n")
    reporter.advance("part")
    assert [one[2] for one in notes.told if one[0] == "epoch"] == [1, 2]
    reporter.end("run")
    assert [one[2] for one in notes.told if one[0] == "epoch"] == [1, 2, 3, 4]


def test_only_the_runs_of_the_plan_are_told(suite: Path) -> None:
    notes = Notes()
    Mirror(suite, [notes], only={"another"}).sync()
    assert notes.told == []


def test_a_tracker_that_fails_stops_nothing(suite: Path) -> None:
    mirror = Mirror(suite, [Broken()])
    with pytest.warns(Notice, match="left out from here on .OSError: no space left"):
        mirror.sync()
    mirror.sync()
    mirror.close()


def test_a_damaged_file_is_the_matter_of_others(suite: Path) -> None:
    (suite / "runs" / RUN / "run.json").write_text("{")
    Mirror(suite, [Notes()]).sync()
    with pytest.raises(UserError, match="is damaged"):
        Mirror(suite, [Notes()]).sync(strict=True)


def test_unknown_and_absent_trackers_are_told(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="did you mean 'tensorboard'"):
        open_trackers(["tensorbord"], suite)
    monkeypatch.setitem(__import__("sys").modules, "ltrobust.trackers.wandb", None)
    with pytest.raises(UserError, match="pip install 'ltrobust\\[trackers\\]'"):
        open_trackers(["wandb"], suite)


def test_tensorboard_has_curves_scores_settings_and_figures(suite: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert send(suite, ["tensorboard"]) == 1
    send(suite, ["tensorboard"])  # again: no point twice
    folder = suite / "trackers" / "tensorboard"
    events = EventAccumulator(str(folder / RUN)).Reload()
    loss = events.Scalars("training/train_loss")
    assert [point.step for point in loss] == list(history()["epoch"])
    assert [point.value for point in loss] == pytest.approx(list(history()["train_loss"]))
    (point,) = events.Scalars("cw20/tail")
    assert point.value == pytest.approx(published("tail"))
    text = events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert '| method | "at-bsl" |' in text
    report = EventAccumulator(str(folder / "report")).Reload()
    assert report.Tags()["images"] == ["balance"]


def test_mlflow_store_on_disk_has_them(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed (extra trackers)")
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    send(suite, ["mlflow"])
    send(suite, ["mlflow"])
    client = MlflowClient(tracking_uri=(suite / "trackers" / "mlflow").resolve().as_uri())
    experiment = client.get_experiment_by_name("suite")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert runs.keys() == {RUN, "report"}
    run = runs[RUN]
    assert run.data.params["recipe.attack.steps"] == "1"
    assert run.data.metrics["cw20/balanced_accuracy"] == pytest.approx(
        published("balanced_accuracy")
    )
    curve = client.get_metric_history(run.info.run_id, "training/train_loss")
    assert [point.value for point in curve] == pytest.approx(list(history()["train_loss"]))
    (figure,) = client.list_artifacts(runs["report"].info.run_id, "figures")
    assert figure.path == "figures/balance.png"


@pytest.mark.slow
def test_wandb_writes_offline(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed (extra trackers)")
    monkeypatch.setenv("WANDB_MODE", "offline")
    send(suite, ["wandb"])
    files = list((suite / "trackers" / "wandb").rglob("*.wandb"))
    assert len(files) == 2  # the run and the report
    assert all(file.stat().st_size > 0 for file in files)


def test_a_bench_is_tracked_while_it_runs(tmp_path: Path, monkeypatch, capsys) -> None:
    notes = Notes()
    monkeypatch.setattr("ltrobust.trackers.open_trackers", lambda names, suite: [notes])
    # most of a tiny bench's time
    monkeypatch.setattr("ltrobust.report._draw_all", lambda *args: None)
    words = "bench --methods pgd-at --epochs 2 --limit-train 60 --limit-test 20 --no-checks"
    words += f" --attacks clean,fgsm --track tensorboard --output {tmp_path}"
    monkeypatch.setattr("sys.argv", ["ltrobust", *words.split()])
    from ltrobust.cli import main

    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 0, capsys.readouterr().err
    kinds = [one[0] for one in notes.told]
    assert kinds == ["begin", "epoch", "epoch", "attack", "attack", "figures", "close"]
    (run,) = (tmp_path / "runs").iterdir()
    stored = json.loads((run / "run.json").read_text())
    assert notes.told[0][2]["recipe.epochs"] == stored["run"]["recipe"]["epochs"]
