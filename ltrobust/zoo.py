"""The model zoo: trained runs as models to take away, with a card each and half the bytes.

A run's weights may be kept as float16 where that changes no verdict. Nothing is trained here, no
number is made anew, and where the files lie is the store's business.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from ltrobust.api import evaluate, load
from ltrobust.bench.runner import STATE, model_facts
from ltrobust.bench.tensors import load_model
from ltrobust.config import Run
from ltrobust.errors import UserError
from ltrobust.evaluation.concerns import concerns
from ltrobust.report.cards import method_card
from ltrobust.report.marks import FLAG
from ltrobust.results.claims import claimed
from ltrobust.results.collect import JudgedRun, read_run
from ltrobust.results.frames import metrics_table
from ltrobust.results.store import RunStore, SuiteStore, suite_of
from ltrobust.training.checkpoint import to_bytes

CHECKED = "clean,pgd20"
"""The attacks whose verdicts are compared before weights are rounded."""
COLUMNS = ["attack", "n", "changed", "accuracy", "accuracy_rounded"]
Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Model:
    """A stored run that has weights.

    Attributes:
        path: the run's directory, for `ltrobust.load`.
        judged: the run with what was evaluated on it.
        run: what was trained.
        failure: why it could not go on, None where it could.
        numbers: rows of metrics.csv, one an attack.
        findings: reliability checks with their explanations.
        dtype: of the network's weights, such as "float16".
        size: bytes of the weights file.
        parameters: numbers that training learns.
        unchanged: of rounded weights, attack to the test images whose verdicts stayed.
    """

    path: Path
    judged: JudgedRun
    run: Run
    failure: str | None
    numbers: pd.DataFrame
    findings: dict[str, str]
    dtype: str
    size: int
    parameters: int
    unchanged: Mapping[str, int]

    @property
    def flagged(self) -> list[str]:
        """Names of flagged reliability checks, each once."""
        names = ";".join(self.numbers["reliability"].dropna()).split(";")
        return list(dict.fromkeys(name for name in names if name))

    @property
    def marks(self) -> list[str]:
        """What a reader must know before believing a number, in words."""
        found = []
        if self.run.select == "best-on-test":
            found.append("epoch chosen on the test set: it leaks")
        if self.failure is not None:
            found.append(f"run not finished ({self.failure})")
        if (self.numbers["reliability_report"] != "yes").any():
            found.append("reliability checks not made for every attack")
        return found + [f"{FLAG} {name}: {self.findings.get(name, '')}" for name in self.flagged]

    def row(self) -> dict[str, Any]:
        """The model in a list of them, JSON-ready; accuracies are fractions."""
        return {
            "run_id": self.judged.run_id,
            "path": str(self.path),
            "method": self.run.method,
            "dataset": self.run.data.name,
            "imbalance_ratio": self.judged.data.imbalance_ratio,
            "arch": self.run.arch,
            "parameters": self.parameters,
            "recipe": self.run.recipe_name,
            "epochs": self.run.recipe.epochs,
            "seed": self.run.seed,
            "weights": self.dtype,
            "megabytes": round(self.size / 1e6, 2),
            "numbers": [
                {
                    "attack": number["attack"],
                    "n": int(number["n"]),
                    "balanced_accuracy": float(number["balanced_accuracy"]),
                    "ci_low": float(number["ci_low"]),
                    "ci_high": float(number["ci_high"]),
                    "doubted": self.doubted(number["attack"]),
                }
                for number in self.numbers.to_dict("records")
            ],
            "marks": self.marks,
        }

    def doubted(self, attack: str) -> bool:
        """Whether a flagged check puts the number under an attack in doubt."""
        return any(concerns(check, attack) for check in self.flagged)


def list_models(directories: Sequence[Path]) -> list[Model]:
    """The runs with weights of result directories, which hold suites or are one.

    Raises:
        UserError: a directory is none, or holds no suite, or a file is damaged.
    """
    suites = [suite for directory in directories for suite in _suites(directory)]
    return [read_model(run) for suite in suites for run in suite.runs() if run.trained]


def _suites(directory: Path) -> list[SuiteStore]:
    if not directory.is_dir():
        raise UserError(f"{directory} is no directory; give one with results, such as results")
    candidates = [directory, *sorted(path for path in directory.iterdir() if path.is_dir())]
    found = [suite for suite in map(SuiteStore, candidates) if suite.runs()]
    if not found:
        raise UserError(
            f"{directory} holds no results of ltrobust bench; give results or results/<suite>"
        )
    return found


def read_model(run: RunStore) -> Model:
    """What is stored of a run that has weights.

    Raises:
        UserError: it has none, or a file is damaged.
    """
    weights, judged = load_model(run), read_run(run)
    if judged.run is None:
        raise UserError(f"{run.path} is a model that was trained elsewhere, which has no weights")
    report, rounded = run.reliability(), run.rounded()
    floats = {name: value for name, value in weights.items() if _is_rounded(name, value)}
    learned = sum(value.numel() for name, value in floats.items() if "running_" not in name)
    kinds = sorted({str(value.dtype).removeprefix("torch.") for value in floats.values()})
    return Model(
        run.path,
        judged,
        judged.run,
        run.failure,
        metrics_table([judged])[0],
        {} if report is None else {one.check: one.explanation for one in report.findings},
        dtype="/".join(kinds),
        size=len(to_bytes(weights)),
        parameters=learned if judged.trained is None else judged.trained.parameters,
        unchanged={} if rounded is None else rounded.unchanged,
    )


def _is_rounded(name: str, value: torch.Tensor) -> bool:
    """Whether a stored tensor is one of the network's real numbers; what a method keeps is not."""
    return value.is_floating_point() and not name.startswith(STATE)


