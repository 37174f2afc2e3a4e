"""Does searching in bfloat16 change what AutoAttack finds? Stored float32 runs are attacked again.

For every run of a results directory that AutoAttack has judged in float32, the same images are
attacked with `search="bf16"` (verdicts stay float32), and robust accuracies are compared.

    python benchmarks/studies/bf16_search.py --data-dir data --suite results/cifar10-lt-cpu

Minutes a run on two cores. Results are kept after every run; the same command goes on from there.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from ltrobust.attacks.suite import attack_spec
from ltrobust.bench.runner import load_defended
from ltrobust.config import Run
from ltrobust.data import load_data
from ltrobust.evaluation.evaluate import Evaluator, TestSet
from ltrobust.method import load_methods
from ltrobust.results.store import RunStore, SuiteStore


def again(store: RunStore, data_dir: Path | None, device: torch.device) -> dict[str, Any] | None:
    """Attack one run with a bfloat16 search; None when it has no float32 AutoAttack."""
    run = store.begun_record().run
    there = [
        made
        for made in store.attacks().values()
        if made.attack == "autoattack" and "search" not in made.settings
    ]
    frame = store.outcomes(there[0]) if there else None
    if frame is None or not isinstance(run, Run):
        return None
    made = there[0]
    data = load_data(
        run.data.name,
        data_dir=data_dir,
        imbalance_ratio=run.data.imbalance_ratio,
        imbalance_type=run.data.imbalance_type,
        split_seed=run.data.split_seed,
        limit_train=run.data.limit_train,
        test_protocol=made.test_protocol,
        limit_test=made.limit_test,
    )
    model = load_defended(run, data, store, device)
    test = TestSet(data.test_images, data.test_labels, data.test_index)
    evaluator = Evaluator(model, test, num_classes=data.num_classes, device=device)
    began = time.perf_counter()
    result = evaluator.run(attack_spec("autoattack", made.eps, search="bf16"))
    seconds = time.perf_counter() - began
    exact = frame.set_index("index")["correct"]
    stands = (result.pred == test.labels).numpy()
    before = exact.loc[test.index.numpy()].to_numpy()
    return {
        "method": run.method,
        "n": len(stands),
        "fp32": 100 * float(before.mean()),
        "bf16": 100 * float(stands.mean()),
        "difference": 100 * float(stands.mean() - before.mean()),
        "images_that_differ": int((stands != before).sum()),
        "fp32_seconds_when_stored": made.seconds,
        "bf16_seconds": seconds,
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--suite", type=Path, default=Path("results/cifar10-lt-cpu"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, default=Path("results/studies/bf16-search.json"))
    asked = parser.parse_args()
    load_methods([])
    found = json.loads(asked.json.read_text()) if asked.json.is_file() else {}
    for store in SuiteStore(asked.suite).runs():
        if store.run_id in found:
            continue
        row = again(store, asked.data_dir, torch.device(asked.device))
        if row is not None:
            found[store.run_id] = row
            asked.json.parent.mkdir(parents=True, exist_ok=True)
            asked.json.write_text(json.dumps(found, indent=2) + "\n")
            print(
                f"{row['method']}: fp32 {row['fp32']:.2f}, bf16 {row['bf16']:.2f}, "
                f"{row['images_that_differ']} of {row['n']} images differ"
            )


if __name__ == "__main__":
    main()
