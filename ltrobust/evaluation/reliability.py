"""Signs that an evaluation says more about its attacks than about the model.

`findings` judges the experiments of `probe` together with the outcomes of the attacks. Gradient
masking and its signs: Athalye, Carlini and Wagner 2018, "Obfuscated gradients give a false sense of
security"; Carlini et al. 2019, "On evaluating adversarial robustness". This module sees no model
and writes no files; what each check means stands in docs/evaluation.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ltrobust.attacks.suite import attack_spec
from ltrobust.config import AttackSpec
from ltrobust.errors import UserError
from ltrobust.evaluation.compare import mcnemar
from ltrobust.evaluation.concerns import concern
from ltrobust.evaluation.effort import LARGE_EPS, SHARE, WHITE_BOX, Effort, attack_passes, effort

GAP_POINTS = 8.0
"""PGD above stronger attacks: 59 of 62 published balanced entries lie within 2.4 to 8.0 points of
AutoAttack (FastAT benchmark), and CW and LSA find no more than AutoAttack does. Published gaps to
CW reach 4.2 and to LSA 2.6 points; our own small networks reach 7."""
LARGE_EPS_POINTS = 5.0
FAR, NEAR = 0.1, 0.05
"""Distance of the images from what the first batch norm remembers, in nats. Trained networks
on the images they were trained with: up to 0.021; the same normalised twice or not at all: 0.35 and
more. By so much another input must be nearer, and so near must be the nearer of the two."""
NORMALISATION_POINTS, UNDOING_POINTS = 5.0, 2.0
"""Without batch norm: gains of accuracy by a normalisation, and by undoing one. Hardly trained
networks like more contrast, up to 4 points; none of ours likes less."""
UNSETTLED_POINTS = 20.0
"""The same where a batch norm fits neither: a few steps of training gain up to 12 points."""
CHANCE = 1e-4
"""p-value below which a gain is none of chance; eighteen changes are tried."""
LEARNT_POINTS = 25.0
"""Points above chance from which on a model has learnt enough to tell its inputs apart."""
ZERO_GRADIENTS = 0.05
"""Well-trained networks: 0.0005 to 0.0024."""
RANDOM_OUTPUTS = 1e-3
"""Relative to the spread of the logits; rounding makes about 0.000001, TF32 about 0.001."""
BATCH_OUTPUTS = 1e-2
UNDERCONFIDENT = 10.0
"""Accuracy over confidence, both above chance. Well-trained networks with plain logits have 0.3 to
2.6; RoBal's cosine logits, which PGD overrates, 9 to 17."""

OVERFITTED = 75.0
"""Percent of what stands the training attack that may fall to PGD. Under N-FGSM without overfitting
5 to 40 do; afterwards nearly all."""


@dataclass(frozen=True)
class Finding:
    """One check's result; `asdict` gives its JSON object.

    Attributes:
        check: the check's name, a heading of docs/evaluation.md.
        flagged: whether `value` is above `threshold`.
        value: what was measured (accuracies and differences in points); None: not checked.
        threshold: the largest value that is not suspicious.
        explanation: the numbers, and for a flagged check what to do.
        concerns: whose numbers it puts in doubt where it is flagged; see `concerns.CONCERNS`.
    """

    check: str
    flagged: bool
    value: float | None
    threshold: float | None
    explanation: str
    concerns: str


@dataclass(frozen=True)
class Evaluation:
    """One attack's outcomes: a frame with index, label, pred, correct and, if known, fell."""

    attack: str
    eps: float
    norm: str
    frame: pd.DataFrame


def usual_radius(evaluations: Sequence[Evaluation]) -> float:
    """Where `probe` is made: the L-inf radius of most attacks (of several, AutoAttack's).

    A model that was attacked in no L-inf ball gets the field's usual radius.
    """
    linf = [e for e in evaluations if e.norm == "Linf" and e.attack != "clean" and e.eps > 0]
    radii = [e.eps for e in linf]
    chosen = {e.eps for e in linf if e.attack.startswith("autoattack")}
    return max(radii, key=lambda r: (radii.count(r), r in chosen, r), default=8 / 255)