def half(weights: Weights) -> Weights:
    """Weights with the network's real numbers as float16.

    Raises:
        UserError: one is too large for that.
    """
    rounded = {
        name: value.half() if _is_rounded(name, value) else value for name, value in weights.items()
    }
    for name, value in rounded.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise UserError(f"{name} is too large for float16; keep these weights as they are")
    return rounded


def rounded_verdicts(
    path: Path, attacks: str = CHECKED, *, device: str = "cpu", **settings: Any
) -> pd.DataFrame:
    """Compare the verdicts of a run's weights with those of the same weights as float16.

    Both are attacked here, on the same images with the same random numbers; computed is in float32.

    Args:
        path: the run's directory.
        attacks: names as for `evaluate`.
        device: where to compute.
        settings: of `load`, such as `data_dir` and `limit_test`.

    Returns:
        `COLUMNS`, one row an attack: test images, how many verdicts changed, and the accuracies,
        fractions.
    """
    whole = load(path, device=device, **settings)
    rounded = copy.deepcopy(whole.model)
    rounded.net.load_state_dict(half(rounded.net.state_dict()))
    one, other = (
        evaluate(model, whole.data, attacks, device=device, no_checks=True)
        for model in (whole.model, rounded)
    )
    outcomes = [table.attrs["outcomes"].set_index(["attack", "index"]) for table in (one, other)]
    differs = outcomes[0]["correct"] != outcomes[1]["correct"].reindex(outcomes[0].index)
    changed = differs.groupby(level="attack").sum()
    both = one[["attack", "n", "accuracy"]].assign(accuracy_rounded=other["accuracy"])
    return both.assign(changed=both["attack"].map(changed))[COLUMNS]


def keep_half(path: Path, attacks: str = CHECKED, **settings: Any) -> pd.DataFrame:
    """Store a run's weights as float16, if that changes no verdict; return what was compared.

    Args:
        path: the run's directory.
        attacks: as for `rounded_verdicts`, like all further settings.

    Raises:
        UserError: a verdict changes; the weights are kept as they are.
    """
    suite, run = suite_of(path)
    found = rounded_verdicts(path, attacks, **settings)
    wrong = found[found["changed"] > 0]
    if len(wrong):
        first = wrong.iloc[0]
        raise UserError(
            f"{path}: as float16 {first['changed']} of {first['n']} verdicts under "
            f"{first['attack']} change; the weights are kept as they are"
        )
    config = run.begun_record().run
    if not isinstance(config, Run):
        raise UserError(f"{path} is a model that was trained elsewhere, which has no weights")
    with claimed(suite.claims, run.run_id):
        facts = model_facts(config, load(path, **settings).data)
        compared = dict(zip(found["attack"], found["n"].astype(int), strict=True))
        run.round(to_bytes(half(load_model(run)), facts), compared)
    return found


