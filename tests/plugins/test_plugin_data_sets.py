"""Data sets from outside: held to their contract, known by what they hold, named like ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ltrobust.bench.plan import make_plan
from ltrobust.bench.settings import make_cells, make_settings
from ltrobust.cli import main
from ltrobust.data import About, DatasetSpec, data_fingerprint, load_data
from ltrobust.data.custom import register_dataset
from ltrobust.errors import UserError
from ltrobust.plugins import load_plugin
from ltrobust.testing_parts import check_dataset

TOLD = 'About(citation="A, B", licence="CC0", defaults="ours"{checksum})'
SPEC = (
    '"theirs", 2, {ratio}, "two greys", eps={eps}, arch="small-cnn", crop_padding=0, about={about}'
)
DATASET = """
# {note}
import numpy as np
from ltrobust.data import About, DatasetSpec
from ltrobust.data.custom import register_dataset

def half(per_class, seed):
    draw, labels = np.random.default_rng(seed), np.repeat([0, 1], per_class)
    images = (draw.integers(0, 100, (len(labels), 1, 8, 8)) + 100 * labels[:, None, None, None])
    return images.astype(np.uint8), labels

@register_dataset(DatasetSpec({spec}))
def theirs(data_dir):
    x, y = half(20, 0)
    tx, ty = half(5, 1)
    {body}
    return {returned}
"""


def written(
    folder: Path,
    body: str = "pass",
    returned: str = "x, y, tx, ty",
    note: str = "",
    checksum: str = "",
    **spec: str,
) -> Path:
    file = folder / "theirs.py"
    words = {"ratio": "4.0", "eps": "0.1", "about": TOLD, **spec}
    given = SPEC.format(**words).format(checksum=f', checksum="{checksum}"' if checksum else "")
    text = DATASET.format(spec=given, body=body, returned=returned, note=note)
    file.write_text(text)
    return file


def test_one_that_keeps_its_contract_is_split_by_the_rule(tmp_path: Path) -> None:
    check_dataset("theirs", plugin=written(tmp_path))
    data = load_data("theirs")
    assert data.train_counts == (20, 5)
    assert data.image_shape == (1, 8, 8)
    assert load_data("theirs", imbalance_ratio="natural").train_counts == (20, 20)


@pytest.mark.parametrize(
    ("body", "returned", "message"),
    [
        ("x = x / 255", "x, y, tx, ty", "training images are float64"),
        ("tx = tx[:, 0]", "x, y, tx, ty", "test images are uint8 .10, 8, 8."),
        ("tx = tx[..., :7]", "x, y, tx, ty", "test images \\(1, 8, 7"),
        ("y = y + 1", "x, y, tx, ty", "labels 1 to 2; expected 0 to 1"),
        ("ty = ty * 0", "x, y, tx, ty", "class '1' has no test images"),
        ("y = y[:-1]", "x, y, tx, ty", "labels are int64 .39,."),
        ("pass", "x, y", "must give images, labels, test images, test labels"),
        ("1 / 0", "x, y, tx, ty", "cannot be loaded: ZeroDivisionError: division by zero"),
        ("x = np.random.permutation(x)", "x, y, tx, ty", "other arrays at the second call"),
        ("tx[0] = x[0]", "x, y, tx, ty", "1 of 10 test images are training images too"),
    ],
)
def test_a_loader_that_breaks_its_contract_is_found(
    body: str, returned: str, message: str, tmp_path: Path
) -> None:
    file = written(tmp_path, body, returned)
    with pytest.raises(AssertionError, match=message):
        check_dataset("theirs", plugin=file)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"about": 'About(citation="A", defaults="ours")'}, "does not tell about.licence"),
        ({"eps": "8"}, "eps 8 is in"),
        ({"ratio": "50.0"}, "imbalance ratio 50 needs at least 50 images"),
    ],
)
def test_a_spec_that_breaks_its_contract_is_found(
    spec: dict[str, str], message: str, tmp_path: Path
) -> None:
    file = written(tmp_path, **spec)
    with pytest.raises(AssertionError, match=message):
        check_dataset("theirs", plugin=file)


def run_id(file: Path) -> str:
    flags = {"methods": "pgd-at", "dataset": "theirs", "plugin": [file], "device": "cpu"}
    return make_plan(make_settings(flags)).runs[0].run.run_id


def test_what_it_holds_is_part_of_a_run_and_its_file_is_not(tmp_path: Path) -> None:
    first = run_id(written(tmp_path))
    assert run_id(written(tmp_path, note="edited")) == first
    assert run_id(written(tmp_path, body="x[0, 0, 0, 0] ^= 1")) != first
    assert run_id(written(tmp_path, body="y[0] = 1")) != first


def test_a_checksum_in_its_spec_is_held(tmp_path: Path) -> None:
    load_plugin(written(tmp_path))
    found = data_fingerprint("theirs")
    load_plugin(written(tmp_path, checksum=found))
    assert data_fingerprint("theirs") == found
    load_data("theirs")
    load_plugin(written(tmp_path, body="x[0] = 0", checksum=found))
    with pytest.raises(UserError, match=f"its spec says {found}"):
        load_data("theirs")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "a:b"}, "may hold letters"),
        ({"name": "folder"}, "a family of ours"),
        ({"name": "medmnist"}, "a family of ours"),
        ({"name": "digits-lt"}, "registered twice"),
        ({"num_classes": None}, "num_classes must be 2 or more"),
        ({"class_names": ("a", "b", "c")}, "3 class_names for 2 classes"),
    ],
)
def test_specs_that_cannot_be_are_refused(change: dict, message: str) -> None:
    spec = DatasetSpec("theirs", 2, None, "two greys", about=About())
    with pytest.raises(UserError, match=message):
        register_dataset(replace(spec, **change))(lambda data_dir: ())


def test_its_name_stands_in_lists(tmp_path: Path) -> None:
    file = written(tmp_path)
    cells = make_cells({"dataset": f"folder:{tmp_path}/a,b,theirs", "plugin": str(file)})
    assert [cell.dataset for cell in cells] == [f"folder:{tmp_path}/a,b", "theirs"]
    assert str(make_settings({"dataset": "theirs"}).output_dir) == "results/theirs"


def test_an_installed_one_is_there_at_the_first_lookup(tmp_path: Path) -> None:
    written(tmp_path)
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ltrobust.datasets]\ntheirs = theirs\n")
    program = "from ltrobust.data import DATASETS; print(DATASETS.get('theirs').about.licence)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.stdout == "CC0\n", done.stderr


def test_commands_show_it(tmp_path: Path, monkeypatch, capsys) -> None:
    file = written(tmp_path)
    told = {}
    for words in (["datasets"], ["datasets", "show", "theirs"]):
        monkeypatch.setattr("sys.argv", ["ltrobust", *words, "--plugin", str(file), "--json"])
        with pytest.raises(SystemExit) as stopped:
            main()
        shown = capsys.readouterr()
        assert stopped.value.code == 0, shown.err
        told[len(words)] = json.loads(shown.out)
    assert "theirs" in {row["name"] for row in told[1]}
    assert told[3]["about"]["licence"] == "CC0"
    files = told[3]["split"]["source"]["files"]
    assert files == {"arrays sha256": data_fingerprint("theirs")}