def affordable(evaluations: Sequence[Evaluation], free: float, num_classes: int) -> Effort:
    """What `probe` may do beside these attacks: a share of their passes, and `free` ones more."""
    made = 0.0
    for e in evaluations:
        spec = _spec(e.attack, e.eps)
        if spec is not None and spec.kind != "clean":
            right = len(e.frame) - int((e.frame["fell"] == "clean").sum())
            made += attack_passes(spec, right, int(e.frame["correct"].sum()), num_classes)
    return effort(SHARE * made + free)


@dataclass(frozen=True)
class _Outcome:
    """Which images stood one attack."""

    name: str
    eps: float
    norm: str
    correct: pd.Series
    probed: bool
    spec: AttackSpec | None
    fell: pd.Series | None = None

    @property
    def full_name(self) -> str:
        return f"{self.name} of the probe" if self.probed else self.name

    def beside(self, other: _Outcome) -> bool:
        """Whether both had the same ball."""
        return self.norm == other.norm and math.isclose(self.eps, other.eps, abs_tol=1e-6)

    def is_kind(self, loss: str, steps: int = 0) -> bool:
        """Whether this is a plain gradient attack with this loss and at least so many steps."""
        return (
            self.spec is not None
            and self.spec.kind == "first-order"
            and self.spec.loss == loss
            and self.spec.momentum is None
            and (self.spec.steps or 0) >= steps
        )


@dataclass(frozen=True)
class _Gap:
    """Two attacks on the same images: by how many points the first leaves more right."""

    high: _Outcome
    low: _Outcome
    n: int
    points: float
    noise: float
    high_accuracy: float
    low_accuracy: float

    @property
    def text(self) -> str:
        return (
            f"{self.high.full_name} leaves {self.high_accuracy:.1f}% right and "
            f"{self.low.full_name} {self.low_accuracy:.1f}% ({self.n:,} images)"
        )


@dataclass(frozen=True)
class _Evidence:
    """Everything that the checks read."""

    probes: Mapping[str, Any]
    outcomes: list[_Outcome] = field(default_factory=list)
    history: pd.DataFrame | None = None

    def missing(self, name: str) -> str:
        """Why a probe has no result."""
        if not self.probes:
            return "the model was not probed."
        problem = self.probes.get("errors", {}).get(name)
        return f"the model does not survive it ({problem})." if problem else "no result."


def findings(
    probes: Mapping[str, Any] | None,
    evaluations: Sequence[Evaluation],
    history: pd.DataFrame | None = None,
) -> list[Finding]:
    """Judge probes and outcomes: every check, always in the same order.

    A difference between two attacks is taken over the images that both have, and one within
    max(1 point, 2 standard errors) is ignored.

    Args:
        probes: what `probe` returned; None where the model is not at hand.
        evaluations: the outcomes of the attacks on the same model.
        history: the learning curve, an epoch a row; None where the model was trained elsewhere.
    """
    known = [_outcome(e) for e in evaluations] + _probed(probes or {})
    evidence = _Evidence(probes or {}, known, history)
    return [check(evidence) for check in CHECKS]


def _outcome(evaluation: Evaluation) -> _Outcome:
    frame = evaluation.frame.drop_duplicates("index").set_index("index")
    return _Outcome(
        evaluation.attack,
        evaluation.eps,
        evaluation.norm,
        frame["correct"].astype(float),
        probed=False,
        spec=_spec(evaluation.attack, evaluation.eps),
        fell=frame["fell"] if "fell" in frame and frame["fell"].notna().all() else None,
    )


def _probed(probes: Mapping[str, Any]) -> list[_Outcome]:
    found = []
    for name, correct in probes.get("correct", {}).items():
        spec = attack_spec(name, probes["eps"])
        stands = pd.Series(correct, index=probes["index"], dtype=float)
        found.append(_Outcome(spec.name, spec.eps, spec.norm, stands, probed=True, spec=spec))
    return found


