"""What is known of released code stands in `methods show`, and no citation says more than is known.

The lists are pinned: they were made from what the releases were seen to do when they were run.
"""

from __future__ import annotations

import re
from pathlib import Path

import ltrobust.methods
import pytest

import ltrobust
from ltrobust.describe import describe_method
from ltrobust.method import METHODS, load_builtin_methods

load_builtin_methods()
ROBAL = (
    r"multiplied again in every epoch from 60 on.*ends at about epoch 62",
    r"uniform\(0, eps\), not uniform\(-eps, eps\): weaker",
    r"0\.031 and the step 0\.0078",
)
QUIRKS: dict[str, tuple[str, ...]] = {
    "mart": (r"1\.0001 - q_k \+ 1e-12.*1\.0000001 - p_y.*differs by 1e-4", r"0\.001 \* N\(0, 1\)"),
    "he": (
        r"overwritten_weight: each forward.*not differentiated.*0\.5 where the largest is 0\.6",
        r"sees the scale s but not the margin",
        r"exponentiates s c without subtracting",
        r"60\.0 under APGD-CE and at 52\.9 after APGD-DLR",
        r"normalises its input",
    ),
    "cos-he": (*ROBAL, r"sees cosines in \[-1, 1\].*weaker gradients"),
    "gairat": (
        r"int\(K / 2\).*odd K only",
        r"vanishes under AutoAttack without extra data",
        r"begin at epoch 60 whatever the length.*start at 30",
        r"piecewise.*later branches cannot be reached",
        r"drawn in float32",
    ),
    "awp": (
        r"two constructions.*one step of the training's own optimizer",
        r"0\.005 in the paper.*0\.01 in the release's PGD-AT",
        r"mode: train: .*class mix.*every attack step moves",
        r"13 moves of the statistics a step",
        r"first batch after each test is attacked in eval mode",
        r"runs on a copy, whose statistics are its own",
        r"normalises its input",
        r"on the test set: PGD-AT 52\.8 best against 43\.8 last, with AWP 55\.4 against 54\.3",
    ),
    "udr": (
        r"lambda falls whenever mean \|d\| is below eps.*fall below 0",
        r"AWP only, with AWP's train-mode attack",
        r"third party's version.*after batches 9, 19",
        r"detached clean side.*eval mode",
        r"mean \|d\| is per pixel",
        r"best epoch by PGD-20 on the test set",
        r"normalised by mean",
    ),
    "frl": (
        r"largest_step: .*quarter of the batch's largest eps",
        r"repeat_clean: three train-mode passes.*twice",
        r"10 classes are hard-coded",
        r"300 images per class.*more than a rare",
        r"TRADES checkpoint that is not in the repository",
        r"float32",
    ),
    "cfa": (
        r"equal_classes: .*3\.57 times its accuracy and the smallest 0\.07.*3\.57 a_c",
        r"10 classes are hard-coded.*does not import",
        r"step size does not follow.*beta has no effect",
        r"mode: train: .*class mix.*every attack step moves",
        r"clean_pass: .*move the statistics again",
        r"threshold: .*24%",
        r"100 images per class.*more than a rare",
        r"counters are averaged",
        r"reflection",
        r"on the test set",
        r"normalised by mean",
    ),
    "dafa": (
        r"negative_weights: .*turn negative",
        r"double_step: .*plain eps; 99 % of the pixels differ",
        r"attacked_first: .*where the BatchNorm",
        r"Nesterov.*inverted",
        r"not weighted.*not detached",
        r"1\.5 on CIFAR-100; there is no rule beyond 100",
    ),
    "adt": (
        r"kept_gradients: .*never cleared.*38 to 51 % of the pixels by more than 0\.001",
        r"1e-8 beside \|g\| matters",
        r"one more sample",
        r"35 \+ 1",
        r"which of its variants",
    ),
    "adt-expam": (r"raw gradients of the batch's mean loss.*shrink",),
    "las-at": (
        r"uniform in 8/255 whatever.*may cut.*still projected",
        r"one scalar reward.*no baseline",
        r"never decays.*counted in batches.*once in 20",
        r"9 for C - 1",
        r"14 \+ 1 passes.*about 40 more",
        r"CIFAR-100.*3 to 12",
        r"float32",
    ),
    "faal": (
        r"sum_over_images: .*frequent classes dominate.*batch of 20.*0\.16",
        r"lacks count with margin -1",
        r"one more pass.*eval mode",
        r"attacked_first: .*where the BatchNorm",
        r"10 classes are hard-coded.*weigh 6",
        r"convex solver",
        r"worst class on the test set",
        r"normalised by mean",
    ),
    "cgr": (
        r"leak, not rebuilt: .*test set every 10 epochs.*carry both",
        r"wasted_clean: .*moves",
        r"rewrites REAT.*TAET.*RoBal.*deleted",
        r"float32.*1e-7",
    ),
    "mma": (
        r"train_mode: .*12 more updates",
        r"leave the sum but not the divisor",
        r"12 more passes a step",
        r"float32.*1e-9",
    ),
    "cfol": (r"best_of_steps: .*loss of the whole batch",),
    "avmixup": (
        *ROBAL,
        r"clip_vertex: .*clips the mixture only",
        r"mode: .*train mode, so that batch statistics enter",
        r"10 steps of 2/255.*one-sided and takes 5",
    ),
    "at-la": (*ROBAL, r"frozen_bias: .*random bias", r"inner: "),
    "at-ldam": (*ROBAL, r"released with s 1"),
    "at-cb": (*ROBAL, r"true class and hold for all C outputs", r"34\.53 .*29\.01"),
    "at-focal": (*ROBAL, r"5 epochs of warm-up compound.*0\.0192"),
    "at-cdt": (*ROBAL, r"attack sees logits without"),
    "at-cosine": ROBAL,
    "at-tde": (
        *ROBAL,
        r"attacks the de-biased branch already",
        r"moving sum itself, about 10 times the mean.*mu 0\.9",
        r"2 groups with scale 16 / 2",
        r"1 - 0\.1 lr",
    ),
    "drw": (r"from epoch 40 of 80",),
    "resample": (r"25 of the longer epochs", r"cycles go on from epoch to epoch"),
    "crt": (r"reinit: .*trained last layer", r"running statistics move"),
    "rw": (r"lr_dict.*whole network trains at rate 0\.1",),
    "lws": (r"drop_bias: .*Facebook's scales", r"weight decay.*to 0", r"reports the first"),
    "tau-norm": (r"trained bias is dropped", r"0 to 2", r"29\.30 to 36\.57.*28\.15 to 29\.77"),
    "rescale": (r"29\.30 to 39\.05.*28\.15 to 28\.23",),
    "posthoc-la": (r"frozen at its random start",),
    "tde": (r"moving sum itself, about 10 times",),
    "trades-bsl": (r"no paper: ",),
    "gairat-w": (r"no paper: ",),
    "robustlt": (
        r"train-kept: .*class mix",
        r"passes_after: .*twice more.*three or four",
        r"unused_clean: ",
        r"projection only: .*radius of the base",
        r"REAT's class weights do act",
        r"m = tau_m = 0.*in place",
        r"no TRADES base.*third party",
        r"float32",
    ),
    "reat": (r"no effect.*bit-identical", r"float32.*5e-5"),
}
"""By method: what it must tell, each within one quirk, with the effect where it was measured."""


