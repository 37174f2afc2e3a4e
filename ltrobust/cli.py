"""The command line: parse, call one function, print. No logic lives here.

Exit codes: 0 done, 1 some run failed and the rest is done, 2 bad input (one line on stderr), 130
stopped with Ctrl-C (the same command resumes).
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer
from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from ltrobust.errors import Notice, RunError, UserError, unknown
from ltrobust.output import guard_streams

if TYPE_CHECKING:
    from ltrobust.bench.doing import Doing
    from ltrobust.bench.listing import Listed
    from ltrobust.bench.plan import Plan, PlannedRun
    from ltrobust.bench.reports import SuiteResults
    from ltrobust.papers.reproduce import Job
    from ltrobust.results.pairs import Comparison
    from ltrobust.results.store import RunStore, SuiteStore
    from ltrobust.trackers import Mirror

app = typer.Typer(
    name="ltrobust",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train, attack and compare adversarial defenses on long-tailed data.\n\n"
    "Start with: [bold]ltrobust bench --methods core --dataset digits-lt[/bold]",
)


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version as installed

        print(f"ltrobust {installed('ltrobust')}")
        raise typer.Exit


@app.callback()
def _before(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version and stop.",
            callback=_show_version,
            is_eager=True,
            show_default=False,
        ),
    ] = False,
) -> None:
    """Hold the flags that stand before a command."""


# typer carries its own click since 0.26 and exports only the leaves of its errors
CLICK_ERROR: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")
STOPPED = 130


def _console(**kind: Any) -> Console:
    """A console; what is no terminal has lines as long as they are, unless COLUMNS says so."""
    console = Console(**kind)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 10_000
    return console


out = _console()
err = _console(stderr=True)

# One definition per flag; the names are also the keys of a suite file (with underscores).
DATA, TRAINING, EVALUATION, RUNNING = "Data", "Training", "Evaluation", "Running"


def _flag(text: str, *names: str, panel: str, **extra: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel, show_default=False, **extra)


Dataset = Annotated[
    str | None,
    _flag(
        "digits-lt (default), cifar10-lt, dermamnist, ... (see ltrobust datasets), folder:PATH or "
        "hf:PATH; @64 resizes.",
        "--dataset",
        panel=DATA,
    ),
]
Ratio = Annotated[
    list[str] | None,
    _flag(
        "n_max / n_min of the training set, such as 50 or 10,50, or natural; repeatable.",
        "--imbalance-ratio",
        panel=DATA,
    ),
]
ImbalanceType = Annotated[str | None, _flag("exp (default) or step.", panel=DATA)]
SplitSeed = Annotated[int | None, _flag("Which images are kept; default 0, RoBal's.", panel=DATA)]
LimitTrain = Annotated[int | None, _flag("About this many training images.", panel=DATA)]
LimitTest = Annotated[int | None, _flag("About this many test images.", panel=DATA)]
Protocol = Annotated[str | None, _flag("balanced (default) or long-tailed.", panel=DATA)]
DataDir = Annotated[
    Path | None, _flag("Where the data is; default $LTROBUST_DATA_DIR, then ./data.", panel=DATA)
]
Download = Annotated[
    bool | None, _flag("Fetch missing data.", "--download/--no-download", panel=DATA)
]
Arch = Annotated[
    str | None,
    _flag(
        "small-cnn, resnet18, preactresnet18, wrn-28-10 (or other numbers), resnet50-224, "
        "torchvision:NAME or timm:NAME; parameters such as resnet18:width=16:depth=10 and "
        "torchvision:resnet50:stem=cifar (3x3 stem for small images).",
        panel=TRAINING,
    ),
]
RecipeName = Annotated[str | None, _flag("unified (default), fast or paper.", panel=TRAINING)]
Augment = Annotated[
    str | None, _flag("none (default; crop and flip), randaugment or autoaugment.", panel=TRAINING)
]
Select = Annotated[
    str | None,
    _flag(
        "last (default), best (held-out images), val (options too) or best-on-test (leaks).",
        panel=TRAINING,
    ),
]
Seeds = Annotated[
    list[str] | None,
    _flag("Seed values, such as 0,1,2 or 0-4; repeatable; default 0.", "--seeds", panel=TRAINING),
]
Epochs = Annotated[int | None, _flag("Training epochs.", panel=TRAINING)]
BatchSize = Annotated[int | None, _flag("Training batch.", panel=TRAINING)]
Precision = Annotated[str | None, _flag("auto (default), fp32 or bf16.", panel=TRAINING)]
Option = Annotated[
    list[str] | None,
    _flag(
        "An option of a method or a value of the recipe, such as taet.count_absent=true or "
        "recipe.lr=0.05; repeatable.",
        "--option",
        panel=TRAINING,
    ),
]
Plugin = Annotated[
    list[Path] | None,
    _flag(
        "A Python file with a method, attack, network, data set or metric of yours; repeatable.",
        panel=TRAINING,
    ),
]
Attacks = Annotated[
    list[str] | None,
    _flag(
        "clean, fgsm, noise, pgdN, cwN, mimN, lsaN, dlrN, tpgdN (all targets), autoattack, "
        "aa-apgd, aa-rand; endings xR (R restarts), -l2, @EPS. Repeatable; default "
        "clean,pgd20,autoattack.",
        "--attacks",
        panel=EVALUATION,
    ),
]
AttackSeed = Annotated[
    int | None, _flag("Seed of the attacks' random numbers; default 0.", panel=EVALUATION)
]
Search = Annotated[
    str | None,
    _flag(
        "Look for adversarial images in fp32 (default) or, faster, bf16; verdicts stay fp32.",
        panel=EVALUATION,
    ),
]
Eps = Annotated[
    str | None,
    _flag("L-inf radius of all attacks in [0, 1] units, such as 8/255.", panel=EVALUATION),
]
Device = Annotated[str | None, _flag("auto (default), cpu, cuda or cuda:N.", panel=RUNNING)]
Threads = Annotated[
    int | None,
    _flag(
        "CPU threads to compute with; default torch's choice, for a stopped run those it began "
        "with. Other numbers, other last bits.",
        panel=RUNNING,
    ),
]
GradCheckpointing = Annotated[
    bool | None,
    _flag(
        "Save memory: compute activations again in backward passes; same results.",
        "--grad-checkpointing/--no-grad-checkpointing",
        panel=RUNNING,
    ),
]
MicroBatch = Annotated[
    int | None,
    _flag(
        "Save memory: training attacks on so many images at a time; same results.", panel=RUNNING
    ),
]
DevicesPerRun = Annotated[
    int | None,
    _flag(
        "Share out the attacks of each run among so many GPUs (on a CPU: processes); same results.",
        "--devices-per-run",
        panel=RUNNING,
    ),
]
ProfileFlag = Annotated[
    bool | None,
    _flag(
        "Measure where the time goes, into profile.json.", "--profile/--no-profile", panel=RUNNING
    ),
]
Watch = Annotated[
    str | None,
    _flag(
        "Measure the test set by these attacks, such as pgd20, after some epochs: a curve to look "
        "at, by which nothing is chosen.",
        panel=TRAINING,
    ),
]
WatchEvery = Annotated[int | None, _flag("After how many epochs; default 5.", panel=TRAINING)]
SaveEvery = Annotated[
    float | None,
    _flag(
        "Seconds of training that a kill may cost; default 30, on a cluster 300; 0 for none.",
        panel=RUNNING,
    ),
]
LauncherName = Annotated[
    str | None,
    _flag(
        "Where runs are done: local (default with several CUDA devices or --jobs), slurm or ray.",
        "--launcher",
        panel=RUNNING,
    ),
]
Jobs = Annotated[
    int | None,
    _flag(
        "Runs at once on this machine, each with a CUDA device or an equal share of the cores; "
        "default one a CUDA device.",
        panel=RUNNING,
    ),
]
AtOnce = Annotated[int | None, _flag("Runs at once on a cluster.", panel=RUNNING)]
Detach = Annotated[
    bool | None,
    _flag(
        "With slurm: submit and leave; the same command attaches.",
        "--detach/--no-detach",
        panel=RUNNING,
    ),
]
Slurm = Annotated[
    list[str] | None,
    _flag(
        "Passed to sbatch, such as partition=gpu or time=12:00:00; repeatable.",
        "--slurm",
        panel=RUNNING,
    ),
]
NoCapture = Annotated[
    bool | None,
    _flag(
        "On CUDA: take training steps one by one instead of recording and repeating one.",
        "--no-capture/--capture",
        panel=RUNNING,
    ),
]
NoEstimate = Annotated[
    bool | None,
    _flag("Begin at once, without time and memory.", "--no-estimate/--estimate", panel=RUNNING),
]
NoReport = Annotated[
    bool | None,
    _flag(
        "Make no tables and figures; `ltrobust report` does later.",
        "--no-report/--report",
        panel=RUNNING,
    ),
]
NoChecks = Annotated[
    bool | None,
    _flag(
        "Leave out the reliability checks; tables then say so.",
        "--no-checks/--checks",
        panel=EVALUATION,
    ),
]
Output = Annotated[Path | None, _flag("The suite's directory.", panel=RUNNING)]
Track = Annotated[
    str | None,
    _flag(
        "Show the runs while they come in tensorboard, mlflow or wandb (a list of these).",
        "--track",
        panel=RUNNING,
    ),
]
Overwrite = Annotated[
    str | None, _flag("Redo: never, failed (default) or all runs.", panel=RUNNING)
]
SuiteFile = Annotated[
    Path | None, _flag("YAML file whose keys are these flags; flags win.", panel=RUNNING)
]
DryRun = Annotated[bool, _flag("Print the plan and stop.", "--dry-run", panel=RUNNING)]
Groups = Annotated[
    str | None,
    _flag(
        "Head, medium and tail: their sizes (3,4,3), or head above and tail below so many training "
        "images (100/20); default thirds.",
        "--groups",
        panel=EVALUATION,
    ),
]
Json = Annotated[bool, _flag("Machine-readable output.", "--json", panel=RUNNING)]
Debug = Annotated[bool, _flag("Show tracebacks.", "--debug", panel=RUNNING)]


@app.command(
    epilog="Examples:\n\n  ltrobust bench --methods core --dataset digits-lt\n\n"
    "  ltrobust bench --methods at-bsl,taet --dataset cifar10-lt --seeds 0,1,2 --device cuda\n\n"
    "  ltrobust bench --suite cifar10-lt-cpu --data-dir ~/data --dry-run"
)
def bench(
    methods: Annotated[
        list[str] | None,
        _flag(
            "Names such as pgd-at,trades+awp, or a set: core (default), all, "
            "long-tail, baselines, tricks; repeatable.",
            "--methods",
            panel=TRAINING,
        ),
    ] = None,
    dataset: Dataset = None,
    imbalance_ratio: Ratio = None,
    imbalance_type: ImbalanceType = None,
    split_seed: SplitSeed = None,
    limit_train: LimitTrain = None,
    limit_test: LimitTest = None,
    test_protocol: Protocol = None,
    data_dir: DataDir = None,
    download: Download = None,
    arch: Arch = None,
    recipe: RecipeName = None,
    augment: Augment = None,
    select: Select = None,
    seeds: Seeds = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    precision: Precision = None,
    option: Option = None,
    plugin: Plugin = None,
    attacks: Attacks = None,
    attack_seed: AttackSeed = None,
    search: Search = None,
    eps: Eps = None,
    no_checks: NoChecks = None,
    device: Device = None,
    threads: Threads = None,
    grad_checkpointing: GradCheckpointing = None,
    micro_batch: MicroBatch = None,
    devices_per_run: DevicesPerRun = None,
    profile: ProfileFlag = None,
    watch: Watch = None,
    watch_every: WatchEvery = None,
    save_every: SaveEvery = None,
    no_capture: NoCapture = None,
    no_estimate: NoEstimate = None,
    no_report: NoReport = None,
    output: Output = None,
    overwrite: Overwrite = None,
    suite: SuiteFile = None,
    launcher: LauncherName = None,
    jobs: Jobs = None,
    at_once: AtOnce = None,
    detach: Detach = None,
    slurm: Slurm = None,
    track: Track = None,
    dry_run: DryRun = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Train, attack and compare defenses: tables, leaderboard and figures from raw data."""
    flags = {k: v for k, v in locals().items() if k not in _OWN}
    if json_output and not dry_run:
        raise UserError("--json goes with --dry-run; the results of a bench are its CSV files")
    _bench(flags, suite, track, dry_run=dry_run, json_output=json_output)


