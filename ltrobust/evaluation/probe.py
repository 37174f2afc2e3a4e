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
from ltrobust.evaluation.evaluate import Evaluator
from ltrobust.evaluation.foreign import STATISTICS
from ltrobust.losses import cross_entropy_sum

IMAGES = 128
"""Test images in a probe."""
NORMALISATION_IMAGES = 1000
"""Test images on which a normalisation that seems to help is tried again."""
ALONE = 16
"""Images that are also given to the model one by one."""
QUERIES = 300
"""Square Attack's queries per image in a probe; AutoAttack makes 5,000."""
LARGE_EPS = 0.5
"""An L-inf radius that turns any image grey."""
WHITE_BOX = ("fgsm", "pgd20", "pgd50", "cw20", "lsa20")
PROBED = ("noise", *WHITE_BOX, f"pgd20@{LARGE_EPS}")
NEARLY_ZERO = 1e-4
"""A gradient entry below this share of its image's largest counts as zero."""
NORMALISATIONS = {
    **STATISTICS,
    "MNIST": ((0.1307,) * 3, (0.3081,) * 3),
    "0.5/0.5": ((0.5,) * 3, (0.5,) * 3),
}
"""Usual means and standard deviations of images in [0, 1]."""


def probe(evaluator: Evaluator, *, eps: float) -> dict[str, Any]:
    """Make the experiments that need the model: on at most 128 test images, in seconds.

    Up to 1,000 images are used for a normalisation that seems to help. The same model
    and images give the same result. Weights, buffers, modes and global random states are left as
    they were. An experiment that the model does not survive is noted under "errors".

    Args:
        evaluator: holds the model, in eval mode, and its test images.
        eps: L-inf radius of the evaluation, in [0, 1] image units.

    Returns:
        What `findings` reads; numbers, strings, lists and dicts only.
    """
    part = evaluator.subset(spread(evaluator.test.labels, IMAGES))
    record: dict[str, Any] = {
        "eps": eps,
        "index": part.test.index.tolist(),
        "num_classes": evaluator.num_classes,
        "came_in_train_mode": _kinds(evaluator.found_training),
        "errors": {},
    }
    with _untouched(evaluator.model):
        _attempt(record, "train_mode", lambda: _train_mode_difference(part))
        _attempt(record, "outputs", lambda: _outputs(part))
        _attempt(record, "repeated", lambda: _repeated(part))
        _attempt(record, "batch", lambda: _batch_difference(part))
        _attempt(record, "gradient", lambda: _gradient(part))
        _attempt(record, "normalisation", lambda: _normalisations(evaluator))
        with _watched(part.model) as seen:
            record["correct"] = _attacks(part, eps, record["errors"])
            _attempt(record, "square", lambda: _square(part, eps, record["correct"]))
        record["bad_under_attack"] = seen.bad / max(1, seen.rows)
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


@contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    """Put weights, buffers, modes and random states back afterwards."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    kept = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    training = {module: module.training for module in model.modules()}
    numpy_state, python_state = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)
            for module, mode in training.items():
                module.training = mode
            now = {**dict(model.named_parameters()), **dict(model.named_buffers())}
            with torch.no_grad():
                for name in kept.keys() & now.keys():
                    now[name].copy_(kept[name])


@dataclass
class _Seen:
    """Outputs that went by: how many rows, and how many of them hold nan or infinity."""

    rows: int = 0
    bad: int = 0


@contextmanager
def _watched(model: nn.Module) -> Iterator[_Seen]:
    """Count what the model puts out meanwhile."""
    seen = _Seen()

    def note(_module: nn.Module, _inputs: object, logits: Tensor) -> None:
        seen.rows += len(logits)
        seen.bad += int((~logits.detach().isfinite()).flatten(1).any(1).sum())

    handle = model.register_forward_hook(note)
    try:
        yield seen
    finally:
        handle.remove()


def _images(part: Evaluator) -> Tensor:
    return part.x(torch.arange(len(part.test.labels)))


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


@torch.no_grad()
def _normalisations(evaluator: Evaluator) -> dict[str, Any]:
    """Clean accuracy as the model is given, and under the normalisation that helps it most.

    A normalisation that helps on the probe's images is tried on more.
    """
    part = evaluator.subset(spread(evaluator.test.labels, IMAGES))
    changes = _changes(_images(part).cpu())
    given = _right(part, changes.pop("none"))
    verdicts = {name: _right(part, change) for name, change in changes.items()}
    best = max(verdicts, key=lambda name: int(verdicts[name].sum()))
    helped = verdicts[best]
    if helped.sum() > given.sum():
        part = evaluator.subset(spread(evaluator.test.labels, NORMALISATION_IMAGES))
        given, helped = _right(part, lambda x: x), _right(part, changes[best])
    return {
        "n": len(given),
        "given": int(given.sum()),
        "name": best,
        "gained": int((helped & ~given).sum()),
        "lost": int((given & ~helped).sum()),
    }


def _right(part: Evaluator, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Which changed images are classified correctly, bool (N,)."""
    batches = torch.arange(len(part.test.labels)).split(part.batch_size)
    found = [part.model(change(part.x(chosen))).argmax(1).cpu() for chosen in batches]
    return torch.cat(found) == part.test.labels