@pytest.mark.parametrize("name", QUIRKS)
def test_known_quirks_and_defects_are_told_with_their_effect(name: str) -> None:
    told = describe_method(name)["quirks"]
    untold = [p for p in QUIRKS[name] if not any(re.search(p, quirk) for quirk in told)]
    assert not untold


def test_every_method_tells_its_passes() -> None:
    assert [name for name in METHODS if not METHODS.get(name).passes] == []


VENUES = {
    "robal-r": ("CVPR", 2021),
    "at-bsl": ("CVPR", 2024),
    "taet": ("CVPR", 2025),
    "robustlt": ("CVPR", 2026),
    "cgr": ("arXiv", 2026),
    "cfa": ("CVPR", 2023),
    "cfol": ("TMLR", 2023),
    "faal": ("CVPR", 2024),
    "dafa": ("ICLR", 2024),
}
"""Where the reference material says a venue."""
YEARS = {"pgd-at": 2018, "trades": 2019, "reat": 2023, "frl": 2021}
"""Where it says a year only."""


def test_venues_and_years_are_those_of_the_reference_material() -> None:
    assert {n: (METHODS.get(n).paper.venue, METHODS.get(n).paper.year) for n in VENUES} == VENUES
    assert {n: METHODS.get(n).paper.year for n in YEARS} == YEARS


@pytest.mark.parametrize("name", list(METHODS))
def test_the_explanation_names_the_papers_year(name: str) -> None:
    facts = describe_method(name)
    said = facts["explanation"] + (METHODS.get(name).__doc__ or "")
    assert str(facts["year"]) in said or "no paper" in facts["quirks"][0]


def test_no_equation_is_cited_by_a_number_that_nobody_checked() -> None:
    number = re.compile(r"\b(?:eqs?\.|[Ee]quations?|[Ss]ection|[Aa]lgorithm|[Tt]heorem) \(?\d")
    folders = [Path(ltrobust.methods.__file__).parent]
    folders += [Path(ltrobust.__file__).parent / part for part in ("losses", "models")]
    cited = [
        f"{file.name}: {found[0]}"
        for folder in folders
        for file in sorted(folder.glob("*.py"))
        if (found := number.search(file.read_text()))
    ]
    assert cited == []