_OWN = {"suite", "track", "dry_run", "json_output", "debug", "method"}
_OWN |= {"run_directory", "checkpoint"}
_OF_EVALUATE = {"checkpoint_key", "model", "model_args", "name", "normalize", "seed", "precision"}


@app.command(
    epilog="Examples:\n\n  ltrobust train at-bsl --dataset digits-lt\n\n"
    "  ltrobust train mine --plugin my_method.py --epochs 5"
)
def train(
    method: Annotated[str, typer.Argument(help="The method, such as at-bsl.")],
    dataset: Dataset = None,
    imbalance_ratio: Ratio = None,
    imbalance_type: ImbalanceType = None,
    split_seed: SplitSeed = None,
    limit_train: LimitTrain = None,
    data_dir: DataDir = None,
    download: Download = None,
    arch: Arch = None,
    recipe: RecipeName = None,
    augment: Augment = None,
    select: Select = None,
    seeds: Seeds = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    precision: Precision = None,
    option: Option = None,
    plugin: Plugin = None,
    eps: Eps = None,
    device: Device = None,
    threads: Threads = None,
    grad_checkpointing: GradCheckpointing = None,
    micro_batch: MicroBatch = None,
    devices_per_run: DevicesPerRun = None,
    profile: ProfileFlag = None,
    watch: Watch = None,
    watch_every: WatchEvery = None,
    save_every: SaveEvery = None,
    no_capture: NoCapture = None,
    no_estimate: NoEstimate = None,
    no_report: NoReport = None,
    output: Output = None,
    overwrite: Overwrite = None,
    suite: SuiteFile = None,
    track: Track = None,
    debug: Debug = False,
) -> None:
    """Train one defense and evaluate it on clean images only."""
    flags = {k: v for k, v in locals().items() if k not in _OWN}
    _bench({**flags, "methods": method, "attacks": "clean"}, suite, track)