def _changes(x: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    """Usual normalisations of images in [0, 1], and what undoes each of them."""
    channels = x.shape[1]
    over = [d for d in range(x.dim()) if d != 1]
    own = (x.mean(over), x.std(over).clamp_min(1e-3))
    usual = {
        name: (_per_channel(mean, channels), _per_channel(std, channels))
        for name, (mean, std) in NORMALISATIONS.items()
    }
    changes: dict[str, Callable[[Tensor], Tensor]] = {"none": lambda x: x}
    for name, (mean, std) in {"mean and std of these images": own, **usual}.items():
        changes[name] = _affine(1 / std, -mean / std)
        changes[f"{name}, undone"] = _affine(std, mean)
    changes["times 255"] = lambda x: x * 255
    changes["divided by 255"] = lambda x: x / 255
    return changes


def _per_channel(values: Sequence[float], channels: int) -> Tensor:
    known = torch.tensor(values)
    return known if len(known) == channels else known.mean().expand(channels)


def _affine(factor: Tensor, offset: Tensor) -> Callable[[Tensor], Tensor]:
    def change(x: Tensor) -> Tensor:
        shape = (1, -1, *[1] * (x.dim() - 2))
        return x * factor.to(x).view(shape) + offset.to(x).view(shape)

    return change


def _attacks(part: Evaluator, eps: float, errors: dict[str, str]) -> dict[str, list[bool]]:
    """Which images stand after each attack; attacks that cannot run are noted as errors."""
    tried: dict[str, Any] = {"errors": errors}
    for name in ("clean", *PROBED):
        _attempt(tried, name, lambda name=name: _stand(part, attack_spec(name, eps)))  # type: ignore[misc]
    del tried["errors"]
    return {name: stands for name, stands in tried.items() if stands is not None}


def _stand(part: Evaluator, spec: AttackSpec) -> list[bool]:
    stands: list[bool] = (part.run(spec).pred == part.test.labels).tolist()
    return stands


def _square(part: Evaluator, eps: float, correct: dict[str, list[bool]]) -> list[bool]:
    """Which images stand after Square Attack too, of those that no gradient attack broke.

    Andriushchenko et al. 2020, "Square Attack"; pyautoattack's, with few queries.
    """
    from pyautoattack.square import SquareAttack

    stands = torch.tensor([correct[a] for a in ("clean", "noise", *WHITE_BOX) if a in correct])
    todo = stands.all(0).nonzero().flatten()
    left = stands.all(0)
    if len(todo):
        model = part.search_model("fp32")
        attack = SquareAttack(model, eps=eps, n_queries=QUERIES, seed=0, device=part.device)
        labels = part.test.labels[todo]
        with torch.no_grad(), attack_mode(model):
            found = attack.perturb(part.x(todo), labels.to(part.device))
            left[todo] = part.model(found).argmax(1).cpu() == labels
    return left.tolist()
