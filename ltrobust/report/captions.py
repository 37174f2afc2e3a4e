"""The sentences under tables: which setting the numbers belong to, and how to read them.

Signs beside names and scores are explained in `marks.py`. Nothing here averages.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

import pandas as pd

from ltrobust.report.across import EXTERNAL
from ltrobust.report.groups import Group, format_eps, imbalance
from ltrobust.report.marks import reliability_note
from ltrobust.report.ratios import LONG_TAILED
from ltrobust.report.rows import Row
from ltrobust.report.setting import Setting

SELECT_WORDS = {
    "last": "last epoch",
    "best": "best epoch on held-out training images",
    "val": "last epoch, options chosen on held-out training images",
    "best-on-test": "best epoch CHOSEN ON THE TEST SET, which leaks into these figures",
}


def describe(group: Group) -> str:
    """State the setting of a group in a few plain sentences."""
    return setting_words([group], imbalance(group.key), test_images(group))


def test_images(group: Group) -> str:
    """Say what the test images are; balanced is only a set with as many images of every class."""
    n, protocol = f"{int(group.key['n']):,}", str(group.key["test_protocol"])
    low = min(row["n_class_min"] for row in group.rows)
    high = max(row["n_class_max"] for row in group.rows)
    if low == high:
        return f"balanced test set of {n} images"
    span = f"{int(low):,} to {int(high):,}"
    if protocol == LONG_TAILED:
        return f"long-tailed test set of {n} images, {span} a class"
    return f"test set as it came, not balanced: n = {n}, {span} images a class"


def setting_words(groups: Sequence[Group], ratios: str, test_set: str) -> str:
    """State what groups share in a few plain sentences.

    Args:
        groups: they agree in all but what the two texts tell, and in seeds.
        ratios: says the imbalance ratio or ratios.
        test_set: says what the test images are.
    """
    key, mixed = groups[0].key, groups[0].differing
    changes = f" with {str(key['recipe_changes']).replace(';', ', ')}"
    agreed = {
        "arch": str(key["arch"]),
        "recipe": f"{key['recipe']} recipe{changes if key['recipe_changes'] else ''}",
        "epochs": f"{key['epochs']} epochs",
        "select": SELECT_WORDS.get(str(key["select"]), f"checkpoint {key['select']}"),
        "augment": f"augmentation {key['augment']}",
        "precision": str(key["precision"]),
    }
    parts = [
        f"{key['dataset']}, {ratios}",
        test_set,
        *([f"eps {format_eps(key['eps'])}"] if key["eps"] > 0 else []),
        *(text for name, text in agreed.items() if name not in mixed),
        f"split seed {key['split_seed']}",
        _seeds(groups),
        *(
            [f"adversarial images looked for in {key['search']}, verdicts in fp32"]
            if key["search"] != "fp32"
            else []
        ),
    ]
    rows = [row for group in groups for row in group.rows]
    across = _across(dict.fromkeys(name for group in groups for name in group.differing), rows)
    trained = f"{_fine_tuned(rows)}{_tried(rows)}{across}"
    return f"{', '.join(parts)}.{trained}{_libraries(rows)}{_attack_seeds(rows)}"


def _across(mixed: Collection[str], rows: Sequence[Row]) -> str:
    """Say what rows of one table differ in, and what "external" means there."""
    if not mixed:
        return ""
    names = ", ".join(name.replace("_", " ") for name in mixed)
    foreign = any(row["recipe"] == EXTERNAL for row in rows)
    note = "; external: trained elsewhere, its training is not known" if foreign else ""
    return f" Ranked across {names} on the same test images{note}."


def reading(
    group: Setting, attacks: Sequence[str] | None = None, fewer: Setting | None = None
) -> str:
    """Say by what rows are ranked, and how scores under these attacks (default: all) are marked.

    Args:
        group: the table's setting.
        attacks: of its scores.
        fewer: the setting on fewer images whose scores stand there too.
    """
    runs = {row["run_id"] for row in group.rows}
    gaps = len(group.rows) < len(runs) * len(group.attacks)
    marks = spread_note([group]) + gaps_note(gaps)
    own = (group, group.attacks if attacks is None else attacks)
    marks += reliability_note(own, *([] if fewer is None else [(fewer, group.on_fewer)]))
    return f" {group.ranking.sentence} Percent; best bold, second underlined.{marks}"


def fewer_note(setting: Setting) -> str:
    """Say what the scores on fewer images are, where a setting has some; else ""."""
    if (fewer := setting.fewer) is None:
        return ""
    n = f"{int(fewer.key['n']):,}"
    missing = any(fewer.run_ids.isdisjoint(setting.runs(label)) for label in setting.labels)
    return (
        f" n = {n}: on {n} test images, {_seeds([fewer])}; {fewer.autoattack} was not made on all."
        f"{' Who was not attacked so has no score there.' * missing}{_libraries(fewer.rows)}"
    )


def gaps_note(gaps: bool) -> str:
    """Explain a missing score, where there is one."""
    return " - marks a score that not every seed has." if gaps else ""


def spread_note(groups: Sequence[Group]) -> str:
    """Explain the deviation where any method has several seeds."""
    several = any(group.several for group in groups)
    return " ± is the sample standard deviation over n seeds." if several else ""


def _seeds(groups: Sequence[Group]) -> str:
    texts = {_seeds_of(group) for group in groups}
    if len(texts) == 1:
        return texts.pop()
    return "; ".join(
        f"{_seeds_of(group)} at imbalance ratio {group.key['imbalance_ratio']:g}"
        for group in groups
    )


def _seeds_of(group: Group) -> str:
    words = {label: group.seed_words(label) for label in group.labels}
    if len(set(words.values())) == 1:
        return f"training {words[group.labels[0]]}"
    told = (f"{label}: {text.partition(' ')[2]}" for label, text in words.items())
    return f"training seeds {'; '.join(told)}"


def _libraries(rows: Sequence[Row]) -> str:
    names = {row["attack_library"] for row in rows if row["attack"] == "autoattack"}
    return f" AutoAttack from {', '.join(sorted(names))}." if names else ""


def _attack_seeds(rows: Sequence[Row]) -> str:
    """Name the attacks of which each image keeps the worst of several seeds."""
    seeds: dict[str, Any] = {}
    for attack, text in dict.fromkeys((row["attack"], row["attack_settings"]) for row in rows):
        if several := json.loads(text).get("seeds"):
            seeds[attack] = several
    texts = [f"{name}: worst of attack seeds {', '.join(map(str, s))}" for name, s in seeds.items()]
    return f" {'; '.join(texts)}." if texts else ""


def _fine_tuned(rows: Sequence[Row]) -> str:
    """Who was trained on after the epochs of its base."""
    more = {
        row["label"]: int(epochs)
        for row in rows
        if not pd.isna(epochs := row.get("fine_tuning_epochs")) and epochs > 0
    }
    told = ", ".join(f"{label} {epochs}" for label, epochs in more.items())
    return f" Epochs of fine-tuning on top: {told}." if told else ""


def _tried(rows: Sequence[Row]) -> str:
    """How many settings of each method competed, where any did."""
    tried: dict[str, int] = {}
    for row in rows:
        label, count = row["label"], row["settings_tried"]
        tried[label] = max(tried.get(label, 1), 1 if pd.isna(count) else int(count))
    counts = set(tried.values())
    if counts == {1}:
        return ""
    if len(counts) == 1:
        return f" Settings tried: {counts.pop()} of each method."
    told = ", ".join(f"{label} {count}" for label, count in sorted(tried.items()))
    return f" Settings tried, not equally many: {told}."