def _bench(
    flags: dict[str, Any],
    suite: Path | None,
    track: str | None = None,
    *,
    dry_run: bool = False,
    json_output: bool = False,
) -> None:
    from ltrobust.bench.doing import how_to_do, preview
    from ltrobust.bench.plan import make_grid
    from ltrobust.bench.settings import make_cells
    from ltrobust.results.store import SuiteStore

    cells = make_cells(flags, suite)
    plan, store = make_grid(cells), SuiteStore(cells[0].output_dir)
    doing = how_to_do(plan, store)
    if dry_run:
        _show_plan(plan, store, json_output)
        text = "" if json_output else preview(doing, store)
        if text:
            out.print(text, markup=False, highlight=False, soft_wrap=True)
        return
    mirror = None if track is None else _mirror(track, store, plan)
    try:
        _execute(doing, store, mirror)
    finally:
        if mirror is not None:
            mirror.close()


def _mirror(track: str, store: SuiteStore, plan: Plan) -> Mirror:
    from ltrobust.trackers import Mirror, open_trackers

    only = {planned.run.run_id for planned in plan.runs}
    return Mirror(store.path, open_trackers(track.split(","), store.path), only)


def _execute(doing: Doing, store: SuiteStore, mirror: Mirror | None = None) -> None:
    from ltrobust.bench.estimate import (
        estimate,
        loaded_training_set,
        memory_needs,
        memory_warning,
    )
    from ltrobust.bench.loader import Loader, tell
    from ltrobust.bench.tuning import run_tuned
    from ltrobust.progress import Reporter, in_words

    plan, load = doing.plan, Loader(doing.plan)
    watch = None if mirror is None else mirror.sync
    unasked = plan.settings.no_estimate or doing.remote
    # reads all data: what is wrong with it shows here
    expected = None if unasked else estimate(plan, store, load)
    store.prepare()
    with Reporter(out, watch=watch) as reporter:
        about = f", about {in_words(expected.seconds / doing.at_once)}" if expected else ""
        reporter.line(
            f"{len(plan.runs)} run{'s' if len(plan.runs) != 1 else ''} on {plan.device}"
            f"{doing.words()}{about}; results in {store.path}"
        )
        if expected:
            tell(load.notes(), reporter)
        if expected and expected.warning:
            reporter.line(f"warning: {expected.warning}")
        if expected and plan.device != "cpu":
            needs = memory_needs(plan, lambda planned: loaded_training_set(load(planned)))
            tight = memory_warning(plan, needs)
            if tight:
                reporter.line(f"warning: {tight}")
        try:
            with doing.runner(store, load, reporter) as run:
                failures = run_tuned(plan, store, run, reporter)
        except KeyboardInterrupt:
            if plan.settings.overwrite != "all":
                raise
            reporter.pause()
            text = "stopped; the same command goes on from here without --overwrite all"
            err.print(f"{text}, and starts again with it", soft_wrap=True)
            raise SystemExit(STOPPED) from None
        reporter.pause()
        try:
            if not (plan.settings.no_report or plan.settings.detach):
                _show_report(store)
            if plan.settings.profile and not plan.settings.detach:
                _show_profile(plan, store)
        finally:  # told even where the report cannot be written
            for one in failures:
                err.print(f"failed: {one.run_id}: {one.reason}", soft_wrap=True, markup=False)
    if failures:
        raise typer.Exit(1)


def _show_profile(plan: Plan, store: SuiteStore) -> None:
    """Print where the time of the plan's runs went, of those that have been profiled."""
    from ltrobust.bench.profiles import COLUMNS, profile_rows

    rows = profile_rows(plan, store)
    if not rows:
        out.print("no profile: every run was done before")
    title = "where the time went (training: share of the measured epochs)"
    _print_rows(title, COLUMNS, rows)


def _show_plan(plan: Plan, store: SuiteStore, json_output: bool) -> None:
    from ltrobust.bench.cells import cell_rows
    from ltrobust.bench.estimate import gigabytes, memory_needs, memory_warning, training_set
    from ltrobust.bench.plan import cached
    from ltrobust.bench.runner import describe

    states = cached(plan, store)
    needs = memory_needs(plan, lambda planned: training_set(planned.run.data))
    memory = {run_id: need.bytes() for run_id, need in needs.items()}
    warning = memory_warning(plan, needs)
    if warning:
        err.print(f"warning: {warning}", soft_wrap=True, markup=False, highlight=False)
    if json_output:
        runs = [
            {
                "run_id": planned.run.run_id,
                "base": planned.base,
                "state": states[planned.run.run_id],
                "config": planned.run.model_dump(mode="json"),
                "attacks": {k: v.model_dump(mode="json") for k, v in planned.attack_ids().items()},
                "tests": [
                    {**part.test.model_dump(mode="json"), "attacks": [*part.attack_ids()]}
                    for part in planned.parts
                ],
                "memory_bytes": memory.get(planned.run.run_id),
            }
            for planned in plan.runs
        ]
        content = {"output": str(store.path), "device": plan.device, "runs": runs}
        print(json.dumps(content, indent=2))
        return
    cells = cell_rows(plan, store)  # before anything is printed: a network may not fit
    rows = []
    for planned in plan.runs:
        run_id = planned.run.run_id
        names = "; ".join(map(_attacks_of, planned.parts))
        room = gigabytes(memory[run_id]) if run_id in memory else "-"
        after = "" if planned.base is None else f"; acts on {planned.base}"
        what = f"{describe(planned.run)}{after}"
        rows.append((run_id, what, names, room, states[run_id]))
    columns = ("run", "what", "attacks", "GPU memory", "state")
    _print_rows(f"plan for {store.path} on {plan.device}", columns, rows)
    _show_cells(*cells)


def _attacks_of(part: PlannedRun) -> str:
    names = ",".join(spec.title for spec in part.attacks)
    kind = "" if part.test.protocol == "balanced" else f"{part.test.protocol} "
    if part.test.limit:
        return f"{names} on about {part.test.limit:,} {kind}images"
    return f"{names} on {kind}images" if kind else names


def _show_cells(rows: list[list[str]], seconds: float, unread: list[str]) -> None:
    """Print what each cell of a grid needs, and the time of all."""
    from ltrobust.bench.cells import time_in_words

    columns = ("dataset", "ratio", "arch", "recipe", "epochs", "options", "runs", "time")
    shown = [
        place
        for place, column in enumerate(columns)
        if column not in ("recipe", "epochs") or len({row[place] for row in rows}) > 1
    ]
    rows = [[row[place] for place in shown] for row in rows]
    _print_rows("cells", [columns[place] for place in shown], rows)
    out.print(time_in_words(seconds, unread), highlight=False, soft_wrap=True)


SuiteDirectory = Annotated[
    Path, typer.Argument(metavar="DIRECTORY", help="A suite's directory, results/<suite>.")
]


