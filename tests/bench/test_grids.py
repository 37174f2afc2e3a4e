"""What is given several times multiplies, and a suite file can hold several blocks."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from bench_helpers import Cli, content
from PIL import Image
from safetensors.torch import load_file

import ltrobust
from ltrobust.bench import runner
from ltrobust.bench.cells import cell_rows
from ltrobust.bench.estimate import Probes, TrainingSet, estimate, memory_needs
from ltrobust.bench.loader import Loader
from ltrobust.bench.plan import joined, make_grid, make_plan, use_device
from ltrobust.bench.plan_file import read_plan, write_plan
from ltrobust.bench.settings import Settings, make_cells, make_settings
from ltrobust.bench.standing import finished
from ltrobust.config import Run
from ltrobust.data.cache import LIMIT_VARIABLE
from ltrobust.errors import RunError, UserError
from ltrobust.models import build_model
from ltrobust.results.store import SuiteStore


def cells(**flags: Any) -> list[tuple[str, str | None, tuple[str, ...]]]:
    return [(c.dataset, c.arch, c.option) for c in make_cells(flags)]


def test_data_sets_architectures_and_options_multiply():
    found = cells(
        dataset="digits-lt,cifar10-lt",
        arch=["small-cnn", "resnet18"],
        option=["trades.beta=1,3", "recipe.lr=0.1"],
    )
    assert len(found) == 2 * 2 * 2
    assert found[0] == ("digits-lt", "small-cnn", ("trades.beta=1", "recipe.lr=0.1"))
    assert found[-1] == ("cifar10-lt", "resnet18", ("trades.beta=3", "recipe.lr=0.1"))


@pytest.mark.parametrize(
    ("dataset", "names"),
    [
        ("digits-lt", ["digits-lt"]),
        ("digits-lt, dermamnist@64", ["digits-lt", "dermamnist@64"]),
        ("folder:a,b", ["folder:a,b"]),
        ("folder:a,b,cifar10-lt", ["folder:a,b", "cifar10-lt"]),
        ("digits-lt,hf:x,medmnist:bloodmnist", ["digits-lt", "hf:x", "medmnist:bloodmnist"]),
        (["folder:a,b", "digits-lt"], ["folder:a,b", "digits-lt"]),
    ],
)
def test_a_comma_in_a_path_is_one_of_the_path(dataset: Any, names: list[str]):
    assert [name for name, _, _ in cells(dataset=dataset)] == names


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("a.b=1,2", [("a.b=1",), ("a.b=2",)]),
        ("a.b=[1,2],[3]", [("a.b=[1,2]",), ("a.b=[3]",)]),
        ("a.b=1,c-d.e=2", [("a.b=1", "c-d.e=2")]),
        (["a.b=1,2", "c.d=x"], [("a.b=1", "c.d=x"), ("a.b=2", "c.d=x")]),
    ],
)
def test_values_of_an_option_multiply(option: Any, values: list[tuple[str, ...]]):
    assert [options for _, _, options in cells(option=option)] == values


def test_cells_that_are_the_same_count_once():
    assert len(cells(dataset="digits-lt,digits-lt")) == 1


def suite(text: str) -> Path:
    path = Path("paper.yaml")
    path.write_text(text)
    return path


def test_blocks_of_a_suite_override_it_and_flags_override_them():
    path = suite(
        """
seeds: 0-1
epochs: 3
grid:
  - dataset: cifar10-lt
    imbalance_ratio: [10, 50]
  - dataset: [digits-lt, dermamnist]
    epochs: 4
