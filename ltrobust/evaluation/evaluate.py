"""From a model and test images to one outcome per image and attack.

Attacks run on the images that are classified correctly without one; the others count as broken,
with their clean prediction. The search runs on a folded copy of the network; verdicts are taken
with the float32 network itself on the adversarial tensor in memory. Accuracies are made elsewhere
(`metrics`); this module writes no files.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd
import torch
from torch import Tensor, nn

from ltrobust.attacks.autoattack import autoattack, parts, targets
from ltrobust.attacks.custom import attacked_images
from ltrobust.attacks.pgd import attack_mode, pgd
from ltrobust.attacks.suite import attack_loss
from ltrobust.config import AttackSpec
from ltrobust.data.augment import enlarge, to_float
from ltrobust.errors import UserError
from ltrobust.evaluation.fixed_shapes import FixedShapes
from ltrobust.evaluation.foreign import OnCopies
from ltrobust.float32 import is_true_float32, true_float32
from ltrobust.graphs import CudaGraphs, Graphs
from ltrobust.models.folded import fold
from ltrobust.progress import Reporter
from ltrobust.seeds import derive_seed, generator
from ltrobust.stopwatch import Stopwatch, Taken
from ltrobust.team import Team

SaveState = Callable[[dict[str, Tensor]], None]
KeepImages = Callable[[Tensor, Tensor], None]
"""Takes positions in the test set, int64 (M,), and attacked images of these."""


def keep_nothing(chosen: Tensor, images: Tensor) -> None:
    """Forget attacked images: verdicts are all that is wanted."""


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


def model_images(model: nn.Module, images: Tensor) -> Tensor:
    """Images as a model takes them: uint8 become float in [0, 1], enlarged where ours wants it."""
    if images.dtype != torch.uint8:
        return images
    return to_float(enlarge(images, model.input_size if isinstance(model, DefendedModel) else None))


@dataclass(frozen=True)
class TestSet:
    """Test images on the CPU: uint8 or float (N, ...), labels int64 (N,), index in the source."""

    __test__ = False  # pytest: not a test class

    images: Tensor
    labels: Tensor
    index: Tensor


@dataclass(frozen=True)
class AttackResult:
    """Outcome of one attack.

    Attributes:
        pred: prediction on the worst image found, int64 (N,).
        fell: what broke each image: "clean" where no attack was needed, the part of the attack
            ("apgd-t", "restart 2", "target 3", or its only part's name), "" while it stands.
        taken: its time.
        details: extra facts for the row.
    """

    pred: Tensor
    fell: list[str]
    taken: Taken
    details: dict[str, object]


def check_attacks(specs: Iterable[AttackSpec], num_classes: int, shape: Sequence[int]) -> None:
    """Raise UserError for the first attack that cannot run on images of this shape (N, ...)."""
    for spec in specs:
        if spec.loss == "dlr" and num_classes < 3:
            raise UserError(f"{spec.title} compares three logits; this data has two classes")
        if spec.kind == "autoattack" and len(shape) != 4:
            raise UserError(f"{spec.title} needs images (N, C, H, W), got {tuple(shape)}")


class Evaluator:
    """Runs attacks on one model and one test set; the clean predictions are shared.

    Args:
        model: maps images in [0, 1] to logits; put in eval mode and float32. For a
            `DefendedModel` uint8 images are enlarged to its `input_size`, where it has one.
        test: the test set.
        num_classes: C, the number of logits.
        device: where to run.
        batch_size: images at a time for all but AutoAttack, as many as fit: it is halved where the
            device runs out of memory, and changes no verdict. Default: 250, on CUDA 2,000.
        reporter: told of attacks and batches.
        team: processes that evaluate this model together, each of which calls this alike: they
            share out the images.

    Attributes:
        model: the model; one of somebody else's sees copies of the images.
        found_training: the modules that were in train mode when the model was handed over.
        known: predictions, int64 (N,), under the attacks that were run here.
        team: see above; None for what this process does alone.
        graphs: what records passes of the search network, at a few batch sizes; None: nothing does.
    """

    def __init__(
        self,
        model: nn.Module,
        test: TestSet,
        *,
        num_classes: int,
        device: torch.device,
        batch_size: int | None = None,
        reporter: Reporter | None = None,
        team: Team | None = None,
    ) -> None:
        self.found_training = [module for module in model.modules() if module.training]
        model = model.to(device).float().eval()
        self.model = model if isinstance(model, DefendedModel) else OnCopies(model)
        self.test = test
        self.num_classes = num_classes
        self.device = device
        self.batch_size = batch_size or (2000 if device.type == "cuda" else 250)
        self.reporter = reporter or Reporter()
        self.team = team
        self._first_size = self.batch_size
        self.graphs: Graphs | None = CudaGraphs(device) if device.type == "cuda" else None
        self._clean: Tensor | None = None
        self._copies: dict[str, nn.Module] = {}
        self.known: dict[AttackSpec, Tensor] = {}

    def subset(self, chosen: Tensor) -> Evaluator:
        """The same model on some of the test images, given by their positions, int64 (M,)."""
        part = copy.copy(self)
        part.test = TestSet(
            self.test.images[chosen], self.test.labels[chosen], self.test.index[chosen]
        )
        part._clean = None if self._clean is None else self._clean[chosen]
        part.known = {spec: pred[chosen] for spec, pred in self.known.items()}
        part.reporter = Reporter()
        return part

    @true_float32()
    def clean_predictions(self) -> Tensor:
        """Predictions on the unchanged images, int64 (N,), on the CPU."""
        if self._clean is None:
            everything = torch.arange(len(self.test.labels))
            with torch.no_grad():
                parts = [found for _, found in self._in_batches(everything, self._predict)]
            self._clean = torch.cat(parts)
        return self._clean

    def _predict(self, chosen: Tensor) -> Tensor:
        return self._verdict(self.x(chosen))

    def _verdict(self, x: Tensor) -> Tensor:
        """Predictions of the float32 model (M,), int64, on the CPU."""
        assert is_true_float32(), "a verdict that is rounded to TF32 is none"
        return self.model(x).argmax(1).cpu()

    def _in_batches(
        self, chosen: Tensor, work: Callable[[Tensor], Tensor]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield pieces of `chosen` with what `work` makes of them; a team shares out each."""
        if self.team is None:
            yield from self._in_turn(chosen, work)
            return
        for piece in chosen.split(self._first_size * self.team.size):
            share = self.team.share(len(piece))
            found = [made for _, made in self._in_turn(piece[share or slice(None)], work)]
            if found:
                made = torch.cat(found)
                yield piece, made if share is None else self.team.gathered(made)

    def _in_turn(
        self, chosen: Tensor, work: Callable[[Tensor], Tensor]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield pieces of `chosen` with what `work` makes of them, as large as memory allows."""
        done = 0
        while done < len(chosen):
            piece = chosen[done : done + self.batch_size]
            try:
                found = work(piece)
            except torch.OutOfMemoryError:
                if len(piece) == 1:
                    raise
                found = None
            if found is None:  # only now has the error let go of the tensors
                self.batch_size = max(1, len(piece) // 2)
                torch.cuda.empty_cache()
                continue
            yield piece, found
            done += len(piece)

    def x(self, chosen: Tensor) -> Tensor:
        """Test images at the given positions, as the model takes them, on its device."""
        return self._prepare(self.test.images[chosen])

    def check(self, specs: Iterable[AttackSpec]) -> None:
        """Raise UserError for the first attack that cannot run on this data."""
        check_attacks(specs, self.num_classes, tuple(self.test.images.shape))

    @true_float32()
    def run(
        self,
        spec: AttackSpec,
        *,
        resume: dict[str, Tensor] | None = None,
        save: SaveState = lambda state: None,
        keep: KeepImages = keep_nothing,
    ) -> AttackResult:
        """Run one attack; `resume` and `save` serve AutoAttack, which works for minutes.

        `keep` is given attacked images as they are found; the last ones of an image are those of
        its verdict. Images that are misclassified without an attack are never among them, nor those
        that stand after AutoAttack. With a team it is given those of this process.

        Raises:
            UserError: the attack cannot run with this number of classes.
        """
        self.check([spec])
        stopwatch = Stopwatch(self.device, alone=self.team is None)
        details: dict[str, object] = {}
        clean = self.clean_predictions()
        if spec.kind == "clean":
            pred, fell = clean, torch.zeros_like(clean)
            names: Sequence[str] = ()
        elif spec.kind == "first-order":
            pred, fell, names = self._first_order(spec, keep)
        elif spec.kind == "custom":
            pred, fell, names = self._custom(spec, keep)
        else:
            names = parts(self.num_classes, str(spec.version), spec.restarts or 1)
            pred, fell = self._autoattack(spec, names, resume, save, keep)
            details = {"parts": names, "targets": targets(self.num_classes)}
        self.known[spec] = pred
        words = {0: "", **dict(enumerate(names, 1))}
        wrong = clean != self.test.labels
        told = [
            "clean" if w else words[f] for w, f in zip(wrong.tolist(), fell.tolist(), strict=True)
        ]
        return AttackResult(pred, told, stopwatch.read(), details)

    def _first_order(self, spec: AttackSpec, keep: KeepImages) -> tuple[Tensor, Tensor, list[str]]:
        """Predictions, the number of the try that broke each image (0: none), names of the tries.

        Each try attacks the images that still stand.
        """
        tries = [
            (rank, restart)
            for restart in range(spec.restarts or 1)
            for rank in range(1, self.num_classes if spec.loss == "targeted" else 2)
        ]
        names = [_try_name(spec, rank, restart) for rank, restart in tries]
        pred = self.clean_predictions().clone()
        fell = torch.zeros_like(pred)
        ranked = self._classes_by_logit() if spec.loss == "targeted" else None
        self.reporter.begin("part", spec.title, len(tries))
        for number, (rank, restart) in enumerate(tries, 1):
            standing = (pred == self.test.labels).nonzero().flatten()
            aims = self.test.labels if ranked is None else ranked[:, rank - 1]
            attack = partial(self._attacked, spec, aims, restart, keep)
            for chosen, found in self._in_batches(standing, attack):
                broken = found != self.test.labels[chosen]
                pred[chosen[broken]] = found[broken]
                fell[chosen[broken]] = number
                self.reporter.advance("part", len(chosen) / len(standing))
        self.reporter.end("part")
        return pred, fell, names

    @torch.no_grad()
    def _custom(self, spec: AttackSpec, keep: KeepImages) -> tuple[Tensor, Tensor, list[str]]:
        """As `_first_order`, by a registered attack; its batches are those of its settings."""
        pred = self.clean_predictions().clone()
        fell = torch.zeros_like(pred)
        standing = (pred == self.test.labels).nonzero().flatten()
        self.reporter.begin("part", spec.title, max(1, len(standing)))
        batches = standing.split(spec.batch_size or 1) if len(standing) else ()
        for number, chosen in enumerate(batches):
            if self.team is not None and number % self.team.size != self.team.rank:
                continue
            x, y = self.x(chosen), self.test.labels[chosen].to(self.device)
            draw = generator(self.device, spec.seed, "attack", spec.name, number)
            with attack_mode(self.model):
                x_adv = attacked_images(spec.name, self.model, x, y, spec.eps, draw)
            keep(chosen, x_adv)
            found = self.model(x_adv).argmax(1).cpu()
            broken = found != self.test.labels[chosen]
            pred[chosen[broken]] = found[broken]
            fell[chosen[broken]] = 1
            self.reporter.advance("part", len(chosen))
        if self.team is not None:
            where = self.team.gathered(fell.nonzero().flatten())
            pred[where] = self.team.gathered(pred[fell == 1])
            fell[where] = 1
        self.reporter.end("part")
        return pred, fell, [spec.name]

    @torch.no_grad()
    def _attacked(
        self, spec: AttackSpec, aims: Tensor, restart: int, keep: KeepImages, chosen: Tensor
    ) -> Tensor:
        """Predictions of the float32 model on attacked images, int64 (M,), on the CPU.

        `aims` are the labels that the loss takes, for all images of the test set.
        """
        x_adv = self._search_images(spec, chosen, aims[chosen], restart)
        keep(chosen, x_adv)
        return self._verdict(x_adv)

    def _search_images(self, spec: AttackSpec, chosen: Tensor, aim: Tensor, restart: int) -> Tensor:
        assert spec.steps is not None
        assert spec.step_size is not None
        x = self.x(chosen)
        found = pgd(
            self.search_model(spec.search or "fp32"),
            x,
            aim.to(self.device),
            eps=spec.eps,
            step_size=spec.step_size,
            steps=spec.steps,
            loss=attack_loss(spec),
            start=self._start(spec, chosen, x, restart),
            momentum=spec.momentum,
            norm=spec.norm,
        )
        # a gradient that is no number leads nowhere; the image must stay an image
        return torch.where(found.isfinite(), found, x)

    @true_float32()
    def adversarial(self, spec: AttackSpec) -> Tensor:
        """Adversarial versions of all test images, also of those misclassified without an attack.

        Args:
            spec: a first-order attack that moves away from the true class; of several restarts the
                first is taken.

        Returns:
            Images as the model takes them, float32 (N, ...), on the CPU.
        """
        assert spec.kind == "first-order"
        assert spec.loss != "targeted"
        labels = self.test.labels

        def attacked(chosen: Tensor) -> Tensor:
            return self._search_images(spec, chosen, labels[chosen], 0).cpu()

        with torch.no_grad():
            pieces = self._in_batches(torch.arange(len(labels)), attacked)
            return torch.cat([found for _, found in pieces])

    def _classes_by_logit(self) -> Tensor:
        """For each image all classes but its own, most likely first, int64 (N, C - 1)."""
        everything = torch.arange(len(self.test.labels))
        ranked = []
        with torch.no_grad():
            for chosen in everything.split(250):
                logits = self.model(self.x(chosen)).cpu()
                logits.scatter_(1, self.test.labels[chosen, None], -torch.inf)
                ranked.append(logits.argsort(dim=1, descending=True)[:, :-1])
        return torch.cat(ranked)

    def _autoattack(
        self,
        spec: AttackSpec,
        names: Sequence[str],
        resume: dict[str, Tensor] | None,
        save: SaveState,
        keep: KeepImages,
    ) -> tuple[Tensor, Tensor]:
        assert spec.batch_size is not None
        self.reporter.begin("part", spec.title, len(names))
        shares = dict.fromkeys(names, 0.0)

        def tell(part: str, share: float) -> None:
            self.reporter.advance("part", share - shares[part])
            shares[part] = share

        exact = self.search_model("fp32")
        search = self.search_model("bf16") if spec.search == "bf16" else exact
        with attack_mode(self.model), attack_mode(exact), attack_mode(search):
            result = autoattack(
                self.model,
                self.test.images,
                self.test.labels,
                eps=spec.eps,
                num_classes=self.num_classes,
                seed=spec.seed,
                batch_size=spec.batch_size,
                norm=spec.norm,
                version=str(spec.version),
                restarts=spec.restarts or 1,
                search=search,
                exact=None if search is exact else exact,
                together=self.device.type == "cuda",
                prepare=self._prepare,
                clean=self.clean_predictions(),
                resume=resume,
                save=save,
                tell=tell,
                keep=keep,
                team=self.team,
            )
        self.reporter.end("part")
        return result.pred, result.fell

    def search_model(self, precision: str) -> nn.Module:
        """What attacks search with: a folded copy of a network of ours, else the model itself.

        Args:
            precision: "fp32", or "bf16" for bfloat16 inside; logits are float32 either way.
        """
        if precision not in self._copies:
            self._copies[precision] = self._make_search_model(precision == "bf16")
        return self._copies[precision]

    def _make_search_model(self, bf16: bool) -> nn.Module:
        plain = InBfloat16(self.model) if bf16 else self.model
        if not len(self.test.labels):
            return plain
        few = self.x(torch.arange(min(4, len(self.test.labels))))
        if not isinstance(self.model, DefendedModel):
            return plain if _follows(plain, few) else Unfollowed(plain)
        folded = fold(self.model.net, few, bf16=bf16)
        if folded is None:
            return plain
        search = DefendedModel(folded, self.model.adjust).eval()
        return search if self.graphs is None else FixedShapes(search, self.graphs).eval()

    def _prepare(self, images: Tensor) -> Tensor:
        return model_images(self.model, images.to(self.device))

    def _start(
        self, spec: AttackSpec, chosen: Tensor, x: Tensor, restart: int = 0
    ) -> Tensor | None:
        """Draw each image's start from its own seed, whatever batch or subset it is in."""
        if spec.start != "uniform":
            return None
        noise = torch.empty(x.shape, dtype=x.dtype)
        key: tuple[str | int, ...] = ("start", restart) if restart else ("start",)
        for row, index in enumerate(self.test.index[chosen].tolist()):
            draw = torch.Generator().manual_seed(derive_seed(spec.seed, *key, index))
            if spec.norm == "Linf":
                noise[row].uniform_(-spec.eps, spec.eps, generator=draw)
            else:
                noise[row] = _in_l2_ball(noise[row].shape, spec.eps, draw)
        return noise.to(self.device)


class Unfollowed(nn.Module):
    """A model whose logits autograd cannot follow to the images, with a gradient of zeros.

    Gradient attacks then run and find nothing, which the reliability checks tell.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, C)."""
        with torch.no_grad():
            logits = self.model(x.detach())
        return logits + 0 * x.flatten(1).sum(1, keepdim=True)


def _follows(model: nn.Module, x: Tensor) -> bool:
    """Whether autograd leads from a model's logits back to its images."""
    with attack_mode(model), torch.enable_grad():
        x = x.detach().requires_grad_()
        try:
            logits = model(x)
            (gradient,) = torch.autograd.grad(logits.sum(), x, allow_unused=True)
        except RuntimeError:  # it detaches, or leaves torch
            return False
        return gradient is not None


class InBfloat16(nn.Module):
    """A network run in bfloat16 autocast, for searching only; its logits come out as float32."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, C), float32."""
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            return self.net(x).float()


def _in_l2_ball(shape: torch.Size, eps: float, draw: torch.Generator) -> Tensor:
    """A point drawn uniformly from the L2 ball of radius eps around zero."""
    direction = torch.randn(shape, generator=draw)
    radius = eps * torch.rand((), generator=draw) ** (1 / direction.numel())
    return direction / direction.norm() * radius


def _try_name(spec: AttackSpec, rank: int, restart: int) -> str:
    """What a try is called in the outcomes."""
    parts = [f"target {rank}"] if spec.loss == "targeted" else []
    if (spec.restarts or 1) > 1:
        parts.append(f"restart {restart + 1}")
    return ", ".join(parts) or spec.name


def outcomes(test: TestSet, spec: AttackSpec, attack_id: str, result: AttackResult) -> pd.DataFrame:
    """One row per test image: index, label, attack, attack_id, pred, correct, fell."""
    pred = result.pred
    return pd.DataFrame(
        {
            "index": test.index.numpy(),
            "label": test.labels.numpy(),
            "attack": spec.name,
            "attack_id": attack_id,
            "pred": pred.numpy(),
            "correct": (pred == test.labels).numpy(),
            "fell": result.fell,
        }
    )
