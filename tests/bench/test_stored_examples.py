"""examples.parquet: what a bench leaves to look at, and that it changes nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bench_helpers import QUICK, TINY, Cli, Finished, attacks_of, only_run, outcomes_of, tree

from ltrobust.data import load_data
from ltrobust.errors import UserError
from ltrobust.results.store import EXAMPLE_COLUMNS, RunStore

WORDS = ("bench", "--methods", "pgd-at", *QUICK, "--device", "cpu", "--output", "suite")


@pytest.fixture
def quick(cli: Cli, without_reports: None, few_checks: None) -> Cli:
    """A command line that draws no reports and checks little."""
    return cli


def made_examples(index: object) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    clean = [rng.integers(0, 256, (3, 4, 5), dtype=np.uint8) for _ in range(2)]
    adversarial = [rng.random((3, 4, 5), dtype=np.float32) for _ in range(2)]
    return pd.DataFrame(
        {
            "index": [7, 2],
            "label": [0, 1],
            "pred_clean": [0, 0],
            "pred_adv": [1, 0],
            "attack": "pgd20",
            "eps": 8 / 255,
            "clean": clean,
            "adversarial": adversarial,
        }
    )


def test_examples_come_back_bit_for_bit(tmp_path: Path) -> None:
    run = RunStore(tmp_path / "run")
    assert run.examples().empty
    assert list(run.examples().columns) == EXAMPLE_COLUMNS
    frame = made_examples(0)
    run.write_examples(frame)
    back = run.examples()
    assert list(back.columns) == EXAMPLE_COLUMNS
    for column in ("index", "label", "pred_clean", "pred_adv", "attack", "eps"):
        assert back[column].tolist() == frame[column].tolist()
    for column in ("clean", "adversarial"):
        for stored, given in zip(back[column], frame[column], strict=True):
            assert stored.dtype == given.dtype
            np.testing.assert_array_equal(stored, given)


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more"])
def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "examples.parquet").write_bytes(content)
    with pytest.raises(UserError, match=r"examples\.parquet is damaged"):
        RunStore(tmp_path).examples()


def test_bytes_that_do_not_fit_their_shape_are_an_error(tmp_path: Path) -> None:
    run = RunStore(tmp_path)
    run.write_examples(made_examples(0))
    frame = pd.read_parquet(tmp_path / "examples.parquet")
    frame["clean"] = [b"too few", b"bytes"]
    frame.to_parquet(tmp_path / "examples.parquet", index=False)
    with pytest.raises(UserError, match=r"examples\.parquet is damaged"):
        run.examples()


def test_a_bench_leaves_one_image_a_class_attacked_as_the_verdicts_were(finished: Finished) -> None:
    data = load_data("digits-lt")
    images = dict(zip(data.test_index.tolist(), data.test_images.numpy(), strict=True))
    for run in finished.runs:
        plain = pd.read_parquet(run / "examples.parquet")
        assert list(plain.columns) == EXAMPLE_COLUMNS
        examples = RunStore(run).examples()
        assert sorted(examples["label"]) == list(range(10))
        assert set(examples["attack"]) == {"pgd2"}
        assert set(examples["eps"]) == {0.1}
        outcomes = outcomes_of(run).set_index(["attack", "index"])
        for row in examples.to_dict("records"):
            np.testing.assert_array_equal(row["clean"], images[row["index"]])
            assert np.abs(row["adversarial"] - row["clean"] / 255).max() <= 0.1 + 1e-6
            assert row["pred_clean"] == outcomes.loc[("clean", row["index"]), "pred"]
            if row["pred_clean"] == row["label"]:
                assert row["pred_adv"] == outcomes.loc[("pgd2", row["index"]), "pred"]
    first, second = (RunStore(run).examples()["index"].tolist() for run in finished.runs)
    assert first == second


def test_examples_change_no_outcome(
    quick: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []
    for place in ("with", "without"):
        folder = tmp_path / place
        folder.mkdir()
        with monkeypatch.context() as patch:
            patch.chdir(folder)
            if place == "without":
                patch.setattr("ltrobust.bench.runner.keep_examples", lambda *args: None)
            assert quick(*WORDS).code == 0
        run = only_run(folder / "suite")
        assert (run / "examples.parquet").exists() == (place == "with")
        kept.append(
            (
                outcomes_of(run).to_csv(),
                (run / "model.safetensors").read_bytes(),
                (run / "reliability.json").read_text(),
                list(attacks_of(run)),
            )
        )
    assert kept[0] == kept[1]


def test_lost_examples_are_made_again_and_nothing_else(quick: Cli) -> None:
    assert quick(*WORDS).code == 0
    run = only_run(Path("suite"))
    before, file = tree(run), run / "examples.parquet"
    content = file.read_bytes()
    file.unlink()
    assert quick(*WORDS).code == 0
    assert file.read_bytes() == content
    changing = {"examples.parquet", "log.txt"}
    assert {k: v for k, v in tree(run).items() if k not in changing} == {
        k: v for k, v in before.items() if k not in changing
    }
    again = tree(run)
    assert "done before" in quick(*WORDS).stdout
    assert tree(run) == again


def test_a_further_attack_keeps_the_examples_of_the_first(quick: Cli) -> None:
    assert quick("bench", "--methods", "pgd-at", *TINY, "--attacks", "clean,fgsm").code == 0
    run = only_run(Path("results/digits-lt"))
    assert not (run / "examples.parquet").exists()
    for attacks in ("pgd3,pgd2", "pgd4"):
        assert quick("evaluate", run, "--attacks", attacks, "--limit-test", "20").code == 0
        assert set(RunStore(run).examples()["attack"]) == {"pgd3"}
