"""A model that writes over its images gets copies: right numbers, the caller's tensors whole."""

from __future__ import annotations

import planted
import pytest
import torch
from torch import Tensor, nn

import ltrobust
from ltrobust.data import load_data
from ltrobust.data.augment import to_float
from ltrobust.evaluation.foreign import check_outputs

DATA = load_data("digits-lt", limit_test=30)
IMAGES, LABELS = to_float(DATA.test_images), DATA.test_labels


class InPlace(nn.Module):
    """Normalises as many released scripts do; what follows undoes it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        x.sub_(0.5).div_(0.5)
        return self.net(x * 0.5 + 0.5)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    train = load_data("digits-lt")
    return planted.nearest_template(to_float(train.train_images), train.train_labels)


@pytest.mark.usefixtures("short_autoattack")
def test_numbers_are_those_of_the_same_network_and_the_fault_has_its_name(net: nn.Module) -> None:
    images = IMAGES.clone()
    attacks = "clean,fgsm,pgd5,autoattack"
    plain = ltrobust.evaluate(net, (IMAGES, LABELS), attacks, eps=0.1, device="cpu")
    found = ltrobust.evaluate(InPlace(net), (images, LABELS), attacks, eps=0.1, device="cpu")
    assert torch.equal(images, IMAGES)
    assert found["accuracy"].tolist() == plain["accuracy"].tolist()
    before, after = (
        {f["check"] for f in table.attrs["reliability"] if f["flagged"]} for table in (plain, found)
    )
    assert after == before | {"changes-its-images"}
    assert not before & {"wrong-normalisation", "random-outputs", "batch-dependent-outputs"}
    (fault,) = (f for f in found.attrs["reliability"] if f["check"] == "changes-its-images")
    assert fault["concerns"] == "none"
    assert "x.sub_" in fault["explanation"]


def test_the_first_look_at_a_model_leaves_the_images_alone(net: nn.Module) -> None:
    images = IMAGES.clone()
    assert check_outputs(InPlace(net), images, 10) == 10
    assert torch.equal(images, IMAGES)
