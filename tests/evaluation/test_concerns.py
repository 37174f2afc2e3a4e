"""Which numbers a flagged check puts in doubt."""

from __future__ import annotations

import pytest

from ltrobust.evaluation.concerns import CONCERNS, concern, concerns
from ltrobust.evaluation.reliability import findings

ATTACKS = ("clean", "noise", "fgsm", "pgd20", "mim20", "lsa20", "cw20", "aa-apgd", "autoattack")


def doubted(check: str) -> set[str]:
    return {attack for attack in ATTACKS if concerns(check, attack)}


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        ("wrong-normalisation", set(ATTACKS)),
        ("random-outputs", set(ATTACKS)),
        ("vanishing-gradients", set(ATTACKS) - {"clean", "noise"}),
        ("more-steps-not-stronger", {"fgsm", "pgd20", "mim20", "lsa20", "cw20"}),
        ("tiny-logits", {"fgsm", "pgd20", "mim20", "lsa20"}),
        ("pgd-above-autoattack", {"fgsm", "pgd20", "mim20", "lsa20"}),
        ("autoattack-above-weaker-attack", {"aa-apgd", "autoattack"}),
        ("came-in-train-mode", set()),
        ("changes-its-images", set()),
        ("a-check-of-tomorrow", set(ATTACKS)),
    ],
)
def test_a_check_concerns_its_own_attacks_only(check: str, expected: set[str]) -> None:
    assert doubted(check) == expected


def test_every_check_says_what_it_concerns() -> None:
    found = findings(None, [])
    assert [f.check for f in found] == list(CONCERNS)
    assert [f.concerns for f in found] == [concern(f.check) for f in found]


@pytest.mark.parametrize("name", ["pgd20x5", "pgd20-l2", "pgd100@16/255", "pgdN"])
def test_endings_of_an_attack_change_nothing(name: str) -> None:
    assert concerns("tiny-logits", name)
    assert not concerns("autoattack-above-weaker-attack", name)