def _spec(name: str, eps: float) -> AttackSpec | None:
    try:
        return attack_spec(name, eps)
    except UserError:  # somebody else's attack: compared, but not by its settings
        return None


def _gap(high: _Outcome, low: _Outcome) -> _Gap | None:
    """Compare two attacks on their shared images; None without any."""
    both = pd.concat([high.correct, low.correct], axis=1, join="inner").to_numpy()
    n = len(both)
    if not n:
        return None
    change = 100 * (both[:, 0] - both[:, 1])
    # where all images agree the estimate would be 0, however few they are
    error = max(float(change.std()) / math.sqrt(n), 100 / n if change.any() else 0)
    accuracy = 100 * both.mean(0)
    return _Gap(
        high, low, n, float(change.mean()), 2 * error, float(accuracy[0]), float(accuracy[1])
    )


Limit = Callable[[_Gap], float]


def _beyond_noise(gap: _Gap) -> float:
    return max(1.0, gap.noise)


def _beyond_usual(gap: _Gap) -> float:
    """A usual gap; few images know theirs only roughly, so the probe must be clear of it."""
    probed = gap.high.probed or gap.low.probed
    return GAP_POINTS + gap.noise if probed else max(GAP_POINTS, gap.noise)


def _worst(pairs: Sequence[tuple[_Outcome, _Outcome]], limit: Limit) -> _Gap | None:
    """The pair whose gap is furthest above its limit, or nearest below it."""
    gaps = [gap for gap in (_gap(*pair) for pair in pairs) if gap is not None]
    return max(gaps, key=lambda gap: gap.points - limit(gap), default=None)


def _judge_gap(check: str, gap: _Gap | None, limit: Limit, missing: str, advice: str) -> Finding:
    if gap is None:
        return _unchecked(check, missing)
    apart = f"{gap.text}: a difference of {gap.points:+.1f} points"
    return _judge(check, gap.points, limit(gap), f"{apart}, limit {limit(gap):.1f}.", advice)


def _judge(check: str, value: float, threshold: float, facts: str, advice: str) -> Finding:
    flagged = value > threshold
    told = f"{facts} {advice}" if flagged else facts
    return Finding(check, flagged, float(value), float(threshold), told, concern(check))


def _unchecked(check: str, why: str) -> Finding:
    return Finding(check, False, None, None, f"Not checked: {why}", concern(check))


def _non_finite(evidence: _Evidence) -> Finding:
    check = "non-finite-outputs"
    outputs = evidence.probes.get("outputs")
    if outputs is None:
        return _unchecked(check, evidence.missing("outputs"))
    attacked = evidence.probes["bad_under_attack"]
    facts = (
        f"{100 * outputs['bad']:.1f}% of the clean images and {100 * attacked:.1f}% of the images "
        "of the probe's attacks have logits that are nan or infinite."
    )
    advice = "No accuracy means anything then: find the overflow, division or logarithm of zero."
    return _judge(check, max(outputs["bad"], attacked), 0.0, facts, advice)


def _probabilities(evidence: _Evidence) -> Finding:
    check = "probability-outputs"
    outputs = evidence.probes.get("outputs")
    if outputs is None:
        return _unchecked(check, evidence.missing("outputs"))
    kinds = ("probabilities", "values in [0, 1]")
    kind = max(kinds, key=lambda name: outputs[name])
    facts = f"{100 * outputs[kind]:.1f}% of the images have outputs that look like {kind}."
    advice = (
        "Attacks apply a softmax themselves, and a second one flattens their gradients: return "
        "the logits before softmax or sigmoid."
    )
    return _judge(check, outputs[kind], 0.9, facts, advice)


