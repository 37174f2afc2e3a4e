"""The Python interface: what the commands do, as functions with the flags' names.

`train` keeps its results in memory unless it is given an output directory. Images and labels are
taken as tensors, numpy arrays or a DataLoader (`batches.py` reads them).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ltrobust.batches import Array, Batch, labelled_images
from ltrobust.bench.doing import how_to_do
from ltrobust.bench.external import as_before, checkpoint_model, stored_run
from ltrobust.bench.loader import Loader, stored_dataset
from ltrobust.bench.plan import (
    Plan,
    PlannedRun,
    attack_specs,
    make_grid,
    make_plan,
    thrift,
    use_device,
)
from ltrobust.bench.reports import SuiteResults, build_report, make_report
from ltrobust.bench.runner import defended, load_defended, run_plan
from ltrobust.bench.settings import DEFAULT_ATTACKS, make_cells, make_settings
from ltrobust.bench.tuning import run_tuned
from ltrobust.config import AttackSpec, TestSpec
from ltrobust.data import LongTailedData, dataset_spec, load_data
from ltrobust.errors import DataWarning, RunError, UserError, unknown
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
from ltrobust.evaluation.metrics import error_parts, intervals, nan, parse_groups, summary
from ltrobust.evaluation.probe import probe
from ltrobust.evaluation.reliability import Evaluation, affordable, findings, usual_radius
from ltrobust.progress import Reporter
from ltrobust.report.across import parse_across
from ltrobust.results.digest import digest_of
from ltrobust.results.filters import parse_filters
from ltrobust.results.pairs import Comparison, compare_runs
from ltrobust.results.store import SuiteStore, suite_of
from ltrobust.threads import computing_with
from ltrobust.training.trainer import train as fit

PathLike = str | Path
T = TypeVar("T")
_DATA_SETTINGS = (
    *("data_dir", "imbalance_ratio", "imbalance_type", "split_seed", "limit_train"),
    *("test_protocol", "download"),
)
"""What `evaluate` passes on to `load_data`."""


class TrainedModel(nn.Module):
    """What `train` and `load` return: a module that maps images to logits, and what belongs to it.

    It is in eval mode and maps images (B, C, H, W), float in [0, 1], to logits (B, classes), float;
    its defense's adjustment at inference is part of it.

    Attributes:
        model: the same without what belongs to it, for `evaluate` and `attack` to look into.
        run_id: the run's key.
        history: one row per epoch, the columns of history.csv.
        path: the run's directory, or None when nothing was written.
    """

    def __init__(
        self,
        model: DefendedModel,
        run_id: str,
        history: pd.DataFrame,
        data: LongTailedData | Callable[[], LongTailedData],
        path: Path | None,
    ) -> None:
        super().__init__()
        self.model = model
        self.run_id = run_id
        self.history = history
        self.path = path
        self._data = data
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, C, H, W), float in [0, 1]."""
        return self.model(x)

    @property
    def data(self) -> LongTailedData:
        """Training and test images; those of a stored run are read when they are first asked for.

        Raises:
            UserError: they are not where they were, or no longer what the run was trained on.
        """
        if not isinstance(self._data, LongTailedData):
            self._data = self._data()
        return self._data

    @property
    def test_images(self) -> Tensor:
        """Test images as the model takes them, float in [0, 1] (N, C, H, W), on the CPU."""
        return model_images(self.model, self.data.test_images)

    @property
    def test_labels(self) -> Tensor:
        """Their labels, int64 (N,)."""
        return self.data.test_labels


_NOT_FOR_TRAIN = {
    "methods": "the first argument says it",
    "attacks": "ltrobust.evaluate attacks what was trained",
    **dict.fromkeys(
        ("launcher", "jobs", "at_once", "detach", "slurm"), "ltrobust.bench starts runs elsewhere"
    ),
}


