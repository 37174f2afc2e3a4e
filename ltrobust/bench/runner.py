"""Does a plan: trains what is not trained, evaluates what is not evaluated, goes on after failures.

Each run is claimed before it is done, so that several processes share out one plan. The order of
writes is what makes it safe to kill: state now and then, weights, a record after each attack.
Whatever is missing is done the next time, from where it stood.
"""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ltrobust.bench.checks import check_reliability, lacks_reliability
from ltrobust.bench.crew import Crew, assembled, processes, threads_of
from ltrobust.bench.examples import keep_examples, lacks_examples
from ltrobust.bench.loader import Loader, test_sha256
from ltrobust.bench.plan import Plan, PlannedRun, thrift, use_device, watched_attacks
from ltrobust.bench.provenance import peak_memory, provenance, restart_peak_memory
from ltrobust.bench.settings import Settings
from ltrobust.bench.tensors import (
    load_attack_state,
    load_model,
    load_state,
    save_attack_state,
    save_state,
)
from ltrobust.config import AttackSpec, Run, TestSpec
from ltrobust.data import LongTailedData
from ltrobust.errors import RunError, UserError
from ltrobust.evaluation.evaluate import (
    DefendedModel,
    Evaluator,
    TestSet,
    check_attacks,
    outcomes,
)
from ltrobust.evaluation.metrics import summary_of
from ltrobust.method import Method
from ltrobust.progress import Reporter
from ltrobust.results.claims import Claim, ClaimedError, Stop, claimed
from ltrobust.results.digest import digest_of, outcomes_sha256
from ltrobust.results.records import (
    AttackRecord,
    BaseFacts,
    DataFacts,
    FineTuning,
    ProfileRecord,
    RunRecord,
    ThreadsBefore,
    TrainedRecord,
    now,
)
from ltrobust.results.store import RunStore, SuiteStore
from ltrobust.stopwatch import NOTHING, Stopwatch, Taken, as_taken, as_tensor, of_epochs
from ltrobust.team import LostError, OtherError, Team
from ltrobust.threads import computing_with
from ltrobust.training.checkpoint import load_weights, to_bytes
from ltrobust.training.profile import UNTIMED, StepProfile, matrix_peak
from ltrobust.training.trainer import (
    WATCHED,
    Base,
    Trained,
    Watch,
    build,
    own_epochs,
    own_recipe,
    total_epochs,
    train,
)


@dataclass(frozen=True)
class Failure:
    """A run that could not be finished, and why, in one line."""

    run_id: str
    reason: str


def run_plan(plan: Plan, store: SuiteStore, load: Loader, reporter: Reporter) -> list[Failure]:
    """Do every run of a plan that no other process does; return those that are not done."""
    store.prepare()
    use_device(plan.device)
    failures = []
    reporter.begin("plan", "plan", len(plan.runs))
    for planned in plan.runs:
        reason = _claim_run(planned, store, load, plan, reporter)
        if reason:
            failures.append(Failure(planned.run.run_id, reason))
        reporter.advance("plan")
    reporter.end("plan")
    return failures


def _claim_run(
    planned: PlannedRun, suite: SuiteStore, load: Loader, plan: Plan, reporter: Reporter
) -> str:
    """Do one run if it is free; return the reason when it is not done, else ""."""
    try:
        return do_run(planned, suite, load, plan, reporter)
    except ClaimedError as error:
        reporter.line(f"{error}; left to it")
        return str(error)
    except RunError as error:  # the claim cannot be written
        return str(error)