def _tiny_logits(evidence: _Evidence) -> Finding:
    check = "tiny-logits"
    outputs = evidence.probes.get("outputs")
    if outputs is None:
        return _unchecked(check, evidence.missing("outputs"))
    chance = 1 / evidence.probes["num_classes"]
    accuracy, confidence = outputs["accuracy"] - chance, outputs["confidence"] - chance
    value = max(0.0, accuracy) / max(confidence, 1e-9)
    facts = (
        f"The mean confidence is {outputs['confidence']:.3f} and the clean accuracy "
        f"{outputs['accuracy']:.3f}: above chance ({chance:.3f}), the accuracy is {value:.1f} "
        f"times the confidence, limit {UNDERCONFIDENT:.0f}."
    )
    advice = (
        "On so small logits cross-entropy attacks push towards all classes at once; trust CW and "
        "AutoAttack, not PGD."
    )
    return _judge(check, value, UNDERCONFIDENT, facts, advice)


def _normalisation(evidence: _Evidence) -> Finding:
    """By the statistics of the first batch norm where they tell, else by the accuracy."""
    check = "wrong-normalisation"
    tried = evidence.probes.get("normalisation")
    if tried is None:
        return _unchecked(check, evidence.missing("normalisation"))
    if _non_finite(evidence).flagged:
        return _unchecked(check, "the logits are not finite.")
    known = tried["statistics"]
    if known is not None and min(known["given"], known["best"]) <= NEAR:
        facts = (
            f"The images are {known['given']:.3g} nats away from those that the first batch norm "
            f"was trained with, and {known['best']:.3g} under the nearest other normalisation "
            f"({known['name']}); it may be nearer by {FAR:g}."
        )
        return _judge(check, known["given"] - known["best"], FAR, facts, WRONG_INPUTS)
    # a network with batch norm whose statistics fit nothing has hardly begun to train
    unusual = UNSETTLED_POINTS if tried["batch_norm"] else 0.0
    chance = 100 / evidence.probes["num_classes"]
    learnt = [one for one in tried["tried"] if _percent_helped(one) >= chance + LEARNT_POINTS]
    if not learnt:
        best = max(map(_percent_helped, tried["tried"]))
        return _unchecked(
            check,
            f"under no normalisation is the model right on more than {best:.1f}% of the images, "
            f"{chance:.1f}% being chance.",
        )
    limits = {
        id(one): max(unusual, UNDOING_POINTS if one["undoes"] else NORMALISATION_POINTS)
        for one in learnt
    }
    # where chance explains a gain it counts for nothing, however large it is
    gains = {id(one): _gain(one) if _p(one) < CHANCE else min(0.0, _gain(one)) for one in learnt}
    one = max(learnt, key=lambda one: gains[id(one)] - limits[id(one)])
    facts = (
        f"Clean accuracy is {100 * one['given'] / one['n']:.1f}% on images in [0, 1]; the best "
        f"other normalisation ({one['name']}) changes it by {_gain(one):+.1f} points "
        f"({one['n']:,} images, p = {_p(one):.2g}), limit {limits[id(one)]:.1f}."
    )
    return _judge(check, gains[id(one)], limits[id(one)], facts, WRONG_INPUTS)


WRONG_INPUTS = (
    "The model is probably given the wrong inputs: put the normalisation it was trained with "
    "inside it, once (--normalize mean,std)."
)


def _gain(tried: Mapping[str, Any]) -> float:
    """What a normalisation changes, in points."""
    return 100 * float(tried["gained"] - tried["lost"]) / float(tried["n"])


def _p(tried: Mapping[str, Any]) -> float:
    return mcnemar(tried["gained"], tried["lost"])


def _percent_helped(tried: Mapping[str, Any]) -> float:
    return 100 * float(tried["given"]) / float(tried["n"]) + _gain(tried)


def _random(evidence: _Evidence) -> Finding:
    check = "random-outputs"
    repeated, gradient = evidence.probes.get("repeated"), evidence.probes.get("gradient")
    if repeated is None:
        return _unchecked(check, evidence.missing("repeated"))
    value = max(repeated, gradient["random"] if gradient else 0.0)
    facts = (
        f"Logits or gradients of the same images differ by {value:.2g} of their range between "
        f"passes, limit {RANDOM_OUTPUTS:g}."
    )
    advice = (
        "An attack that meets another model at each step looks weaker than it is: switch the "
        "randomness off, or evaluate with aa-rand and many restarts."
    )
    return _judge(check, value, RANDOM_OUTPUTS, facts, advice)


