"""`ltrobust new KIND NAME`: a file to begin with and its test, both of which work as they are."""

from __future__ import annotations

import re
from pathlib import Path

from ltrobust.errors import UserError, unknown

METHOD = '''"""{title}: what it does, in a sentence.

    x'  = argmax_{{|x' - x| <= eps}} CE(f(x'), y)      (PGD, eval mode)
    L   = CE(f(x') + tau log(n_y), y)

Say which paper this is from, and where the defaults come from.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from ltrobust.losses import logit_adjusted_loss
from ltrobust.method import Citation, Context, Method, register_method


@register_method("{name}", paper=Citation("A. Author", "A title", "A venue", 2026))
@dataclass
class {title}(Method):
    """Adversarial training with adjusted logits.

    Attributes:
        tau: strength of the adjustment.
    """

    tau: float = 1.0

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context) -> Tensor:
        """Cross-entropy of the adjusted logits of attacked images."""
        return logit_adjusted_loss(model(x_adv), y, ctx.class_counts, tau=self.tau)
'''
ATTACK = '''"""{title}: what it does, in a sentence. Say which paper this is from."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltrobust.attacks.custom import register_attack


@register_attack("{name}")
def {module}(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, generator: torch.Generator
) -> Tensor:
    """Ten steps of signed gradients from a random start within eps of x."""
    noise = torch.rand(x.shape, generator=generator, device=x.device)
    found = (x + eps * (2 * noise - 1)).clamp(0, 1)
    for _ in range(10):
        found.requires_grad_()
        with torch.enable_grad():
            loss = F.cross_entropy(model(found), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, found)
        found = found.detach() + eps / 4 * gradient.sign()
        found = torch.clamp(found, x - eps, x + eps).clamp(0, 1)
    return found
'''
NETWORK = '''"""{title}: what it is, in a sentence. Say which paper this is from."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ltrobust.models import Network, NetworkSpec, register_network


@register_network("{name}")
class {title}(Network):
    """Two convolutions and the average over all positions."""

    def __init__(self, spec: NetworkSpec, *, width: int = 32) -> None:
        super().__init__(spec, feature_dim=width)
        self.first = nn.Conv2d(spec.in_channels, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.attach_head(spec.head)

    def features(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W) in [0, 1] to features (B, width)."""
        maps = F.relu(self.norm(self.first(x)))
        return F.relu(self.second(maps)).mean(dim=(2, 3))
'''
DATASET = '''"""{title}: what it shows, in a sentence. Say where it comes from."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ltrobust.data import About, DatasetSpec
from ltrobust.data.custom import Arrays, register_dataset

SPEC = DatasetSpec(
    name="{name}",
    num_classes=4,
    imbalance_ratio=10.0,
    description="stripes in four directions, 100 down to 10 a class",
    epochs=10,
    arch="small-cnn",
    crop_padding=0,
    flip=False,
    class_names=("lying", "rising", "standing", "falling"),
    about=About(
        citation="A. Author, A title, A venue 2026",
        licence="CC0 1.0",
        defaults="where radius, architecture and recipe come from",
    ),
)


@register_dataset(SPEC)
def {module}(data_dir: Path) -> Arrays:
    """Training images, their labels, test images and labels; read yours from below data_dir."""
    return *stripes(100, seed=0), *stripes(25, seed=1)


def stripes(per_class: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8 (N, 1, 16, 16), and labels (N,)."""
    draw, labels = np.random.default_rng(seed), np.repeat(np.arange(4), per_class)
    angle = labels * np.pi / 4 + draw.normal(0, 0.1, len(labels))
    down, right = np.mgrid[:16, :16]
    way = np.multiply.outer(np.cos(angle), down) + np.multiply.outer(np.sin(angle), right)
    waves = np.sin(way + draw.uniform(0, 2 * np.pi, (len(labels), 1, 1)))
    noisy = 128 + 60 * waves + draw.normal(0, 20, waves.shape)
    return noisy.clip(0, 255).astype(np.uint8)[:, None], labels
'''
METRIC = '''"""{title}: what it measures, in a sentence. Say which paper this is from."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ltrobust.results.custom import register_metric
from ltrobust.results.digest import Digest


@register_metric("{name}", better="more", low=0, high=1)
def {module}(digest: Digest, train_counts: Sequence[int]) -> float:
    """Geometric mean of the classes' accuracies."""
    classes = zip(digest.right, digest.tested, strict=True)
    shares = [right / tested for right, tested in classes if tested]
    return math.prod(shares) ** (1 / len(shares))
'''
TEST = """from pathlib import Path

from {home} import check_{kind}


def test_{module}_keeps_the_contract():
    check_{kind}("{name}", plugin=Path(__file__).with_name("{module}.py"))
"""
TEMPLATES = {
    "method": METHOD,
    "attack": ATTACK,
    "network": NETWORK,
    "dataset": DATASET,
    "metric": METRIC,
}
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def write_new(kind: str, name: str, folder: Path) -> list[Path]:
    """Write `name.py` and `test_name.py` into a folder; return their paths.

    Raises:
        UserError: there is no such kind, the name is none or taken, or a file is there already.
    """
    if kind not in TEMPLATES:
        raise unknown("kind", kind, TEMPLATES)
    if not NAME.fullmatch(name):
        raise UserError(
            f"name '{name}' must be of small letters, digits and '-', such as my-{kind}"
        )
    _check_free(kind, name)
    module = name.replace("-", "_")
    words = {
        "name": name,
        "module": module,
        "kind": kind,
        "home": "ltrobust.testing" if kind == "method" else "ltrobust.testing_parts",
        "title": "".join(word.capitalize() for word in name.split("-")),
    }
    files = {
        folder / f"{module}.py": TEMPLATES[kind].format(**words),
        folder / f"test_{module}.py": TEST.format(**words),
    }
    for path in files:
        if path.exists():
            raise UserError(f"{path} is there already; choose another name or remove it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror or error})") from None
    return list(files)


def _check_free(kind: str, name: str) -> None:
    from ltrobust.attacks.custom import check_attack_name
    from ltrobust.data.custom import check_dataset_name
    from ltrobust.method import check_method_name
    from ltrobust.plugins import registries
    from ltrobust.results.custom import check_metric_name

    checks = {
        "attack": check_attack_name,
        "dataset": check_dataset_name,
        "method": check_method_name,
        "metric": check_metric_name,
    }
    if kind in checks:
        checks[kind](name)
    named = "architecture" if kind == "network" else kind
    (registry,) = (one for one in registries() if one.kind == named)
    if name in registry:
        raise UserError(f"{kind} '{name}' is there already; choose another name")