"""
    )
    made = make_cells({}, path)
    assert [c.dataset for c in made] == ["cifar10-lt", "digits-lt", "dermamnist"]
    assert [c.epochs for c in made] == [3, 4, 4]
    assert made[0].imbalance_ratio == (10, 50)
    assert {c.seeds for c in made} == {(0, 1)}
    assert {c.output for c in made} == {Path("results/paper")}
    assert {c.epochs for c in make_cells({"epochs": 9}, path)} == {9}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("grid: 3", "must be a list of blocks"),
        ("grid: []", "must be a list of blocks"),
        ("grid:\n  - output: x", "'output' is one for all blocks"),
        ("grid:\n  - save_every: 5", "'save_every' is one for all blocks"),
        ("grid:\n  - watch: pgd20", "'watch' is one for all blocks"),
        ("grid:\n  - datset: x", "did you mean 'dataset'"),
        ("grdi:\n  - dataset: x", "did you mean 'grid'"),
        ("grid:\n  - epochs: many", "--epochs"),
    ],
)
def test_a_wrong_grid_is_told_in_one_line(text: str, said: str):
    with pytest.raises(UserError, match=said) as caught:
        make_cells({}, suite(text))
    assert "\n" not in str(caught.value)


def test_where_one_cell_is_wanted_several_are_refused():
    with pytest.raises(UserError, match="a grid of 2 cells"):
        make_settings({"dataset": "digits-lt,cifar10-lt"})
    with pytest.raises(UserError, match="unknown dataset ''"):
        make_grid(make_cells({"dataset": "digits-lt,"}))


def test_a_plan_holds_the_runs_of_all_cells_once():
    flags = {"methods": "pgd-at,trades", "dataset": "digits-lt", "option": "trades.beta=1,3"}
    plan = make_grid(make_cells({**flags, "seeds": "0-1", "imbalance_ratio": "2,4"}))
    names = [planned.run.method for planned in plan.runs]
    assert names.count("trades") == 8
    assert names.count("pgd-at") == 4  # beta is not its own
    betas = {p.run.options.get("beta") for p in plan.runs if p.run.method == "trades"}
    assert betas == {1, 3}


def test_natural_keeps_all_images():
    (planned,) = make_grid(
        make_cells({"methods": "pgd-at", "dataset": "digits-lt", "imbalance_ratio": "natural"})
    ).runs
    assert planned.run.data.imbalance_ratio is None
    with pytest.raises(UserError, match="natural"):
        make_cells({"imbalance_ratio": "0.5"})


TINY = ("--limit-train", "40", "--limit-test", "10", "--epochs", "1", "--device", "cpu")


@pytest.mark.usefixtures("without_reports", "few_checks")
def test_a_grid_is_shown_and_done_in_one_directory(cli: Cli):
    words = ("bench", "--methods", "pgd-at,trades", "--dataset", "digits-lt", *TINY)
    words = (*words, "--option", "trades.beta=1,3", "--attacks", "clean", "--output", "out")
    shown = cli(*words, "--dry-run")
    assert shown.code == 0
    assert "trades.beta=3" in shown.stdout
    assert "in all" in shown.stdout
    assert not Path("out").exists()
    assert cli(*words).code == 0
    assert len(list(Path("out/runs").iterdir())) == 3
    again = cli(*words, "--dry-run")
    assert "2 evaluated" in again.stdout
    absent = cli(
        "bench", "--dataset", "digits-lt,svhn-lt", *TINY, "--methods", "pgd-at", "--dry-run"
    )
    assert absent.code == 0
    assert "without svhn-lt, whose data is not there" in " ".join(absent.stdout.split())


def test_a_dry_run_refuses_a_network_that_does_not_fit(cli: Cli):
    words = ("bench", "--dataset", "digits-lt", "--methods", "pgd-at", "--device", "cpu")
    done = cli(*words, "--arch", "small-cnn,torchvision:squeezenet1_1", "--dry-run")
    assert (done.code, done.stdout) == (2, "")
    assert "torchvision:squeezenet1_1 does not end in a linear layer" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("flag", ["--limit-train", "--limit-test"])
def test_a_dry_run_refuses_what_the_data_cannot_give(cli: Cli, flag: str):
    words = ("bench", "--methods", "pgd-at", "--dataset", "digits-lt", flag, "5", "--dry-run")
    outcome = cli(*words)
    assert outcome.code == 2
    assert f"{flag} 5 is too small" in outcome.stderr
    assert "not there" not in outcome.stdout


@pytest.mark.usefixtures("few_checks")
@pytest.mark.parametrize("early", [True, False], ids=["before all", "by its run"])
@pytest.mark.parametrize("asked", [("--attacks", "clean,dlr2"), ("--watch", "dlr2")])
def test_an_attack_that_cannot_be_is_told_before_the_training(
    cli: Cli, early: bool, asked: tuple[str, ...]
):
    for part in ("train", "test"):
        for label in ("a", "b"):
            folder = Path("two") / part / label
            folder.mkdir(parents=True)
            for n in range(12):
                Image.new("L", (8, 8), 20 * n).save(folder / f"{n}.png")
    words = (
        "--dataset",
        "folder:two",
        "--arch",
        "small-cnn:width=8",
        "--imbalance-ratio",
        "natural",
    )
    more = () if early else ("--no-estimate",)
    attacks = ("--epochs", "1", *asked, "--device", "cpu", "--output", "out")
    outcome = cli("bench", "--methods", "pgd-at", *words, *attacks, *more)
    assert outcome.code == (2 if early else 1)
    assert "compares three logits; this data has two classes" in outcome.stderr
    assert not list(Path().glob("out/runs/*/history.csv"))


def test_planning_leaves_the_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A login node plans for others; whoever computes sets what holds for its process."""

    def changed() -> bool:
        raise AssertionError("planning changed the process")

    monkeypatch.setattr("ltrobust.bench.plan.keep_freed_memory", changed)
    plan = make_plan(Settings(device="cpu"))
    assert plan.device == "cpu"
    with pytest.raises(AssertionError, match="planning changed"):
        use_device(plan.device)


