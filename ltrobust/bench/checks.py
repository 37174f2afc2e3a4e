"""The reliability checks of a stored run: what they need is read, what they find is written.

The checks themselves are `evaluation.reliability`'s. The experiments that need the model are kept
beside the run under the test images and the radius, so that they are made once.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict

from ltrobust.evaluation.effort import free_passes
from ltrobust.evaluation.evaluate import Evaluator
from ltrobust.evaluation.probe import probe
from ltrobust.evaluation.reliability import (
    Evaluation,
    Finding,
    affordable,
    findings,
    usual_radius,
)
from ltrobust.progress import Reporter
from ltrobust.results.records import AttackRecord, FindingRecord
from ltrobust.results.store import RunStore


def lacks_reliability(store: RunStore, images: Collection[str] = ()) -> bool:
    """Whether a run has attacks that its reliability report does not know, or was not probed on
    some of these test images, by checksum, on which it was attacked.
    """
    there = _there(store, store.attacks())
    attacked = {one.test_sha256 for one in there.values() if one.attack != "clean"}
    if not attacked:
        return False
    report = store.reliability()
    if report is None or not there.keys() <= set(report.judged):
        return True
    asked = attacked & set(images)
    probed = {key.partition("-")[0] for key in store.probes()} if asked else set()
    return any(sha[:12] not in probed for sha in asked)


def _there(store: RunStore, made: dict[str, AttackRecord]) -> dict[str, AttackRecord]:
    """The attacks whose outcomes are there."""
    return {one: record for one, record in made.items() if store.has_outcomes(one)}


def check_reliability(evaluator: Evaluator, store: RunStore, sha: str, reporter: Reporter) -> None:
    """Check all of a run's evaluations and write the findings; `sha` tells the evaluator's images.

    Of each check the most serious finding is kept, over all test images and radii that the run was
    ever judged on, so that a small evaluation cannot wipe out what a large one has found. What was
    found of attacks whose outcomes are gone stays. Nothing is done for a run that was never
    attacked.
    """
    made = store.attacks()
    there = _there(store, made)
    if all(record.attack == "clean" for record in there.values()):
        return
    by_images: dict[str, list[Evaluation]] = {}
    for record in there.values():
        rows = store.outcomes(record)
        if rows is not None:
            by_images.setdefault(record.test_sha256, []).append(
                Evaluation(record.attack, record.eps, _norm(record), rows)
            )
    _probe_once(evaluator, store, sha, by_images.get(sha, []), reporter)
    probes, history = store.probes(), store.history()
    found = []
    for images, evaluations in by_images.items():
        own = [kept for key, kept in probes.items() if key.startswith(images[:12])]
        found += [findings(experiments, evaluations, history) for experiments in own]
        found += [] if own else [findings(None, evaluations, history)]
    worst = [max(same, key=_seriousness) for same in zip(*found, strict=True)]
    lost, before = made.keys() - there.keys(), store.reliability()
    judged = set(there)
    if lost and before is not None:
        worst = _with_stored(worst, before.findings)
        judged |= lost & set(before.judged)
    store.write_reliability([asdict(finding) for finding in worst], judged)
    flagged = [finding for finding in worst if finding.flagged]
    for finding in flagged:
        reporter.line(f"  † {finding.check}: {finding.explanation}")
    done = sum(finding.value is not None for finding in worst)
    reporter.line(f"  reliability: {done} checks made, {len(flagged)} flagged")


def _with_stored(worst: list[Finding], stored: list[FindingRecord]) -> list[Finding]:
    """Of each check the more serious of what was found now and before."""
    before = {one.check: Finding(**one.model_dump()) for one in stored}
    return [max(one, before.get(one.check, one), key=_seriousness) for one in worst]


def _seriousness(finding: Finding) -> tuple[bool, bool, float]:
    """Flagged before passed before unchecked, then how far beyond its threshold."""
    beyond = (finding.value or 0.0) - (finding.threshold or 0.0)
    return finding.flagged, finding.value is not None, beyond


def _probe_once(
    evaluator: Evaluator,
    store: RunStore,
    sha: str,
    evaluations: list[Evaluation],
    reporter: Reporter,
) -> None:
    """Make the experiments at the usual radius on these images, unless they were made."""
    attacked = [e for e in evaluations if e.attack != "clean"]
    if not attacked:
        return
    eps = usual_radius(evaluations)
    key = f"{sha[:12]}-{eps:.6g}"
    if key not in store.probes():
        free = free_passes(evaluator)
        effort = affordable(attacked, free, evaluator.num_classes)
        images = min(effort.images, len(evaluator.test.labels))
        reporter.line(f"  checking its reliability on {images} images (--no-checks leaves it out)")
        store.add_probe(key, probe(evaluator, eps=eps, effort=effort, reporter=reporter))


def _norm(record: AttackRecord) -> str:
    return str(record.settings.get("norm", "Linf"))