def _batch(evidence: _Evidence) -> Finding:
    check = "batch-dependent-outputs"
    batch = evidence.probes.get("batch")
    if batch is None:
        return _unchecked(check, evidence.missing("batch"))
    if _random(evidence).flagged:
        return _unchecked(check, "the outputs are random, so batches cannot be compared.")
    size = "alone" if batch["size"] == 1 else "in pairs (alone it fails)"
    facts = (
        f"Logits of an image given {size} differ by {batch['difference']:.2g} of their range from "
        f"those in a batch, limit {BATCH_OUTPUTS:g}."
    )
    advice = (
        "Predictions then depend on which images come together, usually by batch norm that uses "
        "batch statistics: make it use its running statistics."
    )
    return _judge(check, batch["difference"], BATCH_OUTPUTS, facts, advice)


def _train_mode(evidence: _Evidence) -> Finding:
    check = "came-in-train-mode"
    value = evidence.probes.get("train_mode")
    if value is None:
        return _unchecked(check, evidence.missing("train_mode"))
    kinds = evidence.probes["came_in_train_mode"]
    if not kinds:
        return _judge(check, 0.0, BATCH_OUTPUTS, "The model came in eval mode.", "")
    if _random(evidence).flagged:
        return _unchecked(check, "the outputs are random in eval mode too.")
    facts = (
        f"The model came in train mode ({', '.join(kinds)}) and was evaluated in eval mode; in "
        f"train mode its logits differ by {value:.2g} of their range, limit {BATCH_OUTPUTS:g}."
    )
    advice = (
        "These numbers are those of eval mode; other numbers of this model may not be: call "
        ".eval() before handing it over."
    )
    return _judge(check, value, BATCH_OUTPUTS, facts, advice)


def _writes(evidence: _Evidence) -> Finding:
    check = "changes-its-images"
    writes = evidence.probes.get("writes")
    if writes is None:
        return _unchecked(check, evidence.missing("writes"))
    does = "writes over the images" if writes else "leaves the images alone"
    facts = f"The model {does} that it is given."
    advice = (
        "Here it was given copies, so its numbers are right; elsewhere each pass spoils the images "
        "for the next. Write x = (x - mean) / std, not x.sub_(mean).div_(std)."
    )
    return _judge(check, float(writes), 0.0, facts, advice)


def _vanishing(evidence: _Evidence) -> Finding:
    check = "vanishing-gradients"
    gradient = evidence.probes.get("gradient")
    if gradient is None:
        return _unchecked(check, evidence.missing("gradient"))
    facts = (
        f"{100 * gradient['zeros']:.2f}% of the entries of the input gradient are zero or nearly, "
        f"limit {100 * ZERO_GRADIENTS:.0f}%."
    )
    advice = (
        "Gradient attacks have nothing to follow, by saturated logits or a step that has no "
        "derivative: trust only Square Attack, or attack a smooth stand-in for that step."
    )
    return _judge(check, gradient["zeros"], ZERO_GRADIENTS, facts, advice)


def _noise_above_fgsm(evidence: _Evidence) -> Finding:
    pairs = [
        (fgsm, noise)
        for fgsm in _named(evidence, "fgsm")
        for noise in _named(evidence, "noise")
        if fgsm.beside(noise) and fgsm.probed == noise.probed
    ]
    advice = "A step along the gradient should beat blind noise: the gradients mislead."
    return _judge_gap(
        "noise-stronger-than-fgsm",
        _worst(pairs, _beyond_noise),
        _beyond_noise,
        "fgsm and noise were not run on the same images.",
        advice,
    )


def _named(evidence: _Evidence, family: str) -> list[_Outcome]:
    """Outcomes of an attack without steps, with any restarts or norm."""
    return [o for o in evidence.outcomes if o.name.partition("-l2")[0].split("x")[0] == family]


