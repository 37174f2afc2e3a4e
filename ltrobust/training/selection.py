"""Which epoch's weights a run ends with: the last, or the best by an attack after every epoch.

`best` looks at held-out training images; `val` does so once, at the last epoch, for who compares
settings; `best-on-test` looks at the test set, as some authors do, and so leaks it into the result.
This module decides; the trainer asks it once an epoch.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal

import torch

from ltrobust.attacks.suite import attack_spec
from ltrobust.config import Run, TestSpec
from ltrobust.data import LongTailedData
from ltrobust.errors import UserError
from ltrobust.evaluation.evaluate import DefendedModel, Evaluator, TestSet, outcomes
from ltrobust.evaluation.metrics import summary
from ltrobust.method import Method
from ltrobust.models import Network
from ltrobust.team import Team

Select = Literal["last", "best", "best-on-test", "val"]

LEAK_STARTS = 0.75
"""AT-BSL's code begins to compare epochs on the test set after this share of them."""


@dataclass
class Judge:
    """Scores the network after an epoch and keeps the best weights.

    Attributes:
        images: the images to judge on.
        train_counts: training images per class.
        attack: name of the attack that is run on them.
        score: the metric that decides, of `metrics.summary`.
        first_epoch: the first epoch (from 0) that takes part.
        eps: radius of the attack.
        best: score, epoch (from 1) and weights of the best epoch so far; empty before it.
    """

    images: TestSet
    train_counts: tuple[int, ...]
    attack: str
    score: str
    first_epoch: int
    eps: float
    best: dict[str, Any]

    def look(
        self,
        net: Network,
        method: Method,
        epoch: int,
        device: torch.device,
        team: Team | None = None,
    ) -> dict[str, float]:
        """Judge an epoch (from 0); return the columns it adds to the history."""
        if epoch < self.first_epoch:
            return {"val_acc": float("nan"), "val_robust_acc": float("nan")}
        evaluator = Evaluator(
            DefendedModel(net, method.adjust),
            self.images,
            num_classes=len(self.train_counts),
            device=device,
            team=team,
        )
        clean, robust = self._score(evaluator, "clean"), self._score(evaluator, self.attack)
        if not self.best or robust > self.best["score"]:
            weights = {name: value.cpu().clone() for name, value in net.state_dict().items()}
            kept = copy.deepcopy(method.state_dict())
            self.best = {"score": robust, "epoch": epoch + 1, "net": weights, "method": kept}
        return {"val_acc": clean, "val_robust_acc": robust}

    def _score(self, evaluator: Evaluator, name: str) -> float:
        spec = attack_spec(name, self.eps)
        frame = outcomes(self.images, spec, spec.attack_id(TestSpec()), evaluator.run(spec))
        return summary(frame, self.train_counts)[self.score]


def make_judge(run: Run, data: LongTailedData) -> Judge | None:
    """Return the judge that a run's `select` asks for; None keeps the last epoch.

    Raises:
        UserError: `best` without validation images.
    """
    if run.select == "last":
        return None
    eps = run.recipe.attack.eps
    if run.select == "best-on-test":
        test = TestSet(data.test_images, data.test_labels, data.test_index)
        first = min(round(LEAK_STARTS * run.recipe.epochs), run.recipe.epochs - 1)
        return Judge(test, data.train_counts, "pgd20", "accuracy", first, eps, {})
    if not len(data.val_labels):
        raise UserError(
            f"--select {run.select} needs validation images: classes of at least 2 images"
        )
    held = TestSet(data.val_images, data.val_labels, data.val_index)
    first = run.recipe.epochs - 1 if run.select == "val" else 0  # val: the last epoch alone
    return Judge(held, data.train_counts, "pgd10", "balanced_accuracy", first, eps, {})
