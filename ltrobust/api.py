"""The Python interface: train a defense, evaluate a model, as the commands do.

Both take the settings of `ltrobust bench` by name. `train` keeps its results in memory unless it is
given an output directory.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor, nn

from ltrobust.bench.external import checkpoint_model
from ltrobust.bench.loader import Loader
from ltrobust.bench.plan import attack_specs, make_plan, resolve_device, thrift
from ltrobust.bench.runner import load_defended, run_plan
from ltrobust.bench.settings import DEFAULT_ATTACKS, make_settings
from ltrobust.bench.store import SuiteStore
from ltrobust.config import AttackSpec, TestSpec
from ltrobust.data import LongTailedData, dataset_spec, load_data
from ltrobust.errors import DataWarning, RunError, UserError
from ltrobust.evaluation.callables import load_model
from ltrobust.evaluation.effort import free_passes
from ltrobust.evaluation.evaluate import (
    DefendedModel,
    Evaluator,
    TestSet,
    model_images,
    outcomes,
)
from ltrobust.evaluation.foreign import check_outputs, normalized
from ltrobust.evaluation.metrics import error_parts, intervals, nan, summary
from ltrobust.evaluation.probe import probe
from ltrobust.evaluation.reliability import Evaluation, affordable, findings, usual_radius
from ltrobust.progress import Reporter
from ltrobust.threads import computing_with
from ltrobust.training.trainer import train as fit


@dataclass(frozen=True)
class TrainedModel:
    """What `train` returns.

    Attributes:
        model: the network with its defense's inference adjustment, in eval mode; maps images
            (B, C, H, W), float in [0, 1], to logits.
        run_id: the run's key.
        history: one row per epoch, the columns of history.csv.
        data: the training and test images it was trained for.
        path: the run's directory, or None when nothing was written.
    """

    model: nn.Module
    run_id: str
    history: pd.DataFrame
    data: LongTailedData
    path: Path | None


def train(method: str, dataset: str = "digits-lt", **settings: Any) -> TrainedModel:
    """Train one defense on one data set with one seed.

    Args:
        method: a registered method, such as "at-bsl".
        dataset: a registered data set, or "folder:PATH".
        settings: any other setting of `bench` by its flag's name with underscores, such as
            `epochs=5`, `imbalance_ratio=50`, `seeds=1`, `eps="8/255"`, `device="cuda"`,
            `output="results/mine"`. With `output` the run is stored there, resumed if it was
            stopped, and found again if it is done.

    Raises:
        UserError: a setting is wrong.
        RunError: the training cannot go on.
    """
    asked = make_settings({"methods": method, "dataset": dataset, **settings, "attacks": "clean"})
    if asked.profile and asked.output is None:
        raise UserError("profile is written beside a run's results; give output= too")
    plan = make_plan(asked)
    if len(plan.runs) != 1:
        raise UserError(f"train makes one run, these settings make {len(plan.runs)}")
    planned, load, device = plan.runs[0], Loader(plan), torch.device(plan.device)
    data = load(planned)
    for note in load.notes():
        warnings.warn(note, DataWarning, stacklevel=2)
    if asked.output is None:
        with computing_with(asked.threads):
            trained = fit(planned.run, data, device=device, thrift=thrift(asked))
        net = trained.net.to(memory_format=torch.contiguous_format)
        model = DefendedModel(net, trained.method.adjust).eval()
        history = pd.DataFrame(trained.history)
        return TrainedModel(model, planned.run.run_id, history, data, None)
    store = SuiteStore(asked.output)
    bare = replace(plan, runs=(replace(planned, attacks=()),))
    with store.lock():
        failures = run_plan(bare, store, load, Reporter())
    if failures:
        raise RunError(failures[0].reason)
    run = store.run(planned.run.run_id)
    model = load_defended(planned.run, data, run, device)
    return TrainedModel(model, run.run_id, run.history(), data, run.path)


def evaluate(
    model: nn.Module | str | None = None,
    dataset: str | LongTailedData | tuple[Tensor, Tensor] = "digits-lt",
    attacks: str | Sequence[str] = DEFAULT_ATTACKS,
    *,
    eps: float | str | None = None,
    device: str = "auto",
    seed: int = 0,
    precision: Literal["fp32", "bf16"] = "fp32",
    normalize: str | None = None,
    train_counts: Sequence[int] | None = None,
    limit_test: int | None = None,
    threads: int | None = None,
    no_checks: bool = False,
    model_args: Mapping[str, Any] | None = None,
    checkpoint: str | Path | None = None,
    arch: str | None = None,
    method: str | None = None,
    checkpoint_key: str | None = None,
    **data_settings: Any,
) -> pd.DataFrame:
    """Attack a model, summarise how it stood, and check whether that can be believed.

    Args:
        model: maps images (B, C, H, W), float in [0, 1], to logits; put in eval mode and float32.
            Or "module:name" or "file.py:name" of one, as for `--model`.
        dataset: a data set's name, data that is loaded already, or plain tensors (images, labels):
            uint8 or float in [0, 1] (N, C, H, W), and int64 (N,) in [0, number of logits).
        attacks: names such as "clean,pgd20,autoattack", or a list of them; see `attack_spec`.
        eps: L-inf radius in [0, 1] image units, or text such as "8/255"; default the data set's
            own. Plain tensors have none of their own.
        device: auto, cpu, cuda or cuda:N.
        seed: seed of the attacks' random numbers.
        precision: in which adversarial images are looked for; verdicts are always float32.
        normalize: what the model expects: "cifar10", "cifar100", "imagenet", or numbers as for
            `--normalize`; default images in [0, 1].
        train_counts: training images of each class, for head, medium and tail of plain tensors;
            without them these are nan.
        limit_test: keep about this many test images, the same number of each class.
        threads: CPU threads to compute with; default torch's present number.
        no_checks: make no reliability checks.
        model_args: what the callable that `model` names is called with.
        checkpoint: a file of weights, in place of `model`; with `arch`, and where need be `method`
            and `checkpoint_key`, as the flags of these names.
        arch: architecture of the checkpoint.
        method: the defense whose head and inference adjustment the checkpoint has; default linear.
        checkpoint_key: which state dict of a checkpoint that holds several.
        data_settings: further arguments of `ltrobust.data.load_data`.

    Returns:
        One row per attack: attack, eps, n, accuracy, balanced_accuracy, head, medium, tail,
        worst_class, ci_low, ci_high (of balanced_accuracy), seconds, robust_gap, natural_error,
        boundary_error and 95% intervals as `<name>_ci_low` and `<name>_ci_high`.
        `DataFrame.attrs["outcomes"]` holds one row per image and attack,
        `DataFrame.attrs["reliability"]` a list of {check, flagged, value, threshold, explanation,
        concerns}, empty when only `clean` was asked for, and with `no_checks`.

    Raises:
        UserError: an unknown name or a value out of range, or a model that does not fit the data.
    """
    names = attacks if isinstance(attacks, str) else list(attacks)
    asked = make_settings(
        {
            **data_settings,
            "attacks": names,
            "eps": eps,
            "device": device,
            "attack_seed": seed,
            "search": precision,
            "threads": threads,
            "no_checks": no_checks,
        }
    )
    if not isinstance(dataset, str) and (limit_test is not None or data_settings):
        raise UserError("limit_test and data settings apply to a data set's name, not to data")
    if isinstance(dataset, str):
        checked = {key: getattr(asked, key) for key in data_settings}
        if asked.imbalance_ratio is not None:
            if len(asked.imbalance_ratio) > 1:
                raise UserError("imbalance_ratio: evaluate takes one ratio")
            checked["imbalance_ratio"] = asked.imbalance_ratio[0]
        dataset = load_data(dataset, limit_test=limit_test, **checked)
    place = torch.device(resolve_device(device))
    test, counts, known = _test_set(dataset, train_counts)
    of_file = {"arch": arch, "method": method, "key": checkpoint_key}
    model = _model(model, model_args, checkpoint, of_file, normalize, test, counts)
    if asked.eps is None and known is None:
        raise UserError("eps: plain tensors have no radius of their own; give one, such as 8/255")
    radius = known if asked.eps is None else asked.eps
    assert radius is not None
    classes = _check_model(model, test, None if counts is None else len(counts), place)
    evaluator = Evaluator(model, test, num_classes=classes, device=place)
    with computing_with(asked.threads):
        table, made = _attacked(
            evaluator, attack_specs(asked, radius), counts, TestSpec(limit=limit_test)
        )
        table.attrs["reliability"] = [] if asked.no_checks else _reliability(evaluator, made)
    return table


def _model(
    model: nn.Module | str | None,
    arguments: Mapping[str, Any] | None,
    checkpoint: str | Path | None,
    of_file: dict[str, str | None],
    normalize: str | None,
    test: TestSet,
    counts: Sequence[int] | None,
) -> nn.Module:
    """The model of `evaluate`'s arguments, for images in [0, 1]."""
    if (model is None) == (checkpoint is None):
        raise UserError("give one of: model, checkpoint= with arch=")
    if checkpoint is not None:
        return _checkpoint_model(Path(checkpoint), of_file, normalize, test, counts)
    if any(value is not None for value in of_file.values()):
        raise UserError("arch, method and checkpoint_key go with checkpoint=")
    if isinstance(model, str):
        model = load_model(model, arguments).model
    elif arguments:
        raise UserError("model_args goes with a model that is named, such as 'zoo:net'")
    if not isinstance(model, nn.Module):
        raise UserError(f"model: must be a torch.nn.Module, got {type(model).__name__}")
    if normalize is None:
        return model
    return normalized(model, normalize, test.images.shape[1] if test.images.dim() == 4 else 1)