def do_run(
    planned: PlannedRun,
    suite: SuiteStore,
    load: Callable[[PlannedRun], LongTailedData],
    plan: Plan,
    reporter: Reporter,
    stop: Stop | None = None,
) -> str:
    """Do one run of a plan under a claim of its own; return the reason when it failed, else "".

    Args:
        planned: the run.
        suite: where it is stored.
        load: gives its data.
        plan: how it is done.
        reporter: who is told.
        stop: whether this process is to end; then it ends with the epoch that it is in.

    Raises:
        ClaimedError: another process does it, or has taken it over.
        RunError: the claim cannot be written.
        LostError: a process that helped is gone; what is saved is stored.
        KeyboardInterrupt: it was to end, and what is done is stored.
    """
    with claimed(suite.claims, planned.run.run_id, stop=stop) as claim:
        store = suite.run(planned.run.run_id)
        store.sweep()
        own = _threads(store, plan.settings) or plan.threads
        with computing_with(own or threads_of(plan.settings, plan.device)):
            if plan.settings.overwrite == "all":
                try:
                    suite.start_over(store.run_id)
                except RunError as error:
                    return _failed(store, str(error))
            failed = ""
            for part in planned.parts:  # also when it fails on one set of test images
                reason = _do_run(part, suite, claim, load, plan, reporter)
                failed = failed or reason
                if reason and (not store.trained or plan.settings.overwrite == "never"):
                    return failed
            if failed != (store.failure or ""):  # of the last set
                _failed(store, failed)
            return failed


def _threads(store: RunStore, settings: Settings) -> int | None:
    """CPU threads for a run: those asked for, else those that a stopped one began with."""
    if settings.threads is not None or settings.overwrite == "all" or not store.begun:
        return settings.threads
    try:
        record, place = store.record(), store.place()
    except UserError:  # doing the run will tell
        return None
    if record is None or store.trained:
        return None
    return place.threads or record.provenance.threads


def _do_run(
    planned: PlannedRun,
    suite: SuiteStore,
    claim: Claim,
    load: Callable[[PlannedRun], LongTailedData],
    plan: Plan,
    reporter: Reporter,
) -> str:
    """Do one run; return the reason when it failed, else ""."""
    store = suite.run(planned.run.run_id)
    try:
        return _go_on(planned, suite, claim, load(planned), plan, reporter)
    except ClaimedError:
        raise
    except LostError as error:  # as if this process had been killed: stopped, not failed
        reason = f"{error}; the same command goes on from what was saved"
        store.log(reason)
        raise LostError(reason) from error
    except (RunError, UserError) as error:
        if isinstance(error, OtherError) and error.out_of_memory:
            return _failed(store, _memory_advice(planned.run, plan.settings, store.trained))
        return _failed(store, str(error))
    except Exception as error:
        if _is_out_of_memory(error):
            return _failed(store, _memory_advice(planned.run, plan.settings, store.trained))
        text = " ".join(str(error).split())
        reason = f"{type(error).__name__}: {text} (traceback in log.txt)"
        return _failed(store, reason, traceback.format_exc())
    finally:
        gc.collect()
        if plan.device.startswith("cuda"):
            torch.cuda.empty_cache()  # what a failed run held must not stand in the next one's way


def _go_on(
    planned: PlannedRun,
    suite: SuiteStore,
    claim: Claim,
    data: LongTailedData,
    plan: Plan,
    reporter: Reporter,
) -> str:
    """Do what a run lacks, from where it stands; return why a failed one is kept as it is."""
    store = suite.run(planned.run.run_id)
    store.check_whole()
    record, failure = store.record(), store.failure
    if failure is not None and plan.settings.overwrite == "never":
        return f"{failure} (kept; --overwrite failed tries again)"
    _same_images(record, data)
    missing = missing_attacks(planned.attack_ids(), store, data)
    if _done_before(store, missing, data, plan, reporter):
        keep_place(store, data)
        store.succeed()
        return ""
    watched = () if store.trained else watched_attacks(planned.run, plan.settings).values()
    check_attacks((*missing.values(), *watched), data.num_classes, data.test_images.shape)
    if record is None or not store.begun:
        store.begin(_record(planned, data, plan), anew=True)
    keep_place(store, data)
    wanted = bool(missing) or not store.trained
    with (
        reporter.copy_to(store.log),
        assembled(plan.settings, plan.device, wanted=wanted) as crew,
    ):
        reporter.line(f"{planned.run.run_id}: {describe(planned.run)}")
        if crew is not None:
            reporter.line(f"  shared out among {crew.team.size} processes")
        for note in data.notes:
            store.log(f"  note: {note}")  # the user has been told once for all runs
        if not store.trained:
            base = None if planned.base is None else suite.run(planned.base)
            _train(planned, data, store, claim, plan, reporter, base, crew)
        store.drop_state()  # a kill may have come just before it went with the weights
        restart_peak_memory(plan.device)
        device = torch.device(plan.device)
        no_checks = plan.settings.no_checks
        seconds = evaluate_run(
            planned, data, store, device, missing, reporter, no_checks=no_checks, crew=crew
        )
        if plan.settings.profile:
            _profile_evaluation(store, seconds, plan.device)
        store.succeed()
    return ""


