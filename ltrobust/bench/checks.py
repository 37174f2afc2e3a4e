"""The reliability checks of a stored run: what they need is read, what they find is written.

The checks themselves are `evaluation.reliability`'s. The experiments that need the model are kept
in the run's record under the test images and the radius, so that they are made once.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ltrobust.bench.store import RunStore
from ltrobust.evaluation.evaluate import Evaluator
from ltrobust.evaluation.probe import probe
from ltrobust.evaluation.reliability import Evaluation, findings, usual_radius
from ltrobust.progress import Reporter


def lacks_reliability(store: RunStore) -> bool:
    """Whether a run was attacked and its reliability never checked."""
    evaluations = store.read().get("evaluations", {}).values()
    return any(e["attack"] != "clean" for e in evaluations) and not store.reliability()


def check_reliability(evaluator: Evaluator, store: RunStore, sha: str, reporter: Reporter) -> None:
    """Check a run's evaluations on the test images of checksum `sha`, and write the findings.

    Nothing is done for a run that was never attacked.
    """
    record = store.read()
    made = {
        attack_id: evaluation
        for attack_id, evaluation in record.get("evaluations", {}).items()
        if evaluation["test_sha256"] == sha
    }
    if all(evaluation["attack"] == "clean" for evaluation in made.values()):
        return
    frame = store.outcomes()
    evaluations = [
        Evaluation(e["attack"], e["eps"], _norm(e), frame[frame["attack_id"] == attack_id])
        for attack_id, e in made.items()
    ]
    found = findings(_probes(evaluator, store, sha, evaluations, reporter), evaluations)
    store.write_reliability([asdict(finding) for finding in found])
    flagged = [finding for finding in found if finding.flagged]
    for finding in flagged:
        reporter.line(f"  † {finding.check}: {finding.explanation}")
    done = sum(finding.value is not None for finding in found)
    reporter.line(f"  reliability: {done} checks made, {len(flagged)} flagged")


def _probes(
    evaluator: Evaluator,
    store: RunStore,
    sha: str,
    evaluations: list[Evaluation],
    reporter: Reporter,
) -> dict[str, Any] | None:
    """The experiments at the radius of most L-inf attacks; None where there is no such attack."""
    eps = usual_radius(evaluations)
    if eps is None:
        return None
    key = f"{sha[:12]}-{eps:.6g}"
    known = store.read().get("probes", {})
    if key not in known:
        reporter.line("  checking its reliability")
        known = {**known, key: probe(evaluator, eps=eps)}
        store.update(probes=known)
    return known[key]


def _norm(evaluation: dict[str, Any]) -> str:
    return evaluation["settings"].get("norm", "Linf")
