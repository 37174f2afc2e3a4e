"""Does a plan: trains what is not trained, evaluates what is not evaluated, goes on after failures.

The order of writes is what makes it safe to kill: state now and then, weights, outcomes after
each attack, `done` last. Whatever is missing is done again the next time, from where it stood.
"""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import nn

from ltrobust.attacks.suite import attack_spec
from ltrobust.bench.checks import check_reliability, lacks_reliability
from ltrobust.bench.evaluations import outcomes_there, read_run
from ltrobust.bench.examples import keep_examples, lacks_examples
from ltrobust.bench.loader import Loader, test_sha256
from ltrobust.bench.plan import Plan, PlannedRun, thrift
from ltrobust.bench.provenance import peak_memory, provenance, restart_peak_memory
from ltrobust.bench.settings import Settings
from ltrobust.bench.store import RunStore, SuiteStore
from ltrobust.config import AttackSpec, Run, TestSpec
from ltrobust.data import LongTailedData
from ltrobust.errors import RunError, UserError
from ltrobust.evaluation.evaluate import DefendedModel, Evaluator, TestSet, outcomes
from ltrobust.evaluation.metrics import summary
from ltrobust.method import Method
from ltrobust.progress import Reporter
from ltrobust.threads import computing_with
from ltrobust.training.checkpoint import load_weights
from ltrobust.training.profile import UNTIMED, StepProfile, matrix_peak
from ltrobust.training.trainer import WATCHED, Base, Watch, build, total_epochs, train


@dataclass(frozen=True)
class Failure:
    """A run that could not be finished, and why, in one line."""

    run_id: str
    reason: str


def run_plan(plan: Plan, store: SuiteStore, load: Loader, reporter: Reporter) -> list[Failure]:
    """Do every run of a plan in a locked suite directory; return those that failed."""
    failures = []
    reporter.begin("plan", "plan", len(plan.runs))
    for planned in plan.runs:
        with computing_with(_threads(store.run(planned.run.run_id), plan.settings)):
            reason = _do_run(planned, store, load, plan, reporter)
        if reason:
            failures.append(Failure(planned.run.run_id, reason))
        reporter.advance("plan")
    reporter.end("plan")
    return failures


def _threads(store: RunStore, settings: Settings) -> int | None:
    """CPU threads for a run: those asked for, else those that a stopped one began with."""
    if settings.threads is not None or settings.overwrite == "all" or not store.begun:
        return settings.threads
    try:
        record = store.read()
    except UserError:  # doing the run will tell
        return None
    begun = record.get("provenance", {}).get("threads")
    known = isinstance(begun, int) and begun > 0
    return begun if known and record.get("status") != "done" else None