def _done_before(
    store: RunStore,
    missing: Mapping[str, AttackSpec],
    data: LongTailedData,
    plan: Plan,
    reporter: Reporter,
) -> bool:
    """Whether nothing is left to do for a run, which is then said.

    Raises:
        UserError: some attacks are there, others are wanted, and the weights that they belong to
            are gone.
    """
    there, trained = store.attack_ids(), store.trained
    if trained and (missing or _lacks_findings(store, data, plan.settings.no_checks)):
        return False
    if not trained and not there:
        return False
    if missing:
        raise UserError(
            f"{store.path / 'model.safetensors'} is gone, and the attacks that are there belong "
            "to it; put it back, or train and attack again with --overwrite all"
        )
    gone = "" if trained else " (its weights are gone; nothing here needs them)"
    unmeasured = "; nothing to profile" if plan.settings.profile else ""
    reporter.line(f"{store.run_id}: done before{gone}{unmeasured}")
    return True


def _same_images(record: RunRecord | None, data: LongTailedData) -> None:
    """Refuse to go on with a run that was begun on other training images."""
    if record is not None and record.data.split_sha256 != data.split_sha256:
        raise UserError(
            "the data has changed since this run was begun; use another --output, or "
            "--overwrite all to train it again"
        )


def keep_place(store: RunStore, data: LongTailedData) -> None:
    """Bring up to date where a run's image folder lies, and what has been left out of it."""
    if data.path:
        place = store.place()
        notes = list(dict.fromkeys([*place.notes, *data.notes]))
        store.write_place(place.model_copy(update={"path": data.path, "notes": notes}))


def describe(run: Run) -> str:
    """One line about a run."""
    data = run.data
    ratio = f" IR {data.imbalance_ratio:g} {data.imbalance_type}" if data.imbalance_ratio else ""
    return (
        f"{run.method} on {data.name}{ratio}, {run.arch}, {total_epochs(run)} epochs, "
        f"{run.recipe_name} recipe, seed {run.seed}, {run.precision}"
    )


OUT_OF_MEMORY = ("DefaultCPUAllocator: can't allocate", "CUDA error: out of memory", "ALLOC_FAILED")
"""How errors speak of memory that have no type of their own."""


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in OUT_OF_MEMORY)


def _memory_advice(run: Run, settings: Settings, trained: bool) -> str:
    """What to change, gentlest first; the first two change no result."""
    if trained:
        return (
            "out of memory in the evaluation (training and finished attacks are kept): free the "
            "device or choose another with --device; --search bf16 needs less, as another attack"
        )
    size = min(settings.micro_batch or run.recipe.batch_size, run.recipe.batch_size)
    steps = [] if settings.grad_checkpointing else ["--grad-checkpointing"]
    steps += [f"--micro-batch {max(1, size // 4)}"] if size > 1 else []
    steps += [f"a --batch-size below {run.recipe.batch_size}", "a smaller --arch"]
    return f"out of memory in the training (saved epochs are kept): try {', then '.join(steps)}"


def _failed(store: RunStore, reason: str, more: str = "") -> str:
    """Record why a run failed, as far as that can be written; return the reason as one line."""
    reason = " ".join(reason.split())
    try:
        store.fail(reason)
        store.log(f"failed: {reason}")
        if more:
            store.log(more)
    except RunError:  # a full disk
        return f"{reason} (which could not be recorded in {store.path})"
    return reason


