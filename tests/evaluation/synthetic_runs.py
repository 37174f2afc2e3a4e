"""Run directories with outcomes made up by a test, and no training behind them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ltrobust.bench.evaluations import images_sha256
from ltrobust.bench.store import RunStore

COUNTS = (50, 20, 10, 5)


def attack(
    name: str = "pgd2",
    *,
    seed: int = 0,
    correct: Sequence[bool] = (),
    first: int = 100,
    **settings: Any,
) -> dict[str, Any]:
    """One evaluation with its verdicts: image i has label i % 4, a wrong prediction is the next."""
    right = np.array(correct, dtype=bool)
    index = np.arange(len(right))
    facts = {
        "attack": name,
        "eps": 0.0 if name == "clean" else 0.1,
        "settings": {"steps": 2, "seed": seed, **settings},
        "library": "ltrobust",
        "test_protocol": "balanced",
        "limit_test": None,
        "test_sha256": images_sha256(first + index, index % 4),
        "seconds": 1.5,
    }
    rows = pd.DataFrame(
        {
            "index": first + index,
            "label": index % 4,
            "attack": name,
            "attack_id": f"{name}-{'-'.join(map(str, facts['settings'].values()))}",
            "pred": np.where(right, index % 4, (index + 1 + seed) % 4),
            "correct": right,
        }
    )
    return {"facts": facts, "rows": rows}


def write_run(
    suite: Path,
    method: str,
    attacks: Sequence[dict[str, Any]],
    *,
    seed: int = 0,
    counts: Sequence[int] = COUNTS,
    names: Sequence[str] = ("a", "b", "c", "d"),
) -> RunStore:
    """Write run.json and outcomes.parquet of a run named `<method>-<seed>`."""
    run = RunStore(suite / "runs" / f"{method}-{seed}")
    run.update(
        run_id=run.run_id,
        status="done",
        checkpoint="epoch 1",
        config={
            "method": method,
            "arch": "small-cnn",
            "recipe_name": "unified",
            "recipe": {"augment": "none", "epochs": 1, "batch_size": 8, "attack": {"eps": 0.1}},
            "seed": seed,
            "select": "last",
            "precision": "fp32",
            "data": {
                "name": "digits-lt",
                "imbalance_ratio": 10.0,
                "imbalance_type": "exp",
                "split_seed": 0,
            },
        },
        data={
            "class_names": list(names),
            "train_counts": list(counts),
            "imbalance_ratio": 10.0,
            "split_sha256": "ab",
        },
        provenance={
            "versions": {"torch": "2", "ltrobust": "0"},
            "git_commit": "",
            "device_name": "cpu",
        },
        evaluations={one["rows"]["attack_id"].iloc[0]: one["facts"] for one in attacks},
    )
    run.write_outcomes(pd.concat([one["rows"] for one in attacks], ignore_index=True))
    return run
