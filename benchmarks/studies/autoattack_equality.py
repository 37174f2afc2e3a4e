"""Our AutoAttack against a bare pyautoattack call: the same verdict for every single image?

Two networks: an adversarially trained small-cnn of a results directory, and an undefended ResNet-18
(a checkpoint, or trained here in a few minutes), each on real CIFAR-10 test images. Both sides get
the same seed, batches and images. Ours runs twice: on the plain float32 network, where every
verdict must be the reference's, and on the folded copy that `ltrobust` searches with by default,
where at most 0.5% may differ.

    python benchmarks/studies/autoattack_equality.py --data-dir data
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from pyautoattack import AutoAttack
from torch import Tensor, nn

import ltrobust
from ltrobust.attacks.autoattack import autoattack
from ltrobust.attacks.pgd import attack_mode
from ltrobust.bench.runner import load_defended
from ltrobust.data import LongTailedData, load_data, to_float
from ltrobust.evaluation.evaluate import DefendedModel, Evaluator, TestSet
from ltrobust.method import load_methods
from ltrobust.models import build_model
from ltrobust.results.store import SuiteStore
from ltrobust.training.checkpoint import load_weights, read_state_dict

CPU = torch.device("cpu")
SEED, BATCH = 0, 250


def defended(suite: Path, method: str, data: LongTailedData) -> DefendedModel:
    """The trained network of the first run of a method in a results directory."""
    for store in SuiteStore(suite).runs():
        run = store.begun_record().run
        if run.method == method:
            return load_defended(run, data, store, CPU)
    raise SystemExit(f"{suite} has no run of {method}")


def undefended(file: Path | None, data_dir: Path | None) -> DefendedModel:
    """A ResNet-18 without any defense: from a checkpoint, or trained on clean images here."""
    if file is not None:
        net = build_model("resnet18", num_classes=10)
        load_weights(net, read_state_dict(file), str(file))
        return DefendedModel(net, nn.Identity()).eval()
    trained = ltrobust.train(
        "pgd-at",
        "cifar10-lt",
        arch="resnet18",
        precision="bf16",
        epochs=3,
        eps=0.0,
        limit_train=4000,
        limit_test=100,
        imbalance_ratio=1,
        option=["recipe.attack.steps=0"],
        data_dir=data_dir,
        device="cpu",
    )
    model = trained.model
    assert isinstance(model, DefendedModel)
    return model


def bare(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> tuple[list[int], list[bool], float]:
    """Predictions, which images stand, and seconds of a plain pyautoattack call."""
    attack = AutoAttack(model, eps=eps, seed=SEED, version="standard", device="cpu")
    began = time.perf_counter()
    with torch.random.fork_rng():
        found, pred = attack.run_standard_evaluation(x, y, batch_size=BATCH)
    seconds = time.perf_counter() - began
    with torch.no_grad():
        stands = torch.cat([model(part).argmax(1) for part in found.split(BATCH)]) == y
    return pred.tolist(), stands.tolist(), seconds


def compare(model: DefendedModel, data: LongTailedData, count: int, eps: float) -> dict[str, Any]:
    """Both sides on the first `count` test images."""
    images, labels = data.test_images[:count], data.test_labels[:count]
    x = to_float(images)
    with attack_mode(model):
        pred, stands, seconds = bare(model, x, labels, eps)
        began = time.perf_counter()
        ours = autoattack(model, x, labels, eps=eps, num_classes=10, seed=SEED, batch_size=BATCH)
        plain_seconds = time.perf_counter() - began
        test = TestSet(images, labels, torch.arange(count))
        evaluator = Evaluator(model, test, num_classes=10, device=CPU)
        began = time.perf_counter()
        fast = autoattack(
            model,
            x,
            labels,
            eps=eps,
            num_classes=10,
            seed=SEED,
            batch_size=BATCH,
            search=evaluator.search_model("fp32"),
        )
        fast_seconds = time.perf_counter() - began
    mine = (ours.fell == 0).tolist()
    quick = (fast.fell == 0).tolist()
    return {
        "images": count,
        "eps": eps,
        "clean_right": int((ours.fell >= 0).sum()),
        "stand": sum(stands),
        "verdicts_differ": sum(a != b for a, b in zip(mine, stands, strict=True)),
        "predictions_differ": sum(a != b for a, b in zip(ours.pred.tolist(), pred, strict=True)),
        "fast_verdicts_differ": sum(a != b for a, b in zip(quick, stands, strict=True)),
        "seconds": {"bare": seconds, "ours": plain_seconds, "fast": fast_seconds},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--suite", type=Path, default=Path("benchmarks/speed/subject"))
    parser.add_argument("--method", default="pgd-at")
    parser.add_argument("--checkpoint", type=Path, help="state dict of an undefended resnet18")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--only", choices=["small-cnn", "resnet18"])
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    load_methods([])
    data = load_data("cifar10-lt", data_dir=asked.data_dir)
    found: dict[str, Any] = {}
    if asked.only in (None, "small-cnn"):
        model = defended(asked.suite, asked.method, data)
        found[f"small-cnn {asked.method}"] = compare(model, data, asked.images, 8 / 255)
    if asked.only in (None, "resnet18"):
        model = undefended(asked.checkpoint, asked.data_dir)
        found["resnet18 undefended"] = compare(model, data, 16, 1 / 255)
    text = json.dumps(found, indent=2)
    print(text)
    if asked.json:
        asked.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