def _record(planned: PlannedRun, data: LongTailedData, plan: Plan) -> RunRecord:
    """What is about to be trained; it stands as long as something of the training is there."""
    return RunRecord(
        run_id=planned.run.run_id,
        run=planned.run,
        overrides=(planned.cell or plan.settings).overrides(),
        data=data_facts(data),
        provenance=provenance(plan.device, processes(plan.settings)),
        made=now(),
    )


def data_facts(data: LongTailedData) -> DataFacts:
    """What a result must say about the data: the training set, and where all images come from."""
    return DataFacts(
        class_names=list(data.class_names),
        train_counts=list(data.train_counts),
        imbalance_ratio=data.imbalance_ratio,
        image_shape=list(data.image_shape),
        split_sha256=data.split_sha256,
        source=data.source,
    )


def _train(
    planned: PlannedRun,
    data: LongTailedData,
    store: RunStore,
    claim: Claim,
    plan: Plan,
    reporter: Reporter,
    base: RunStore | None,
    crew: Crew | None,
) -> None:
    """Train a run and store it; `base` is the trained run that a post-hoc one acts on."""
    run = planned.run
    taken_over = None if base is None else _take_over(base, run)
    device = torch.device(plan.device)
    profile = None
    if plan.settings.profile:
        profile = StepProfile(device, matrix_peak(plan.device, run.precision))
    restart_peak_memory(plan.device)
    state = load_state(store)
    if state is None:
        store.forget_training()
    else:
        epochs, threads = len(state["history"]), torch.get_num_threads()
        reporter.line(f"  resuming after epoch {epochs}, with {threads} CPU threads")
        _note_threads(store, epochs, threads, reporter)
    with _training_together(crew, planned, data, store, base) as team:
        trained = train(
            run,
            data,
            device=device,
            state=state,
            save=_state_saver(store, claim, plan.settings.saving, own_epochs(run)),
            reporter=reporter,
            thrift=thrift(plan.settings),
            clock=profile or UNTIMED,
            base=taken_over,
            watch=watch_of(run, data, plan.settings, device, team),
            capture=not plan.settings.no_capture,
            team=team,
        )
    claim.check()
    if trained.history:  # a post-hoc method may train nothing
        store.write_history(trained.history)
    store.drop_attack_states()
    if profile is not None and profile.epochs:
        training = {"of_epochs": len(trained.history), **profile.record()}
        training["peak_memory_bytes"] = peak_memory(plan.device)
        kept = store.profile().model_copy(update={"training": training})
        store.write_profile(kept)
    # last: from here on the run counts as trained
    weights = {**trained.net.state_dict(), **method_tensors(trained.method)}
    record = _trained_record(trained, store, base, device)
    store.finish(record, to_bytes(weights, model_facts(run, data)))


@contextmanager
def _training_together(
    crew: Crew | None,
    planned: PlannedRun,
    data: LongTailedData,
    store: RunStore,
    base: RunStore | None,
) -> Iterator[Team | None]:
    """The processes that train a run together in the block; None: this one is alone."""
    if crew is None or own_recipe(planned.run) is None:
        yield None
        return
    weights = None if base is None else base.weights()
    with crew.training(planned, data, store.state(), weights) as team:
        yield team


def _trained_record(
    trained: Trained, store: RunStore, base: RunStore | None, device: torch.device
) -> TrainedRecord:
    """How a training went, with that of its base."""
    own_time = taken = of_epochs(trained.history, device)
    base_facts, own = None, None
    if base is not None:
        before, of_base = base.training(), base.begun_record().run
        base_facts = BaseFacts(
            run_id=base.run_id,
            method=of_base.method if isinstance(of_base, Run) else of_base.label,
            train_seconds=(before.train_seconds if before is not None else None) or 0.0,
            train_cpu_seconds=before.train_cpu_seconds if before is not None else None,
        )
        own = FineTuning(
            epochs=len(trained.history),
            train_seconds=own_time.seconds,
            train_cpu_seconds=own_time.cpu_seconds,
        )
        taken = own_time + Taken(base_facts.train_seconds, base_facts.train_cpu_seconds)
    place = store.place()
    return TrainedRecord(
        run_id=store.run_id,
        train_seconds=taken.seconds,
        train_cpu_seconds=taken.cpu_seconds,
        parameters=sum(p.numel() for p in trained.net.parameters()),
        peak_memory_bytes=peak_memory(str(device)),
        checkpoint=f"epoch {trained.epoch}",
        base=base_facts,
        fine_tuning=own,
        threads=place.threads or store.begun_record().provenance.threads,
        earlier_threads=place.earlier_threads,
        weights_sha256=None,
        made=now(),
    )


