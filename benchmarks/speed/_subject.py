"""The model that evaluation scripts attack, and its test images.

A small-cnn that pgd-at trained for 14 epochs (subject/), on real CIFAR-10 test images. Where there
is no CIFAR-10, or only a quick run is asked for, a small-cnn trained here on scikit-learn's digits.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import plain
import torch
from _harness import Options
from torch import Tensor, nn

import ltrobust
from ltrobust.bench.runner import load_defended
from ltrobust.data import LongTailedData, dataset_spec, load_data, to_float
from ltrobust.errors import UserError
from ltrobust.evaluation.evaluate import DefendedModel, Evaluator, TestSet
from ltrobust.method import load_builtin_methods
from ltrobust.results.store import SuiteStore

SUITE = Path(__file__).with_name("subject")
METHOD = "pgd-at"
CLASSES = 10
"""Of CIFAR-10 and of the digits."""
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Subject:
    """A defended model, test images, and the radius to attack with."""

    model: DefendedModel
    test: TestSet
    eps: float
    device: torch.device

    def first(self, count: int) -> Subject:
        """The same model on its first test images."""
        test = self.test
        few = TestSet(test.images[:count], test.labels[:count], test.index[:count])
        return Subject(self.model, few, self.eps, self.device)

    def plain(self) -> tuple[nn.Module, Tensor, Tensor]:
        """What a published script would hold: contiguous float32 network, images, labels."""
        net = plain.published(copy.deepcopy(self.model).to(self.device), inplace=True)
        for parameter in net.parameters():
            parameter.requires_grad_(True)
        x = to_float(self.test.images).to(self.device)
        return net.eval(), x, self.test.labels.to(self.device)

    def evaluator(self) -> Evaluator:
        """A fresh evaluator, so that everything it prepares is part of what is measured."""
        return Evaluator(
            copy.deepcopy(self.model), self.test, num_classes=CLASSES, device=self.device
        )


def subject(options: Options, count: int) -> Subject:
    """The model with its first `count` test images."""
    if options.quick:
        return _digits(options, epochs=1).first(count)
    try:
        data = load_data("cifar10-lt", data_dir=options.data_dir)
    except UserError as error:
        print(f"DIGITS INSTEAD OF CIFAR-10, so targets do not apply: {error}", flush=True)
        return _digits(options, epochs=25).first(count)
    return checkpoint(data, options.device).first(count)


def checkpoint(data: LongTailedData, device: torch.device) -> Subject:
    """The stored network with all test images of `data`."""
    load_builtin_methods()
    for store in SuiteStore(SUITE).runs():
        run = store.begun_record().run
        if run.method == METHOD:
            model = load_defended(run, data, store, CPU)
            test = TestSet(data.test_images, data.test_labels, data.test_index)
            return Subject(model, test, run.recipe.attack.eps, device)
    raise SystemExit(f"{SUITE} has no run of {METHOD}")


def _digits(options: Options, epochs: int) -> Subject:
    trained = ltrobust.train(METHOD, "digits-lt", epochs=epochs, precision="fp32", device="cpu")
    assert isinstance(trained.model, DefendedModel)
    data = trained.data
    test = TestSet(data.test_images, data.test_labels, data.test_index)
    return Subject(trained.model, test, dataset_spec(data.name).eps, options.device)
