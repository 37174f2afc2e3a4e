"""The reliability checks of a stored run: what they need is read, what they find is written.

The checks themselves are `evaluation.reliability`'s. The experiments that need the model are kept
in the run's record under the test images and the radius, so that they are made once.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from ltrobust.bench.evaluations import outcomes_there
from ltrobust.bench.store import RunStore
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


def lacks_reliability(store: RunStore) -> bool:
    """Whether a run has attacks that its reliability report does not know."""
    made = outcomes_there(store)
    if all(e["attack"] == "clean" for e in made.values()):
        return False
    return not made.keys() <= set(store.read().get("judged", [])) or not store.has_reliability


def check_reliability(evaluator: Evaluator, store: RunStore, sha: str, reporter: Reporter) -> None:
    """Check all of a run's evaluations and write the findings; `sha` tells the evaluator's images.

    Of each check the most serious finding is kept, over all test images and radii that the run was
    ever judged on, so that a small evaluation cannot wipe out what a large one has found. What was
    found of attacks whose outcomes are gone stays. Nothing is done for a run that was never
    attacked.
    """
    made = outcomes_there(store)
    if all(evaluation["attack"] == "clean" for evaluation in made.values()):
        return
    frame = store.outcomes()
    by_images: dict[str, list[Evaluation]] = {}
    for attack_id, e in made.items():
        rows = frame[frame["attack_id"] == attack_id]
        by_images.setdefault(e["test_sha256"], []).append(
            Evaluation(e["attack"], e["eps"], _norm(e), rows)
        )
    _probe_once(evaluator, store, sha, by_images.get(sha, []), reporter)
    probes, history = store.read().get("probes", {}), store.history()
    found = []
    for images, evaluations in by_images.items():
        known = [kept for key, kept in probes.items() if key.startswith(images[:12])]
        found += [findings(experiments, evaluations, history) for experiments in known or [None]]
    worst = [max(same, key=_seriousness) for same in zip(*found, strict=True)]
    record = store.read()
    lost = set(record["evaluations"]) - made.keys()
    if lost:
        worst = _with_stored(worst, store.reliability())
    store.write_reliability([asdict(finding) for finding in worst])
    store.update(judged=sorted({*made, *(lost & set(record.get("judged", [])))}))
    flagged = [finding for finding in worst if finding.flagged]
    for finding in flagged:
        reporter.line(f"  † {finding.check}: {finding.explanation}")
    done = sum(finding.value is not None for finding in worst)
    reporter.line(f"  reliability: {done} checks made, {len(flagged)} flagged")


def _with_stored(worst: list[Finding], stored: list[dict[str, Any]]) -> list[Finding]:
    """Of each check the more serious of what was found now and before."""
    names = {field.name for field in fields(Finding)}
    whole = [{name: one[name] for name in names} for one in stored if names <= one.keys()]
    before = {one["check"]: Finding(**one) for one in whole}
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
    """Make the experiments at the usual radius on these images, unless the record has them."""
    attacked = [e for e in evaluations if e.attack != "clean"]
    if not attacked:
        return
    eps = usual_radius(evaluations)
    key = f"{sha[:12]}-{eps:.6g}"
    known = store.read().get("probes", {})
    if key not in known:
        free = free_passes(evaluator)
        effort = affordable(attacked, free, evaluator.num_classes)
        images = min(effort.images, len(evaluator.test.labels))
        reporter.line(f"  checking its reliability on {images} images (--no-checks leaves it out)")
        record = probe(evaluator, eps=eps, effort=effort, reporter=reporter)
        store.update(probes={**known, key: record})


def _norm(evaluation: dict[str, Any]) -> str:
    return evaluation["settings"].get("norm", "Linf")