def model_card(path: Path) -> str:
    """A model card, markdown, from what is stored of a run.

    Raises:
        UserError: it is no run directory, has no weights, or a file is damaged.
    """
    model = read_model(suite_of(path)[1])
    return "\n".join(
        [
            *_head(model),
            *_how_trained(model),
            *_numbers(model),
            *_to_know(model),
            "## Use",
            "",
            "```python",
            "import ltrobust",
            "",
            f'model = ltrobust.load("{path}")  # images (B, C, H, W) in [0, 1] to logits',
            "```",
            "",
        ]
    )


def _head(model: Model) -> list[str]:
    run, data = model.run, model.judged.data
    card = method_card(run.method)
    shape = " x ".join(str(size) for size in data.image_shape)
    return [
        f"# {model.judged.run_id}",
        "",
        f"{run.method}: {card.title} {card.paper} {card.url}".rstrip()
        if card
        else f"{run.method}: not one of ltrobust's own methods.",
        "",
        f"- data: {run.data.name}, imbalance ratio {data.imbalance_ratio:g}, "
        f"{sum(data.train_counts):,} training images, images {shape}",
        f"- split: seed {run.data.split_seed}, SHA-256 {data.split_sha256}",
        f"- network: {run.arch}, {model.parameters:,} parameters",
        f"- weights: {model.dtype}, {model.size / 1e6:.2f} MB (safetensors)",
        "",
    ]


def _how_trained(model: Model) -> list[str]:
    run, trained, origin = model.run, model.judged.trained, model.judged.provenance
    recipe, attack = run.recipe, run.recipe.attack
    options = ", ".join(f"{key}={value}" for key, value in run.options.items()) or "none"
    base = trained.base.run_id if trained is not None and trained.base is not None else ""
    seconds = trained.train_seconds if trained is not None else None
    busy = trained.train_cpu_seconds if trained is not None else None
    took = f"{seconds or 0:,.0f} s" + (f" ({busy:,.0f} s of CPU time)" if busy is not None else "")
    same = ", ".join(f"{attack} (n = {n:,})" for attack, n in model.unchanged.items())
    return [
        "## Training",
        "",
        *([f"- acts on the trained run {base}"] if base else []),
        f"- recipe: {run.recipe_name}, {recipe.epochs} epochs, batch size {recipe.batch_size}, "
        f"learning rate {recipe.lr:g}, weight decay {recipe.weight_decay:g}, augmentation "
        f"{recipe.augment}",
        f"- attack: {attack.steps} steps of {attack.step_size:.4g} within {attack.eps:.4g}, start "
        f"{attack.start}",
        f"- options: {options}",
        f"- seed {run.seed}, {run.precision}, epoch chosen: {run.select} "
        f"({trained.checkpoint if trained is not None else 'unknown'})",
        *([f"- weights rounded to float16: no verdict changed under {same}"] if same else []),
        f"- on {origin.device_name} in {took}, ltrobust {origin.versions.ltrobust} "
        f"at {origin.git_commit or 'unknown'}, torch {origin.versions.torch}",
        "",
    ]


def _numbers(model: Model) -> list[str]:
    lines = [
        "## Numbers",
        "",
        "Percent, with 95% intervals over the test images; one training run.",
        "",
        "| attack | eps | test | n | accuracy | balanced | head | medium | tail |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in model.numbers.to_dict("records"):
        sign = FLAG if model.doubted(row["attack"]) else ""
        cells = [
            f"{row['attack']}{sign}",
            f"{row['eps']:.4g}",
            str(row["test_protocol"]),
            f"{row['n']:,}",
            _percent(row["accuracy"], row["acc_ci_low"], row["acc_ci_high"]),
            _percent(row["balanced_accuracy"], row["ci_low"], row["ci_high"]),
            *(_percent(row[group]) for group in ("head", "medium", "tail")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _percent(value: float, low: float | None = None, high: float | None = None) -> str:
    if pd.isna(value):
        return "-"
    interval = "" if low is None or high is None else f" [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{100 * value:.1f}{interval}"


def _to_know(model: Model) -> list[str]:
    card = method_card(model.run.method)
    quirks = card.quirks if card and model.run.recipe_name == "paper" else ()
    told = [*model.marks, *(f"as in the released code: {quirk}" for quirk in quirks)]
    return ["## Marks", "", *(f"- {mark}" for mark in told or ["none"]), ""]