def _state_saver(
    store: RunStore, claim: Claim, every: float, epochs: int
) -> Callable[[dict[str, Any]], None]:
    """A function that keeps the curve of every epoch, and what resuming needs now and then.

    The last of the epochs is always kept, and so is the one after which the process must stop.
    """
    last, stop = time.monotonic(), claim.stop

    def save(state: dict[str, Any]) -> None:
        nonlocal last
        claim.check()
        due = time.monotonic() - last >= every or len(state["history"]) >= epochs
        if due or stop.asked:
            save_state(store, state)
            last = time.monotonic()
        else:
            store.write_history(state["history"])
        if stop.asked:
            raise KeyboardInterrupt
        stop.unsaved = not due

    return save


def watch_of(
    run: Run,
    data: LongTailedData,
    settings: Settings,
    device: torch.device,
    team: Team | None = None,
) -> Watch | None:
    """What the curve of a training shows of the test set, if that is asked for."""
    if settings.watch is None:
        return None
    specs = watched_attacks(run, settings)
    test = TestSet(data.test_images, data.test_labels, data.test_index)

    def look(net: nn.Module, method: Method) -> dict[str, float]:
        model = DefendedModel(net, method.adjust)
        evaluator = Evaluator(model, test, num_classes=data.num_classes, device=device, team=team)
        right = {name: evaluator.run(spec).pred == test.labels for name, spec in specs.items()}
        return {f"{WATCHED}{name}": float(r.double().mean()) for name, r in right.items()}

    return Watch(look, settings.watch_every)


def _note_threads(store: RunStore, epochs: int, threads: int, reporter: Reporter) -> None:
    """Say and record that a run goes on with other threads than those of its first epochs."""
    place = store.place()
    before = place.threads or store.begun_record().provenance.threads
    if before == threads:
        return
    reporter.line(
        f"  warning: it began with {before} CPU threads; what a CPU computes may differ in the "
        "last bits from an unbroken run"
    )
    earlier = [*place.earlier_threads, ThreadsBefore(threads=before, until_epoch=epochs)]
    store.write_place(place.model_copy(update={"threads": threads, "earlier_threads": earlier}))


def _profile_evaluation(store: RunStore, seconds: dict[str, float], device: str) -> None:
    """Add the attacks that were run here to the run's profile; earlier ones are kept."""
    if not seconds:
        return
    profile = store.profile()
    attacks = {**(profile.evaluation or {}).get("seconds", {}), **seconds}
    before = (profile.evaluation or {}).get("peak_memory_bytes") or 0
    peak = max(before, peak_memory(device))
    evaluation = {"seconds": attacks, "peak_memory_bytes": peak}
    store.write_profile(ProfileRecord(training=profile.training, evaluation=evaluation))


def model_facts(run: Run, data: LongTailedData) -> dict[str, Any]:
    """What is needed to rebuild the network around its weights: no time, no path."""
    return {
        "arch": run.arch,
        "method": run.method,
        "options": run.options,
        "train_counts": list(data.train_counts),
        "image_shape": list(data.image_shape),
    }


STATE = "method."
"""Prefix of the tensors that a method keeps, beside the network's own."""


def method_tensors(method: Method) -> dict[str, torch.Tensor]:
    """What a method's inference adjustment needs."""
    return {f"{STATE}{name}": value for name, value in method.inference_state().items()}