def _do_run(
    planned: PlannedRun,
    suite: SuiteStore,
    load: Loader,
    plan: Plan,
    reporter: Reporter,
) -> str:
    """Do one run; return the reason when it failed, else ""."""
    store = suite.run(planned.run.run_id)
    try:
        if plan.settings.overwrite == "all":
            suite.start_over(store.run_id)
        return _go_on(planned, suite, load(planned), plan, reporter)
    except (RunError, UserError) as error:
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
    planned: PlannedRun, suite: SuiteStore, data: LongTailedData, plan: Plan, reporter: Reporter
) -> str:
    """Do what a run lacks, from where it stands; return why a failed one is kept as it is."""
    store = suite.run(planned.run.run_id)
    record = store.read()
    if record.get("status") == "failed" and plan.settings.overwrite == "never":
        return f"{record.get('error', 'failed')} (kept; --overwrite failed tries again)"
    _same_images(record, data)
    keep_place(store, data)
    missing = missing_attacks(planned.attack_ids(), store, data)
    if _done_before(store, missing, data, plan, reporter):
        return ""
    _open_record(planned, store, data, plan)
    with reporter.copy_to(store.log):
        reporter.line(f"{planned.run.run_id}: {describe(planned.run)}")
        for note in data.notes:
            store.log(f"  note: {note}")  # the user has been told once for all runs
        if not store.trained:
            base = None if planned.base is None else suite.run(planned.base)
            _train(planned.run, data, store, plan, reporter, base)
        store.drop_state()  # a kill may have come just before it went with the weights
        restart_peak_memory(plan.device)
        device = torch.device(plan.device)
        no_checks = plan.settings.no_checks
        seconds = evaluate_run(planned, data, store, device, missing, reporter, no_checks=no_checks)
        if plan.settings.profile:
            _profile_evaluation(store, seconds, plan.device)
        store.update(status="done", error=None)
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
        UserError: outcomes are there, others are wanted, and the weights that they belong to are
            gone.
    """
    there, trained = outcomes_there(store), store.trained
    lacks = missing or _lacks_findings(store, data, plan.settings.no_checks)
    if trained and (lacks or store.status != "done"):
        return False
    if not trained and not there:
        return False
    if missing:
        raise UserError(
            f"{store.path / 'model.safetensors'} is gone, and the stored outcomes belong to it; "
            "put it back, or train and attack again with --overwrite all"
        )
    if store.status != "done":
        store.update(status="done", error=None)
    gone = "" if trained else " (its weights are gone; nothing here needs them)"
    unmeasured = "; nothing to profile" if plan.settings.profile else ""
    reporter.line(f"{store.run_id}: done before{gone}{unmeasured}")
    return True


def _same_images(record: dict[str, Any], data: LongTailedData) -> None:
    """Refuse to go on with a run that was begun on other training images."""
    begun = record.get("data", {})
    if begun and begun["split_sha256"] != data.split_sha256:
        raise UserError(
            "the data has changed since this run was begun; use another --output, or "
            "--overwrite all to train it again"
        )


def keep_place(store: RunStore, data: LongTailedData) -> None:
    """Bring up to date where a run's image folder lies, and what has been left out of it."""
    known = store.read().get("data", {})
    if known and data.path:
        notes = list(dict.fromkeys([*known.get("notes", ()), *data.notes]))
        if (data.path, notes) != (known.get("path"), known.get("notes")):
            store.update(data={**known, "path": data.path, "notes": notes})


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
        store.update(run_id=store.run_id, status="failed", error=reason)
        store.log(f"failed: {reason}")
        if more:
            store.log(more)
    except (RunError, UserError):  # a full disk, or a damaged record, which is left as it is
        return f"{reason} (which could not be recorded in {store.path})"
    return reason


def _open_record(planned: PlannedRun, store: RunStore, data: LongTailedData, plan: Plan) -> None:
    """Write down what is about to happen, keeping what an earlier visit recorded.

    Where a run came from holds as long as something of its training is there.
    """
    record = store.read()
    origin = record.get("provenance") if store.begun else None
    store.update(
        run_id=planned.run.run_id,
        status="running",
        error=None,
        config=planned.run.model_dump(mode="json"),
        overrides=(planned.cell or plan.settings).overrides(),
        data=record.get("data") or data_facts(data),
        provenance=origin or provenance(plan.device),
        timings=record.get("timings") or {},
        evaluations=record.get("evaluations") or {},
    )


def data_facts(data: LongTailedData) -> dict[str, Any]:
    """What a result must say about the data: the training set, and where all images come from."""
    return {
        "class_names": list(data.class_names),
        "train_counts": list(data.train_counts),
        "imbalance_ratio": data.imbalance_ratio,
        "image_shape": list(data.image_shape),
        "split_sha256": data.split_sha256,
        "source": data.source,
        **({"path": data.path, "notes": list(data.notes)} if data.path else {}),
    }


