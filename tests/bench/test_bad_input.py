"""Bad input: one clear line on stderr, exit code 2, nothing on stdout, nothing half-written."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from bench_helpers import (
    QUICK,
    Cli,
    Finished,
    Outcome,
    run_command,
    tree,
    write_plugin,
)
from PIL import Image

pytestmark = pytest.mark.usefixtures("without_figures", "few_checks")


def check_refused(outcome: Outcome, *parts: str) -> None:
    """One line that holds all `parts`, and exit code 2."""
    assert outcome.code == 2, outcome
    assert outcome.stdout == ""
    assert "Traceback" not in outcome.stderr
    lines = outcome.stderr.splitlines()
    assert len(lines) == 1, outcome.stderr
    assert lines[0].startswith("error: ")
    for part in parts:
        assert part.lower() in lines[0].lower(), (part, lines[0])


Refused = Callable[..., None]


@pytest.fixture
def refused(cli: Cli) -> Refused:
    """Run a command line that must be refused, and look that it left the place as it was."""

    def call(words: tuple[object, ...], *parts: str) -> None:
        before = tree(Path())
        check_refused(cli(*words), *parts)
        assert tree(Path()) == before, "something was written"

    return call


# values of flags --------------------------------------------------------------------------------

VALUES = {
    "unknown method": ("--methods", "at-bls", "unknown method", "did you mean 'at-bsl'?", "taet"),
    "unknown among several": ("--methods", "pgd-at,tradse", "'tradse'", "did you mean 'trades'?"),
    "unknown dataset": ("--dataset", "cifar10lt", "unknown dataset", "did you mean 'cifar10-lt'?"),
    "folder without a path": ("--dataset", "folder:", "folder:PATH"),
    "unknown attack": ("--attacks", "clean,autoatack", "unknown attack", "mean 'autoattack'?"),
    "attack without steps": ("--attacks", "pgd", "pgd20"),
    "attack of 0 steps": ("--attacks", "pgd0", "unknown attack 'pgd0'"),
    "unknown arch": ("--arch", "resnet-18", "did you mean 'resnet18'?", "small-cnn"),
    "unknown precision": ("--precision", "fp31", "unknown precision", "did you mean 'fp32'?"),
    "unknown recipe": ("--recipe", "papr", "unknown recipe", "did you mean 'paper'?", "unified"),
    "unknown protocol": ("--test-protocol", "longtailed", "did you mean 'long-tailed'?"),
    "unknown imbalance type": ("--imbalance-type", "stp", "did you mean 'step'?"),
    "unknown overwrite": ("--overwrite", "al", "did you mean 'all'?", "never"),
    "unknown device": ("--device", "cdua", "unknown device", "did you mean 'cuda'?"),
    "device that is not there": ("--device", "cuda:9", "cuda:9 is not there", "cpu"),
    "device without a number": ("--device", "cuda:x", "unknown device"),
    "empty item in methods": ("--methods", "pgd-at,,taet", "--methods", "empty item"),
    "empty item in attacks": ("--attacks", "clean,", "--attacks", "empty item"),
    "empty item in seeds": ("--seeds", ",1", "--seeds", "empty item"),
    "no methods": ("--methods", "", "--methods", "empty item"),
    "negative eps": ("--eps", "-0.1", "--eps", "greater than or equal to 0"),
    "eps nan": ("--eps", "nan", "--eps"),
    "eps above one": ("--eps", "8", "--eps", "less than or equal to 1"),
    "eps no number": ("--eps", "much", "--eps", "8/255"),
    "eps divided by zero": ("--eps", "8/0", "divides by 0"),
    "ratio below one": ("--imbalance-ratio", "0.5", "--imbalance-ratio", ">= 1"),
    "ratio nan": ("--imbalance-ratio", "nan", "--imbalance-ratio"),
    "ratio inf": ("--imbalance-ratio", "inf", "--imbalance-ratio"),
    "no epochs": ("--epochs", "0", "--epochs", "1"),
    "negative epochs": ("--epochs", "-3", "--epochs", "1"),
    "half an epoch": ("--epochs", "1.5", "--epochs"),
    "no batch": ("--batch-size", "0", "--batch-size", "1"),
    "seed no integer": ("--seeds", "0,1.5", "--seeds", "integer"),
    "seed no number": ("--seeds", "zero", "--seeds", "integer"),
    "seeds backwards": ("--seeds", "4-0", "--seeds", "0-4"),
    "negative seed": ("--seeds", "-1", "--seeds", ">= 0"),
    "negative split seed": ("--split-seed", "-1", "--split-seed", "0"),
    "no training images": ("--limit-train", "0", "--limit-train", "1"),
    "fewer test images than classes": ("--limit-test", "9", "--limit-test 9", "at least 10"),
    "fewer training images than classes": ("--limit-train", "5", "--limit-train 5", "at least 10"),
    "ratio no number": ("--imbalance-ratio", "many", "--imbalance-ratio"),
}


@pytest.mark.parametrize("case", VALUES.values(), ids=VALUES.keys())
def test_bad_value_of_a_flag(refused: Refused, case: tuple[str, ...]) -> None:
    flag, value, *parts = case
    refused(("bench", *QUICK, "--output", "out", flag, value), *parts)


DRY_VALUES = sorted(VALUES.keys() - {name for name in VALUES if name.startswith("fewer")})


@pytest.mark.parametrize("name", DRY_VALUES)
def test_dry_run_refuses_the_same_values(refused: Refused, name: str) -> None:
    flag, value, *parts = VALUES[name]
    refused(("bench", *QUICK, "--output", "out", flag, value, "--dry-run", "--json"), *parts)


COMMANDS = {
    "json without dry run": (("bench", "--json"), "--json", "--dry-run"),
    "unknown command": (("bnech",), "bnech", "bench"),
    "unknown flag": (("bench", "--epoch", "3"), "--epoch", "--epochs"),
    "flag without a value": (("bench", "--epochs"), "--epochs"),
    "evaluate nothing": (("evaluate",), "run directory", "--checkpoint"),
    "evaluate two things": (("evaluate", "a", "--checkpoint", "b"), "one of"),
    "evaluate no run": (("evaluate", "nowhere"), "nowhere", "run.json"),
    "evaluate no file": (("evaluate", "--checkpoint", "no.pt", "--arch", "small-cnn"), "no.pt"),
    "checkpoint without arch": (("evaluate", "--checkpoint", "a.pt"), "--arch"),
    "train nothing": (("train",), "method"),
    "train unknown": (("train", "at-bls"), "did you mean 'at-bsl'?"),
    "report nothing": (("report",), "directory"),
    "report nowhere": (("report", "nowhere"), "nowhere", "no runs"),
}


@pytest.mark.parametrize("case", COMMANDS.values(), ids=COMMANDS.keys())
def test_bad_command(refused: Refused, case: tuple[tuple[str, ...], str]) -> None:
    words, *parts = case
    refused(words, *parts)


def test_no_command_shows_the_help_and_no_empty_error(cli: Cli) -> None:
    outcome = cli()
    assert outcome.code in (0, 2)
    assert "bench" in outcome.stdout + outcome.stderr
    assert "error:" not in outcome.stderr


def test_paper_recipe_elsewhere_needs_arch_and_epochs(refused: Refused) -> None:
    words = ("bench", "--methods", "trades", "--dataset", "digits-lt", "--recipe", "paper")
    refused(words, "--arch", "--epochs", "unified")


def test_debug_shows_the_traceback(cli: Cli) -> None:
    from ltrobust.errors import UserError

    with pytest.raises(UserError, match="unknown method"):
        cli("bench", "--methods", "nonsense", "--debug")


@pytest.mark.parametrize(
    "words",
    [
        ("bench", "--methods", "at-bls"),
        ("bench", "--data-dir", "/nowhere", "--dataset", "cifar10-lt"),
    ],
    ids=["unknown name", "missing data"],
)
def test_refused_in_a_process_of_its_own(tmp_path: Path, words: tuple[str, ...]) -> None:
    check_refused(run_command(*words, cwd=tmp_path))
    assert list(tmp_path.iterdir()) == []


# suite files ------------------------------------------------------------------------------------

SUITES = {
    "unknown key": ("epoch: 3\n", "unknown key", "'epoch'", "did you mean 'epochs'?"),
    "flag spelling": ("batch-size: 3\n", "did you mean 'batch_size'?"),
    "key that is a number": ("3: 4\n", "unknown key", "'3'"),
    "not YAML": ("methods: [a, b\n", "not valid YAML"),
    "a key twice": ("epochs: 1\nseeds: 2\nepochs: 3\n", "'epochs' stands twice", "lines 1 and 3"),
    "minutes and seconds": ("epochs: 1:40\n", "--epochs", "integer"),
    "a tab": ("methods:\n\t- a\n", "not valid YAML"),
    "a list": ("- pgd-at\n- taet\n", "must be a mapping"),
    "a word": ("pgd-at\n", "must be a mapping"),
    "unknown method": ("methods: [pgd-at, tradse]\n", "did you mean 'trades'?"),
    "unknown recipe": ("recipe: papr\n", "did you mean 'paper'?"),
    "empty item": ("attacks: [clean, '']\n", "empty item"),
    "no item": ("attacks: []\n", "empty item"),
    "epochs a word": ("epochs: many\n", "--epochs", "integer"),
    "no epochs": ("epochs: 0\n", "--epochs"),
    "seed no integer": ("seeds: [0, x]\n", "--seeds", "integer"),
    "eps a list": ("eps: [0.1]\n", "--eps"),
    "eps nan": ("eps: .nan\n", "--eps"),
    "ratio below one": ("imbalance_ratio: 0.5\n", "--imbalance-ratio", ">= 1"),
    "dataset a number": ("dataset: 3\n", "--dataset", "string"),
    "recipe a list": ("recipe: [paper]\n", "recipe"),
    "method with options": ("methods:\n  - trades: {beta: 3}\n", "--methods"),
    "seed a list": ("seeds: [[0, 1]]\n", "--seeds"),
    "python object": ("methods: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
}


@pytest.mark.parametrize("case", SUITES.values(), ids=SUITES.keys())
def test_bad_suite_file(refused: Refused, case: tuple[str, ...]) -> None:
    content, *parts = case
    Path("mine.yaml").write_text(content)
    refused(("bench", "--suite", "mine.yaml"), *parts)


def test_suite_file_that_is_not_there_names_the_shipped_ones(refused: Refused) -> None:
    refused(("bench", "--suite", "mine.yaml"), "mine.yaml", "no such file", "cifar10-lt-cpu")


def test_suite_file_that_is_a_folder_or_binary(refused: Refused) -> None:
    Path("folder.yaml").mkdir()
    refused(("bench", "--suite", "folder.yaml"), "folder.yaml")
    Path("binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    refused(("bench", "--suite", "binary.yaml"), "not valid YAML")


# data -------------------------------------------------------------------------------------------

CIFAR = ("bench", "--methods", "pgd-at", "--dataset", "cifar10-lt", "--output", "out")


def write_parquet(folder: Path) -> None:
    """CIFAR-10 of two images a class, as Hugging Face's parquet files."""
    folder.mkdir(parents=True)
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save("black.png")
    row = {"bytes": Path("black.png").read_bytes(), "path": None}
    Path("black.png").unlink()
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    labels = [i % 10 for i in range(20)]
    table = pa.table({"img": pa.array([row] * 20, kind), "label": pa.array(labels, pa.int64())})
    for part in ("train", "test"):
        pq.write_table(table, folder / f"{part}-00000-of-00001.parquet")


