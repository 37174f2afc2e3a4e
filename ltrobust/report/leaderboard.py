"""Builds the leaderboard: one row per method and setting, scores averaged over seeds.

It is the frame behind leaderboard.csv; tables and figures format the same averages for readers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from ltrobust.report.aggregate import scores
from ltrobust.report.groups import (
    BASE_KEYS,
    GROUP_KEYS,
    LATER_KEYS,
    Group,
    attack_order,
    compact_json,
    comparable_groups,
    settings_of,
)
from ltrobust.report.marks import flagged_checks
from ltrobust.report.ranking import Ranking, ranking

ATTACK_SCORES = (
    "accuracy_mean",
    "accuracy_std",
    "balanced_accuracy_mean",
    "balanced_accuracy_std",
    "tail_mean",
)


def leaderboard(metrics: pd.DataFrame, across: Sequence[str] = ()) -> pd.DataFrame:
    """Average every method over seeds and rank it among the results it is comparable with.

    Args:
        metrics: one row per run and attack, as in metrics.csv.
        across: what rows of one group may differ in, from `parse_across`.

    Returns:
        One row per method and setting. Columns: `rank` (1 is best; within rows of one `group`, ties
        share it; missing where nothing decides, see `ranking`), `method`, the setting, `n_seeds`,
        `seeds` ("0,1,2"), for each attack `<attack>_accuracy_mean`, `<attack>_accuracy_std`, the
        same for `balanced_accuracy`, and `<attack>_tail_mean`; `attack_settings` and
        `attack_library` (JSON, attack to value), `run_ids`, `group`, `search` (precision in which
        attacks searched), `reliability` (flagged checks), `LATER_KEYS`, `ranked_by`,
        `ranking_score`. Scores are fractions in [0, 1]; std is the sample standard deviation, NaN
        for one seed; a mean is NaN unless all seeds of the row have the attack.
        Group after group, best first.

    Raises:
        UserError: see `comparable_groups`.
    """
    groups = comparable_groups(metrics, across)
    records = [record for group in groups for record in _group_rows(group)]
    attacks = sorted({name for group in groups for name in group.attacks}, key=attack_order)
    columns = [
        "rank",
        "method",
        *GROUP_KEYS,
        "n_seeds",
        "seeds",
        *(f"{attack}_{score}" for attack in attacks for score in ATTACK_SCORES),
        "attack_settings",
        "attack_library",
        "run_ids",
        "group",
        "search",
        "reliability",
        *LATER_KEYS,
        "ranked_by",
        "ranking_score",
    ]
    return pd.DataFrame(records, columns=columns).astype({"rank": "Int64"})


def _group_rows(group: Group) -> list[dict[str, Any]]:
    """Rows of one group, best first."""
    frame = scores(group)
    ranked = ranking(frame)
    return [_row(group, frame, label, ranked) for label in ranked.labels]


def _row(group: Group, frame: pd.DataFrame, label: str, ranked: Ranking) -> dict[str, Any]:
    own = group.rows[group.rows["label"] == label]
    once = own.drop_duplicates("attack").sort_values("attack").set_index("attack")
    libraries = once["attack_library"].dropna().to_dict()
    by_attack = frame[frame["label"] == label].set_index("attack")
    seeds = group.seeds(label)
    return {
        "rank": ranked.ranks[label],
        "method": own["method"].iloc[0],
        **group.key,
        **{name: own[name].iloc[0] for name in (*BASE_KEYS, *LATER_KEYS)},
        "n_seeds": len(seeds),
        "seeds": ",".join(str(seed) for seed in seeds),
        **{
            f"{attack}_{score}": by_attack.at[attack, score]
            if attack in by_attack.index
            else math.nan
            for attack in group.attacks
            for score in ATTACK_SCORES
        },
        "attack_settings": compact_json(
            {name: settings_of(text) for name, text in once["attack_settings"].items()}
        ),
        "attack_library": compact_json({name: str(value) for name, value in libraries.items()}),
        "run_ids": ",".join(group.runs(label)),
        "group": group.slug,
        "reliability": ";".join(flagged_checks(group)[label]),
        "ranked_by": ranked.name,
        "ranking_score": ranked.scores[label],
    }
