"""The frame behind leaderboard.csv: one row per method and setting, scores averaged over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from ltrobust.report.groups import (
    BASE_KEYS,
    GROUP_KEYS,
    MORE_KEYS,
    attack_order,
    compact_json,
    settings_of,
)
from ltrobust.report.setting import Setting
from ltrobust.report.tables import means

_SCORES = ("accuracy", "balanced_accuracy")


def leaderboard_frame(settings: Sequence[Setting]) -> pd.DataFrame:
    """Every method of every setting, group after group, best first.

    Returns:
        Columns: `rank` (1 is best; within rows of one `group`, ties share it, and whoever is within
        noise of the best; missing where nothing decides, see `ranking`), `method`, the setting,
        `n_seeds`, `seeds` ("0,1,2"), for each attack `<attack>_accuracy_mean`,
        `<attack>_accuracy_std`, the same for `balanced_accuracy`, and `<attack>_tail_mean`;
        `attack_settings` and `attack_library` (JSON, attack to value), `run_ids`, `group`, `search`
        (precision in which attacks searched), `reliability` (flagged checks), `MORE_KEYS`,
        `ranked_by`, `ranking_score`. Scores are fractions in [0, 1]; std is the sample standard
        deviation, NaN for one seed; a mean is NaN unless all seeds of the row have the attack.
    """
    records = [_row(setting, label) for setting in settings for label in setting.ranked]
    attacks = sorted({name for one in settings for name in one.attacks}, key=attack_order)
    parts = [*(f"{score}_{part}" for score in _SCORES for part in ("mean", "std")), "tail_mean"]
    columns = [
        *("rank", "method", *GROUP_KEYS, "n_seeds", "seeds"),
        *(f"{attack}_{part}" for attack in attacks for part in parts),
        *("attack_settings", "attack_library", "run_ids", "group", "search", "reliability"),
        *(*MORE_KEYS, "ranked_by", "ranking_score"),
    ]
    return pd.DataFrame(records, columns=columns).astype({"rank": "Int64"})


def _row(setting: Setting, label: str) -> dict[str, Any]:
    rows = setting.by_label[label]
    once = rows.drop_duplicates("attack").sort_values("attack").set_index("attack")
    first = rows.iloc[0]
    seeds = setting.seeds(label)
    scored = means(
        {
            f"{attack}_{score}": setting.estimate(label, attack, score)
            for attack in setting.attacks
            for score in (*_SCORES, "tail")
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
            {name: settings_of(text) for name, text in once["attack_settings"].items()}
        ),
        "attack_library": compact_json(once["attack_library"].to_dict()),
        "run_ids": ",".join(setting.runs(label)),
        "group": setting.slug,
        "reliability": ";".join(setting.checks[label]),
        "ranked_by": setting.ranking.name,
        "ranking_score": setting.ranking.scores[label],
    }