def test_what_cells_share_is_done_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for part in ("train", "test"):
        for c, name in enumerate("ab"):
            (tmp_path / part / name).mkdir(parents=True)
            Image.new("RGB", (8, 8), (c, 0, 0)).save(tmp_path / part / name / "0.png")
    hashed, timed, loaded = [], [], []
    monkeypatch.setattr("ltrobust.bench.plan.load_methods", loaded.append)
    monkeypatch.setattr(
        "ltrobust.bench.plan.data_fingerprint", lambda *data: hashed.append(data) or "f" * 64
    )
    monkeypatch.setattr("ltrobust.bench.estimate._probe", lambda *of: timed.append(of) or 1.0)
    betas = ",".join(map(str, range(1, 51)))
    made = make_cells(
        {
            "methods": "trades",
            "dataset": f"folder:{tmp_path}",
            "arch": "small-cnn,resnet18",
            "option": f"trades.beta={betas}",
            "device": "cpu",
        }
    )
    plan = make_grid(made)
    assert len(plan.runs) == 100
    measured: list[object] = []
    monkeypatch.setattr("ltrobust.bench.estimate.measure", lambda *of: None)
    monkeypatch.setattr(
        "ltrobust.bench.estimate.outer_passes", lambda run, counts: measured.append(run) or 1.0
    )
    needs = memory_needs(plan, lambda planned: TrainingSet((10, 5), (3, 8, 8)))
    assert (len(needs), len(measured)) == (100, 1)
    rows, _, unread = cell_rows(plan, SuiteStore(tmp_path / "out"))
    assert (len(rows), unread) == (100, [])
    assert (len(hashed), len(timed), len(loaded)) == (1, 2, 1)


def test_recipes_of_different_length_are_different_cells(tmp_path: Path, cli: Cli):
    file = tmp_path / "two.yaml"
    text = "dataset: digits-lt\nmethods: pgd-at\ndevice: cpu\nseeds: 0-1\ngrid:\n"
    file.write_text(f"{text}  - recipe: fast\n  - recipe: unified\n    epochs: 2\n")
    shown = cli("bench", "--suite", file, "--dry-run").stdout.split("cells")[1]
    assert "recipe" in shown
    assert "epochs" in shown
    shown = cli("bench", "--methods", "pgd-at", "--epochs", 3, "--dry-run").stdout.split("cells")[1]
    assert "recipe" not in shown
    assert "epochs" not in shown
    rows, _, _ = cell_rows(make_grid(make_cells({}, file)), SuiteStore(tmp_path / "out"))
    assert [row[3:7] for row in rows] == [
        ["fast", "-", "-", "2 new"],
        ["unified", "2", "-", "2 new"],
    ]


def test_splits_are_kept_as_far_as_memory_allows(monkeypatch: pytest.MonkeyPatch):
    plan = make_plan(Settings(methods=("pgd-at",), imbalance_ratio=(2, 4, 8), device="cpu"))
    load = Loader(plan)
    first = [load(planned) for planned in plan.runs]
    assert all(load(planned) is data for planned, data in zip(plan.runs, first, strict=True))
    monkeypatch.setenv(LIMIT_VARIABLE, str(1e-9 * first[0].train_images.numel()))
    tight = Loader(plan)
    for planned in plan.runs:
        data = tight(planned)
        assert tight(planned) is data
    assert tight(plan.runs[0]) is not first[0]
    assert len(tight._loaded) < 3


@pytest.mark.usefixtures("without_reports", "few_checks")
def test_any_network_is_trained_and_its_weights_come_back(cli: Cli):
    archs = ["torchvision:shufflenet_v2_x0_5:stem=cifar", "wrn-10-1", "resnet18:width=8:depth=10"]
    words = ("bench", "--methods", "pgd-at", "--dataset", "digits-lt", "--arch", ",".join(archs))
    words = (*words, *TINY, "--option", "recipe.attack.steps=1", "--attacks", "clean")
    assert cli(*words, "--output", "out").code == 0
    found = {}
    images = torch.rand(2, 1, 8, 8)
    for path in Path("out/runs").iterdir():
        arch = content(path / "run.json")["run"]["arch"]
        net = build_model(arch, num_classes=10, in_channels=1, image_size=8).eval()
        net.load_state_dict(load_file(path / "model.safetensors"))
        model = ltrobust.load(path)
        found[arch] = torch.equal(model(images), net(images)), len(model.test_labels)
    assert found == dict.fromkeys(archs, (True, 10))