@app.command(hidden=True, epilog="Example:\n\n  ltrobust work results/demo at-bsl-0123456789ab")
def work(
    directory: SuiteDirectory,
    run_id: Annotated[str, typer.Argument(help="A run of its plan.json.")],
    plan: Annotated[
        Path | None, _flag("The plan, where another than plan.json.", panel=RUNNING)
    ] = None,
    debug: Debug = False,
) -> None:
    """Do one planned run: what launchers start. Exit: 0 done, 1 failed, 69 no device, 75 held."""
    from ltrobust.bench.work import work as do
    from ltrobust.progress import Reporter

    with Reporter(out) as reporter:
        code = do(directory, run_id, reporter, plan)
    raise typer.Exit(code)


@app.command(
    epilog="Examples:\n\n  ltrobust status results/cifar10-lt\n\n"
    "  ltrobust status results/cifar10-lt --json"
)
def status(directory: SuiteDirectory, json_output: Json = False, debug: Debug = False) -> None:
    """Tell how far each planned run is: waiting, running, lost, failed or done."""
    from ltrobust.bench.plan_file import read_plan
    from ltrobust.bench.standing import counted, standings
    from ltrobust.results.store import SuiteStore

    suite = SuiteStore(directory)
    found = standings(read_plan(suite), suite)
    if json_output:
        print(json.dumps([one.row() for one in found], indent=2))
        return
    rows = [(one.run_id, one.state, one.told()) for one in found]
    _print_rows(f"{directory}: {counted(found)}", ("run", "state", "how far"), rows)