def _more_steps(evidence: _Evidence) -> Finding:
    pairs = [
        (more, fewer)
        for more in evidence.outcomes
        for fewer in evidence.outcomes
        if more.beside(fewer) and more.probed == fewer.probed and _same_but_longer(more, fewer)
    ]
    advice = "More steps should never help the model: the attack is misled or does not converge."
    return _judge_gap(
        "more-steps-not-stronger",
        _worst(pairs, _beyond_noise),
        _beyond_noise,
        "no attack was run with two numbers of steps.",
        advice,
    )


MANY_STEPS = 10
"""Fewer steps of eps / 4 cannot be expected to beat FGSM's one step of eps."""


def _same_but_longer(more: _Outcome, fewer: _Outcome) -> bool:
    if more.spec is None or fewer.spec is None or not fewer.spec.steps or not more.spec.steps:
        return False
    same = ("loss", "alpha", "momentum", "restarts")
    return (
        all(getattr(more.spec, name) == getattr(fewer.spec, name) for name in same)
        and more.spec.steps >= 2 * fewer.spec.steps
        and more.spec.steps >= MANY_STEPS
    )


def _large_eps(evidence: _Evidence) -> Finding:
    check = "accuracy-at-large-eps"
    attacked = [
        o
        for o in evidence.outcomes
        if o.norm == "Linf"
        and o.eps >= LARGE_EPS - 1e-6
        and any(o.is_kind(loss, MANY_STEPS) for loss in ("ce", "cw", "lsa", "dlr", "targeted"))
        and len(o.correct)
    ]
    if not attacked:
        return _unchecked(check, f"no gradient attack was run at eps {LARGE_EPS}.")
    outcome = max(attacked, key=lambda o: o.correct.mean())
    share, n = float(outcome.correct.mean()), len(outcome.correct)
    limit = max(LARGE_EPS_POINTS, 200 * math.sqrt(share * (1 - share) / n))
    facts = (
        f"{outcome.full_name} at eps {outcome.eps:g}, which can turn any image grey, leaves "
        f"{100 * share:.1f}% right ({n:,} images), limit {limit:.1f}%."
    )
    advice = (
        "The attack does not find images that are certainly there (or the model predicts one "
        "class whatever it sees): its accuracies at smaller eps are too high as well."
    )
    return _judge(check, 100 * share, limit, facts, advice)


def _square_stronger(evidence: _Evidence) -> Finding:
    """By AutoAttack's own record where it has one, and by the probe."""
    check = "square-stronger-than-gradients"
    shares = [
        (float(o.fell.str.startswith("square").mean()), len(o.fell), f"{o.full_name}'s Square part")
        for o in evidence.outcomes
        if o.fell is not None and o.name.startswith("autoattack") and len(o.fell)
    ]
    left = evidence.probes.get("square")
    if left is not None and len(left):
        names = [a for a in ("clean", "noise", *WHITE_BOX) if a in evidence.probes["correct"]]
        stood = np.array([evidence.probes["correct"][a] for a in names]).all(0)
        broke = float((stood & ~np.array(left)).mean())
        shares.append(
            (broke, len(left), f"Square Attack of the probe ({evidence.probes['queries']} queries)")
        )
    if not shares:
        return _unchecked(check, evidence.missing("square"))
    judged = [(100 * s, max(1.0, 200 * math.sqrt(s * (1 - s) / n)), n, who) for s, n, who in shares]
    points, limit, n, who = max(judged, key=lambda one: one[0] - one[1])
    facts = (
        f"{who}, which sees no gradients, breaks {points:.1f}% of {n:,} images that every gradient "
        f"attack before it left standing, limit {limit:.1f}%."
    )
    advice = (
        "Gradients hide adversarial images that random search finds, so there are probably more: "
        "look for steps without a useful derivative and attack a smooth stand-in."
    )
    return _judge(check, points, limit, facts, advice)