TWICE = """
dataset: digits-lt
methods: [pgd-at, pgd-at+tau-norm]
limit_train: 40
epochs: 1
device: cpu
output: out
grid:
  - seeds: 0-1
    limit_test: 20
    attacks: clean,pgd2
  - seeds: 0
    limit_test: 10
    attacks: clean,fgsm
  - seeds: 0
    limit_test: 20
    attacks: fgsm
"""
"""Runs of seed 0 are asked for on 20 images and on 10."""


def attacked() -> dict[tuple[str, int], list[tuple[str, int]]]:
    """By method and seed the attacks that are there, each with its number of images."""
    found = {}
    for run in SuiteStore(Path("out")).runs():
        record = run.begun_record().run
        assert isinstance(record, Run)
        made = sorted((one.attack, one.digest.n) for one in run.attacks().values())
        found[record.method, record.seed] = made
    return found


@pytest.mark.usefixtures("without_reports", "few_checks")
@pytest.mark.parametrize("jobs", [(), ("--jobs", "2")], ids=["in this process", "two workers"])
def test_a_run_on_several_sets_of_test_images_is_trained_once_and_attacked_on_all(
    cli: Cli, jobs: tuple[str, ...]
):
    path = suite(TWICE)
    done = cli("bench", "--suite", path, "--no-checks", *jobs, "--overwrite", "all")
    assert done.code == 0, done.stderr
    few, many = [("clean", 10), ("fgsm", 10)], [("clean", 20), ("fgsm", 20), ("pgd2", 20)]
    both = sorted([*few, *many])
    methods = "pgd-at", "pgd-at+tau-norm"
    assert attacked() == {
        **{(method, 0): both for method in methods},
        **{(method, 1): [("clean", 20), ("pgd2", 20)] for method in methods},
    }
    assert "4 runs on cpu" in done.stdout
    assert done.stdout.count("epoch 1/1") == (0 if jobs else 2)  # workers keep it to their logs
    status = json.loads(cli("status", "out", "--json").stdout)
    assert [row["state"] for row in status] == ["done"] * 4
    again = cli("bench", "--suite", path, "--no-checks", *jobs)
    assert "epoch" not in again.stdout


@pytest.mark.usefixtures("without_reports", "few_checks")
@pytest.mark.parametrize("bad", [20, 10], ids=["the first set", "the second set"])
def test_a_set_of_test_images_that_fails_keeps_no_other_from_being_tried(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, bad: int
):
    attack = runner._attack

    def failing(evaluator: Any, *args: Any) -> dict[str, float]:
        if len(evaluator.test.labels) == bad:
            raise RunError("no room for these images")
        return attack(evaluator, *args)

    path = suite(TWICE)
    words = ("bench", "--suite", path, "--no-checks", "--seeds", "0", "--methods", "pgd-at")
    with monkeypatch.context() as patch:
        patch.setattr(runner, "_attack", failing)
        done = cli(*words)
    assert done.code == 1
    assert "no room for these images" in done.stderr
    few, many = [("clean", 10), ("fgsm", 10)], [("clean", 20), ("fgsm", 20), ("pgd2", 20)]
    assert attacked() == {("pgd-at", 0): many if bad == 10 else few}
    (row,) = json.loads(cli("status", "out", "--json").stdout)
    assert row["state"] == "failed"
    assert "no room" in row["reason"]

    done = cli(*words, "--overwrite", "never")
    assert (done.code, attacked()) == (1, {("pgd-at", 0): many if bad == 10 else few})
    assert cli(*words).code == 0
    assert attacked() == {("pgd-at", 0): sorted([*few, *many])}


def test_where_a_run_cannot_be_cleared_nothing_is_made_of_its_old_weights(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
):
    path = suite(TWICE)
    words = ("bench", "--suite", path, "--no-checks", "--seeds", "0", "--methods", "pgd-at")
    assert cli(*words, "--attacks", "clean", "--no-report").code == 0

    def refused(*_: Any) -> None:
        raise RunError("model.safetensors cannot be removed")

    monkeypatch.setattr(SuiteStore, "start_over", refused)
    before = attacked()
    done = cli(*words, "--overwrite", "all", "--no-report")
    assert (done.code, attacked()) == (1, before)
    assert "cannot be removed" in done.stderr


