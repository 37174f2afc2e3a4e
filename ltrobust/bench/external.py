"""Evaluation without training: a finished run of ours again, or a model of anybody's.

A model comes as a checkpoint file with the name of its architecture, or as a callable.

Either way the result is a run directory like any other; what is unknown of a foreign model stands
in tables as "external". Evaluating needs no claim: it only adds facts.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from ltrobust.bench.crew import assembled, threads_of
from ltrobust.bench.loader import Loader, load_quietly, stored_dataset, tell
from ltrobust.bench.plan import Plan, PlannedRun, attack_specs, use_device
from ltrobust.bench.provenance import provenance
from ltrobust.bench.runner import (
    attack_model,
    data_facts,
    evaluate_run,
    keep_place,
    missing_attacks,
)
from ltrobust.bench.settings import Settings
from ltrobust.bench.tensors import load_model as load_weights
from ltrobust.combination import canonical, find
from ltrobust.config import DataSpec, Run, TestSpec
from ltrobust.data import (
    LongTailedData,
    data_fingerprint,
    data_label,
    dataset_spec,
)
from ltrobust.data.catalog import checked_ratio
from ltrobust.errors import RunError, UserError
from ltrobust.evaluation.callables import load_model, parse_arguments
from ltrobust.evaluation.evaluate import DefendedModel, model_images
from ltrobust.evaluation.foreign import (
    check_outputs,
    model_sha256,
    normalized,
)
from ltrobust.method import METHODS, load_methods
from ltrobust.models import arch_source, build_model, canonical_arch
from ltrobust.output import printable
from ltrobust.progress import Reporter
from ltrobust.results.records import (
    AttackRecord,
    ForeignRun,
    RunRecord,
    TrainedRecord,
    now,
)
from ltrobust.results.store import RunStore, SuiteStore
from ltrobust.threads import computing_with
from ltrobust.training.checkpoint import read_state_dict
from ltrobust.training.fitting import fit_weights

T = TypeVar("T")
SETTINGS = Settings()
"""What is asked for where nothing is."""
_LONGEST_NAME = 60


def stored_run(store: RunStore, settings: Settings) -> Run:
    """What a trained run of ours was made with.

    Raises:
        UserError: the run is not trained yet, or its method is not there (give its plugin).
    """
    load_methods(settings.plugin)
    run = store.begun_record().run
    if not isinstance(run, Run):
        raise UserError(
            f"{store.path} is a model that was trained elsewhere and is not stored here; give its "
            "checkpoint or callable again"
        )
    if not store.trained:
        raise UserError(
            f"{store.path} has no model.safetensors: put it back, or run the same bench again, "
            "which trains the run"
        )
    if run.method_source != find(run.method).source:
        raise UserError(
            f"the file of method {run.method} has changed since {store.path} was trained; "
            "train it again with bench"
        )
    if run.arch_source != arch_source(run.arch):
        raise UserError(
            f"the file of architecture {run.arch} has changed since {store.path} was trained; "
            "train it again with bench"
        )
    return run


def evaluate_run_again(store: RunStore, settings: Settings, reporter: Reporter) -> None:
    """Run further attacks on a trained run of ours; those that are there are kept.

    What the settings leave open (test images, search precision, radius) is as in the run's earlier
    evaluations, so that the new results stand in one table with them.

    Raises:
        UserError: see `stored_run`; or its data is not there (of an image folder,
            `settings.dataset` may say where it lies now).
    """
    run, asked = stored_run(store, settings), store.begun_record().overrides
    dataset = stored_dataset(run, store.place().path, settings)
    settings = settings.model_copy(update={"dataset": dataset})
    device = use_device(settings.device)
    settings = as_before(asked, store.attacks(), settings)
    test = TestSpec(protocol=settings.test_protocol, limit=settings.limit_test)
    # as bench does: the user's eps, else the one given for training, else the data set's own
    trained_at = asked.get("eps", dataset_spec(dataset).eps)
    eps = trained_at if settings.eps is None else settings.eps
    planned = PlannedRun(run, test, attack_specs(settings, eps))
    data = Loader(Plan(settings, device, (planned,)))(planned)
    keep_place(store, data)
    missing = missing_attacks(planned.attack_ids(), store, data)
    load_weights(store)  # damaged weights are told before anything is written
    threads = settings.threads or threads_of(settings, device)
    with (
        reporter.copy_to(store.log),
        computing_with(threads),
        assembled(settings, device, wanted=bool(missing)) as crew,
    ):
        images = f"about {test.limit:,}" if test.limit else "all"
        reporter.line(f"{store.run_id}: {images} images of the {test.protocol} test protocol")
        tell(data.notes, reporter)
        evaluate_run(
            planned,
            data,
            store,
            torch.device(device),
            missing,
            reporter,
            no_checks=settings.no_checks,
            crew=crew,
        )


def as_before(
    asked: Mapping[str, Any], made: Mapping[str, AttackRecord], settings: Settings
) -> Settings:
    """Fill in what the user left open about the evaluation from what was done on the run.

    Args:
        asked: what bench was told (`overrides` of run.json).
        made: the run's attacks, of whose choices the most frequent are taken, of equals the first;
            before there is any, what bench was told.
        settings: what the user says now.
    """
    attacked = [one for one in made.values() if one.attack != "clean"]
    tests = [(one.test_protocol, one.limit_test) for one in made.values()]
    first = asked.get("test_protocol", settings.test_protocol), asked.get("limit_test")
    protocol, limit = _most_frequent(tests, first)
    searches = [one.settings.get("search") or "fp32" for one in attacked]
    known = {
        "test_protocol": protocol,
        "limit_test": limit,
        "search": _most_frequent(searches, asked.get("search", settings.search)),
    }
    # a choice of images is protocol and limit together: who names another protocol names its limit
    given = settings.model_fields_set
    if "test_protocol" in given and settings.test_protocol != protocol:
        del known["limit_test"]
    return settings.model_copy(update={k: v for k, v in known.items() if k not in given})


def _most_frequent(values: Sequence[T], otherwise: T) -> T:
    """The most frequent value, of equals the first."""
    return Counter(values).most_common(1)[0][0] if values else otherwise


@dataclass(frozen=True)
class Foreign:
    """A model of somebody else's, ready to be attacked.

    Attributes:
        model: maps images in [0, 1] to logits.
        label: what its rows are called.
        arch: architecture in words.
        origin: where it came from, for the record.
        facts: what tells it from other models, for its key.
    """

    model: nn.Module
    label: str
    arch: str
    origin: str
    facts: dict[str, Any]


@dataclass(frozen=True)
class CheckpointModel:
    """A network of ours with somebody else's weights.

    Attributes:
        model: maps images in [0, 1] to logits, in eval mode.
        head_of: the defense whose head and inference adjustment it has.
        normalize: what its images are normalised with, as for `parse_normalize`; None: nothing.
        notes: what was read in another way than it stands in the file, in words.
    """

    model: DefendedModel
    head_of: str
    normalize: str | None
    notes: tuple[str, ...]


def checkpoint_model(
    file: Path,
    *,
    arch: str | None,
    method: str | None,
    key: str | None,
    normalize: str | None,
    train_counts: Sequence[int],
    image_shape: tuple[int, ...],
) -> CheckpointModel:
    """Build an architecture of ours with the weights of a checkpoint file.

    Args:
        file: safetensors or a torch file.
        arch: architecture of the weights.
        method: the defense whose head and inference adjustment they need; None: a linear head.
        key: which state dict of the file; see `read_state_dict`.
        normalize: what the network expects (see `parse_normalize`); None: images in [0, 1], or what
            the file itself says.
        train_counts: training images of each class.
        image_shape: (channels, height, width) of the images.

    Raises:
        UserError: the file is no checkpoint or does not fit the architecture.
    """
    if arch is None:
        raise UserError("--checkpoint needs --arch, the architecture of the weights")
    weights = read_state_dict(file, key)
    head_of = "pgd-at" if method is None else canonical(method)
    defense = find(head_of)(torch.tensor(train_counts))
    net = build_model(
        canonical_arch(arch),
        num_classes=len(train_counts),
        in_channels=image_shape[0],
        image_size=image_shape[1],
        head=defense.head,
    )
    fitted = fit_weights(net, weights, f"checkpoint {file}")
    net.load_state_dict(fitted.weights)
    if fitted.normalization is not None:
        if normalize is not None:
            raise UserError(f"--normalize: {fitted.notes[0]}; leave it out")
        values = [v.expand(image_shape[0]).tolist() for v in fitted.normalization]
        normalize = ",".join(f"{value:.9g}" for value in (*values[0], *values[1]))
    inner = net if normalize is None else normalized(net, normalize, image_shape[0])
    model = DefendedModel(inner, defense.adjust).eval()
    return CheckpointModel(model, head_of, normalize, fitted.notes)


def evaluate_checkpoint(
    file: Path,
    suite: SuiteStore,
    settings: Settings,
    reporter: Reporter,
    normalize: str | None,
    key: str | None = None,
    name: str | None = None,
) -> RunStore:
    """Evaluate a checkpoint file as a run of its own in `suite`; return that run.

    `settings.methods` names the defense whose head and inference adjustment the weights need
    (`pgd-at`, a plain linear head, when none is named); for `normalize` and `key` see
    `checkpoint_model`; `name` is what tables call it, None for the file's name.

    Raises:
        UserError: the file is no checkpoint or does not fit the architecture, or the name is taken.
    """
    load_methods(settings.plugin)
    if len(settings.methods) > 1:
        raise UserError("--method: a checkpoint has the head of one defense, give one name")
    data, ratio = _data(settings)
    found = checkpoint_model(
        file,
        arch=settings.arch,
        method=None if settings.methods == SETTINGS.methods else settings.methods[0],
        key=key,
        normalize=normalize,
        train_counts=data.train_counts,
        image_shape=data.image_shape,
    )
    for note in found.notes:
        reporter.line(f"{file.name}: {note}")
    facts = {
        "weights_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "head_of": found.head_of,
        "method_source": find(found.head_of).source,
    }
    if key is not None:
        facts["checkpoint_key"] = key
    origin, label = printable(file.name), printable(file.stem)
    foreign = Foreign(found.model, label, str(settings.arch), origin, facts)
    return _evaluate_foreign(foreign, data, ratio, suite, settings, reporter, found.normalize, name)


def evaluate_callable(
    spec: str,
    suite: SuiteStore,
    settings: Settings,
    reporter: Reporter,
    normalize: str | None,
    arguments: Sequence[str] = (),
    name: str | None = None,
) -> RunStore:
    """Evaluate what `spec` stands for as a run of its own in `suite`; return that run.

    For `spec` and `arguments` see `evaluation.callables.load_model`; `name` is what tables call it,
    None for the callable's name.

    Raises:
        UserError: there is no such callable, it gives no model of these classes, or the name is
            taken.
    """
    found = load_model(spec, arguments)
    data, ratio = _data(settings)
    facts: dict[str, Any] = {
        "weights_sha256": model_sha256(found.model, found.name, found.file),
        "callable": found.name,
        "method_source": "",
    }
    if arguments:
        facts["model_args"] = {k: repr(v) for k, v in parse_arguments(arguments).items()}
    arch, label = type(found.model).__name__, found.name.partition(":")[2]
    model = _normalized(found.model, normalize, data)
    foreign = Foreign(model, label, arch, found.name, facts)
    return _evaluate_foreign(foreign, data, ratio, suite, settings, reporter, normalize, name)


def _normalized(model: nn.Module, normalize: str | None, data: LongTailedData) -> nn.Module:
    return model if normalize is None else normalized(model, normalize, data.image_shape[0])


def _evaluate_foreign(
    foreign: Foreign,
    data: LongTailedData,
    ratio: float | None,
    suite: SuiteStore,
    settings: Settings,
    reporter: Reporter,
    normalize: str | None,
    name: str | None,
) -> RunStore:
    device = use_device(settings.device)
    model = foreign.model.to(device).float()
    check_outputs(model, model_images(model, data.test_images[:2].to(device)), data.num_classes)
    known = _foreign_run(foreign, settings, ratio, normalize)
    run = suite.run(known.run_id)
    label = _name(name, known, suite)
    test = TestSpec(protocol=settings.test_protocol, limit=settings.limit_test)
    eps = dataset_spec(settings.dataset).eps if settings.eps is None else settings.eps
    wanted = {spec.attack_id(test): spec for spec in attack_specs(settings, eps)}
    suite.prepare()
    with reporter.copy_to(run.log), computing_with(settings.threads):
        _open_record(run, known, foreign, data, device)
        if label is not None:
            run.write_place(run.place().model_copy(update={"name": label}))
        tell(data.notes, reporter)
        missing = missing_attacks(wanted, run, data)
        try:
            attack_model(
                foreign.model,
                test,
                data,
                run,
                torch.device(device),
                missing,
                reporter,
                no_checks=settings.no_checks,
            )
        except (UserError, RunError) as error:
            run.fail(str(error))
            raise
        except Exception as error:  # a model of anybody's may raise anything
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            run.fail(reason)
            raise RunError(f"{foreign.origin}: the model failed under attack ({reason})") from error
        run.succeed()
    return run


def _name(asked: str | None, known: ForeignRun, suite: SuiteStore) -> str | None:
    """What to call a foreign model from now on; None: as before.

    Raises:
        UserError: the name is not fit for tables, or belongs to a method or to another model.
    """
    if asked is None:
        return None
    fits = asked == asked.strip() and asked.isprintable() and "," not in asked
    if not (fits and 0 < len(asked) <= _LONGEST_NAME):
        raise UserError(
            f"--name {asked!r}: give 1 to {_LONGEST_NAME} printable characters without commas and "
            "without blanks at the ends"
        )
    if asked in METHODS:
        raise UserError(f"--name {asked}: that is a method of ltrobust; choose another name")
    for other in suite.runs():
        run = other.begun_record().run
        called = run.method if isinstance(run, Run) else other.place().name or run.label
        same = isinstance(run, ForeignRun) and _model_of(run) == _model_of(known)
        if called == asked and not same:
            raise UserError(
                f"--name {asked}: {other.path} has another model of this name; choose another name"
            )
    return asked


def _model_of(run: ForeignRun) -> list[Any]:
    """What tells one foreign model from another, whatever it is evaluated on."""
    model = {key: value for key, value in run.model.items() if key != "method_source"}
    return [model, run.arch, run.normalize]


def _open_record(
    run: RunStore, known: ForeignRun, foreign: Foreign, data: LongTailedData, device: str
) -> None:
    """Say what is attacked and what is known of it, unless that is said."""
    made, origin = now(), provenance(device)
    run.begin(
        RunRecord(
            run_id=known.run_id,
            run=known,
            overrides={},
            data=data_facts(data),
            provenance=origin,
            made=made,
        )
    )
    trained = TrainedRecord(
        run_id=known.run_id,
        train_seconds=None,
        train_cpu_seconds=None,
        parameters=sum(p.numel() for p in foreign.model.parameters()),
        peak_memory_bytes=None,
        checkpoint=foreign.origin,
        base=None,
        fine_tuning=None,
        threads=origin.threads,
        earlier_threads=[],
        weights_sha256=None,
        made=made,
    )
    run.finish(trained, None)


def _data(settings: Settings) -> tuple[LongTailedData, float | None]:
    ratios = settings.imbalance_ratio or (None,)
    if len(ratios) > 1:
        raise UserError("--imbalance-ratio: a checkpoint was trained at one ratio, give one")
    data = load_quietly(
        settings.dataset,
        data_dir=settings.data_dir,
        download=settings.download,
        imbalance_ratio=ratios[0],
        imbalance_type=settings.imbalance_type,
        split_seed=settings.split_seed,
        test_protocol=settings.test_protocol,
        limit_test=settings.limit_test,
    )
    ratio = ratios[0] or dataset_spec(settings.dataset).imbalance_ratio
    return data, checked_ratio(ratio)


def _foreign_run(
    foreign: Foreign, settings: Settings, ratio: float | None, normalize: str | None
) -> ForeignRun:
    """What is known of a run that somebody else made."""
    data = DataSpec(
        name=data_label(settings.dataset),
        imbalance_ratio=ratio,
        imbalance_type=settings.imbalance_type,
        split_seed=settings.split_seed,
        fingerprint=data_fingerprint(settings.dataset, settings.data_dir),
    )
    return ForeignRun(
        label=foreign.label, arch=foreign.arch, model=foreign.facts, normalize=normalize, data=data
    )
