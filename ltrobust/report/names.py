"""How methods, attacks and data sets are written: as the papers of the field write them.

Files for machines keep the registered names; figures, pages and papers write these. What is not
known stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

MARKED = (
    *("at-bsl", "pgd-at", "robal-r", "taet", "trades", "robal-n", "reat", "cgr", "mart", "he"),
    *("las-at", "adt", "gairat", "mma", "avmixup", "cfol", "plain", "trades-bsl", "he-trades"),
    *("at-cosine", "at-ldam", "cos-he", "at-cdt", "at-la", "at-focal", "at-cb", "at-tde"),
    *("he-alp", "adt-expam"),
)
"""Shipped methods in the order of their marks: new ones go to the end, none is ever moved."""
_PARTS = (
    *("awp", "cfa", "crt", "dafa", "drw", "ema", "faal", "frl", "lws", "posthoc-la", "robustlt"),
    *("rw", "tau-norm", "tde", "udr"),
)
_DATASETS = ("cifar10-lt", "cifar100-lt", "svhn-lt", "tiny-imagenet-lt", "digits-lt", "mnist-lt")
_WORDS = {
    "robal": "RoBal",
    "avmixup": "AVmixup",
    "plain": "Plain",
    "cosine": "Cosine",
    "cos": "Cos",
    "focal": "Focal",
    "crt": "cRT",
    "robustlt": "RobustLT",
    "posthoc": "post-hoc",
    "tau": "τ",
    "norm": "norm",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "tiny": "Tiny",
    "imagenet": "ImageNet",
    "digits": "Digits",
}
"""Words that are not written in capitals."""
_STEPPED = re.compile(r"(pgd|cw|mim|lsa|dlr|tpgd)(\d+|N)")


def _written(name: str) -> str:
    return "-".join(_WORDS.get(word, word.upper()) for word in name.split("-"))


_KNOWN = {name: _written(name) for name in (*MARKED, *_PARTS, *_DATASETS)}


def method_title(label: str) -> str:
    """Write a row's label: "AT-BSL", "TRADES+AWP", "AT-BSL, last epoch"; others as they are."""
    name = re.split(r" \(|, ", label, maxsplit=1)[0]
    return "+".join(_KNOWN.get(part, part) for part in name.split("+")) + label[len(name) :]


def dataset_title(name: str) -> str:
    """Write a data set's name: "CIFAR-10-LT"; a folder's stays as it is."""
    return _KNOWN.get(name, name)


def attack_title(attack: str) -> str:
    """Write an attack's name as readers know it: "PGD-20", "AutoAttack"; others as they are."""
    if attack in ("clean", "noise"):
        return attack.capitalize()
    known = {"autoattack": "AutoAttack", "fgsm": "FGSM", "aa-apgd": "AA-APGD"}
    stepped = _STEPPED.fullmatch(attack)
    return f"{stepped[1].upper()}-{stepped[2]}" if stepped else known.get(attack, attack)


def field_names(labels: Iterable[str], attacks: Iterable[str], dataset: str) -> dict[str, str]:
    """How the registered names of a setting are written; "clean" stays, a word like others."""
    methods = {label: method_title(label) for label in labels}
    known = {attack: attack_title(attack) for attack in attacks if attack != "clean"}
    return methods | known | {dataset: dataset_title(dataset)}


def writer(names: Mapping[str, str]) -> Callable[[str], str]:
    """What replaces names in a text where they stand alone; longer ones first."""
    if not names:
        return str
    known = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    pattern = re.compile(rf"(?<![\w+-])(?:{known})(?![\w+@-])")
    return lambda text: pattern.sub(lambda found: names[found[0]], text)