def _train(
    run: Run,
    data: LongTailedData,
    store: RunStore,
    plan: Plan,
    reporter: Reporter,
    base: RunStore | None,
) -> None:
    """Train a run and store it; `base` is the trained run that a post-hoc one acts on."""
    taken_over = None if base is None else _take_over(base, run)
    device = torch.device(plan.device)
    profile = None
    if plan.settings.profile:
        profile = StepProfile(device, matrix_peak(plan.device, run.precision))
    restart_peak_memory(plan.device)
    state = store.load_state()
    if state is not None:
        epochs, threads = len(state["history"]), torch.get_num_threads()
        reporter.line(f"  resuming after epoch {epochs}, with {threads} CPU threads")
        _note_threads(store, epochs, threads, reporter)
    trained = train(
        run,
        data,
        device=device,
        state=state,
        save=_state_saver(store, plan.settings.save_every),
        reporter=reporter,
        thrift=thrift(plan.settings),
        clock=profile or UNTIMED,
        base=taken_over,
        watch=_watch(run, data, plan.settings, device),
        capture=not plan.settings.no_capture,
    )
    if trained.history:  # a post-hoc method may train nothing
        store.write_history(trained.history)
    seconds = sum(row["seconds"] for row in trained.history)
    if base is not None:
        record = base.read()
        before = record.get("timings", {}).get("train_seconds", 0.0)
        facts = {"run_id": base.run_id, "method": record["config"]["method"]}
        own = {"epochs": len(trained.history), "train_seconds": seconds}
        store.update(base={**facts, "train_seconds": before}, fine_tuning=own)
        seconds += before
    parameters = sum(p.numel() for p in trained.net.parameters())
    store.update(
        timings={"train_seconds": seconds},
        parameters=parameters,
        peak_memory_bytes=peak_memory(str(device)),
        checkpoint=f"epoch {trained.epoch}",
    )
    if profile is not None and profile.epochs:
        memory = peak_memory(plan.device)
        training = {"of_epochs": len(trained.history), **profile.record()}
        training["peak_memory_bytes"] = memory
        store.update(profile={**store.read().get("profile", {}), "training": training})
    store.drop_findings()
    # last: from here on the run counts as trained
    weights = {**trained.net.state_dict(), **method_tensors(trained.method)}
    store.save_model(weights, model_facts(run, data))


def _state_saver(store: RunStore, every: float) -> Callable[[dict[str, Any]], None]:
    """A function that keeps the curve of every epoch, and what resuming needs now and then."""
    last = time.monotonic()

    def save(state: dict[str, Any]) -> None:
        nonlocal last
        if time.monotonic() - last >= every:
            store.save_state(state)
            last = time.monotonic()
        else:
            store.write_history(state["history"])

    return save


def _watch(
    run: Run, data: LongTailedData, settings: Settings, device: torch.device
) -> Watch | None:
    """What the curve of a training shows of the test set, if that is asked for."""
    if settings.watch is None:
        return None
    specs = {name: attack_spec(name, run.recipe.attack.eps) for name in settings.watch}
    test = TestSet(data.test_images, data.test_labels, data.test_index)

    def look(net: nn.Module, method: Method) -> dict[str, float]:
        model = DefendedModel(net, method.adjust)
        evaluator = Evaluator(model, test, num_classes=data.num_classes, device=device)
        right = {name: evaluator.run(spec).pred == test.labels for name, spec in specs.items()}
        return {f"{WATCHED}{name}": float(r.double().mean()) for name, r in right.items()}

    return Watch(look, settings.watch_every)


def _note_threads(store: RunStore, epochs: int, threads: int, reporter: Reporter) -> None:
    """Say and record that a run goes on with other threads than those of its first epochs."""
    origin = store.read()["provenance"]
    before = origin["threads"]
    if before == threads:
        return
    reporter.line(
        f"  warning: it began with {before} CPU threads; what a CPU computes may differ in the "
        "last bits from an unbroken run"
    )
    earlier = [*origin.get("earlier_threads", []), {"threads": before, "until_epoch": epochs}]
    store.update(provenance={**origin, "threads": threads, "earlier_threads": earlier})