def test_data_directory_that_is_not_there(refused: Refused) -> None:
    refused((*CIFAR, "--data-dir", "nowhere"), "'nowhere'", "no such folder", "--download")


def test_data_directory_without_the_data(refused: Refused) -> None:
    Path("data").mkdir()
    refused(CIFAR, "no CIFAR10 in 'data'", "--data-dir", "--download")


def test_data_directory_from_the_environment(
    refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LTROBUST_DATA_DIR", "/nowhere/else")
    refused(CIFAR, "'/nowhere/else'")


@pytest.mark.parametrize("part", ["train", "test"])
def test_truncated_parquet(refused: Refused, part: str) -> None:
    write_parquet(Path("data/cifar10"))
    file = Path(f"data/cifar10/{part}-00000-of-00001.parquet")
    file.write_bytes(file.read_bytes()[:-100])
    refused(CIFAR, file.name, "truncated")


def test_missing_half_of_the_data(refused: Refused) -> None:
    write_parquet(Path("data/cifar10"))
    Path("data/cifar10/test-00000-of-00001.parquet").unlink()
    refused(CIFAR, "test-*.parquet")


@pytest.fixture
def folder() -> Path:
    """Two classes of two training images and one test image."""
    root = Path("images")
    for part, count in (("train", 2), ("test", 1)):
        for name in "ab":
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                image = np.full((8, 8, 3), 50 * i, np.uint8)
                Image.fromarray(image).save(root / part / name / f"{i}.png")
    return root


FOLDER = ("bench", "--methods", "pgd-at", "--dataset", "folder:images", "--arch", "small-cnn")


@pytest.mark.parametrize("part", ["train", "test"])
def test_empty_class_folder(refused: Refused, folder: Path, part: str) -> None:
    for file in (folder / part / "b").iterdir():
        file.unlink()
    refused((*FOLDER, "--output", "out"), f"images/{part}/b", "no images")


def test_class_folder_missing_in_test(refused: Refused, folder: Path) -> None:
    shutil.rmtree(folder / "test" / "b")
    refused((*FOLDER, "--output", "out"), "images/test/b", "missing")


def test_image_folder_that_is_not_there(refused: Refused) -> None:
    refused((*FOLDER, "--output", "out"), "'images' does not exist")


def test_damaged_image(refused: Refused, folder: Path) -> None:
    (folder / "train" / "a" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    refused((*FOLDER, "--output", "out"), "images/train/a/1.png")


def test_existing_output_stays_as_it_was_when_the_data_is_missing(
    refused: Refused, finished: Finished
) -> None:
    shutil.copytree(finished.suite, "out")
    refused((*CIFAR, "--data-dir", "nowhere"), "'nowhere'")


# plugins ----------------------------------------------------------------------------------------

PLUGINS = {
    "syntax error": ("def broken(:\n", "SyntaxError"),
    "crash": ("raise RuntimeError('not\\ntoday')\n", "RuntimeError", "not today"),
    "missing import": ("import no_such_module\n", "no_such_module"),
    "registers nothing": ("x = 3\n", "registers no method", "@register_method"),
    "not text": (b"\xff\xfe\x00", "cannot be loaded"),
    "leaves python": ("import sys\nsys.exit(0)\n", "mine.py"),
}


@pytest.mark.parametrize("case", PLUGINS.values(), ids=PLUGINS.keys())
@pytest.mark.parametrize("command", ["bench", "methods"])
def test_bad_plugin(refused: Refused, case: tuple[str | bytes, ...], command: str) -> None:
    content, *parts = case
    data = content if isinstance(content, bytes) else content.encode()
    Path("mine.py").write_bytes(data)
    refused((command, "--plugin", "mine.py"), "plugin mine.py", *map(str, parts))


def test_plugin_that_is_not_there_or_no_python_file(refused: Refused) -> None:
    refused(("bench", "--plugin", "mine.py"), "plugin mine.py", "no such file")
    Path("mine").write_text("x = 3\n")
    refused(("bench", "--plugin", "mine"), "plugin mine", ".py")
    Path("folder.py").mkdir()
    refused(("bench", "--plugin", "folder.py"), "plugin folder.py")


def test_plugin_that_takes_a_name_or_an_alias(refused: Refused, cli: Cli) -> None:
    for name in ("pgd-at", "robal"):
        plugin = write_plugin(Path(f"my_{name[:3]}.py"), name)
        refused(("bench", "--plugin", plugin), f"plugin {plugin}", f"'{name}'", "twice")
    assert cli("bench", "--methods", "pgd-at,robal", "--dry-run").code == 0


# checkpoints ------------------------------------------------------------------------------------

EVALUATE = ("evaluate", "--arch", "small-cnn", "--attacks", "clean", "--output", "external")


def weights(finished: Finished) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(finished.runs[-1] / "model.safetensors")


def test_checkpoint_of_another_architecture(refused: Refused, finished: Finished) -> None:
    file = finished.runs[-1] / "model.safetensors"
    words = (*EVALUATE, "--arch", "resnet18", "--checkpoint", file)
    refused(words, "does not fit", "give --arch small-cnn")


def test_checkpoint_with_a_weight_of_another_shape(refused: Refused, finished: Finished) -> None:
    state = weights(finished)
    last = list(state)[-1]
    torch.save({"state_dict": {**state, last: torch.zeros(3, 3, 3)}}, "other.pt")
    refused((*EVALUATE, "--checkpoint", "other.pt"), "does not fit", last, "(3, 3, 3)")


class Trap:
    """A pickle that makes a file where it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return os.mkdir, (str(self.mark),)  # type: ignore[return-value]


@pytest.mark.parametrize("kind", ["torch", "old torch", "pickle"])
def test_checkpoint_with_code_is_refused_and_does_not_run(
    refused: Refused, finished: Finished, tmp_path: Path, kind: str
) -> None:
    mark = tmp_path / "sprung"
    content = {"state_dict": weights(finished), "extra": Trap(mark)}
    if kind == "pickle":
        Path("trap.pt").write_bytes(pickle.dumps({"extra": Trap(mark)}))
    else:
        torch.save(content, "trap.pt", _use_new_zipfile_serialization=kind == "torch")
    refused((*EVALUATE, "--checkpoint", "trap.pt"), "trap.pt", "weights only")
    assert not mark.exists()


CHECKPOINTS = {
    "empty.pt": b"",
    "text.pt": b"these are no weights\n",
    "cut.safetensors": b"\x10\x00\x00",
    "binary.pth": b"PK\x03\x04 half an archive",
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_damaged_checkpoint(refused: Refused, name: str) -> None:
    Path(name).write_bytes(CHECKPOINTS[name])
    refused((*EVALUATE, "--checkpoint", name), name)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.zeros(2)], ids=str)
def test_checkpoint_without_a_state_dict(refused: Refused, content: object) -> None:
    torch.save(content, "other.pt")
    refused((*EVALUATE, "--checkpoint", "other.pt"), "other.pt", "state dict")


def test_evaluate_of_a_run_does_not_take_what_the_run_says(
    refused: Refused, finished: Finished
) -> None:
    for flag, value in (("--arch", "resnet18"), ("--method", "taet"), ("--dataset", "cifar10-lt")):
        refused(("evaluate", finished.runs[0], flag, value), flag, "already says it")


def test_damaged_run_is_named(refused: Refused, finished: Finished) -> None:
    shutil.copytree(finished.suite, "out")
    run = finished.runs[0].name
    model = Path("out/runs") / run / "model.safetensors"
    model.write_bytes(model.read_bytes()[:1000])
    words = ("evaluate", f"out/runs/{run}", "--attacks", "fgsm", "--limit-test", "20")
    refused(words, "model.safetensors", run)
    record = Path("out/runs") / run / "run.json"
    record.write_text(record.read_text()[:50])
    refused(("report", "out"), "run.json", "damaged")


def test_damaged_outcomes_are_named(refused: Refused, finished: Finished) -> None:
    shutil.copytree(finished.suite, "out")
    file = next((Path("out/runs") / finished.runs[0].name / "attacks").glob("*.parquet"))
    file.write_bytes(file.read_bytes()[:-50])
    refused(("report", "out"), file.name, "damaged")


# output directory -------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["file", "file/below", "file/far/below"])
def test_output_directory_with_a_file_in_its_place(refused: Refused, place: str) -> None:
    Path("file").write_text("mine\n")
    words = ("bench", "--methods", "pgd-at", *QUICK, "--output", place)
    refused(words, f"output directory {place}", "cannot be written", "--output")
    assert Path("file").read_text() == "mine\n"


def test_output_directory_on_a_read_only_file_system(refused: Refused) -> None:
    words = ("bench", "--methods", "pgd-at", *QUICK, "--output", "/proc/ltrobust")
    refused(words, "/proc/ltrobust", "cannot be written")


def test_refused_bench_leaves_a_finished_suite_as_it_was(
    refused: Refused, finished: Finished
) -> None:
    shutil.copytree(finished.suite, "out")
    words = ("bench", "--methods", "pgd-at", *QUICK, "--output", "out")
    refused((*words, "--limit-test", "5"), "--limit-test")
    refused((*words, "--attacks", "pgd"), "pgd20")
