"""Image folders on the command line: identity is the content, the path is a hint."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from bench_helpers import Cli, attacks_of, content, only_run
from PIL import Image

import ltrobust
from ltrobust.bench.plan import make_plan
from ltrobust.bench.reports import gather
from ltrobust.bench.settings import make_settings
from ltrobust.errors import DataWarning, UserError
from ltrobust.results.filters import Filters

COUNTS = {"train": {"cat": 6, "dog": 24}, "test": {"cat": 3, "dog": 6}}
SMALL = ("--arch", "small-cnn", "--epochs", "1", "--batch-size", "8", "--device", "cpu")
CLEAN = ("--attacks", "clean")
FURTHER = (*CLEAN, "--limit-test", "4", "--device", "cpu")

pytestmark = pytest.mark.usefixtures("without_reports", "few_checks")


@pytest.fixture
def folder() -> Path:
    """`images` here: two classes of 8x8 greys, the rare one first."""
    value = 0
    for part, classes in COUNTS.items():
        for name, count in classes.items():
            place = Path("images", part, name)
            place.mkdir(parents=True)
            for i in range(count):
                value += 3
                Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(place / f"{i:02d}.png")
    return Path("images")


@pytest.fixture
def bench(cli: Cli) -> Any:
    def call(dataset: str, *more: str, methods: str = "pgd-at") -> Any:
        words = ("bench", "--methods", methods, "--dataset", dataset, *SMALL, *CLEAN)
        return cli(*words, "--output", "out", *more)

    return call


def place() -> dict[str, Any]:
    return content(only_run(Path("out")) / "place.json")


def run_id(dataset: str, **settings: Any) -> str:
    flags = {"methods": "pgd-at", "dataset": dataset, "device": "cpu", **settings}
    return make_plan(make_settings(flags)).runs[0].run.run_id


def test_five_spellings_give_one_run(folder: Path, bench: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(Path.cwd()))
    Path("link").symlink_to("images")
    spelled = ["images", "images/", "link", "~/images", f"../{Path.cwd().name}/images"]
    spelled.append(str(folder.resolve()))
    assert len({run_id(f"folder:{path}") for path in spelled}) == 1
    for path in (spelled[0], spelled[2], spelled[4]):
        assert bench(f"folder:{path}").code == 0
    data = content(only_run(Path("out")) / "run.json")["run"]["data"]
    assert data["name"] == "folder:images"
    assert place()["path"] == str(folder.resolve())
    (name,) = pd.read_csv("out/metrics.csv")["dataset"].unique()
    assert name == f"folder:images@{data['fingerprint'][:8]}"


def test_content_makes_the_run_and_the_table(folder: Path):
    first = run_id("folder:images")
    folder.rename("photos")
    assert run_id("folder:photos") == first
    Path("photos/train/cat/00.png").rename("photos/train/cat/99.png")
    assert run_id("folder:photos") != first


def test_a_renamed_folder_stays_one_data_set_in_tables(folder: Path, bench: Any):
    assert bench("folder:images").code == 0
    folder.rename("photos")
    assert bench("folder:photos", methods="pgd-at,trades").code == 0
    metrics, classes = (pd.read_csv(f"out/{name}.csv") for name in ("metrics", "per_class"))
    assert metrics["run_id"].nunique() == 2
    assert metrics["dataset"].nunique() == classes["dataset"].nunique() == 1


def test_directories_that_name_one_folder_differently_agree(folder: Path, bench: Any):
    assert bench("folder:images").code == 0
    folder.rename("a photos")
    assert bench("folder:a photos", "--output", "other", methods="trades").code == 0
    results = gather([Path("out"), Path("other")], Filters())
    assert results.metrics["run_id"].nunique() == 2
    assert results.metrics["dataset"].nunique() == results.classes["dataset"].nunique() == 1


def test_a_run_is_evaluated_from_anywhere(
    folder: Path, bench: Any, cli: Cli, monkeypatch: pytest.MonkeyPatch
):
    assert bench("folder:images").code == 0
    run = only_run(Path("out")).resolve()
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    outcome = cli("evaluate", run, *FURTHER)
    assert (outcome.code, outcome.stderr) == (0, "")


def test_a_moved_folder_is_named_once(folder: Path, bench: Any, cli: Cli):
    assert bench("folder:images").code == 0
    run = only_run(Path("out"))
    before = (run / "run.json").read_bytes()
    os.makedirs("disk")
    moved = folder.rename("disk/photos")
    outcome = cli("evaluate", run, *FURTHER)
    assert outcome.code == 2
    assert outcome.stderr.count("\n") == 1
    assert "does not exist" in outcome.stderr
    assert "--dataset folder:PATH" in outcome.stderr
    for wrong in ("digits-lt", "folder:nowhere", "folder:"):
        outcome = cli("evaluate", run, *FURTHER, "--dataset", wrong)
        assert (outcome.code, outcome.stderr.count("\n")) == (2, 1)
        assert "folder:PATH" in outcome.stderr
    assert (run / "run.json").read_bytes() == before
    assert cli("evaluate", run, *FURTHER, "--dataset", "folder:disk/photos").code == 0
    assert place()["path"] == str(moved.resolve())
    assert cli("evaluate", run, *CLEAN, "--limit-test", "6", "--device", "cpu").code == 0
    assert {one["limit_test"] for one in attacks_of(run).values()} == {None, 4, 6}


def test_other_images_are_refused(folder: Path, bench: Any, cli: Cli):
    assert bench("folder:images").code == 0
    Image.new("RGB", (8, 8), (255, 0, 0)).save(folder / "test" / "cat" / "00.png")
    for more in ((), ("--dataset", "folder:images")):
        outcome = cli("evaluate", only_run(Path("out")), *FURTHER, *more)
        assert (outcome.code, outcome.stderr.count("\n")) == (2, 1)
        assert "holds other images than pgd-at-" in outcome.stderr
        assert "--dataset folder:PATH" in outcome.stderr


def test_bench_at_a_new_place_brings_the_path_up_to_date(folder: Path, bench: Any, cli: Cli):
    assert bench("folder:images").code == 0
    moved = folder.rename("photos")
    outcome = bench("folder:photos")
    assert "done before" in outcome.stdout
    assert place()["path"] == str(moved.resolve())
    assert cli("evaluate", only_run(Path("out")), *FURTHER).code == 0


def test_what_is_left_out_is_said_once_and_recorded(folder: Path, bench: Any):
    (folder / "train" / "dog" / "notes.txt").write_text("mine")
    (folder / "train" / "dog" / "gone.png").symlink_to("/nowhere")
    outcome = bench("folder:images", "--imbalance-ratio", "2", methods="pgd-at,trades")
    assert outcome.code == 0
    left = "1 dead link (train/dog/gone.png), 1 file of another kind (train/dog/notes.txt)"
    assert outcome.stdout.count(left) == 1
    kept = "the training set keeps 19 of 30 images"
    assert outcome.stdout.count(kept) == 1
    for run in Path("out/runs").iterdir():
        notes = " ".join(content(run / "place.json")["notes"])
        assert left in notes
        assert kept in notes
        assert left in (run / "log.txt").read_text()


def test_a_foreign_model_hears_of_it_too(folder: Path, bench: Any, cli: Cli):
    assert bench("folder:images").code == 0
    weights = only_run(Path("out")) / "model.safetensors"
    (folder / "train" / "dog" / "notes.txt").write_text("mine")
    words = ("evaluate", "--checkpoint", weights, *SMALL[:2], *FURTHER)
    for path in ("images", "../" + Path.cwd().name + "/images/"):
        outcome = cli(*words, "--dataset", f"folder:{path}", "--output", "theirs")
        assert outcome.code == 0
        assert "1 file of another kind (train/dog/notes.txt)" in outcome.stdout
    assert len(list(Path("theirs/runs").iterdir())) == 1


@pytest.mark.parametrize("ratio", [1000, 0.5])
def test_a_ratio_that_makes_no_sense_is_one_line(folder: Path, bench: Any, ratio: float):
    outcome = bench("folder:images", "--imbalance-ratio", str(ratio))
    assert (outcome.code, outcome.stderr.count("\n")) == (2, 1)
    assert not Path("out").exists()


def test_a_file_cut_short_is_one_line(folder: Path, bench: Any):
    path = folder / "train" / "dog" / "07.png"
    path.write_bytes(path.read_bytes()[:48])
    outcome = bench("folder:images")
    assert (outcome.code, outcome.stderr.count("\n")) == (2, 1)
    assert str(path) in outcome.stderr


def test_python_is_told_and_spelling_does_not_count(folder: Path):
    settings = {"arch": "small-cnn", "epochs": 1, "batch_size": 8, "device": "cpu"}
    (folder / "train" / "dog" / "notes.txt").write_text("mine")
    with pytest.warns(DataWarning, match=r"1 file of another kind \(train/dog/notes\.txt\)"):
        first = ltrobust.train("pgd-at", "folder:images", **settings)
    with pytest.warns(DataWarning):
        again = ltrobust.train("pgd-at", f"folder:{folder.resolve()}", **settings)
    assert first.run_id == again.run_id
    with pytest.warns(DataWarning):
        table = ltrobust.evaluate(first.model, "folder:images", attacks="clean", device="cpu")
    assert table["n"].tolist() == [9]
    with pytest.raises(UserError, match="at most"):
        ltrobust.train("pgd-at", "folder:images", **settings, imbalance_ratio=1000)
