"""A few test images with their adversarial versions, to be looked at.

They come from the same search as the verdicts, with each image's own start. Which images are taken
depends on the test set and the training counts alone, so every model shows the same ones; nothing
is picked for how it looks. This module writes no files and draws nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ltrobust.config import AttackSpec
from ltrobust.data.augment import enlarge
from ltrobust.errors import UserError
from ltrobust.evaluation.evaluate import DefendedModel, Evaluator, TestSet
from ltrobust.float32 import true_float32

MOST = 10
"""Examples of one run."""


def is_example_attack(name: str) -> bool:
    """Whether examples are made with an attack of this name: any PGD on the cross-entropy."""
    return name.startswith("pgd")


def one_a_class(labels: Tensor, train_counts: Sequence[int], most: int = MOST) -> Tensor:
    """Positions of the first test image of each of at most `most` classes.

    Args:
        labels: of the test images, int64 (N,).
        train_counts: training images of each class; ties keep the order of the classes.
        most: how many; of more classes, evenly spaced ones from the most frequent to the rarest.

    Returns:
        int64 (M,), M <= most, the most frequent class first.
    """
    present = set(labels.tolist())
    ranked = sorted(range(len(train_counts)), key=lambda c: -train_counts[c])
    ranked = [c for c in ranked if c in present]
    places = np.unique(np.linspace(0, len(ranked) - 1, min(most, len(ranked))).round().astype(int))
    first = [int((labels == ranked[place]).nonzero()[0, 0]) for place in places]
    return torch.tensor(first, dtype=torch.int64)


@true_float32()
def attack_examples(evaluator: Evaluator, spec: AttackSpec, chosen: Tensor) -> pd.DataFrame:
    """Attack some test images, also those that are misclassified without an attack.

    With several restarts, the first one is shown.

    Args:
        evaluator: its test images are uint8.
        spec: a PGD attack.
        chosen: positions of the images in the evaluator's test set, int64 (M,).

    Returns:
        One row an image: `index` in the source's test set, `label`, `pred_clean`, `pred_adv`
        (class numbers), `attack`, `eps`, `clean` (uint8 array as the model sees the image, already
        enlarged where it wants that) and `adversarial` (float32 array in [0, 1] of that shape).

    Raises:
        UserError: no PGD attack, or images that are not uint8.
    """
    if spec.kind != "first-order" or not is_example_attack(spec.name):
        raise UserError(f"examples are made with PGD, not with {spec.name}; take pgd20 or such")
    if evaluator.test.images.dtype != torch.uint8:
        raise UserError(f"examples need uint8 images, got {evaluator.test.images.dtype}")
    part = evaluator.subset(chosen)
    adversarial = part.adversarial(spec)
    with torch.no_grad():
        pred = part.model(adversarial.to(part.device)).argmax(1)
    model = part.model
    size = model.input_size if isinstance(model, DefendedModel) else None
    return pd.DataFrame(
        {
            "index": part.test.index.numpy(),
            "label": part.test.labels.numpy(),
            "pred_clean": part.clean_predictions().numpy(),
            "pred_adv": pred.cpu().numpy(),
            "attack": spec.name,
            "eps": spec.eps,
            "clean": list(enlarge(part.test.images, size).numpy()),
            "adversarial": list(adversarial.numpy()),
        }
    )


def adversarial_examples(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    class_names: Sequence[str],
    spec: AttackSpec,
    *,
    device: torch.device | str = "cpu",
) -> pd.DataFrame:
    """Attack every one of a few images.

    Args:
        model: maps images in [0, 1] to logits; put in eval mode and float32. A `DefendedModel`
            gets its images enlarged to its `input_size`, where it has one.
        images: uint8 (N, ...).
        labels: int64 (N,).
        class_names: of all classes.
        spec: a PGD attack, from `attack_spec`.
        device: where to run.

    Returns:
        One row an image, as from `attack_examples`, and `class_name`.

    Raises:
        UserError: as `attack_examples`.
    """
    everything = torch.arange(len(labels))
    test = TestSet(images, labels, everything)
    evaluator = Evaluator(model, test, num_classes=len(class_names), device=torch.device(device))
    frame = attack_examples(evaluator, spec, everything)
    return frame.assign(class_name=[class_names[label] for label in frame["label"]])