def _profile_evaluation(store: RunStore, seconds: dict[str, float], device: str) -> None:
    """Add the attacks that were run here to the run's profile; earlier ones are kept."""
    if not seconds:
        return
    profile = store.read().get("profile", {})
    known = profile.get("evaluation", {})
    attacks = {**known.get("seconds", {}), **seconds}
    evaluation = {"seconds": attacks, "peak_memory_bytes": peak_memory(device)}
    store.update(profile={**profile, "evaluation": evaluation})


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
        record = base.read()
        reason = f" ({record['error']})" if record.get("error") else ""
        raise RunError(f"{run.method} acts on {base.run_id}, which is not trained{reason}")
    return split_model(base.load_model())


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
    channels, height, width = image_shape
    built = build(run, tuple(train_counts), (channels, height, width))
    stored = split_model(store.load_model())
    built.method.load_inference_state(stored.kept)
    load_weights(built.net, stored.weights, str(store.path / "model.safetensors"))
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
) -> dict[str, float]:
    """Run the missing attacks on a trained run and store each one's outcomes when it ends.

    Returns:
        What `attack_model` does.
    """
    if not missing and not _lacks_findings(store, data, no_checks):
        return {}
    model = load_defended(planned.run, data, store, device)
    return attack_model(
        model, planned.test, data, store, device, missing, reporter, no_checks=no_checks
    )


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
    """Attack a model and store the outcomes of each attack, by its id, when it ends.

    Then the reliability checks are made and stored, unless they are left out; what they need of the
    model is kept in the run's record, so that further attacks cost no further experiments. Last
    come the examples.

    Returns:
        Seconds that each attack, by its id, took here; for one that was resumed the part done here.
    """
    taken = {}
    _tell_lost(attacks, store, reporter)
    test = TestSet(data.test_images, data.test_labels, data.test_index)
    evaluator = Evaluator(
        model, test, num_classes=data.num_classes, device=device, reporter=reporter
    )
    sha, origin = test_sha256(data), provenance(str(device))
    evaluator.check(attacks.values())
    reporter.begin("run", "attacks", len(attacks))
    for attack_id, spec in attacks.items():
        part = f"{attack_id}-{sha[:12]}"
        resume = store.load_attack_state(part)
        before = float(resume.pop("seconds")) if resume else 0.0
        result = evaluator.run(spec, resume=resume, save=_saver(store, part, before))
        taken[attack_id] = result.seconds
        seconds = before + result.seconds
        frame = outcomes(test, spec, attack_id, result)
        _add_outcomes(store, attack_id, frame)
        record = {
            "attack": spec.name,
            "eps": spec.eps,
            "settings": {**spec.settings(), **result.details},
            "library": spec.library,
            "test_protocol": test_spec.protocol,
            "limit_test": test_spec.limit,
            "test_sha256": sha,
            "seconds": seconds,
            "provenance": origin,
        }
        store.update(evaluations={**store.read().get("evaluations", {}), attack_id: record})
        store.drop_attack_state(part)
        numbers = summary(frame, data.train_counts)
        reporter.line(
            f"  {spec.title}: accuracy {100 * numbers['accuracy']:.2f}, balanced "
            f"{100 * numbers['balanced_accuracy']:.2f} (n = {len(frame)}, {seconds:.1f} s)"
        )
        reporter.advance("run")
    reporter.end("run")
    if no_checks:
        reporter.line("  reliability not checked (--no-checks)")
    else:
        check_reliability(evaluator, store, sha, reporter)
    keep_examples(evaluator, store, sha, data.train_counts)
    return taken


def _lacks_findings(store: RunStore, data: LongTailedData, no_checks: bool) -> bool:
    """Whether something is missing that is made when all attacks are done."""
    unchecked = not no_checks and lacks_reliability(store)
    return unchecked or lacks_examples(store, test_sha256(data))


def _saver(store: RunStore, part: str, before: float) -> Callable[[dict[str, torch.Tensor]], None]:
    """A function that keeps a long attack's state together with the seconds it has taken."""
    began = time.perf_counter()

    def save(state: dict[str, torch.Tensor]) -> None:
        seconds = torch.tensor(before + time.perf_counter() - began, dtype=torch.float64)
        store.save_attack_state(part, {**state, "seconds": seconds})

    return save


def _add_outcomes(store: RunStore, attack_id: str, frame: pd.DataFrame) -> None:
    old = store.outcomes()
    if len(old):
        frame = pd.concat([old[old["attack_id"] != attack_id], frame], ignore_index=True)
    store.write_outcomes(frame)


def missing_attacks(
    wanted: dict[str, AttackSpec], store: RunStore, data: LongTailedData
) -> dict[str, AttackSpec]:
    """The attacks whose outcomes are not there for exactly these test images."""
    there, sha = outcomes_there(store), test_sha256(data)
    return {
        attack_id: spec
        for attack_id, spec in wanted.items()
        if attack_id not in there or there[attack_id]["test_sha256"] != sha
    }


def _tell_lost(attacks: Mapping[str, AttackSpec], store: RunStore, reporter: Reporter) -> None:
    """Say which of these attacks were done before and are done again for want of outcomes."""
    lost = [attacks[attack_id].name for attack_id in read_run(store).lost if attack_id in attacks]
    if lost:
        reporter.line(f"  outcomes of {', '.join(lost)} are gone: attacked again")
