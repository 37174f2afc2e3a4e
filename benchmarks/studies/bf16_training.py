"""Does training in bfloat16 end elsewhere than in float32? The same runs in both, over seeds.

CIFAR-10-LT at imbalance ratio 50 with small-cnn, the unified recipe with fewer epochs. For each
method the two means must agree within three standard errors of their difference (Welch), that is
within the noise of the seed.

    python benchmarks/studies/bf16_training.py --data-dir data --methods at-bsl --seeds 0,1,2

Results are kept after every run; the same command goes on from there.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from pathlib import Path

import ltrobust

METRICS = ("clean", "pgd20")


def one(method: str, precision: str, seed: int, asked: argparse.Namespace) -> dict[str, float]:
    """Balanced accuracies in percent, and training seconds, of one run."""
    trained = ltrobust.train(
        method,
        "cifar10-lt",
        imbalance_ratio=50,
        arch="small-cnn",
        epochs=asked.epochs,
        limit_train=asked.limit_train,
        seeds=seed,
        precision=precision,
        data_dir=asked.data_dir,
        device=asked.device,
    )
    table = ltrobust.evaluate(trained.model, trained.data, METRICS, device=asked.device)
    scores = dict(zip(table["attack"], 100 * table["balanced_accuracy"], strict=True))
    return {**scores, "train_seconds": float(trained.history["seconds"].sum())}


def judge(fp32: list[float], bf16: list[float]) -> dict[str, float | bool]:
    """Means, their difference, its standard error, and whether it is within three of these."""
    sides = (fp32, bf16)
    several = min(map(len, sides)) > 1
    error = math.sqrt(sum(statistics.variance(s) / len(s) for s in sides)) if several else 0.0
    difference = statistics.mean(bf16) - statistics.mean(fp32)
    return {
        "fp32": statistics.mean(fp32),
        "bf16": statistics.mean(bf16),
        "difference": difference,
        "standard_error": error,
        "within_noise": abs(difference) <= 3 * error,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--methods", default="at-bsl")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--limit-train", type=int, default=4000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, default=Path("results/studies/bf16-training.json"))
    asked = parser.parse_args()
    setting = {"epochs": asked.epochs, "limit_train": asked.limit_train}
    kept = json.loads(asked.json.read_text()) if asked.json.is_file() else {}
    runs = kept.get("runs", {}) if kept.get("setting") == setting else {}
    seeds = [int(seed) for seed in asked.seeds.split(",")]
    for method in asked.methods.split(","):
        for seed in seeds:
            for precision in ("fp32", "bf16"):
                key = f"{method}/{precision}/{seed}"
                if key not in runs:
                    runs[key] = one(method, precision, seed, asked)
                    print(key, runs[key], flush=True)
                verdicts = {
                    f"{name}/{metric}": judge(*sides)
                    for name in sorted({k.split("/")[0] for k in runs})
                    for metric in METRICS
                    if all(
                        sides := [
                            [v[metric] for k, v in runs.items() if k.startswith(f"{name}/{p}/")]
                            for p in ("fp32", "bf16")
                        ]
                    )
                }
                asked.json.parent.mkdir(parents=True, exist_ok=True)
                content = {"setting": setting, "runs": runs, "verdicts": verdicts}
                asked.json.write_text(json.dumps(content, indent=2) + "\n")
    for name, verdict in verdicts.items():
        print(name, verdict)


if __name__ == "__main__":
    main()