def train(method: str, dataset: str = "digits-lt", **settings: Any) -> TrainedModel:
    """Train one defense on one data set with one seed.

    Args:
        method: a registered method, such as "at-bsl".
        dataset: a registered data set, or "folder:PATH".
        settings: any other setting of `bench` by its flag's name with underscores, such as
            `epochs=5`, `imbalance_ratio=50`, `seeds=1`, `eps="8/255"`, `device="cuda"`,
            `output="results/mine"`. With `output` the run is stored there, resumed if it was
            stopped, and found again if it is done.

    Returns:
        The trained model with its history and data.

    Raises:
        UserError: a setting is wrong.
        RunError: the training cannot go on.
    """
    given = [one for one, value in settings.items() if value is not None]
    for name in (one for one in given if one in _NOT_FOR_TRAIN):
        raise UserError(f"{name}: {_NOT_FOR_TRAIN[name]}; leave it out of train")
    asked = make_settings({"methods": method, "dataset": dataset, **settings, "attacks": "clean"})
    if asked.devices_per_run > 1 and asked.output is None:
        raise UserError("devices_per_run works on a run that is stored; give output= too")
    if asked.profile and asked.output is None:
        raise UserError("profile is written beside a run's results; give output= too")
    plan = make_plan(asked)
    bases = {planned.base for planned in plan.runs}
    wanted = [planned for planned in plan.runs if planned.run.run_id not in bases]
    if len(wanted) != 1:
        raise UserError(f"train makes one run, these settings make {len(wanted)}")
    planned, load, device = wanted[0], Loader(plan), torch.device(plan.device)
    data = load(planned)
    _warn(load.notes())
    if asked.output is None:
        with computing_with(asked.threads):
            base = None
            for one in plan.runs:
                trained = fit(one.run, data, device=device, thrift=thrift(asked), base=base)
                base = trained.as_base()
        net = trained.net.to(memory_format=torch.contiguous_format)
        model = DefendedModel(net, trained.method.adjust).eval()
        history = pd.DataFrame(trained.history)
        return TrainedModel(model, planned.run.run_id, history, data, None)
    store = SuiteStore(asked.output)
    bare = replace(plan, runs=tuple(one.bare() for one in plan.runs))
    failures = run_plan(bare, store, load, Reporter())
    if failures:
        raise RunError(failures[0].reason)
    run = store.run(planned.run.run_id)
    model = load_defended(planned.run, data, run, device)
    return TrainedModel(model, run.run_id, run.history(), data, run.path)


