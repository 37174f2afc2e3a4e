"""The frame behind leaderboard.csv: one row per method and setting, scores averaged over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from ltrobust.report.groups import BASE_KEYS, GROUP_KEYS, MORE_KEYS, attack_order
from ltrobust.report.rows import compact_json, settings_of
from ltrobust.report.setting import Setting
from ltrobust.report.tables import means
from ltrobust.results.custom import own_metrics

_SCORES = ("accuracy", "balanced_accuracy")
_OVER_SEEDS = ("mean", "std")


def leaderboard_frame(settings: Sequence[Setting]) -> pd.DataFrame:
    """Every method of every setting, group after group, best first.

    Returns:
        Columns: `rank` (1 is best; within rows of one `group`, ties share it, and whoever is within
        noise of the best; missing where nothing decides, see `ranking`), `method`, the setting,
        `n_seeds`, `seeds` ("0,1,2"), for each attack `<attack>_accuracy_mean`,
        `<attack>_accuracy_std`, the same for `balanced_accuracy`, and `<attack>_tail_mean`;
        `attack_settings` and `attack_library` (JSON, attack to value), `run_ids`, `group`, `search`
        (precision in which attacks searched), `reliability` (flagged checks), `MORE_KEYS`,
        `ranked_by`, `ranking_score`, `settings_tried`, mean and std of metrics from outside. Scores
        are fractions in [0, 1]; std is the sample standard deviation, NaN for one seed; a mean is
        NaN unless all seeds of the row have the attack.
    """
    records = [_row(setting, label) for setting in settings for label in setting.ranked]
    attacks = sorted({name for one in settings for name in one.attacks}, key=attack_order)
    parts = [*(f"{score}_{part}" for score in _SCORES for part in _OVER_SEEDS), "tail_mean"]
    columns = [
        *("rank", "method", *GROUP_KEYS, "n_seeds", "seeds"),
        *(f"{attack}_{part}" for attack in attacks for part in parts),
        *("attack_settings", "attack_library", "run_ids", "group", "search", "reliability"),
        *(*MORE_KEYS, "ranked_by", "ranking_score", "settings_tried"),
        *(f"{attack}_{score}_{p}" for attack in attacks for score in _own() for p in _OVER_SEEDS),
    ]
    whole = dict.fromkeys(("rank", "settings_tried"), "Int64")
    return pd.DataFrame(records, columns=columns).astype(whole)


def _own() -> list[str]:
    return [metric.column for metric in own_metrics()]


def _row(setting: Setting, label: str) -> dict[str, Any]:
    rows = setting.records[label]
    first, once = rows[0], {row["attack"]: row for row in reversed(rows)}
    seeds = setting.seeds(label)
    scored = means(
        {
            f"{attack}_{score}": setting.estimate(label, attack, score)
            for attack in setting.attacks
            for score in (*_SCORES, "tail", *_own())
        }
    )
    return {
        "rank": setting.ranking.ranks[label],
        "method": first["method"],
        **setting.key,
        **{name: first[name] for name in (*BASE_KEYS, *MORE_KEYS)},
        "n_seeds": len(seeds),
        "seeds": ",".join(str(seed) for seed in seeds),
        **scored,
        "attack_settings": compact_json(
            {attack: settings_of(row["attack_settings"]) for attack, row in once.items()}
        ),
        "attack_library": compact_json(
            {attack: row["attack_library"] for attack, row in once.items()}
        ),
        "run_ids": ",".join(setting.runs(label)),
        "group": setting.slug,
        "reliability": ";".join(setting.checks[label]),
        "ranked_by": setting.ranking.name,
        "ranking_score": setting.ranking.scores[label],
        "settings_tried": first["settings_tried"],
    }
