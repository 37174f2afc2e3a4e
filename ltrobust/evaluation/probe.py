"""Small experiments with a model, from which the reliability checks are made.

They change nothing about the model and no verdict; what they mean is decided in `reliability`.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ltrobust.attacks.pgd import attack_mode
from ltrobust.attacks.suite import attack_spec
from ltrobust.config import AttackSpec
from ltrobust.evaluation.effort import FULL, WHITE_BOX, Effort, passes_of
from ltrobust.evaluation.evaluate import Evaluator
from ltrobust.evaluation.foreign import OnCopies
from ltrobust.evaluation.normalisation import SCREENED, normalisations
from ltrobust.evaluation.untouched import untouched
from ltrobust.float32 import true_float32
from ltrobust.losses import cross_entropy_sum
from ltrobust.progress import Reporter

ALONE = 16
"""Images that are also given to the model one by one."""
NEARLY_ZERO = 1e-4
"""A gradient entry below this share of its image's largest counts as zero."""


@true_float32()
def probe(
    evaluator: Evaluator,
    *,
    eps: float,
    effort: Effort = FULL,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Make the experiments that need the model, on a few test images.

    The same model, images and effort give the same result. Weights, buffers, modes and global
    random states are left as they were. An experiment that the model does not survive is noted
    under "errors".

    Args:
        evaluator: holds the model, in eval mode, and its test images. Attacks that it knows the
            outcomes of are not run again.
        eps: L-inf radius of the evaluation, in [0, 1] image units.
        effort: how many images, attacks and queries.
        reporter: told of the passes made.

    Returns:
        What `findings` reads; numbers, strings, lists and dicts only.
    """
    reporter = reporter or Reporter()
    part = evaluator.subset(spread(evaluator.test.labels, effort.images))
    looked_at = evaluator.subset(spread(evaluator.test.labels, effort.looked_at))
    more = evaluator.subset(spread(evaluator.test.labels, effort.confirmed))
    record: dict[str, Any] = {
        "eps": eps,
        "index": part.test.index.tolist(),
        "num_classes": evaluator.num_classes,
        "queries": effort.queries,
        "came_in_train_mode": _kinds(evaluator.found_training),
        "errors": {},
    }
    reporter.begin("part", "reliability checks", effort.passes)
    with untouched(evaluator.model):
        screened = looked_at.subset(spread(looked_at.test.labels, SCREENED))
        for name, experiment in (
            ("writes", lambda: _writes(looked_at)),
            ("train_mode", lambda: _train_mode_difference(looked_at)),
            ("outputs", lambda: _outputs(looked_at)),
            ("repeated", lambda: _repeated(looked_at)),
            ("batch", lambda: _batch_difference(looked_at)),
            ("gradient", lambda: _gradient(looked_at)),
            ("normalisation", lambda: normalisations(screened, more)),
        ):
            _attempt(record, name, experiment)
        reporter.advance("part", Effort(0, effort.looked_at, effort.confirmed).passes)
        with _watched(part.model) as seen:
            record["correct"] = _attacks(part, eps, effort.attacks, record["errors"], reporter)
            _attempt(
                record, "square", lambda: _square(part, eps, record["correct"], effort.queries)
            )
        record["bad_under_attack"] = int(seen.bad) / max(1, seen.rows)
    reporter.end("part")
    return record


def spread(labels: Tensor, count: int) -> Tensor:
    """Positions of at most `count` images, the classes taking turns; int64, always the same."""
    mixed = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    rank = torch.empty_like(mixed)
    for c in labels.unique():
        own = mixed[labels[mixed] == c]
        rank[own] = torch.arange(len(own))
    return rank.argsort(stable=True)[:count].sort().values


def _attempt(record: dict[str, Any], name: str, experiment: Callable[[], Any]) -> None:
    """Note an experiment's result, or why the model did not survive it.

    Each begins with the same random numbers, whatever the ones before it drew.
    """
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    try:
        record[name] = experiment()
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # a foreign model may raise anything
        record[name] = None
        record["errors"][name] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


@dataclass
class _Seen:
    """Outputs that went by: how many rows, and how many of them hold nan or infinity."""

    rows: int = 0
    bad: Tensor | int = 0


@contextmanager
def _watched(model: nn.Module) -> Iterator[_Seen]:
    """Count what the model puts out meanwhile."""
    seen = _Seen()

    def note(_module: nn.Module, _inputs: object, logits: Tensor) -> None:
        seen.rows += len(logits)
        # read at the end: each look would wait for the device
        seen.bad = seen.bad + (~logits.detach().isfinite()).flatten(1).any(1).sum()

    handle = model.register_forward_hook(note)
    try:
        yield seen
    finally:
        handle.remove()


def _images(part: Evaluator) -> Tensor:
    return part.x(torch.arange(len(part.test.labels)))


@torch.no_grad()
def _writes(part: Evaluator) -> bool:
    """Whether the model changes the images that it is given; copies keep that from doing harm."""
    if not isinstance(part.model, OnCopies):
        return False
    x = _images(part)[:ALONE]
    given = x.clone()
    part.model.model(given)
    return not torch.equal(given, x)


@torch.no_grad()
def _outputs(part: Evaluator) -> dict[str, float]:
    """Shares of images whose clean logits are not finite, or probabilities, and the confidence."""
    logits = part.model(_images(part)).double().cpu()
    finite = logits.isfinite().all(1)
    sums = logits.sum(1)
    positive = (logits >= 0).all(1)
    alike = (sums - sums.median()).abs() <= 1e-3 * sums.median().abs()
    shapes = {
        "probabilities": positive & alike & (sums > 0),
        "values in [0, 1]": positive & (logits <= 1).all(1),
    }
    right = logits.argmax(1) == part.test.labels
    confidence = logits.softmax(1).amax(1)
    return {
        "bad": 1 - float(finite.double().mean()),
        "accuracy": float(right.double().mean()),
        "confidence": float(confidence[finite].mean()) if bool(finite.any()) else 0.0,
        **{name: float((is_so & finite).double().mean()) for name, is_so in shapes.items()},
    }


def difference(found: Tensor, expected: Tensor) -> float:
    """Largest difference of a logit, relative to the spread of all, averaged over the images."""
    found, expected = (torch.nan_to_num(v.detach().double(), 0, 0, 0) for v in (found, expected))
    size = (expected - expected.mean(1, keepdim=True)).abs().max().clamp_min(1e-30)
    return float(((found - expected).abs().amax(1) / size).mean())


@torch.no_grad()
def _repeated(part: Evaluator) -> float:
    """How much the logits of the same batch differ from one pass to the next."""
    x = _images(part)
    first = part.model(x).clone()
    return max(difference(part.model(x), first) for _ in range(2))


@torch.no_grad()
def _batch_difference(part: Evaluator) -> dict[str, Any]:
    """How much an image's logits differ when it is given alone (where that fails, in pairs)."""
    x = _images(part)
    expected = part.model(x)[:ALONE].clone()
    problem = ""
    for size in (1, 2):
        try:
            alone = torch.cat([part.model(few).clone() for few in x[:ALONE].split(size)])
            return {"size": size, "difference": difference(alone, expected), "problem": problem}
        except Exception as error:  # batch norm in train mode wants two values, say
            problem = str(error)
    raise ValueError(problem)


@torch.no_grad()
def _train_mode_difference(part: Evaluator) -> float:
    """How much the logits change with every module back in the mode it came in."""
    if not part.found_training:
        return 0.0
    x = _images(part)[:ALONE]  # the statistics of few images differ most from the running ones
    twin = copy.deepcopy(part.model)
    came = set(map(id, part.found_training))
    for original, module in zip(part.model.modules(), twin.modules(), strict=True):
        module.training = id(original) in came
    return difference(twin(x), part.model(x))


def _kinds(modules: Sequence[nn.Module]) -> list[str]:
    """Names of the layers among `modules` that read their mode, or of all modules."""
    readers = (nn.modules.batchnorm._NormBase, nn.modules.dropout._DropoutNd)
    reading = [module for module in modules if isinstance(module, readers)]
    return sorted({type(module).__name__ for module in reading or modules})


def _gradient(part: Evaluator) -> dict[str, float]:
    """Share of vanished entries of the cross-entropy's input gradient; how much it is random.

    Pixels that no image's gradient reaches are unused (a crop, say) and do not count, unless all
    are. What is not a finite number cannot be followed and counts as vanished.
    """
    labels = part.test.labels.to(part.device)
    with attack_mode(part.model), torch.enable_grad():
        logits, first = _input_gradient(part.model, _images(part), labels)
        _, second = _input_gradient(part.model, _images(part), labels)
    with torch.no_grad():
        plain = part.model(_images(part))
    finite = torch.nan_to_num(first, 0, 0, 0).flatten(1).abs()
    used = (finite > 0).any(0)
    if not bool(used.any()):
        return {"zeros": 1.0, "random": difference(logits, plain)}
    gone = finite <= NEARLY_ZERO * finite.amax(1, keepdim=True)
    return {
        "zeros": float(gone[:, used].double().mean()),
        "random": max(difference(second.flatten(1), first.flatten(1)), difference(logits, plain)),
    }


def _input_gradient(model: nn.Module, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and input gradient; zeros where the logits do not depend on the images at all."""
    x = x.detach().clone().requires_grad_()
    try:
        logits = model(x)
        (gradient,) = torch.autograd.grad(cross_entropy_sum(logits, labels), x, allow_unused=True)
    except RuntimeError:  # it detaches, or leaves torch
        with torch.no_grad():
            return model(x.detach()), torch.zeros_like(x)
    return logits.detach(), torch.zeros_like(x) if gradient is None else gradient


def _attacks(
    part: Evaluator,
    eps: float,
    names: Sequence[str],
    errors: dict[str, str],
    reporter: Reporter,
) -> dict[str, list[bool]]:
    """Which images stand after each attack; attacks that cannot run are noted as errors."""
    tried: dict[str, Any] = {"errors": errors}
    for name in ("clean", *names):
        _attempt(tried, name, lambda name=name: _stand(part, attack_spec(name, eps)))  # type: ignore[misc]
        reporter.advance("part", passes_of(name) * len(part.test.labels))
    del tried["errors"]
    return {name: stands for name, stands in tried.items() if stands is not None}


def _stand(part: Evaluator, spec: AttackSpec) -> list[bool]:
    pred = part.known[spec] if spec in part.known else part.run(spec).pred
    stands: list[bool] = (pred == part.test.labels).tolist()
    return stands


def _square(
    part: Evaluator, eps: float, correct: dict[str, list[bool]], queries: int
) -> list[bool]:
    """Which images stand after Square Attack too, of those that no gradient attack broke.

    Andriushchenko et al. 2020, "Square Attack"; pyautoattack's, with few queries.
    """
    from pyautoattack.square import SquareAttack

    stands = torch.tensor([correct[a] for a in ("clean", "noise", *WHITE_BOX) if a in correct])
    todo = stands.all(0).nonzero().flatten()
    left = stands.all(0)
    if len(todo):
        model = part.search_model("fp32")
        attack = SquareAttack(model, eps=eps, n_queries=queries, seed=0, device=part.device)
        labels = part.test.labels[todo]
        with torch.no_grad(), attack_mode(model):
            found = attack.perturb(part.x(todo), labels.to(part.device))
            left[todo] = part.model(found).argmax(1).cpu() == labels
    return left.tolist()