def _checkpoint_model(
    file: Path,
    of_file: dict[str, str | None],
    normalize: str | None,
    test: TestSet,
    counts: Sequence[int] | None,
) -> nn.Module:
    """A network of ours with the weights of a file, for the images of a test set."""
    if test.images.dim() != 4:
        raise UserError(f"checkpoint: needs images (N, C, H, W), got {tuple(test.images.shape)}")
    if counts is None and of_file["method"] is not None:
        raise UserError("method: give train_counts too, the training images of each class")
    return checkpoint_model(
        file,
        arch=of_file["arch"],
        method=of_file["method"],
        key=of_file["key"],
        normalize=normalize,
        train_counts=counts or [1] * (int(test.labels.max()) + 1),
        image_shape=tuple(test.images.shape[1:]),
    ).model


def _test_set(
    data: LongTailedData | tuple[Tensor, Tensor], train_counts: Sequence[int] | None
) -> tuple[TestSet, Sequence[int] | None, float | None]:
    """Test images, training counts and the data set's own radius, as far as they are known."""
    if isinstance(data, LongTailedData):
        if train_counts is not None:
            raise UserError("train_counts goes with plain tensors; the data set has its own")
        test = TestSet(data.test_images, data.test_labels, data.test_index)
        return test, data.train_counts, dataset_spec(data.name).eps
    if not (isinstance(data, tuple | list) and len(data) == 2 and all(map(torch.is_tensor, data))):
        raise UserError(
            "dataset: give a name, loaded data, or the two tensors (images, labels); got "
            f"{type(data).__name__}"
        )
    images, labels = (part.detach().cpu() for part in data)
    fits = images.dim() >= 2 and labels.dim() == 1 and len(images) == len(labels) > 0
    if not fits:
        raise UserError(
            f"dataset: images {tuple(images.shape)} and labels {tuple(labels.shape)} must be "
            "(N, ...) and (N,) with N >= 1"
        )
    if labels.is_floating_point() or int(labels.min()) < 0:
        raise UserError("dataset: labels must be integers from 0 to C - 1")
    if images.dtype != torch.uint8:
        images = images.float()
        if not (bool((images >= 0).all()) and bool((images <= 1).all())):
            raise UserError(
                f"dataset: images must lie in [0, 1] (or be uint8), got {float(images.min()):.4g} "
                f"to {float(images.max()):.4g}; give normalisation by normalize="
            )
    counts = None if train_counts is None else [int(count) for count in train_counts]
    return TestSet(images, labels.long(), torch.arange(len(labels))), counts, None


