"""From a model and test images to one outcome per image and attack.

Attacks run on the images that are classified correctly without one; the others count as broken,
with their clean prediction. The search runs on a folded copy of the network; verdicts are taken
with the float32 network itself on the adversarial tensor in memory. Accuracies are made elsewhere
(`metrics`); this module writes no files.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn

from ltrobust.attacks.autoattack import autoattack, parts, targets
from ltrobust.attacks.pgd import attack_mode, pgd
from ltrobust.attacks.suite import LOSSES
from ltrobust.config import AttackSpec
from ltrobust.data.augment import enlarge, to_float
from ltrobust.models.folded import fold
from ltrobust.progress import Reporter
from ltrobust.seeds import derive_seed

SaveState = Callable[[dict[str, Tensor]], None]


class DefendedModel(nn.Module):
    """A trained network with its defense's inference adjustment: what attackers see.

    Args:
        net: maps images (B, ...) in [0, 1] to logits (B, C).
        adjust: the method's `adjust`.
    """

    def __init__(self, net: nn.Module, adjust: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net = net
        self.adjust = adjust

    @property
    def input_size(self) -> int | None:
        """Side length that the network wants uint8 images enlarged to, if any."""
        return getattr(self.net, "input_size", None)

    def forward(self, x: Tensor) -> Tensor:
        """Adjusted logits (B, C)."""
        return self.adjust(self.net(x))


@dataclass(frozen=True)
class TestSet:
    """Test images on the CPU: uint8 or float (N, ...), labels int64 (N,), index in the source."""

    __test__ = False  # pytest: not a test class

    images: Tensor
    labels: Tensor
    index: Tensor


@dataclass(frozen=True)
class AttackResult:
    """Outcome of one attack: predictions int64 (N,), seconds, and extra facts for the row."""

    pred: Tensor
    seconds: float
    details: dict[str, object]


class Evaluator:
    """Runs attacks on one model and one test set; the clean predictions are shared.

    Args:
        model: maps images in [0, 1] to logits; put in eval mode and float32. For a
            `DefendedModel` uint8 images are enlarged to its `input_size`, where it has one.
        test: the test set.
        num_classes: C, the number of logits.
        device: where to run.
        batch_size: images at a time for all but AutoAttack; it changes no setting.
        reporter: told of attacks and batches.
    """

    def __init__(
        self,
        model: nn.Module,
        test: TestSet,
        *,
        num_classes: int,
        device: torch.device,
        batch_size: int = 250,
        reporter: Reporter | None = None,
    ) -> None:
        self.model = model.to(device).float().eval()
        self.test = test
        self.num_classes = num_classes
        self.device = device
        self.input_size = model.input_size if isinstance(model, DefendedModel) else None
        self.batch_size = batch_size
        self.reporter = reporter or Reporter()
        self._clean: Tensor | None = None
        self._search = self._faster_copy()

    def clean_predictions(self) -> Tensor:
        """Predictions on the unchanged images, int64 (N,), on the CPU."""
        if self._clean is None:
            everything = torch.arange(len(self.test.labels))
            with torch.no_grad():
                parts = [self.model(self._x(i)).argmax(1) for i in everything.split(250)]
            self._clean = torch.cat(parts).cpu()
        return self._clean

    def run(
        self,
        spec: AttackSpec,
        *,
        resume: dict[str, Tensor] | None = None,
        save: SaveState = lambda state: None,
    ) -> AttackResult:
        """Run one attack; `resume` and `save` serve AutoAttack, which works for minutes."""
        began = time.perf_counter()
        details: dict[str, object] = {}
        if spec.kind == "clean":
            pred = self.clean_predictions()
        elif spec.kind == "first-order":
            pred = self._first_order(spec)
        else:
            pred = self._autoattack(spec, resume, save)
            details = {"parts": parts(self.num_classes), "targets": targets(self.num_classes)}
        return AttackResult(pred, time.perf_counter() - began, details)

    def _first_order(self, spec: AttackSpec) -> Tensor:
        assert spec.loss is not None
        assert spec.steps is not None
        assert spec.step_size is not None
        pred = self.clean_predictions().clone()
        standing = (pred == self.test.labels).nonzero().flatten()
        batches = standing.split(self.batch_size)
        self.reporter.begin("part", spec.name, len(batches))
        for chosen in batches:
            x, y = self._x(chosen), self.test.labels[chosen].to(self.device)
            x_adv = pgd(
                self._search,
                x,
                y,
                eps=spec.eps,
                step_size=spec.step_size,
                steps=spec.steps,
                loss=LOSSES[spec.loss],
                start=self._start(spec, chosen, x),
                momentum=spec.momentum,
            )
            with torch.no_grad():
                pred[chosen] = self.model(x_adv).argmax(1).cpu()
            self.reporter.advance("part")
        self.reporter.end("part")
        return pred

    def _autoattack(
        self, spec: AttackSpec, resume: dict[str, Tensor] | None, save: SaveState
    ) -> Tensor:
        assert spec.batch_size is not None
        names = parts(self.num_classes)
        self.reporter.begin("part", spec.name, len(names))
        shares = dict.fromkeys(names, 0.0)

        def tell(part: str, share: float) -> None:
            self.reporter.advance("part", share - shares[part])
            shares[part] = share

        with attack_mode(self.model), attack_mode(self._search):
            result = autoattack(
                self.model,
                self.test.images,
                self.test.labels,
                eps=spec.eps,
                num_classes=self.num_classes,
                seed=spec.seed,
                batch_size=spec.batch_size,
                search=self._search,
                prepare=self._prepare,
                resume=resume,
                save=save,
                tell=tell,
            )
        self.reporter.end("part")
        return result.pred

    def _faster_copy(self) -> nn.Module:
        """What attacks search with: a folded copy of a network of ours, else the model itself."""
        if not isinstance(self.model, DefendedModel) or not len(self.test.labels):
            return self.model
        net = fold(self.model.net, self._x(torch.arange(min(4, len(self.test.labels)))))
        return DefendedModel(net, self.model.adjust).eval()

    def _x(self, chosen: Tensor) -> Tensor:
        return self._prepare(self.test.images[chosen])

    def _prepare(self, images: Tensor) -> Tensor:
        images = images.to(self.device)
        if images.dtype != torch.uint8:
            return images
        return to_float(enlarge(images, self.input_size))

    def _start(self, spec: AttackSpec, chosen: Tensor, x: Tensor) -> Tensor | None:
        """Draw each image's start from its own seed, whatever batch or subset it is in."""
        if spec.start != "uniform":
            return None
        noise = torch.empty(x.shape, dtype=x.dtype)
        for row, index in enumerate(self.test.index[chosen].tolist()):
            draw = torch.Generator().manual_seed(derive_seed(spec.seed, "start", index))
            noise[row].uniform_(-spec.eps, spec.eps, generator=draw)
        return noise.to(self.device)


def outcomes(test: TestSet, spec: AttackSpec, attack_id: str, pred: Tensor) -> pd.DataFrame:
    """One row per test image: index, label, attack, attack_id, pred, correct."""
    return pd.DataFrame(
        {
            "index": test.index.numpy(),
            "label": test.labels.numpy(),
            "attack": spec.name,
            "attack_id": attack_id,
            "pred": pred.numpy(),
            "correct": (pred == test.labels).numpy(),
        }
    )
