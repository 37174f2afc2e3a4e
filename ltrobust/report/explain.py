"""What a flagged reliability check means and what to do about it, in two sentences for readers.

The long version with its thresholds is docs/evaluation.md; the checks themselves are made in
`ltrobust.evaluation.reliability`, which this module does not import: reports need no models.
"""

from __future__ import annotations

from typing import NamedTuple


class Advice(NamedTuple):
    """What a check saw, and what to do before quoting the number."""

    meaning: str
    remedy: str


CHECKS: dict[str, Advice] = {
    "non-finite-outputs": Advice(
        "Some logits are nan or infinite, so predictions are arbitrary and attacks stop early.",
        "Mend the model; no other number of it counts until then.",
    ),
    "probability-outputs": Advice(
        "The outputs look like probabilities. Attacks apply a softmax themselves, and a second one "
        "flattens the gradients they follow.",
        "Return the logits and evaluate again.",
    ),
    "tiny-logits": Advice(
        "The model is right far more often than it is confident. With such logits PGD on the "
        "cross-entropy is weaker than CW or AutoAttack.",
        "Judge the model by AutoAttack or CW.",
    ),
    "wrong-normalisation": Advice(
        "The images are not those that the network was trained with: another usual normalisation "
        "fits its batch norm's statistics, or raises its accuracy.",
        "Put the normalisation inside the model, once, and evaluate again.",
    ),
    "random-outputs": Advice(
        "Two passes over the same images give different logits or gradients, so each attack step "
        "meets another model.",
        "Switch the randomness off, or evaluate with aa-rand and many restarts and say so.",
    ),
    "batch-dependent-outputs": Advice(
        "An image alone gets other logits than in a batch: predictions depend on which images come "
        "together.",
        "Make the batch norm layers use their running statistics.",
    ),
    "came-in-train-mode": Advice(
        "The model was handed over in train mode. The numbers here are those of eval mode; numbers "
        "taken elsewhere without .eval() are not.",
        "Call .eval() before handing it over.",
    ),
    "changes-its-images": Advice(
        "The model writes over the images that it is given. It was given copies here, so these "
        "numbers are right.",
        "Write x = (x - mean) / std instead of x.sub_(mean).div_(std).",
    ),
    "vanishing-gradients": Advice(
        "Many entries of the input gradient are zero or nearly. Gradient attacks have nothing to "
        "follow there, so all of them overstate the model.",
        "Trust Square Attack, or attack a smooth stand-in for the step in question.",
    ),
    "noise-stronger-than-fgsm": Advice(
        "Uniform noise breaks more images than one step along the gradient: the gradient misleads.",
        "Look at what the model does to its input before believing any attack on it.",
    ),
    "more-steps-not-stronger": Advice(
        "The same attack with at least twice the steps breaks fewer images: it is misled on the "
        "way, does not converge, or meets a random model.",
        "Do not quote an accuracy under any variant of this attack; use a stronger one.",
    ),
    "accuracy-at-large-eps": Advice(
        "PGD leaves images right within a radius at which any image can be turned plain grey.",
        "Suspect masked gradients: accuracies at smaller eps are then too high as well.",
    ),
    "square-stronger-than-gradients": Advice(
        "Square Attack, which sees only outputs, breaks images that every gradient attack before "
        "it left standing.",
        "Look for steps without a useful derivative, and attack a smooth stand-in.",
    ),
    "pgd-above-cw-or-lsa": Advice(
        "PGD leaves far more images right than CW, LSA, DLR or targeted PGD: the cross-entropy "
        "hides what another loss finds.",
        "Compare this model by AutoAttack only.",
    ),
    "pgd-above-autoattack": Advice(
        "PGD leaves far more images right than AutoAttack. A gain under PGD that AutoAttack does "
        "not share is no gain.",
        "Compare this model by AutoAttack only.",
    ),
    "autoattack-above-weaker-attack": Advice(
        "AutoAttack leaves more images right than a weaker attack, so something misled it.",
        "Take the worst case per image over all attacks as the upper bound.",
    ),
    "catastrophic-overfitting": Advice(
        "The network was trained with one or two attack steps and has learnt to withstand those "
        "only: PGD breaks nearly all that stood them.",
        "Train it with more steps (--recipe unified); this says nothing of the defense.",
    ),
}


def advice(check: str) -> Advice:
    """Explain a check; one that this version does not know is named as such."""
    unknown = Advice(
        "This version of ltrobust does not know the check.",
        "Look it up in docs/evaluation.md of the version that made the report.",
    )
    return CHECKS.get(check, unknown)