def split_model(weights: dict[str, torch.Tensor]) -> Base:
    """The network's own tensors of a stored model, and those of its method."""
    kept = {k.removeprefix(STATE): v for k, v in weights.items() if k.startswith(STATE)}
    return Base({k: v for k, v in weights.items() if not k.startswith(STATE)}, kept)


def _take_over(base: RunStore, run: Run) -> Base:
    """The trained model that a post-hoc run acts on.

    Raises:
        RunError: it is not there.
    """
    if not base.trained:
        reason = f" ({base.failure})" if base.failure else ""
        raise RunError(f"{run.method} acts on {base.run_id}, which is not trained{reason}")
    return split_model(load_model(base))


def load_defended(
    run: Run, data: LongTailedData, store: RunStore, device: torch.device
) -> DefendedModel:
    """Rebuild a run's model from its files, with its inference adjustment."""
    return defended(run, data.train_counts, data.image_shape, store, device)


def defended(
    run: Run,
    train_counts: Sequence[int],
    image_shape: Sequence[int],
    store: RunStore,
    device: torch.device,
) -> DefendedModel:
    """The same where only the facts of the data are at hand."""
    what = str(store.path / "model.safetensors")
    return defended_by(run, train_counts, image_shape, load_model(store), what, device)


def defended_by(
    run: Run,
    train_counts: Sequence[int],
    image_shape: Sequence[int],
    weights: dict[str, torch.Tensor],
    what: str,
    device: torch.device,
) -> DefendedModel:
    """The same where the tensors of the file are at hand; `what` is what errors call it."""
    channels, height, width = image_shape
    built = build(run, tuple(train_counts), (channels, height, width))
    stored = split_model(weights)
    built.method.load_inference_state(stored.kept)
    load_weights(built.net, stored.weights, what)
    return DefendedModel(built.net, built.method.adjust).to(device).eval()


def evaluate_run(
    planned: PlannedRun,
    data: LongTailedData,
    store: RunStore,
    device: torch.device,
    missing: dict[str, AttackSpec],
    reporter: Reporter,
    *,
    no_checks: bool = False,
    crew: Crew | None = None,
) -> dict[str, float]:
    """Run the missing attacks on a trained run and store each one's outcomes when it ends.

    With a crew its processes share out the images; checks and examples are made in this one alone.

    Returns:
        What `attack_model` does.
    """
    if not missing and not _lacks_findings(store, data, no_checks):
        return {}
    model = load_defended(planned.run, data, store, device)
    evaluator = _evaluator(model, data, device, reporter)
    if crew is None or not missing:
        taken = _attack(evaluator, planned.test, data, store, missing, reporter)
    else:
        with crew.attacks(planned, data, store.weights(), list(missing.values())) as team:
            evaluator.team = team
            taken = _attack(evaluator, planned.test, data, store, missing, reporter)
        evaluator.team = None
    _look_into(evaluator, data, store, reporter, no_checks)
    return taken


def attack_model(
    model: nn.Module,
    test_spec: TestSpec,
    data: LongTailedData,
    store: RunStore,
    device: torch.device,
    attacks: dict[str, AttackSpec],
    reporter: Reporter,
    *,
    no_checks: bool = False,
) -> dict[str, float]:
    """Attack a model and store each attack, by its id, with its outcomes when it ends.

    Then the reliability checks are made and stored, unless they are left out; what they need of the
    model is kept, so that further attacks cost no further experiments. Last come the examples.

    Returns:
        Seconds that each attack, by its id, took here; for one that was resumed the part done here.
    """
    evaluator = _evaluator(model, data, device, reporter)
    taken = _attack(evaluator, test_spec, data, store, attacks, reporter)
    _look_into(evaluator, data, store, reporter, no_checks)
    return taken


def _evaluator(
    model: nn.Module, data: LongTailedData, device: torch.device, reporter: Reporter
) -> Evaluator:
    test = TestSet(data.test_images, data.test_labels, data.test_index)
    return Evaluator(model, test, num_classes=data.num_classes, device=device, reporter=reporter)