def _check_model(model: nn.Module, test: TestSet, classes: int | None, device: torch.device) -> int:
    """Number of logits of a model that fits the test set; UserError for one that does not."""
    model = model.to(device).float()
    found = check_outputs(model, model_images(model, test.images[:2].to(device)), classes)
    if int(test.labels.max()) >= found:
        raise UserError(
            f"dataset: label {int(test.labels.max())} is out of range for a model of {found} logits"
        )
    return found


def _attacked(
    evaluator: Evaluator,
    attacks: Sequence[AttackSpec],
    counts: Sequence[int] | None,
    test_spec: TestSpec,
) -> tuple[pd.DataFrame, list[Evaluation]]:
    """Run the attacks; one row each, with outcomes in the attributes."""
    rows, made = [], []
    evaluator.check(attacks)
    for spec in attacks:
        result = evaluator.run(spec)
        frame = outcomes(evaluator.test, spec, spec.attack_id(test_spec), result)
        rows.append(
            {
                "attack": spec.name,
                "eps": spec.eps,
                **_numbers(frame, counts, evaluator.num_classes, result.seconds),
            }
        )
        made.append(Evaluation(spec.name, spec.eps, spec.norm, frame))
    table = pd.DataFrame(rows)
    table.attrs["outcomes"] = pd.concat([e.frame for e in made], ignore_index=True)
    return table, made


def _numbers(
    frame: pd.DataFrame, counts: Sequence[int] | None, num_classes: int, seconds: float
) -> dict[str, float]:
    """All numbers of one attack; those that need training counts are nan without them."""
    known = [1] * num_classes if counts is None else counts
    numbers = {**summary(frame, known), "n": len(frame), "seconds": seconds}
    numbers["robust_gap"] = numbers["head"] - numbers["tail"]
    numbers |= {**error_parts(frame, None), **intervals(frame, known)}
    if counts is None:
        numbers = {k: nan if k.startswith(GROUP_WORDS) else v for k, v in numbers.items()}
    return numbers


def _reliability(evaluator: Evaluator, made: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """The reliability checks on what was measured; [] where no attack was run."""
    if all(evaluation.attack == "clean" for evaluation in made):
        return []
    effort = affordable(made, free_passes(evaluator), evaluator.num_classes)
    probes = probe(evaluator, eps=usual_radius(made), effort=effort)
    return [asdict(finding) for finding in findings(probes, made)]


GROUP_WORDS = ("head", "medium", "tail", "robust_gap")
"""How the names of numbers begin that need training counts."""
