"""Batches are the same whether the images lie on the device or are fetched ahead."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from ltrobust.bench.plan import make_plan
from ltrobust.bench.settings import make_settings
from ltrobust.data import load_data
from ltrobust.training import feed, trainer
from ltrobust.training.feed import fed

CPU = torch.device("cpu")
IMAGES = torch.arange(30, dtype=torch.uint8).reshape(10, 3, 1, 1)
DRAWS = [torch.tensor(positions) for positions in ([3, 1], [9, 0], [5, 5], [2])]


@pytest.mark.parametrize(("free", "fits"), [(74, False), (75, True), (1000, True)])
def test_images_lie_on_a_device_where_they_take_two_fifths_of_its_free_memory_at_most(
    monkeypatch: pytest.MonkeyPatch, free: int, fits: bool
):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10 * free))
    assert IMAGES.numel() == 30
    assert feed.fits(IMAGES, torch.device("cuda")) is fits
    assert feed.fits(IMAGES, CPU)


@pytest.mark.parametrize("ahead", [0, 1, 2, 9])
def test_batches_come_in_order(ahead: int):
    found = list(fed(IMAGES, iter(DRAWS), CPU, ahead))
    assert len(found) == len(DRAWS)
    for (chosen, batch), drawn in zip(found, DRAWS, strict=True):
        assert torch.equal(chosen, drawn)
        assert torch.equal(batch, IMAGES[drawn])


def test_without_reach_a_draw_waits_for_the_step_before():
    drawn: list[int] = []

    def draws() -> Iterator[Tensor]:
        for number in range(3):
            drawn.append(number)
            yield torch.tensor([number])

    for number, _ in enumerate(fed(IMAGES, draws(), CPU, 0)):
        assert drawn == list(range(number + 1))


def test_an_error_of_the_thread_is_raised():
    with pytest.raises(IndexError):
        list(fed(IMAGES, [torch.tensor([99])], CPU, 2))


@pytest.mark.parametrize("method", ["pgd-at", "cfol"])
def test_a_training_ends_with_the_same_weights(method: str, monkeypatch: pytest.MonkeyPatch):
    settings = make_settings(
        {"methods": method, "limit_train": 60, "epochs": 2, "batch_size": 16, "device": "cpu"}
    )
    (planned,) = make_plan(settings).runs
    data = load_data("digits-lt", limit_train=60, limit_test=10)

    def weights() -> list[Tensor]:
        return list(trainer.train(planned.run, data, device=CPU).net.state_dict().values())

    at_hand = weights()
    monkeypatch.setattr(feed, "LARGE", 0)
    assert all(torch.equal(a, b) for a, b in zip(at_hand, weights(), strict=True))