def _pgd_above_others(evidence: _Evidence) -> Finding:
    pairs = [
        (pgd, other)
        for pgd in evidence.outcomes
        for other in evidence.outcomes
        if pgd.is_kind("ce", 20)
        and any(other.is_kind(loss, MANY_STEPS) for loss in ("cw", "lsa", "dlr", "targeted"))
        and pgd.beside(other)
        and pgd.probed == other.probed
    ]
    advice = (
        "The cross-entropy hides what another loss finds, usually by the scale of the logits: "
        "judge this model by AutoAttack or CW, not by PGD."
    )
    return _judge_gap(
        "pgd-above-cw-or-lsa",
        _worst(pairs, _beyond_usual),
        _beyond_usual,
        "PGD with 20 steps and CW or LSA were not run on the same images.",
        advice,
    )


def _pgd_above_autoattack(evidence: _Evidence) -> Finding:
    pairs = [
        (pgd, strong)
        for strong in _autoattacks(evidence)
        for pgd in evidence.outcomes
        if pgd.is_kind("ce", 20) and pgd.beside(strong)
    ]
    whole = [pair for pair in pairs if not pair[0].probed]
    advice = (
        "PGD overstates this model: compare it by AutoAttack only, and look at the scale of its "
        "logits."
    )
    return _judge_gap(
        "pgd-above-autoattack",
        _worst(whole or pairs, _beyond_usual),
        _beyond_usual,
        "it takes PGD with 20 steps and AutoAttack on the same images.",
        advice,
    )


def _autoattacks(evidence: _Evidence) -> list[_Outcome]:
    """AutoAttack where it was run, else its first two parts."""
    run = [o for o in evidence.outcomes if o.spec is not None and o.spec.kind == "autoattack"]
    standard = [o for o in run if o.spec is not None and o.spec.version == "standard"]
    return standard or [o for o in run if o.spec is not None and o.spec.version == "apgd"]


def _autoattack_above_weaker(evidence: _Evidence) -> Finding:
    pairs = [
        (strong, weak)
        for strong in _autoattacks(evidence)
        for weak in evidence.outcomes
        if weak is not strong
        and (weak.name == "clean" or weak.beside(strong))
        and not (weak.spec is not None and weak.spec.kind == strong.spec.kind == "autoattack")  # type: ignore[union-attr]
    ]
    advice = (
        "AutoAttack was misled where a weaker attack was not, so the true accuracy is below both: "
        "take the worst case per image over all attacks, and find out why."
    )
    return _judge_gap(
        "autoattack-above-weaker-attack",
        _worst(pairs, _beyond_noise),
        _beyond_noise,
        "it takes AutoAttack and another attack with the same eps on the same images.",
        advice,
    )


def _overfitted(evidence: _Evidence) -> Finding:
    check = "catastrophic-overfitting"
    history = evidence.history
    if history is None or "train_pgd_acc" not in history:
        return _unchecked(check, "the model was not trained here with one or two attack steps.")
    last = history.iloc[-1]
    own, pgd = float(last["train_robust_acc"]), float(last["train_pgd_acc"])
    facts = (
        f"At the end of training {100 * own:.1f}% of the images stood the training attack and "
        f"{100 * pgd:.1f}% of a sample PGD."
    )
    advice = (
        "The network has learnt its own attack only, and what it is said to withstand says "
        "nothing of the defense: train with more steps (--recipe unified)."
    )
    fallen = 100 * (1 - pgd / own) if own else 0.0
    return _judge(check, max(0.0, fallen), OVERFITTED, facts, advice)


CHECKS: tuple[Callable[[_Evidence], Finding], ...] = (
    _non_finite,
    _probabilities,
    _tiny_logits,
    _normalisation,
    _random,
    _batch,
    _train_mode,
    _writes,
    _vanishing,
    _noise_above_fgsm,
    _more_steps,
    _large_eps,
    _square_stronger,
    _pgd_above_others,
    _pgd_above_autoattack,
    _autoattack_above_weaker,
    _overfitted,
)
"""Every check, in the order of the report."""
