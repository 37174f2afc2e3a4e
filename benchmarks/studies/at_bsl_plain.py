"""Does our trainer train what the paper describes? AT-BSL twice, from two independent programs.

One side is `ltrobust.train`. The other is written below from the paper's algorithm alone: PIL
images through a DataLoader, contiguous float32, PGD spelled out, cross-entropy on f(x') + log n.
Both use the same split, architecture and unified recipe, and different random streams; both are
judged by the same plain PGD-20 on the same test images. Their means must agree within three
standard errors of the difference (Welch).

    python benchmarks/studies/at_bsl_plain.py --data-dir DIR --epochs 2 --seeds 0,1,2 --json OUT

About 2 minutes per seed and epoch on two cores. Results are kept after every run; the same command
goes on from there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

import ltrobust
from ltrobust.data import LongTailedData, load_data
from ltrobust.models import build_model

EPS, STEP = 8 / 255, 2 / 255
METRICS = ("clean", "pgd20")


class Images(Dataset):
    def __init__(self, data: LongTailedData) -> None:
        to_pil = transforms.ToPILImage()
        self.images = [to_pil(image) for image in data.train_images]
        self.labels = data.train_labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.transform(self.images[i]), self.labels[i]


def plain_pgd(model: nn.Module, x: Tensor, y: Tensor, steps: int) -> Tensor:
    x_adv = x + torch.empty_like(x).uniform_(-EPS, EPS)
    for _ in range(steps):
        x_adv.requires_grad_()
        gradient = torch.autograd.grad(F.cross_entropy(model(x_adv), y), x_adv)[0]
        x_adv = x_adv.detach() + STEP * gradient.sign()
        x_adv = torch.min(torch.max(x_adv, x - EPS), x + EPS).clamp(0, 1)
    return x_adv.detach()


def train_plainly(data: LongTailedData, epochs: int, seed: int) -> nn.Module:
    torch.manual_seed(1000 + seed)
    model = build_model("small-cnn", num_classes=data.num_classes)
    log_counts = torch.tensor(data.train_counts).float().log()
    loader = DataLoader(Images(data), batch_size=128, shuffle=True, drop_last=True, num_workers=1)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    scheduler = torch.optim.lr_scheduler.MultiStepLR(
        optimizer, [round(0.75 * epochs), round(0.9 * epochs)]
    )
    for _ in range(epochs):
        for x, y in loader:
            model.eval()
            x_adv = plain_pgd(model, x, y, steps=10)
            model.train()
            optimizer.zero_grad()
            F.cross_entropy(model(x_adv) + log_counts, y).backward()
            optimizer.step()
        scheduler.step()
    return model


def judge(model: nn.Module, data: LongTailedData) -> dict[str, float]:
    """Balanced accuracy, clean and under plain PGD-20, on the test images."""
    torch.manual_seed(0)
    model.eval()
    x, y = data.test_images.float() / 255, data.test_labels
    right: dict[str, list[Tensor]] = {name: [] for name in METRICS}
    for images, labels in zip(x.split(250), y.split(250), strict=True):
        right["clean"].append(model(images).argmax(1) == labels)
        adversarial = plain_pgd(model, images, labels, steps=20)
        right["pgd20"].append(model(adversarial).argmax(1) == labels)
    return {name: balanced(torch.cat(parts), y) for name, parts in right.items()}


def balanced(right: Tensor, y: Tensor) -> float:
    return statistics.fmean(float(right[y == c].float().mean()) for c in y.unique())


def run(side: str, seed: int, epochs: int, data: LongTailedData, folder: Path | None) -> dict:
    began = time.perf_counter()
    if side == "plain":
        model = train_plainly(data, epochs, seed)
    else:
        model = ltrobust.train(
            "at-bsl",
            "cifar10-lt",
            arch="small-cnn",
            epochs=epochs,
            seeds=seed,
            precision="fp32",
            device="cpu",
            data_dir=folder,
        ).model
    seconds = time.perf_counter() - began
    return {"side": side, "seed": seed, **judge(model, data), "seconds": seconds}


def welch(rows: list[dict], name: str) -> dict[str, float | bool]:
    """Difference of the means, its standard error (Welch), and whether it is within three."""
    ours = [row[name] for row in rows if row["side"] == "ours"]
    plain = [row[name] for row in rows if row["side"] == "plain"]
    difference = statistics.fmean(ours) - statistics.fmean(plain)
    error = (statistics.variance(ours) / len(ours) + statistics.variance(plain) / len(plain)) ** 0.5
    return {
        "ours": statistics.fmean(ours),
        "ours_std": statistics.stdev(ours),
        "plain": statistics.fmean(plain),
        "plain_std": statistics.stdev(plain),
        "difference": difference,
        "standard_error": error,
        "agrees": abs(difference) <= 3 * error,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    kept = json.loads(options.json.read_text()) if options.json.is_file() else {}
    rows = kept.get("runs", []) if kept.get("epochs") == options.epochs else []
    data = load_data("cifar10-lt", data_dir=options.data_dir)
    for seed in seeds:
        for side in ("plain", "ours"):
            if not any(row["side"] == side and row["seed"] == seed for row in rows):
                rows.append(run(side, seed, options.epochs, data, options.data_dir))
                print(rows[-1], flush=True)
                keep(options.json, options.epochs, data, rows)
    keep(options.json, options.epochs, data, rows)
    print(json.dumps({name: welch(rows, name) for name in METRICS}, indent=2))


def keep(file: Path, epochs: int, data: LongTailedData, rows: list[dict]) -> None:
    content = {"epochs": epochs, "n": len(data.test_labels), "runs": rows}
    sides = [row["side"] for row in rows]
    if min(sides.count("ours"), sides.count("plain")) > 1:
        content["welch"] = {name: welch(rows, name) for name in METRICS}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
