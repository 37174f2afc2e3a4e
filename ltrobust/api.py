"""The Python interface: train a defense, evaluate a model, as the commands do.

Both take the settings of `ltrobust bench` by name. `train` keeps its results in memory unless it is
given an output directory.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from ltrobust.attacks.suite import attack_spec
from ltrobust.bench.loader import Loader
from ltrobust.bench.plan import make_plan, resolve_device
from ltrobust.bench.runner import load_defended, run_plan
from ltrobust.bench.settings import DEFAULT_ATTACKS, make_settings
from ltrobust.bench.store import SuiteStore
from ltrobust.config import TestSpec
from ltrobust.data import LongTailedData, dataset_spec, load_data
from ltrobust.errors import RunError, UserError, unknown
from ltrobust.evaluation.evaluate import DefendedModel, Evaluator, TestSet, outcomes
from ltrobust.evaluation.metrics import summary
from ltrobust.progress import Reporter
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
            `epochs=5`, `imbalance_ratio=50`, `seeds=1`, `device="cuda"`, `output="results/mine"`.
            With `output` the run is stored there, resumed if it was stopped, and found again if
            it is done.

    Raises:
        UserError: a setting is wrong.
        RunError: the training cannot go on.
    """
    asked = make_settings({"methods": method, "dataset": dataset, **settings, "attacks": "clean"})
    plan = make_plan(asked)
    if len(plan.runs) != 1:
        raise UserError(f"train makes one run, these settings make {len(plan.runs)}")
    planned, load, device = plan.runs[0], Loader(plan), torch.device(plan.device)
    data = load(planned)
    if asked.output is None:
        trained = fit(planned.run, data, device=device)
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
    model: nn.Module,
    dataset: str | LongTailedData = "digits-lt",
    attacks: str | Sequence[str] = DEFAULT_ATTACKS,
    *,
    eps: float | None = None,
    device: str = "auto",
    seed: int = 0,
    limit_test: int | None = None,
    **data_settings: Any,
) -> pd.DataFrame:
    """Attack a model and summarise how it stood.

    Args:
        model: maps images (B, C, H, W), float in [0, 1], to logits; put in eval mode and float32.
        dataset: a data set's name, or data that is loaded already.
        attacks: names such as "clean,pgd20,autoattack", or a list of them.
        eps: L-inf radius in [0, 1] image units; default the data set's own.
        device: auto, cpu, cuda or cuda:N.
        seed: seed of the attacks' random starts.
        limit_test: keep about this many test images, the same number of each class.
        data_settings: further arguments of `ltrobust.data.load_data`.

    Returns:
        One row per attack: attack, eps, n, accuracy, balanced_accuracy, head, medium, tail,
        worst_class, ci_low, ci_high, seconds. `DataFrame.attrs["outcomes"]` holds one row per
        image and attack.

    Raises:
        UserError: an unknown name or a value out of range.
    """
    names = attacks if isinstance(attacks, str) else list(attacks)
    asked = make_settings({"attacks": names, "eps": eps, "device": device})
    for key in data_settings:
        if key not in inspect.signature(load_data).parameters:
            raise unknown("setting", key, inspect.signature(load_data).parameters)
    if isinstance(dataset, str):
        data = load_data(dataset, limit_test=limit_test, **data_settings)
    elif limit_test is not None or data_settings:
        raise UserError("limit_test and data settings apply to a data set's name, not to data")
    else:
        data = dataset
    radius = dataset_spec(data.name).eps if eps is None else eps
    test = TestSet(data.test_images, data.test_labels, data.test_index)
    evaluator = Evaluator(
        model, test, num_classes=data.num_classes, device=torch.device(resolve_device(device))
    )
    rows, frames = [], []
    for name in asked.attacks:
        spec = attack_spec(name, radius, seed=seed)
        result = evaluator.run(spec)
        frame = outcomes(test, spec, spec.attack_id(TestSpec(limit=limit_test)), result.pred)
        numbers = summary(frame, data.train_counts)
        numbers["n"] = len(frame)
        rows.append({"attack": name, "eps": spec.eps, **numbers, "seconds": result.seconds})
        frames.append(frame)
    table = pd.DataFrame(rows)
    table.attrs["outcomes"] = pd.concat(frames, ignore_index=True)
    return table