def test_a_plan_of_several_sets_of_test_images_is_what_was_written(cli: Cli):
    plan = make_grid(make_cells({}, suite(TWICE)))
    assert [len(planned.parts) for planned in plan.runs] == [2, 2, 1, 1]
    first = plan.runs[0]
    assert [spec.name for spec in first.attacks] == ["clean", "pgd2", "fgsm"]
    store = SuiteStore(Path("out"))
    write_plan(plan, store)
    for planned in plan.runs:
        (read,) = read_plan(store)[planned.run.run_id].runs
        assert list(read.attack_ids()) == list(planned.attack_ids())
        assert [part.test for part in read.parts] == [part.test for part in planned.parts]
        limits = [part.cell.limit_test for part in read.further if part.cell is not None]
        assert limits == [10] * len(planned.further)
    shown = json.loads(cli("bench", "--suite", "paper.yaml", "--dry-run", "--json").stdout)
    assert [len(run["tests"]) for run in shown["runs"]] == [2, 2, 1, 1]
    assert [test["limit"] for test in shown["runs"][0]["tests"]] == [20, 10]


def test_what_several_sets_of_test_images_take_is_reckoned_once_and_each():
    """Training counts once, and each attack on its own images."""
    text = TWICE.replace("pgd-at, pgd-at+tau-norm", "pgd-at").replace("seeds: 0-1", "seeds: 0")
    alone, _, _ = text.partition("  - seeds: 0\n    limit_test: 10")
    probes: Probes = {("small-cnn", "fp32", (1, 8, 8)): 1.0}
    store = SuiteStore(Path("out"))

    def passes(text: str) -> float:
        plan = make_grid(make_cells({}, suite(text)))
        return estimate(plan, store, Loader(plan), probes).seconds

    # fgsm on 10 and 20 images, clean on 10; 0.9 and 0.3 passes an image
    assert passes(text) - passes(alone) == pytest.approx(0.9 * 30 + 0.3 * 10)


def test_what_is_asked_of_a_run_is_joined_with_all_its_sets_of_test_images():
    plan = make_grid(make_cells({}, suite(TWICE)))
    assert joined([*plan.runs, *plan.runs]) == plan.runs
    whole = plan.runs[0]
    first, second = whole.parts
    assert joined([second, whole])[0].attack_ids() == whole.attack_ids()
    assert [part.test for part in joined([second, whole])[0].parts] == [second.test, first.test]


def test_a_dry_run_tells_sets_of_test_images_apart(cli: Cli):
    text = TWICE.replace("limit_test: 10", "limit_test: 20\n    test_protocol: long-tailed")
    shown = " ".join(cli("bench", "--suite", suite(text), "--dry-run").stdout.split())
    assert "on about 20" in shown
    assert "long-tailed" in shown


@pytest.mark.slow
@pytest.mark.usefixtures("without_reports", "few_checks")
def test_each_set_of_test_images_is_probed_though_the_checks_come_later(cli: Cli):
    path = suite(TWICE.replace("pgd-at, pgd-at+tau-norm", "pgd-at").replace("0-1", "0"))
    assert cli("bench", "--suite", path, "--no-checks").code == 0
    (run,) = SuiteStore(Path("out")).runs()
    assert not run.probes()
    planned = make_grid(make_cells({}, path)).runs[0]
    assert finished(planned, run, no_checks=True)
    assert not finished(planned, run, no_checks=False)
    assert cli("bench", "--suite", path).code == 0
    images = {one.test_sha256[:12] for one in run.attacks().values()}
    assert {key.partition("-")[0] for key in run.probes()} == images
    assert len(images) == 2
    assert finished(planned, run, no_checks=False)


@pytest.mark.usefixtures("without_reports", "few_checks")
@pytest.mark.parametrize("first", ["val", "last"])
def test_a_grid_may_choose_among_settings_in_one_block_and_not_in_another(cli: Cli, first: str):
    second = "last" if first == "val" else "val"
    path = suite(
        f"""
dataset: digits-lt
methods: trades
option: ["trades.beta=1,6"]
limit_train: 60
limit_test: 10
epochs: 1
device: cpu
output: out
attacks: clean,fgsm
grid:
  - select: {first}
  - select: {second}
"""
    )
    done = cli("bench", "--suite", path, "--no-checks")
    assert done.code == 0, done.stderr
    attacked = Counter()
    for run in SuiteStore(Path("out")).runs():
        record = run.begun_record().run
        assert isinstance(record, Run)
        assert len(run.attacks()) in (0, 2)
        attacked[record.select] += len(run.attacks()) // 2
    assert attacked == {"last": 2, "val": 1}