def evaluate(
    model: nn.Module | str | None = None,
    dataset: str | LongTailedData | Batch = "digits-lt",
    attacks: str | Sequence[str] = DEFAULT_ATTACKS,
    *,
    eps: float | str | None = None,
    device: str | torch.device = "auto",
    seed: int = 0,
    precision: Literal["fp32", "bf16"] = "fp32",
    normalize: str | Sequence[float] | None = None,
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
        dataset: a data set's name, data that is loaded already, or plain (images, labels), tensors
            or numpy arrays: uint8 or float in [0, 1] (N, C, H, W), and integers (N,) in [0, number
            of logits); or a DataLoader of such batches.
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
    names = attacks if isinstance(attacks, str) else _listed("attacks", attacks, str)
    for name in (one for one in data_settings if one not in _DATA_SETTINGS):
        raise unknown("setting of evaluate", name, _DATA_SETTINGS)
    asked = make_settings(
        {
            **data_settings,
            "attacks": names,
            "eps": eps,
            "device": None if device is None else str(device),
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
    place = torch.device(use_device(asked.device))
    test, counts, known = _test_set(dataset, train_counts)
    of_file = {"arch": arch, "method": method, "key": checkpoint_key}
    text = _normalize_text(normalize)
    model = _model(model, model_args, checkpoint, of_file, text, test, counts)
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
    return _normalized(_module(model), normalize, test.images)


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
    data: LongTailedData | Batch, train_counts: Sequence[int] | None
) -> tuple[TestSet, Sequence[int] | None, float | None]:
    """Test images, training counts and the data set's own radius, as far as they are known."""
    if isinstance(data, LongTailedData):
        if train_counts is not None:
            raise UserError("train_counts goes with plain tensors; the data set has its own")
        test = TestSet(data.test_images, data.test_labels, data.test_index)
        return test, data.train_counts, dataset_spec(data.name).eps
    images, labels = labelled_images(data)
    counts = None if train_counts is None else _listed("train_counts", train_counts, int)
    if counts is not None and min(counts, default=0) < 0:
        raise UserError(f"train_counts: a class cannot have {min(counts)} images")
    return TestSet(images, labels, torch.arange(len(labels))), counts, None


def attack(
    model: nn.Module,
    images: Array | DataLoader[Any],
    labels: Array | None = None,
    attack: str = "pgd20",
    *,
    eps: float | str,
    device: str | torch.device = "auto",
    seed: int = 0,
    precision: Literal["fp32", "bf16"] = "fp32",
    normalize: str | Sequence[float] | None = None,
    threads: int | None = None,
) -> Tensor:
    """Find adversarial images of a batch; the model's predictions on them are its verdicts.

    Args:
        model: as for `evaluate`.
        images: uint8 or float in [0, 1] (N, C, H, W), a tensor or a numpy array; or a DataLoader of
            (images, labels).
        labels: integers (N,) in [0, number of logits); none with a DataLoader.
        attack: one name, such as "pgd20", "cw20x5" or "autoattack"; see `attack_spec`.
        eps: L-inf radius in [0, 1] image units, or text such as "8/255".
        device: auto, cpu, cuda or cuda:N.
        seed: seed of the attack's random numbers.
        precision: in which adversarial images are looked for.
        normalize: as for `evaluate`.
        threads: CPU threads to compute with; default torch's present number.

    Returns:
        Images as the model takes them, float32 in [0, 1] (N, C, H, W), on the device of `images`.
        Those that the model gets wrong without an attack come back unchanged, and so do those that
        stand after AutoAttack.

    Raises:
        UserError: an unknown name or a value out of range, or a model that does not fit the data.
    """
    model = _module(model)
    if not isinstance(attack, str):
        raise UserError(f"attack: give one name such as pgd20, got {type(attack).__name__}")
    asked = make_settings(
        {
            "attacks": attack,
            "eps": eps,
            "device": None if device is None else str(device),
            "attack_seed": seed,
            "search": precision,
            "threads": threads,
        }
    )
    if asked.eps is None or len(asked.attacks) != 1:
        what = "eps: give a radius such as 8/255" if asked.eps is None else "attack: give one name"
        raise UserError(f"{what}; ltrobust.evaluate runs several attacks")
    if isinstance(images, DataLoader):
        found, known = labelled_images(images)
    elif labels is None:
        raise UserError("labels: give the classes of the images; only a DataLoader brings its own")
    else:
        found, known = labelled_images((images, labels))
    test = TestSet(found, known, torch.arange(len(known)))
    place = torch.device(use_device(asked.device))
    model = _normalized(model, _normalize_text(normalize), found)
    evaluator = Evaluator(
        model, test, num_classes=_check_model(model, test, None, place), device=place
    )
    adversarial = model_images(model, found).clone()

    def keep(chosen: Tensor, attacked: Tensor) -> None:
        adversarial[chosen] = attacked.detach().cpu()

    (spec,) = attack_specs(asked, asked.eps)
    with computing_with(asked.threads):
        evaluator.run(spec, keep=keep)
    return adversarial.to(images.device) if isinstance(images, Tensor) else adversarial


def load(
    path: PathLike,
    *,
    dataset: str | None = None,
    data_dir: PathLike | None = None,
    plugin: PathLike | Sequence[PathLike] = (),
    device: str = "cpu",
    **settings: Any,
) -> TrainedModel:
    """Give back a stored run as a module, with its data.

    Args:
        path: the run's directory, `results/<suite>/runs/<run_id>`.
        dataset: `folder:PATH`, where the image folder of the run lies now.
        data_dir: where the data is; default as for `bench`. It is read only when it is asked for.
        plugin: Python files with the run's method, where it is not one of ours.
        device: where the module is put: auto, cpu, cuda or cuda:N.
        settings: `limit_test` and `test_protocol` say which test images stand in `data`; default
            those of most of the run's evaluations. `download` fetches missing data.

    Raises:
        UserError: no run directory, or a run that is not trained, or a setting is wrong.
    """
    _, store = suite_of(Path(path))
    for name in settings:
        if name not in _OF_LOAD:
            raise unknown("setting", name, _OF_LOAD)
    given = {"dataset": dataset, "data_dir": data_dir, "plugin": plugin or None, "device": device}
    asked = make_settings({**given, **settings})
    run, record = stored_run(store, asked), store.begun_record()
    place, facts = use_device(asked.device), record.data
    model = defended(run, facts.train_counts, facts.image_shape, store, torch.device(place))

    def read() -> LongTailedData:
        dataset = stored_dataset(run, store.place().path, asked)
        where = asked.model_copy(update={"dataset": dataset})
        chosen = as_before(record.overrides, store.attacks(), where)
        test = TestSpec(protocol=chosen.test_protocol, limit=chosen.limit_test)
        planned = PlannedRun(run, test, ())
        data = Loader(Plan(chosen, place, (planned,)))(planned)
        _warn(data.notes)
        return data

    return TrainedModel(model, run.run_id, store.history(), read, store.path)


def _warn(notes: Sequence[str]) -> None:
    """Tell the notes of some data to who called the function that calls this."""
    for note in notes:
        warnings.warn(note, DataWarning, stacklevel=3)


_OF_LOAD = ("limit_test", "test_protocol", "download")


def bench(suite: PathLike | None = None, **settings: Any) -> SuiteResults:
    """Train, attack and compare defenses as the command does, with all its files.

    Args:
        suite: a suite file, or the name of one that ships; settings win over it.
        settings: any setting of the command by its flag's name with underscores, such as
            `methods="at-bsl,taet"`, `dataset="digits-lt"`, `epochs=5`, `output="results/mine"`.

    Returns:
        The frames of the suite's report, `metrics` and `leaderboard` among them; tables, figures
        and page lie in its directory.

    Raises:
        UserError: a setting is wrong.
        RunError: some runs failed; the others are done, and `report` gives their results.
    """
    cells = make_cells(settings, None if suite is None else Path(suite))
    plan, store = make_grid(cells), SuiteStore(cells[0].output_dir)
    if plan.settings.detach:
        raise UserError(
            "detach: the results that bench returns are not there when it leaves; leave it out, or "
            "use the command: ltrobust bench --detach"
        )
    doing, load, reporter = how_to_do(plan, store), Loader(plan), Reporter()
    store.prepare()
    with doing.runner(store, load, reporter) as run:
        failures = run_tuned(doing.plan, store, run, reporter)
    results = build_report(store)
    _warn(load.notes())
    if failures:
        reasons = "; ".join(f"{failure.run_id}: {failure.reason}" for failure in failures)
        raise RunError(f"{len(failures)} of {len(plan.runs)} runs failed ({reasons})")
    return results


def compare(
    run_a: PathLike, run_b: PathLike, *, groups: str | None = None, per_class: bool = False
) -> Comparison:
    """Compare two stored runs on the same test images: differences, intervals, McNemar's test.

    Args:
        run_a: a run's directory.
        run_b: another one, of the same or another suite.
        groups: how head, medium and tail are cut, as for `--groups`.
        per_class: a row for each class too.

    Returns:
        Its `rows` is a frame with a row an attack and group of images.

    Raises:
        UserError: no run directories, or runs that cannot be compared.
    """
    (_, a), (_, b) = suite_of(Path(run_a)), suite_of(Path(run_b))
    return compare_runs(a, b, parse_groups(groups), per_class=per_class)


def report(
    directories: PathLike | Sequence[PathLike],
    *,
    dataset: str | Sequence[str] | None = None,
    imbalance_ratio: str | float | Sequence[float] | None = None,
    arch: str | Sequence[str] | None = None,
    recipe: str | Sequence[str] | None = None,
    methods: str | Sequence[str] | None = None,
    across: str | Sequence[str] | None = None,
    groups: str | None = None,
    output: PathLike | None = None,
) -> SuiteResults:
    """Rebuild the report of stored results, or merge and filter those of several directories.

    Args:
        directories: one or more suites' directories.
        dataset: only these; `imbalance_ratio`, `arch`, `recipe` and `methods` likewise.
        imbalance_ratio: see `dataset`.
        arch: see `dataset`.
        recipe: see `dataset`.
        methods: see `dataset`.
        across: what rows of one table may differ in: "recipe,arch,epochs", some of these, or "all".
        groups: how head, medium and tail are cut, as for `--groups`.
        output: where to write. Without it a single directory is rebuilt in place; several, a filter
            or `across` are written nowhere.

    Returns:
        The frames of the report, `metrics` and `leaderboard` among them.

    Raises:
        UserError: nothing to report, a damaged file, or a filter that matches nothing.
    """
    places = [directories] if isinstance(directories, str | Path) else list(directories)
    if not places:
        raise UserError("directories: give at least one suite's directory (results/<suite>)")
    filters = parse_filters(
        dataset=dataset, imbalance_ratio=imbalance_ratio, arch=arch, recipe=recipe, methods=methods
    )
    grouping = None if groups is None else parse_groups(groups)
    where = None if output is None else Path(output)
    results, _ = make_report(
        [Path(place) for place in places], filters, grouping, parse_across(across), where
    )
    return results


def _module(model: Any) -> nn.Module:
    """The module that is attacked; UserError for anything else."""
    if isinstance(model, TrainedModel):
        return model.model
    if not isinstance(model, nn.Module):
        raise UserError(f"model: must be a torch.nn.Module, got {type(model).__name__}")
    return model


def _normalized(model: nn.Module, normalize: str | None, images: Tensor) -> nn.Module:
    if normalize is None:
        return model
    return normalized(model, normalize, images.shape[1] if images.dim() == 4 else 1)


def _normalize_text(normalize: str | Sequence[float] | None) -> str | None:
    """Numbers as the command line takes them."""
    if normalize is None or isinstance(normalize, str):
        return normalize
    return ",".join(map(repr, _listed("normalize", normalize, float)))


_KINDS: dict[Callable[[Any], Any], str] = {str: "names", int: "whole numbers", float: "numbers"}


def _listed(name: str, values: Any, kind: Callable[[Any], T]) -> list[T]:
    """A list of values of one type; UserError for anything else."""
    try:
        found = list(values)
        right = not isinstance(values, str) and all(kind(one) == one for one in found)
    except (TypeError, ValueError, ArithmeticError, RuntimeError):
        right = False
    if not right:
        got = " ".join(repr(values).split())
        raise UserError(f"{name}: give a list of {_KINDS[kind]}, got {got:.60}")
    return [kind(one) for one in found]


def _check_model(model: nn.Module, test: TestSet, classes: int | None, device: torch.device) -> int:
    """Number of logits of a model that fits the test set; UserError for one that does not."""
    model = model.to(device).float()
    found = check_outputs(model, model_images(model, test.images[:2].to(device)), classes)
    if int(test.labels.max()) >= found:
        raise UserError(
            f"dataset: label {int(test.labels.max())} is out of range for a model of {found} logits"
        )
    return found


class Outcomes(pd.DataFrame):
    """Outcomes that lie in a table's `attrs`: whole frames of them are equal or not.

    pandas compares `attrs` as values when it joins tables, and a plain frame there makes
    `pd.concat` fail.
    """

    @property
    def _constructor(self) -> type[Outcomes]:
        return Outcomes

    def __eq__(self, other: object) -> Any:
        return self.equals(other) if isinstance(other, Outcomes) else super().__eq__(other)

    __hash__ = None


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
                **_numbers(frame, counts, evaluator.num_classes, result.taken.seconds),
            }
        )
        made.append(Evaluation(spec.name, spec.eps, spec.norm, frame))
    table = pd.DataFrame(rows)
    table.attrs["outcomes"] = Outcomes(pd.concat([e.frame for e in made], ignore_index=True))
    return table, made


def _numbers(
    frame: pd.DataFrame, counts: Sequence[int] | None, num_classes: int, seconds: float
) -> dict[str, float]:
    """All numbers of one attack; those that need training counts are nan without them."""
    known = [1] * num_classes if counts is None else counts
    numbers = {**summary(frame, known), "n": len(frame), "seconds": seconds}
    numbers["robust_gap"] = numbers["head"] - numbers["tail"]
    natural, right = digest_of(frame, num_classes).natural, int(frame["correct"].sum())
    numbers |= {**error_parts(natural, right, len(frame)), **intervals(frame, known)}
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
