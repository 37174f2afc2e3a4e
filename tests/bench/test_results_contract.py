"""The files that users build on: columns, types, ranges, and that they agree with each other."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bench_helpers import QUICK, Cli, Finished, attacks_of, content, is_done, only_run, outcomes_of
from safetensors import safe_open

METRICS = (
    "run_id, method, dataset, imbalance_ratio, test_protocol, arch, recipe, seed, checkpoint, "
    "attack, eps, n, accuracy, balanced_accuracy, head, medium, tail, worst_class, ci_low, "
    "ci_high, seconds, split_seed, split_sha256, augment, epochs, select, precision, "
    "attack_settings, attack_library, torch, ltrobust, git_commit, device"
)
PER_CLASS = (
    "run_id, method, dataset, imbalance_ratio, arch, seed, attack, class_index, class_name, "
    "n_train, n_test, accuracy"
)
HISTORY = ["epoch", "lr", "train_loss", "train_acc", "train_robust_acc", "seconds", "cpu_seconds"]
OUTCOMES = ["index", "label", "attack", "attack_id", "pred", "correct", "fell"]
SHARES = ["accuracy", "balanced_accuracy", "head", "medium", "tail", "worst_class"]
RUN_AND_ATTACK = ["run_id", "attack"]


@pytest.fixture(scope="module")
def metrics(finished: Finished) -> pd.DataFrame:
    return pd.read_csv(finished.suite / "metrics.csv")


@pytest.fixture(scope="module")
def per_class(finished: Finished) -> pd.DataFrame:
    return pd.read_csv(finished.suite / "per_class.csv")


def outcomes(finished: Finished) -> dict[str, pd.DataFrame]:
    return {run.name: outcomes_of(run) for run in finished.runs}


# metrics.csv ------------------------------------------------------------------------------------


def test_metrics_columns_are_the_promised_ones_in_order_with_additions_at_the_end(
    metrics: pd.DataFrame,
) -> None:
    names = METRICS.split(", ")
    assert list(metrics.columns[: len(names)]) == names
    assert metrics.columns.is_unique


def test_metrics_has_one_row_per_run_and_attack(finished: Finished, metrics: pd.DataFrame) -> None:
    expected = {(run.name, attack) for run in finished.runs for attack in ("clean", "pgd2")}
    assert set(metrics[RUN_AND_ATTACK].itertuples(index=False, name=None)) == expected
    assert len(metrics) == len(expected)


def test_metrics_shares_lie_in_0_to_1_and_intervals_hold_their_value(metrics: pd.DataFrame) -> None:
    shares = metrics[[*SHARES, "ci_low", "ci_high"]]
    assert shares.notna().all(axis=None)
    assert ((shares >= 0) & (shares <= 1)).all(axis=None)
    assert (metrics["ci_low"] <= metrics["balanced_accuracy"]).all()
    assert (metrics["balanced_accuracy"] <= metrics["ci_high"]).all()
    assert (metrics["worst_class"] <= metrics["balanced_accuracy"]).all()


def test_metrics_cells_have_the_promised_meaning(metrics: pd.DataFrame) -> None:
    assert set(metrics["method"]) == {"pgd-at", "at-bsl"}
    same = {
        "dataset": "digits-lt",
        "imbalance_ratio": 10.0,
        "test_protocol": "balanced",
        "arch": "small-cnn",
        "recipe": "unified",
        "seed": 0,
        "n": 20,
        "split_seed": 0,
        "epochs": 2,
        "select": "last",
        "precision": "fp32",
    }
    for column, value in same.items():
        assert set(metrics[column]) == {value}, column
    assert dict(zip(metrics["attack"], metrics["eps"], strict=True)) == {"clean": 0.0, "pgd2": 0.1}
    assert pd.api.types.is_integer_dtype(metrics["n"])
    assert metrics["split_sha256"].str.fullmatch(r"[0-9a-f]{64}").all()
    assert (metrics["seconds"] >= 0).all()
    for column in ("checkpoint", "augment", "attack_library", "torch", "ltrobust", "device"):
        assert metrics[column].astype(str).str.strip().ne("").all(), column
        assert metrics[column].notna().all(), column


def test_attack_settings_are_json_that_names_every_setting(metrics: pd.DataFrame) -> None:
    rows = metrics.set_index("attack")["attack_settings"].map(json.loads)
    for settings in rows["pgd2"]:
        expected = {"eps": 0.1, "steps": 2, "step_size": 0.025, "loss": "ce", "start": "uniform"}
        assert expected.items() <= settings.items()
    for settings in rows["clean"]:
        assert settings["eps"] == 0


def test_floats_keep_full_precision(finished: Finished, metrics: pd.DataFrame) -> None:
    head = {round(value * 6) / 6 for value in metrics["head"]}  # three classes of two images
    assert set(metrics["head"]) == head


def test_no_attack_makes_a_model_better(metrics: pd.DataFrame) -> None:
    by_attack = metrics.pivot_table(index="run_id", columns="attack", values="accuracy")
    assert (by_attack["pgd2"] <= by_attack["clean"]).all()


# per_class.csv ----------------------------------------------------------------------------------


def test_per_class_columns_are_the_promised_ones_in_order_with_additions_at_the_end(
    per_class: pd.DataFrame,
) -> None:
    names = PER_CLASS.split(", ")
    assert list(per_class.columns[: len(names)]) == names
    assert per_class.columns.is_unique


def test_per_class_has_one_row_per_run_attack_and_class(per_class: pd.DataFrame) -> None:
    assert len(per_class) == 2 * 2 * 10
    for _, rows in per_class.groupby(RUN_AND_ATTACK):
        assert rows["class_index"].tolist() == list(range(10))
        assert rows["class_name"].astype(str).tolist() == [str(c) for c in range(10)]
    assert per_class["accuracy"].between(0, 1).all()
    assert (per_class["n_test"] == 2).all()


def test_training_counts_fall_from_head_to_tail(per_class: pd.DataFrame) -> None:
    for _, rows in per_class.groupby(RUN_AND_ATTACK):
        assert rows["n_train"].is_monotonic_decreasing
        assert rows["n_train"].min() >= 1
        assert rows["n_train"].iloc[0] > rows["n_train"].iloc[-1]


def test_balanced_accuracy_and_groups_are_means_of_the_classes(
    metrics: pd.DataFrame, per_class: pd.DataFrame
) -> None:
    for row in metrics.itertuples():
        here = per_class[(per_class["run_id"] == row.run_id) & (per_class["attack"] == row.attack)]
        classes = here["accuracy"].to_numpy()  # the most frequent class first
        assert row.balanced_accuracy == pytest.approx(classes.mean(), abs=1e-12)
        assert row.head == pytest.approx(classes[:3].mean(), abs=1e-12)
        assert row.medium == pytest.approx(classes[3:7].mean(), abs=1e-12)
        assert row.tail == pytest.approx(classes[7:].mean(), abs=1e-12)
        assert row.worst_class == classes.min()
        assert row.accuracy == pytest.approx(np.average(classes, weights=here["n_test"]), abs=1e-12)


# attacks/*.parquet -------------------------------------------------------------------------------


def test_outcomes_have_the_promised_columns_and_types(finished: Finished) -> None:
    for frame in outcomes(finished).values():
        assert list(frame.columns) == OUTCOMES
        assert frame["correct"].dtype == bool
        for column in ("index", "label", "pred"):
            assert pd.api.types.is_integer_dtype(frame[column]), column
            assert frame[column].min() >= 0
        assert frame[["label", "pred"]].max(axis=None) <= 9


def test_outcomes_have_one_row_per_test_image_and_attack(finished: Finished) -> None:
    for frame in outcomes(finished).values():
        assert len(frame) == 40
        assert not frame.duplicated(["index", "attack_id"]).any()
        clean, pgd = (frame[frame["attack"] == name] for name in ("clean", "pgd2"))
        assert clean["index"].tolist() == pgd["index"].tolist()
        assert clean["label"].tolist() == pgd["label"].tolist()
        assert clean["label"].value_counts().eq(2).all()


def test_correct_means_prediction_equals_label(finished: Finished) -> None:
    for frame in outcomes(finished).values():
        assert (frame["correct"] == (frame["pred"] == frame["label"])).all()


def test_every_run_is_judged_on_the_same_images(finished: Finished) -> None:
    first, second = (f[["index", "label", "attack_id"]] for f in outcomes(finished).values())
    pd.testing.assert_frame_equal(first, second)


def test_metrics_follow_from_the_outcomes(finished: Finished, metrics: pd.DataFrame) -> None:
    frames = outcomes(finished)
    for row in metrics.itertuples():
        frame = frames[row.run_id]
        correct = frame[frame["attack"] == row.attack]["correct"]
        assert row.accuracy == pytest.approx(correct.mean(), abs=1e-12)
        assert row.n == len(correct)


# run.json, history.csv --------------------------------------------------------------------------


def test_run_json_holds_the_config_and_where_the_result_comes_from(finished: Finished) -> None:
    for run in finished.runs:
        record, trained = content(run / "run.json"), content(run / "trained.json")
        assert record["run_id"] == trained["run_id"] == run.name
        assert is_done(run)
        assert record["run"]["data"]["limit_train"] == 60
        assert record["run"]["recipe"]["epochs"] == 2
        assert record["run"]["seed"] == 0
        assert {"torch", "ltrobust", "pyautoattack"} <= record["provenance"]["versions"].keys()
        assert {"git_commit", "device", "device_name"} <= record["provenance"].keys()
        assert trained["train_seconds"] > 0
        assert trained["peak_memory_bytes"] > 0
        assert trained["parameters"] > 0
        weights = (run / "model.safetensors").read_bytes()
        assert trained["weights_sha256"] == hashlib.sha256(weights).hexdigest()
        assert sum(record["data"]["train_counts"]) <= 60


def test_run_json_is_enough_to_make_the_same_run_id_again(finished: Finished) -> None:
    from ltrobust.config import Run

    for run in finished.runs:
        assert Run.model_validate(content(run / "run.json")["run"]).run_id == run.name


def test_each_record_of_an_attack_counts_its_outcomes(finished: Finished) -> None:
    for run in finished.runs:
        frame = outcomes_of(run)
        for key, record in attacks_of(run).items():
            own = frame[frame["attack_id"] == key]
            assert key.startswith(record["attack"])
            assert sum(record["digest"]["right"]) == own["correct"].sum()
            assert sum(sum(one.values()) for one in record["digest"]["predictions"]) == len(own)
            assert (run / "attacks" / f"{key}.json").stat().st_size < 3000


def test_history_has_the_promised_columns_and_one_row_per_epoch(finished: Finished) -> None:
    for run in finished.runs:
        history = pd.read_csv(run / "history.csv")
        assert list(history.columns) == HISTORY
        assert history["epoch"].tolist() == [1, 2]
        assert (history["lr"] > 0).all()
        assert np.isfinite(history["train_loss"]).all()
        assert history[["train_acc", "train_robust_acc"]].stack().between(0, 1).all()
        assert (history["seconds"] > 0).all()


# leaderboard.csv --------------------------------------------------------------------------------


def test_leaderboard_has_one_row_per_method_and_no_spread_over_one_seed(finished: Finished) -> None:
    board = pd.read_csv(finished.suite / "leaderboard.csv")
    assert sorted(board["method"]) == ["at-bsl", "pgd-at"]
    assert (board["n_seeds"] == 1).all()
    stds = [column for column in board.columns if column.endswith("_std")]
    assert stds
    assert board[stds].isna().all(axis=None)


# model.safetensors ------------------------------------------------------------------------------


def test_model_loads_as_safetensors_with_the_promised_size(finished: Finished) -> None:
    for run in finished.runs:
        with safe_open(run / "model.safetensors", framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        assert tensors
        assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_model_holds_no_time_and_no_path(finished: Finished) -> None:
    import ltrobust

    for run in finished.runs:
        content = (run / "model.safetensors").read_bytes()
        header = content[8 : 8 + int.from_bytes(content[:8], "little")].decode()
        facts = json.loads(json.loads(header)["__metadata__"]["ltrobust"])
        assert set(facts) == {"arch", "method", "options", "train_counts", "image_shape"}
        for place in (run, finished.suite, Path(ltrobust.__file__).parent):
            assert str(place) not in header


@pytest.mark.usefixtures("without_figures", "few_checks")
def test_same_command_elsewhere_gives_the_same_bytes_and_verdicts(cli: Cli, tmp_path: Path) -> None:
    words = ("bench", "--methods", "taet", *QUICK, "--output")
    runs = []
    for place in (tmp_path / "one", tmp_path / "other place"):
        assert cli(*words, place).code == 0
        runs.append(only_run(place))
    first, second = runs
    assert first.name == second.name
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()
    pd.testing.assert_frame_equal(*(outcomes_of(run) for run in runs))


@pytest.mark.usefixtures("without_figures", "few_checks")
def test_another_seed_gives_other_weights(cli: Cli, tmp_path: Path) -> None:
    words = ("bench", "--methods", "pgd-at", *QUICK, "--seeds", "0,1", "--output", tmp_path / "out")
    assert cli(*words).code == 0
    models = [p.read_bytes() for p in (tmp_path / "out").glob("runs/*/model.safetensors")]
    assert len(models) == 2
    assert models[0] != models[1]
    board = pd.read_csv(tmp_path / "out" / "leaderboard.csv")
    assert board["n_seeds"].tolist() == [2]
    assert board["clean_accuracy_std"].notna().all()