@app.command(
    epilog="Examples:\n\n  ltrobust runs results/cifar10-lt --state failed,lost\n\n"
    "  ltrobust runs results/cifar10-lt --methods trades --seeds 3 --remove"
)
def runs(
    directory: SuiteDirectory,
    dataset: Annotated[str | None, _flag("Only these data sets; a,b.", panel=DATA)] = None,
    imbalance_ratio: Annotated[
        str | None, _flag("Only these imbalance ratios.", panel=DATA)
    ] = None,
    arch: Annotated[str | None, _flag("Only these architectures.", panel=TRAINING)] = None,
    recipe: Annotated[str | None, _flag("Only these recipes.", panel=TRAINING)] = None,
    methods: Annotated[str | None, _flag("Only these methods.", panel=TRAINING)] = None,
    seeds: Seeds = None,
    state: Annotated[
        str | None,
        _flag("Only running, waiting, lost, failed or done ones; a,b.", panel=RUNNING),
    ] = None,
    remove: Annotated[
        bool, _flag("Remove the runs that are listed.", "--remove", panel=RUNNING)
    ] = False,
    yes: Annotated[bool, _flag("Do not ask before.", "--yes", panel=RUNNING)] = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """List the runs of a suite's directory, filter them, remove them."""
    from ltrobust.bench.listing import listed_runs
    from ltrobust.bench.settings import make_settings
    from ltrobust.results.filters import parse_filters
    from ltrobust.results.store import SuiteStore

    filters = parse_filters(
        dataset=dataset,
        imbalance_ratio=imbalance_ratio,
        arch=arch,
        recipe=recipe,
        methods=methods,
    )
    states = [] if state is None else [item.strip() for item in state.split(",")]
    chosen_seeds = () if seeds is None else make_settings({"seeds": seeds}).seeds
    found = listed_runs(SuiteStore(directory), filters, states, chosen_seeds)
    if json_output and remove:
        raise UserError("--json lists and --remove removes; give one of them")
    if json_output:
        print(json.dumps([one.row() for one in found], indent=2))
        return
    if not found:
        out.print("no such run", highlight=False)
        return
    _show_runs(found, directory)
    if remove:
        _remove(found, directory, yes=yes)


def _show_runs(found: list[Listed], directory: Path) -> None:
    total = sum(one.bytes for one in found)
    rows = []
    for one in found:
        facts = (one.run_id, one.dataset, one.ratio(), one.arch, one.recipe)
        seed = "-" if one.seed is None else str(one.seed)
        rows.append((*facts, seed, one.state, str(one.attacks), f"{one.bytes / 1e6:.1f}"))
    columns = ("run", "dataset", "ratio", "arch", "recipe", "seed", "state", "attacks", "MB")
    _print_rows(f"{directory}: {len(found)} runs, {total / 1e6:.1f} MB", columns, rows)


def _remove(found: list[Listed], directory: Path, *, yes: bool) -> None:
    """Remove runs, once that is confirmed."""
    from ltrobust.bench.listing import remove_runs
    from ltrobust.results.store import SuiteStore

    many = f"{len(found)} run{'s' if len(found) != 1 else ''}"
    if not yes:
        if not sys.stdin.isatty():
            raise UserError(f"--remove would remove the {many} above for good; add --yes to do it")
        if not typer.confirm(f"Remove the {many} above for good?"):
            return
    removed, held = remove_runs(found, SuiteStore(directory))
    for line in held:
        err.print(f"{line}; not removed", soft_wrap=True, markup=False, highlight=False)
    done = f"removed: {len(removed)}; `ltrobust report {directory}` makes the tables without them"
    out.print(done, soft_wrap=True, markup=False, highlight=False)
    if held:
        raise typer.Exit(1)


@app.command(
    epilog="Examples:\n\n  ltrobust evaluate results/digits-lt/runs/at-bsl-0123456789ab "
    "--attacks pgd100,cw20\n\n  ltrobust evaluate --checkpoint model.pt --arch resnet18 "
    "--dataset cifar10-lt\n\n  ltrobust evaluate --model my_models:robust_net "
    "--normalize cifar10 --dataset cifar10-lt"
)
def evaluate(
    run_directory: Annotated[
        Path | None,
        typer.Argument(
            help="A run's directory: results/<suite>/runs/<run_id>. If its image folder has moved: "
            "--dataset folder:PATH."
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None, _flag("A state dict of anybody's, with --arch.", panel=EVALUATION)
    ] = None,
    checkpoint_key: Annotated[
        str | None,
        _flag("Which network of a file with several, as state_dict_ema.", panel=EVALUATION),
    ] = None,
    method: Annotated[
        str | None,
        _flag("The defense whose head the checkpoint has; default linear.", panel=EVALUATION),
    ] = None,
    model: Annotated[
        str | None,
        _flag(
            "module:name or file.py:name of a torch.nn.Module of anybody's, or of a callable that "
            "returns one.",
            panel=EVALUATION,
        ),
    ] = None,
    model_args: Annotated[
        list[str] | None,
        _flag("Arguments of that callable, such as depth=28; repeatable.", panel=EVALUATION),
    ] = None,
    normalize: Annotated[
        str | None,
        _flag(
            "What the model expects: cifar10, cifar100, imagenet, or mean,std; default images in "
            "[0, 1].",
            panel=EVALUATION,
        ),
    ] = None,
    name: Annotated[
        str | None,
        _flag("What tables call it; default the file's or callable's name.", panel=EVALUATION),
    ] = None,
    arch: Arch = None,
    dataset: Dataset = None,
    imbalance_ratio: Ratio = None,
    imbalance_type: ImbalanceType = None,
    split_seed: SplitSeed = None,
    limit_test: LimitTest = None,
    test_protocol: Protocol = None,
    data_dir: DataDir = None,
    download: Download = None,
    plugin: Plugin = None,
    attacks: Attacks = None,
    seed: Annotated[
        int | None, _flag("Seed of the attacks' random numbers; default 0.", panel=EVALUATION)
    ] = None,
    precision: Annotated[
        str | None,
        _flag(
            "Look for adversarial images in fp32 (default) or, faster, bf16; verdicts stay fp32.",
            panel=EVALUATION,
        ),
    ] = None,
    eps: Eps = None,
    no_checks: NoChecks = None,
    device: Device = None,
    threads: Threads = None,
    devices_per_run: DevicesPerRun = None,
    output: Output = None,
    debug: Debug = False,
) -> None:
    """Attack a trained run again, or a model of anybody's: a checkpoint file or a callable."""
    flags = {k: v for k, v in locals().items() if k not in _OWN | _OF_EVALUATE}
    if precision not in (None, "auto", "fp32", "bf16"):
        raise unknown("precision", precision, ["auto", "fp32", "bf16"])
    search = None if precision == "auto" else precision
    flags |= {"methods": method, "attack_seed": seed, "search": search}
    _evaluate(run_directory, checkpoint, checkpoint_key, model, model_args, normalize, name, flags)


def _evaluate(
    directory: Path | None,
    file: Path | None,
    key: str | None,
    model: str | None,
    arguments: list[str] | None,
    normalize: str | None,
    name: str | None,
    flags: dict[str, Any],
) -> None:
    from ltrobust.bench.external import evaluate_callable, evaluate_checkpoint, evaluate_run_again
    from ltrobust.bench.settings import make_settings
    from ltrobust.progress import Reporter
    from ltrobust.results.store import SuiteStore, suite_of

    if sum(given is not None for given in (directory, file, model)) != 1:
        raise UserError(
            "give one of: a run directory, --checkpoint FILE with --arch, --model module:callable"
        )
    if key is not None and file is None:
        raise UserError("--checkpoint-key goes with --checkpoint")
    if arguments and model is None:
        raise UserError("--model-args goes with --model")
    settings = make_settings(flags)
    if directory is None and settings.devices_per_run > 1:
        raise UserError("--devices-per-run: only for runs of ours; a model of others' is not sent")
    if directory is not None:
        fixed = ("methods", "arch", "imbalance_ratio", "imbalance_type", "split_seed")
        for setting in (*fixed, "output"):
            if flags[setting] is not None:
                flag = "method" if setting == "methods" else setting.replace("_", "-")
                raise UserError(f"--{flag}: a run directory already says it; leave it out")
        suite, run = suite_of(directory)
        if normalize is not None:
            raise UserError("--normalize: a run of ours takes images in [0, 1]; leave it out")
        if name is not None:
            raise UserError("--name: a run of ours is called after its method; leave it out")
        suite.prepare()
        with Reporter(out) as reporter:
            evaluate_run_again(run, settings, reporter)
    else:
        suite = SuiteStore(settings.output or settings.output_dir.with_name("external"))
        with Reporter(out) as reporter:
            if file is not None:
                run = evaluate_checkpoint(file, suite, settings, reporter, normalize, key, name)
            else:
                for setting in ("methods", "arch"):
                    if flags[setting] is not None:
                        flag = "method" if setting == "methods" else setting
                        raise UserError(f"--{flag} goes with --checkpoint, not with --model")
                run = evaluate_callable(
                    str(model), suite, settings, reporter, normalize, arguments or (), name
                )
    _show_report(suite)
    _show_reliability(run)


def _show_reliability(run: RunStore) -> None:
    """Print what the reliability checks of a run found, check by check."""
    report = run.reliability()
    if report is None:
        return
    table = Table(title=f"reliability of {run.run_id}; each check: docs/evaluation.md#NAME")
    for column in ("check", "", "value", "threshold", "what it says"):
        table.add_column(column, overflow="fold")
    for one in report.findings:
        numbers = ("-" if v is None else f"{v:.4g}" for v in (one.value, one.threshold))
        mark = "†" if one.flagged else "" if one.value is None else "ok"
        table.add_row(one.check, mark, *numbers, one.explanation)
    out.print(table)


@app.command(
    epilog="Examples:\n\n  ltrobust report results/digits-lt\n\n"
    "  ltrobust report results/cifar100-lt --groups 100/20\n\n"
    "  ltrobust report results/mine results/theirs --imbalance-ratio 50 --output results/both\n\n"
    "  ltrobust report results/cifar10-lt results/external --across recipe,arch,epochs\n\n"
    "  ltrobust report results/cifar10-lt --columns 1 --output paper"
)
def report(
    directories: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIRECTORY...",
            help="Suites' directories (results/<suite>); their runs are put together.",
            show_default=False,
        ),
    ],
    dataset: Annotated[
        str | None, _flag("Only these data sets; all filters: a,b.", panel=DATA)
    ] = None,
    imbalance_ratio: Annotated[
        str | None, _flag("Only these imbalance ratios.", panel=DATA)
    ] = None,
    arch: Annotated[str | None, _flag("Only these architectures.", panel=TRAINING)] = None,
    recipe: Annotated[str | None, _flag("Only these recipes.", panel=TRAINING)] = None,
    methods: Annotated[str | None, _flag("Only these methods.", panel=TRAINING)] = None,
    across: Annotated[
        str | None,
        _flag(
            "Rank in one table what differs in recipe, arch or epochs (a list of these, or all) "
            "and was judged on the same test images with the same attacks.",
            panel=EVALUATION,
        ),
    ] = None,
    groups: Groups = None,
    style: Annotated[
        str | None, _flag("Figures for paper (default) or slides.", panel=RUNNING)
    ] = None,
    columns: Annotated[
        str | None,
        _flag(
            "LaTeX tables and figures for 1 (3.25 in) or 2 (6.9 in) columns of a paper; default: "
            "tables of both columns, figures of 5 in.",
            panel=RUNNING,
        ),
    ] = None,
    plugin: Plugin = None,
    output: Annotated[
        Path | None,
        _flag(
            "Write the report here; without it one directory is rebuilt in place, and several, a "
            "filter or --across are only printed.",
            panel=RUNNING,
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Rebuild tables and figures from stored files; merge several directories."""
    from ltrobust.bench.reports import make_report
    from ltrobust.evaluation.metrics import parse_groups
    from ltrobust.plugins import load_plugin
    from ltrobust.report.across import parse_across
    from ltrobust.report.style import parse_look
    from ltrobust.results.filters import parse_filters

    look = parse_look(style, columns)
    for path in plugin or ():
        load_plugin(path)
    filters = parse_filters(
        dataset=dataset,
        imbalance_ratio=imbalance_ratio,
        arch=arch,
        recipe=recipe,
        methods=methods,
    )
    grouping = None if groups is None else parse_groups(groups)
    ranked = parse_across(across)
    results, store = make_report(directories, filters, grouping, ranked, output, look)
    _show_results(results, store)


def _show_report(store: SuiteStore) -> None:
    """Rebuild and print a suite's tables; nothing when no run has been evaluated."""
    from ltrobust.bench.reports import build_report

    results = build_report(store)
    if not results.metrics.empty:
        _show_results(results, store)


def _show_results(results: SuiteResults, store: SuiteStore | None) -> None:
    """Print the tables of a report, and where its files are."""
    from ltrobust.report import terminal_tables

    for table in terminal_tables(results.board, out.width):
        out.print(table)
    if store is None:
        out.print("nothing was written; --output DIR writes tables, figures and CSV files there")
    else:
        out.print(f"tables, figures and CSV files: {store.path}", soft_wrap=True)
    for gap in results.gaps:
        err.print(f"warning: {gap}", soft_wrap=True, markup=False, highlight=False)


@app.command(
    epilog="Examples:\n\n  ltrobust compare results/digits-lt/runs/at-bsl-0123456789ab "
    "results/digits-lt/runs/taet-0123456789ab\n\n"
    "  ltrobust compare RUN_A RUN_B --per-class --output differences.csv"
)
def compare(
    run_a: Annotated[Path, typer.Argument(help="Run A: results/<suite>/runs/<run_id>.")],
    run_b: Annotated[Path, typer.Argument(help="Run B, of the same or another suite.")],
    per_class: Annotated[
        bool, _flag("A row for each class too.", "--per-class", panel=EVALUATION)
    ] = False,
    groups: Groups = None,
    output: Annotated[Path | None, _flag("Write the rows to this CSV file.", panel=RUNNING)] = None,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Compare two runs on the same test images: differences, paired intervals, McNemar's test."""
    from ltrobust.evaluation.metrics import parse_groups
    from ltrobust.results.files import write_file
    from ltrobust.results.pairs import compare_runs
    from ltrobust.results.store import stored_run

    a, b = stored_run(run_a), stored_run(run_b)
    found = compare_runs(a, b, parse_groups(groups), per_class=per_class)
    if output is not None:
        write_file(output, found.rows.to_csv(index=False))
    if json_output:
        print(json.dumps(found.as_json(), indent=2))
        return
    _show_comparison(found)
    if output is not None:
        out.print(f"rows: {output}", soft_wrap=True)


def _show_comparison(found: Comparison) -> None:
    from ltrobust.report.groups import format_eps

    out.print(f"A: {found.a}\nB: {found.b}", soft_wrap=True, markup=False, highlight=False)
    for _, rows in found.rows.groupby("attack_id", sort=False):
        attack, eps = rows["attack"].iloc[0], rows["eps"].iloc[0]
        title = f"{attack}, eps {format_eps(eps)}" if eps else attack
        table = Table(title=title, title_justify="left", box=box.SIMPLE, padding=0)
        for column in ("images", "n", "A", "B", "A - B", "95%", "only\nA, B", "p", "verdict"):
            side: JustifyMethod = "left" if column in ("images", "verdict") else "right"
            table.add_column(column, justify=side, no_wrap=column in ("A - B", "95%"))
        for row in rows.to_dict("records"):
            low, high, a, b, lead = (100 * row[k] for k in ("low", "high", "a", "b", "difference"))
            table.add_row(
                *(Text(str(row["images"])), str(row["n"]), f"{a:.2f}", f"{b:.2f}"),
                *(f"{lead:+.2f}", f"[{low:+.1f}, {high:+.1f}]"),
                *(f"{row['only_a']}, {row['only_b']}", f"{row['p']:.2g}", row["verdict"]),
            )
        out.print(table)
    for note in found.notes:
        out.print(note, soft_wrap=True, markup=False, highlight=False)
    out.print(
        f"Percent; groups {found.groups}; all: each image counts the same, other rows: each class; "
        "p: exact McNemar test over the images; the verdict follows the interval",
        soft_wrap=True,
        highlight=False,
    )


@app.command(
    epilog="Examples:\n\n  ltrobust reproduce --list\n\n"
    "  ltrobust reproduce robal-table --scale cpu --data-dir ~/data\n\n"
    "  ltrobust reproduce all --dry-run"
)
def reproduce(
    names: Annotated[
        list[str] | None, typer.Argument(help="Published tables and figures by name, or all.")
    ] = None,
    list_entries: Annotated[
        bool, _flag("Print what there is, one line each, and stop.", "--list", panel=RUNNING)
    ] = False,
    scale: Annotated[
        str | None,
        _flag(
            "full (the papers' settings; default with a CUDA device) or cpu (small network, few "
            "epochs and images).",
            panel=TRAINING,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        _flag("One directory for all; default results/papers.", "--output", panel=RUNNING),
    ] = None,
    entries: Annotated[
        Path | None, _flag("A folder with entries of yours; see docs/reproduce.md.", panel=RUNNING)
    ] = None,
    data_dir: DataDir = None,
    download: Download = None,
    device: Device = None,
    threads: Threads = None,
    dry_run: DryRun = False,
    debug: Debug = False,
) -> None:
    """Run a paper's table or figure again and set the published values beside ours."""
    from ltrobust.papers.entries import entry_names, read_entry, shipped_folder
    from ltrobust.papers.reproduce import DEFAULT_OUTPUT, choose_scale, make_jobs

    folder = entries or shipped_folder()
    if list_entries:
        for name in entry_names(folder):
            print(f"{name}  {read_entry(folder, name).title}")
        return
    chosen = choose_scale(scale, device)
    place = output or DEFAULT_OUTPUT
    flags: dict[str, Any] = {"output": place, "data_dir": data_dir, "download": download}
    flags |= {"device": device, "threads": threads}
    jobs = make_jobs(names or [], folder, chosen, flags)
    out.print(f"scale: {chosen}" + ("" if scale else " (--scale full or cpu to choose)"))
    if dry_run:
        _show_jobs(jobs, place)
        return
    _reproduce(jobs, folder, place)


def _show_jobs(jobs: list[Job], output: Path) -> None:
    """Print the runs of each entry, what is there of them and what the rest needs."""
    from ltrobust.bench.cells import needs_in_words
    from ltrobust.bench.runner import describe
    from ltrobust.papers.reproduce import missing
    from ltrobust.results.store import SuiteStore

    store, rest = SuiteStore(output), []
    for job in jobs:
        plans = [missing(plan, store) for plan in job.plans]
        rest += [plan for plan in plans if plan.runs]
        left = {planned.run.run_id for plan in plans for planned in plan.runs}
        out.print(f"{job.entry.name}: {len(job.runs())} runs, {len(left)} to do", highlight=False)
        for planned in job.runs():
            state = "to do" if planned.run.run_id in left else "done "
            line = f"  {state}  {planned.run.run_id}  {describe(planned.run)}"
            out.print(line, soft_wrap=True, markup=False, highlight=False)
    if rest:
        out.print(needs_in_words(rest, store), soft_wrap=True, highlight=False)


def _reproduce(jobs: list[Job], folder: Path, output: Path) -> None:
    from ltrobust.papers.reproduce import run_missing, write_entry
    from ltrobust.progress import Reporter
    from ltrobust.results.store import SuiteStore

    store, failures = SuiteStore(output), dict[str, str]()
    store.prepare()
    for job in jobs:
        with Reporter(out) as reporter:
            failures |= {f.run_id: f.reason for f in run_missing(job, store, reporter)}
        for table in write_entry(job, folder, store):
            for part in table.rich_parts(out.width):
                out.print(part)
        out.print(f"figure, comparison and claims: {output / job.entry.name}", soft_wrap=True)
    for run_id, reason in failures.items():
        err.print(f"failed: {run_id}: {reason}", soft_wrap=True, markup=False)
    if failures:
        raise typer.Exit(1)


@app.command(
    epilog="Examples:\n\n  ltrobust submit results/digits-lt --check\n\n"
    "  ltrobust submit results/digits-lt --license CC-BY-4.0 --by 'A. Author'"
)
def submit(
    directory: Annotated[Path, typer.Argument(help="A suite's directory, results/<suite>.")],
    check: Annotated[bool, _flag("Check and write nothing.", "--check", panel=RUNNING)] = False,
    license_name: Annotated[
        str | None,
        _flag(
            "Under which licence you give the results: CC0-1.0, CC-BY-4.0 or MIT.",
            "--license",
            panel=RUNNING,
        ),
    ] = None,
    by: Annotated[str | None, _flag("Who submits, as it shall be shown.", panel=RUNNING)] = None,
    weights: Annotated[
        bool, _flag("Pack the networks too (default).", "--weights/--no-weights", panel=RUNNING)
    ] = True,
    output: Annotated[
        Path | None, _flag("The zip file; default <suite>.zip here.", panel=RUNNING)
    ] = None,
    debug: Debug = False,
) -> None:
    """Check a suite's results for the leaderboard and pack them for a pull request."""
    from ltrobust.submission import check_submission, pack_submission

    if not check and (license_name is None or by is None):
        raise UserError("give --license and --by, such as --license CC-BY-4.0 --by 'A. Author'")
    found = check_submission(directory)
    for line in found.remarks:
        out.print(f"remark: {line}", soft_wrap=True, markup=False, highlight=False)
    for line in found.problems:
        err.print(f"problem: {line}", soft_wrap=True, markup=False, highlight=False)
    count = f"{found.runs} runs, {found.evaluations} evaluations"
    if found.problems:
        raise UserError(f"{directory} ({count}) has problems, listed above: {len(found.problems)}")
    out.print(f"{directory}: {count}, no problems", soft_wrap=True, markup=False, highlight=False)
    if check:
        return
    choices = {"license_name": str(license_name), "by": str(by)}
    target = pack_submission(directory, found, output=output, weights=weights, **choices)
    out.print(
        f"packed: {target}; unpack it under results/submissions/ and open a pull request",
        soft_wrap=True,
        markup=False,
        highlight=False,
    )


@app.command(epilog="Example:\n\n  ltrobust track results/digits-lt --to tensorboard,mlflow")
def track(
    directory: Annotated[Path, typer.Argument(help="A suite's directory, results/<suite>.")],
    to: Annotated[
        str, _flag("tensorboard, mlflow or wandb (a list of these).", "--to", panel=RUNNING)
    ],
    debug: Debug = False,
) -> None:
    """Show stored results in TensorBoard, MLflow or Weights & Biases."""
    from ltrobust.trackers import FOLDER, send

    count = send(directory, to.split(","))
    out.print(f"{count} runs are shown; files: {directory / FOLDER}", soft_wrap=True)


@app.command(
    epilog="Examples:\n\n  ltrobust new method my-defense\n\n"
    "  ltrobust new attack my-attack --output attacks"
)
def new(
    kind: Annotated[str, typer.Argument(help="method, attack, network, dataset or metric.")],
    name: Annotated[str, typer.Argument(help="Its name, such as my-defense.")],
    output: Annotated[Path, _flag("The folder to write to; default here.", panel=RUNNING)] = Path(),
    debug: Debug = False,
) -> None:
    """Write a file to begin a plugin with, and its test; both work as they are."""
    from ltrobust.scaffold import write_new

    for path in write_new(kind, name, output):
        out.print(f"written: {path}", soft_wrap=True, markup=False, highlight=False)


methods_app = typer.Typer(invoke_without_command=True, rich_markup_mode="rich")
app.add_typer(methods_app, name="methods")


@methods_app.callback(
    epilog="Examples:\n\n  ltrobust methods\n\n  ltrobust methods --json\n\n"
    "  ltrobust methods show taet"
)
def methods(
    context: typer.Context,
    plugin: Plugin = None,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """List the defenses and modifiers; `show NAME` explains one."""
    from ltrobust.describe import describe_method
    from ltrobust.method import METHODS, load_methods

    if context.invoked_subcommand:
        return
    load_methods(plugin or [])
    rows = [describe_method(name) for name in METHODS]
    rows.sort(key=lambda row: ("defense", "modifier", "post-hoc").index(row["kind"]))
    columns = ("name", "kind", "passes", "venue", "year", "title")
    _print_list(rows, columns, "methods (join them with +)", json_output)


@methods_app.command(
    epilog="Examples:\n\n  ltrobust methods show taet\n\n  ltrobust methods show at-bsl --json"
)
def show(
    name: Annotated[str, typer.Argument(help="The method, such as taet.")],
    plugin: Plugin = None,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Explain a defense: paper, equations, options, recipe with sources, quirks of the code."""
    from ltrobust.describe import describe_method, option_rows, recipe_rows
    from ltrobust.method import load_methods

    load_methods(plugin or [])
    facts = describe_method(name)
    if json_output:
        print(json.dumps(facts, indent=2))
        return
    out.print(f"{facts['name']}: {facts['paper']} {facts['url']}", markup=False, soft_wrap=True)
    out.print(f"\n{facts['explanation']}\n", markup=False, highlight=False, soft_wrap=True)
    _print_rows(
        "options (--option NAME=VALUE)",
        ("option", "type", "default", "allowed", "meaning"),
        option_rows(facts["name"]),
    )
    columns = ("value", "published", "source")
    _print_rows(
        "--recipe paper, and where each value comes from", columns, recipe_rows(facts["name"])
    )
    for quirk in facts["quirks"]:
        out.print(f"quirk: {quirk}", markup=False, highlight=False, soft_wrap=True)


models_app = typer.Typer(invoke_without_command=True, rich_markup_mode="rich")
app.add_typer(models_app, name="models")
RunDirectory = Annotated[Path, typer.Argument(help="results/<suite>/runs/<run_id>")]


@models_app.callback(
    epilog="Examples:\n\n  ltrobust models\n\n"
    "  ltrobust models --results results/cifar10-lt-cpu --json"
)
def models(
    context: typer.Context,
    results: Annotated[
        list[Path] | None,
        _flag("Where results are; default ./results.", "--results", panel=RUNNING),
    ] = None,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """List stored runs that have weights; `card RUN` describes one, `half RUN` rounds it."""
    from ltrobust.zoo import list_models

    if context.invoked_subcommand:
        return
    rows = [model.row() for model in list_models(results or [Path("results")])]
    if not json_output:
        for row in rows:
            row["numbers"] = _in_cells(row["numbers"])
            row["weights"] = f"{row['weights']}, {row['megabytes']:.2f} MB"
    columns = ("path", "method", "arch", "parameters", "recipe", "weights", "numbers")
    title = "models: balanced accuracy [95% interval], % († in doubt)"
    _print_list(rows, columns, title, json_output)


def _in_cells(numbers: list[dict[str, Any]]) -> str:
    return "\n".join(
        f"{one['attack']}{'†' if one['doubted'] else ''} {100 * one['balanced_accuracy']:.1f} "
        f"[{100 * one['ci_low']:.1f}, {100 * one['ci_high']:.1f}], n {one['n']:,}"
        for one in numbers
    )


@models_app.command(
    epilog="Example:\n\n  ltrobust models card results/demo/runs/at-bsl-0123456789ab"
)
def card(run: RunDirectory, debug: Debug = False) -> None:
    """Print the model card of a run, markdown: recipe, protocol, numbers with intervals, marks."""
    from ltrobust.zoo import model_card

    print(model_card(run))


@models_app.command(
    epilog="Example:\n\n  ltrobust models half results/demo/runs/at-bsl-0123456789ab"
)
def half(
    run: RunDirectory,
    attacks: Annotated[
        str, _flag("Whose verdicts must not change; default clean,pgd20.", panel=EVALUATION)
    ] = "clean,pgd20",
    limit_test: LimitTest = None,
    data_dir: DataDir = None,
    plugin: Plugin = None,
    debug: Debug = False,
) -> None:
    """Store a run's weights as float16, if no verdict changes with it."""
    from ltrobust.zoo import COLUMNS, keep_half

    settings = {"limit_test": limit_test, "data_dir": data_dir, "plugin": plugin}
    given = {key: value for key, value in settings.items() if value is not None}
    found = keep_half(run, attacks, **given)
    rows = [{str(key): value for key, value in row.items()} for row in found.to_dict("records")]
    _print_list(rows, tuple(COLUMNS), "float16 weights kept: no verdict changed", False)


datasets_app = typer.Typer(invoke_without_command=True, rich_markup_mode="rich")
app.add_typer(datasets_app, name="datasets")


@datasets_app.callback(
    epilog="Examples:\n\n  ltrobust datasets\n\n  ltrobust datasets --json\n\n"
    "  ltrobust datasets show dermamnist"
)
def datasets(
    context: typer.Context,
    plugin: Plugin = None,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """List the data sets and what each brings to a run; `show NAME` tells all about one."""
    from ltrobust.data import DATASETS
    from ltrobust.plugins import load_plugin

    for path in plugin or ():
        load_plugin(path)
    if context.invoked_subcommand:
        return
    rows = [DATASETS.get(name).facts() for name in DATASETS]
    columns = ("name", "num_classes", "imbalance_ratio", "eps", "epochs", "arch", "description")
    _print_list(rows, columns, "datasets (and folder:PATH, hf:PATH)", json_output)


@datasets_app.command(
    name="show",
    epilog="Examples:\n\n  ltrobust datasets show cifar10-lt --data-dir ~/data\n\n"
    "  ltrobust datasets show folder:photos@64 --json",
)
def show_dataset(
    name: Annotated[str, typer.Argument(help="The data set, such as dermamnist.")],
    data_dir: DataDir = None,
    imbalance_ratio: Annotated[
        str | None, _flag("n_max / n_min of the split, or natural.", panel=DATA)
    ] = None,
    split_seed: SplitSeed = None,
    plugin: Plugin = None,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Tell classes, terms, citation, defaults with their source, and checksums of a data set."""
    from ltrobust.bench.settings import make_settings
    from ltrobust.data.describe import describe_dataset, lines_of

    flags = {"imbalance_ratio": imbalance_ratio, "split_seed": split_seed, "plugin": plugin}
    asked = make_settings(flags)
    ratios = asked.imbalance_ratio or (None,)
    facts = describe_dataset(name, data_dir, imbalance_ratio=ratios[0], split_seed=asked.split_seed)
    if json_output:
        print(json.dumps(facts, indent=2))
        return
    for line in lines_of(facts):
        out.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command(epilog="Example:\n\n  ltrobust version")
def version(debug: Debug = False) -> None:
    """Print the versions of ltrobust and of what its numbers depend on."""
    from importlib.metadata import version as installed

    for name in ("ltrobust", "torch", "torchvision", "pyautoattack"):
        out.print(f"{name} {installed(name)}", highlight=False)


def _print_rows(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, where there is any row; no text is cut, and names stay whole if they can."""
    table = Table(title=title)
    for place, column in enumerate(columns):
        names = max((len(row[place]) for row in rows), default=0)
        whole = place == 0 and names < out.width / 2
        table.add_column(column, overflow="fold", no_wrap=whole)
    for row in rows:
        table.add_row(*map(Text, row))
    if rows:
        out.print(table)


def _print_list(
    rows: list[dict[str, Any]], columns: tuple[str, ...], title: str, json_output: bool
) -> None:
    if json_output:
        print(json.dumps(rows, indent=2))
        return

    def shown(cell: Any) -> str:
        if cell is None:
            return "-"
        return f"{cell:.4g}" if isinstance(cell, float) else str(cell)

    cells = [[shown(row[name]) for name in columns] for row in rows]
    _print_rows(title, [column.replace("_", " ") for column in columns], cells)


def main() -> None:
    """Run the command line and turn every expected error into its exit code."""
    # Read when torch is loaded. Threads that spin for long while they wait keep the core from the
    # one that they wait for: beside another process on two cores epochs of a small network take
    # several times as long (benchmarks/studies/busy.py). OpenMP's own number is 300,000.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    lost = guard_streams()
    with warnings.catch_warnings():
        warnings.simplefilter("always", Notice)
        _show_notices_in_a_line()
        code = _exit_code_of_team() if _under_torchrun() else _exit_code()
    reason = lost()
    if reason is not None:  # results are in their files, but what was asked for may be this output
        _show_error(f"the output could not be written ({reason.strerror})")
        code = code or 1
    sys.exit(code)


def _under_torchrun() -> bool:
    """Whether this process is one of several that `torchrun` has started."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"


def _exit_code_of_team() -> int:
    from ltrobust.bench.follow import led

    return led(_exit_code)


def _exit_code() -> int:
    try:
        code = app(standalone_mode=False)
    except (UserError, RunError) as error:
        if "--debug" in sys.argv:
            raise
        _show_error(str(error))
        return 2 if isinstance(error, UserError) else 1
    except CLICK_ERROR as error:
        text = " ".join(error.format_message().split())
        if text:  # else the help has been shown instead
            _show_error(text)
        return 2
    except (KeyboardInterrupt, typer.Abort):
        code = STOPPED
    if code == STOPPED:  # newer versions of typer turn Ctrl-C into this code themselves
        err.print("stopped; the same command goes on from here", soft_wrap=True)
    return code if isinstance(code, int) else 0


def _show_error(text: str) -> None:
    err.print(f"error: {text}", style="red", soft_wrap=True, markup=False, highlight=False)


def _show_notices_in_a_line() -> None:
    """Print our own warnings as the user's matter, each once and without a line of code."""
    others = warnings.showwarning
    shown: set[str] = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, Notice) and str(message) not in shown:
            shown.add(str(message))
            err.print(f"warning: {message}", soft_wrap=True, markup=False, highlight=False)
        elif not issubclass(category, Notice):
            others(message, category, filename, lineno, file, line)

    warnings.showwarning = show
