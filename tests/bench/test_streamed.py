"""Streamed from a file or held in memory: the same runs with the same bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from bench_helpers import Cli
from PIL import Image
from torch import Tensor

from ltrobust.data.cache import FOLDER, LIMIT_VARIABLE
from ltrobust.training import feed

BENCH = (
    *("bench", "--methods", "pgd-at", "--dataset", "folder:photos@12", "--seeds", "0-1"),
    *("--arch", "small-cnn", "--epochs", "2", "--batch-size", "4", "--augment", "randaugment"),
    *("--device", "cpu", "--threads", "1", "--attacks", "clean,pgd2", "--select", "best"),
    *("--save-every", "0"),
)


@pytest.fixture
def photos() -> None:
    random = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in "abc":
            (Path("photos") / part / name).mkdir(parents=True)
            for number in range(6):
                pixels = random.integers(0, 256, (14, 17, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(Path("photos") / part / name / f"{number}.png")


def bits(suite: str) -> dict[str, bytes]:
    """Weights and outcomes of all runs of a suite."""
    kinds = ("model.safetensors", "attacks/*.parquet")
    paths = [path for kind in kinds for path in Path(suite).glob(f"runs/*/{kind}")]
    return {str(path.relative_to(suite)): path.read_bytes() for path in paths}


@pytest.mark.usefixtures("photos", "without_reports", "few_checks")
def test_the_same_bits_streamed_and_resumed_in_the_middle_of_an_epoch(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
):
    assert cli(*BENCH, "--output", "memory").code == 0
    assert not Path("data", FOLDER).exists()
    monkeypatch.setenv(LIMIT_VARIABLE, "0")
    monkeypatch.setattr(feed, "LARGE", 0)
    taken: list[int] = []
    chosen_images = feed.chosen_images

    def stopping(images: Tensor, chosen: Tensor, device: torch.device) -> Tensor:
        taken.append(len(chosen))
        if len(taken) == 6:  # four batches an epoch
            raise KeyboardInterrupt
        return chosen_images(images, chosen, device)

    monkeypatch.setattr(feed, "chosen_images", stopping)
    assert cli(*BENCH, "--output", "file").code == 130
    assert len(list(Path("data", FOLDER).glob("*.u8"))) == 3  # training, held out, test
    assert cli(*BENCH, "--output", "file").code == 0
    expected = bits("memory")
    assert len(expected) == 2 * (1 + 2)
    assert bits("file") == expected
