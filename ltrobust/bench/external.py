"""Evaluation without training: a finished run of ours again, or a checkpoint file of anybody's.

Either way the result is a run directory like any other, so that reports need not know the
difference; what is unknown of a foreign checkpoint stands in its record as "external".
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from ltrobust.attacks.suite import attack_spec
from ltrobust.bench.loader import Loader
from ltrobust.bench.plan import Plan, PlannedRun, resolve_device
from ltrobust.bench.provenance import provenance
from ltrobust.bench.runner import attack_model, data_facts, evaluate_run, missing_attacks
from ltrobust.bench.settings import Settings
from ltrobust.bench.store import RunStore, SuiteStore
from ltrobust.config import AttackSpec, Run, TestSpec, stable_hash
from ltrobust.data import LongTailedData, data_fingerprint, dataset_spec, load_data
from ltrobust.errors import UserError
from ltrobust.evaluation.evaluate import DefendedModel
from ltrobust.method import METHODS, load_methods, method_source
from ltrobust.models import ARCHS, build_model
from ltrobust.progress import Reporter
from ltrobust.training.checkpoint import load_weights, read_state_dict

EXTERNAL = "external"


def evaluate_run_again(store: RunStore, settings: Settings, reporter: Reporter) -> None:
    """Run further attacks on a trained run of ours; those that are there are kept.

    Raises:
        UserError: the run is not trained yet, or its method is not there (give its plugin).
    """
    load_methods(settings.plugin)
    record = store.read()
    if not store.trained:
        raise UserError(f"{store.path} is not trained yet; run the same bench again to finish it")
    try:
        run = Run.model_validate(record["config"])
    except (KeyError, ValidationError):
        raise UserError(f"{store.path}/run.json is not that of a trained run") from None
    if run.method_source != method_source(METHODS.get(run.method)):
        raise UserError(
            f"the file of method {run.method} has changed since {store.path} was trained; "
            "train it again with bench"
        )
    if run.data.fingerprint != data_fingerprint(run.data.name, settings.data_dir):
        raise UserError(f"{run.data.name} has changed since {store.path} was trained; train again")
    device = resolve_device(settings.device)
    test = TestSpec(protocol=settings.test_protocol, limit=settings.limit_test)
    # as bench does: the user's eps, else the one given for training, else the data set's own
    given = record.get("overrides", {}).get("eps", dataset_spec(run.data.name).eps)
    eps = given if settings.eps is None else settings.eps
    planned = PlannedRun(run, test, tuple(attack_spec(name, eps) for name in settings.attacks))
    data = Loader(Plan(settings, device, (planned,)))(planned)
    missing = missing_attacks(planned.attack_ids(), store, data)
    with reporter.copy_to(store.log):
        evaluate_run(planned, data, store, torch.device(device), missing, reporter)


def evaluate_checkpoint(
    file: Path, suite: SuiteStore, settings: Settings, reporter: Reporter
) -> RunStore:
    """Evaluate a checkpoint file as a run of its own in `suite`; return that run.

    `settings.methods` names the defense whose head and inference adjustment the weights need
    (`pgd-at`, a plain linear head, when it is left at "all").

    Raises:
        UserError: the file is no checkpoint or does not fit the architecture.
    """
    load_methods(settings.plugin)
    if settings.arch is None:
        raise UserError("--checkpoint needs --arch, the architecture of the weights")
    weights = read_state_dict(file)
    data, ratio = _data(settings)
    if len(settings.methods) > 1:
        raise UserError("--method: a checkpoint has the head of one defense, give one name")
    name = "pgd-at" if settings.methods == ("all",) else METHODS.canonical(settings.methods[0])
    method = METHODS.get(name)(torch.tensor(data.train_counts))
    net = build_model(
        ARCHS.canonical(settings.arch),
        num_classes=data.num_classes,
        in_channels=data.image_shape[0],
        image_size=data.image_shape[1],
        head=method.head,
    )
    load_weights(net, weights, f"checkpoint {file}")
    device = resolve_device(settings.device)
    config = _foreign_config(file, settings, ratio, name)
    run = suite.run(f"{EXTERNAL}-{stable_hash(config)}")
    test = TestSpec(protocol=settings.test_protocol, limit=settings.limit_test)
    eps = dataset_spec(settings.dataset).eps if settings.eps is None else settings.eps
    wanted: dict[str, AttackSpec] = {
        spec.attack_id(test): spec for spec in (attack_spec(a, eps) for a in settings.attacks)
    }
    model = DefendedModel(net, method.adjust).to(device).eval()
    with suite.lock(), reporter.copy_to(run.log):
        _open_record(run, file, config, data, device)
        missing = missing_attacks(wanted, run, data)
        attack_model(model, test, data, run, torch.device(device), missing, reporter)
        run.update(status="done", parameters=sum(p.numel() for p in net.parameters()))
    return run


def _open_record(
    run: RunStore,
    file: Path,
    config: dict[str, Any],
    data: LongTailedData,
    device: str,
) -> None:
    record = run.read()
    run.update(
        run_id=run.run_id,
        status="running",
        config=config,
        data=data_facts(data),
        provenance=record.get("provenance") or provenance(device),
        evaluations=record.get("evaluations") or {},
        checkpoint=file.name,
    )


def _data(settings: Settings) -> tuple[LongTailedData, float | None]:
    ratios = settings.imbalance_ratio or (None,)
    if len(ratios) > 1:
        raise UserError("--imbalance-ratio: a checkpoint was trained at one ratio, give one")
    data = load_data(
        settings.dataset,
        data_dir=settings.data_dir,
        download=settings.download,
        imbalance_ratio=ratios[0],
        imbalance_type=settings.imbalance_type,
        split_seed=settings.split_seed,
        test_protocol=settings.test_protocol,
        limit_test=settings.limit_test,
    )
    return data, ratios[0] or dataset_spec(settings.dataset).imbalance_ratio


def _foreign_config(
    file: Path, settings: Settings, ratio: float | None, head: str
) -> dict[str, Any]:
    """What is known of a run that somebody else made; its hash is the run's id."""
    return {
        "weights_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "head_of": head,
        "method_source": method_source(METHODS.get(head)),
        "method": file.stem,
        "arch": settings.arch,
        "recipe_name": EXTERNAL,
        "recipe": {"augment": EXTERNAL, "epochs": 0, "batch_size": 0, "attack": {"eps": 0.0}},
        "seed": 0,
        "select": EXTERNAL,
        "precision": EXTERNAL,
        "data": {
            "name": settings.dataset,
            "imbalance_ratio": ratio,
            "imbalance_type": settings.imbalance_type,
            "split_seed": settings.split_seed,
            "fingerprint": data_fingerprint(settings.dataset, settings.data_dir),
        },
    }