def _look_into(
    evaluator: Evaluator,
    data: LongTailedData,
    store: RunStore,
    reporter: Reporter,
    no_checks: bool,
) -> None:
    """Make the reliability checks, unless they are left out, and the examples."""
    sha = test_sha256(data)
    if no_checks:
        reporter.line("  reliability not checked (--no-checks)")
    else:
        check_reliability(evaluator, store, sha, reporter)
    keep_examples(evaluator, store, sha, data.train_counts)


def _attack(
    evaluator: Evaluator,
    test_spec: TestSpec,
    data: LongTailedData,
    store: RunStore,
    attacks: dict[str, AttackSpec],
    reporter: Reporter,
) -> dict[str, float]:
    """Run attacks and store each one's outcomes when it ends; seconds that each took."""
    taken, test = {}, evaluator.test
    together = 1 if evaluator.team is None else evaluator.team.size
    sha, origin = test_sha256(data), provenance(str(evaluator.device), together)
    evaluator.check(attacks.values())
    reporter.begin("run", "attacks", len(attacks), alike=False)
    for attack_id, spec in attacks.items():
        part = f"{attack_id}-{sha[:12]}"
        resume = load_attack_state(store, part)
        if evaluator.team is not None:
            evaluator.team.told(b"" if resume is None else to_bytes(resume))
        before = as_taken(resume.pop("taken")) if resume else NOTHING
        stopwatch = Stopwatch(evaluator.device, alone=evaluator.team is None)
        result = evaluator.run(spec, resume=resume, save=_saver(store, part, before, stopwatch))
        taken[attack_id] = result.taken.seconds
        whole = before + result.taken
        frame = outcomes(test, spec, attack_id, result)
        digest = digest_of(frame, data.num_classes)
        record = AttackRecord(
            run_id=store.begun_record().run_id,
            attack_id=attack_id,
            attack=spec.name,
            eps=spec.eps,
            settings={**spec.settings(), **result.details},
            library=spec.library,
            test_protocol=test_spec.protocol,
            limit_test=test_spec.limit,
            test_sha256=sha,
            seconds=whole.seconds,
            cpu_seconds=whole.cpu_seconds,
            provenance=origin,
            digest=digest,
            outcomes_sha256=outcomes_sha256(frame),
            made=now(),
        )
        store.add_attack(record, frame)
        store.drop_attack_state(part)
        numbers = summary_of(digest.right, digest.tested, data.train_counts)
        reporter.line(
            f"  {spec.title}: accuracy {100 * numbers['accuracy']:.2f}, balanced "
            f"{100 * numbers['balanced_accuracy']:.2f} (n = {len(frame)}, {whole.seconds:.1f} s)"
        )
        reporter.advance("run")
    reporter.end("run")
    return taken


def _lacks_findings(store: RunStore, data: LongTailedData, no_checks: bool) -> bool:
    """Whether something is missing that is made when all attacks are done."""
    sha = test_sha256(data)
    unchecked = not no_checks and lacks_reliability(store, [sha])
    return unchecked or lacks_examples(store, sha)


def _saver(
    store: RunStore, part: str, before: Taken, stopwatch: Stopwatch
) -> Callable[[dict[str, torch.Tensor]], None]:
    """A function that keeps a long attack's state together with the time it has taken."""

    def save(state: dict[str, torch.Tensor]) -> None:
        save_attack_state(store, part, {**state, "taken": as_tensor(before + stopwatch.read())})

    return save


def missing_attacks(
    wanted: dict[str, AttackSpec], store: RunStore, data: LongTailedData
) -> dict[str, AttackSpec]:
    """The attacks that were not made yet.

    Raises:
        UserError: one was made on other test images.
    """
    made, sha = store.attacks(), test_sha256(data)
    for attack_id in wanted:
        if attack_id in made and made[attack_id].test_sha256 != sha:
            raise UserError(
                f"the test images have changed since {attack_id} was made; use another --output, "
                f"or delete {store.path / 'attacks' / attack_id}.json"
            )
    return {attack_id: spec for attack_id, spec in wanted.items() if attack_id not in made}
