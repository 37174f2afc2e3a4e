"""The published way: what the speed scripts compare with. It imports nothing of ltrobust.

Written from the papers in the structure of their released code (TRADES `trades.py`, AT-BSL
`at_bsl_loss.py` and `eval.py`, TAET `HARL.py`): eager, contiguous float32, attacks in eval mode on
networks whose parameters want gradients, clean logits computed anew in every TRADES step, Python
loops over samples and classes, PIL images through a DataLoader, attacks on every test image.
The numbers (radius, steps, start) are those of our unified recipe, so that both sides compute the
same thing. Left out is what the released loops do without any use: TAET's additional clean pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn, optim
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

EPS, STEP_SIZE, STEPS = 8 / 255, 2 / 255, 10
EVAL_BATCH = 200
"""Test batch of TRADES' evaluation script."""


def published(net: nn.Module, *, inplace: bool) -> nn.Module:
    """The network with PyTorch's own ReLU and in contiguous memory, as a script would have it.

    Args:
        net: changed in place.
        inplace: whether the architecture's code writes `F.relu(x, inplace=True)`; that of ResNet-18
            for small images does not.
    """
    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if type(child).__name__ == "ReLU":
                setattr(parent, name, nn.ReLU(inplace=inplace))
    return net.to(memory_format=torch.contiguous_format)


# training ---------------------------------------------------------------------------------------


def pgd(model: nn.Module, x: Tensor, y: Tensor, noise: Tensor) -> Tensor:
    """PGD on the cross-entropy from `x + noise`, with the model in eval mode (AT-BSL's loop)."""
    model.eval()
    x_adv = x.detach() + noise
    for _ in range(STEPS):
        x_adv.requires_grad_()
        with torch.enable_grad():
            loss = F.cross_entropy(model(x_adv), y)
        x_adv = _ascend(x, x_adv, torch.autograd.grad(loss, [x_adv])[0])
    model.train()
    return x_adv.detach()


def trades_attack(model: nn.Module, x: Tensor, noise: Tensor) -> Tensor:
    """PGD on the divergence; the clean logits are computed anew in every step (TRADES' loop)."""
    model.eval()
    x_adv = x.detach() + noise
    for _ in range(STEPS):
        x_adv.requires_grad_()
        with torch.enable_grad():
            loss = kl_sum(model(x_adv), model(x))
        x_adv = _ascend(x, x_adv, torch.autograd.grad(loss, [x_adv])[0])
    model.train()
    return x_adv.detach()


def _ascend(x: Tensor, x_adv: Tensor, gradient: Tensor) -> Tensor:
    x_adv = x_adv.detach() + STEP_SIZE * torch.sign(gradient.detach())
    x_adv = torch.min(torch.max(x_adv, x - EPS), x + EPS)
    return torch.clamp(x_adv, 0.0, 1.0)


def kl_sum(logits_adv: Tensor, logits: Tensor) -> Tensor:
    return F.kl_div(F.log_softmax(logits_adv, dim=1), F.softmax(logits, dim=1), reduction="sum")


def balanced_softmax(logits: Tensor, y: Tensor, counts: Sequence[int]) -> Tensor:
    """CE(f + log n, y), with the counts made a tensor in every step."""
    per_class = torch.tensor(counts).type_as(logits)
    return F.cross_entropy(logits + per_class.unsqueeze(0).expand(len(logits), -1).log(), y)


def harl(logits: Tensor, y: Tensor, num_classes: int) -> Tensor:
    """TAET's loss: classes absent from the batch have loss 0 and count in the means."""
    losses = F.cross_entropy(logits, y, reduction="none")
    sums = [torch.zeros((), device=logits.device) for _ in range(num_classes)]
    number = [0] * num_classes
    for i in range(len(y)):
        c = int(y[i].item())
        sums[c] = sums[c] + losses[i]
        number[c] += 1
    per_class = []
    for c in range(num_classes):
        per_class.append(sums[c] / number[c] if number[c] > 0 else sums[c])
    stacked = torch.stack(per_class)
    balanced = stacked.mean()
    hierarchical = torch.zeros((), device=logits.device)
    rare = torch.zeros((), device=logits.device)
    for c in range(num_classes):
        hierarchical = hierarchical + (per_class[c] - balanced) ** 2
        rare = rare + (per_class[c] / (stacked.sum() + 1e-10)) ** 2
    return 0.1 * balanced + 0.1 * hierarchical / num_classes + 0.1 * rare


def pgd_at_loss(
    model: nn.Module, x: Tensor, y: Tensor, noise: Tensor, _counts: Sequence[int]
) -> Tensor:
    return F.cross_entropy(model(pgd(model, x, y, noise)), y)


def at_bsl_loss(
    model: nn.Module, x: Tensor, y: Tensor, noise: Tensor, counts: Sequence[int]
) -> Tensor:
    return balanced_softmax(model(pgd(model, x, y, noise)), y, counts)


def taet_loss(
    model: nn.Module, x: Tensor, y: Tensor, noise: Tensor, counts: Sequence[int]
) -> Tensor:
    """TAET's second stage."""
    return harl(model(pgd(model, x, y, noise)), y, len(counts))


def trades_loss(
    model: nn.Module, x: Tensor, y: Tensor, noise: Tensor, _counts: Sequence[int]
) -> Tensor:
    """The released code's three train-mode passes: clean, attacked, clean again; beta 6."""
    x_adv = trades_attack(model, x, noise)
    natural = F.cross_entropy(model(x), y)
    return natural + 6.0 * kl_sum(model(x_adv), model(x)) / len(x)


Loss = Callable[[nn.Module, Tensor, Tensor, Tensor, Sequence[int]], Tensor]
LOSSES: dict[str, Loss] = {
    "pgd-at": pgd_at_loss,
    "at-bsl": at_bsl_loss,
    "taet": taet_loss,
    "trades": trades_loss,
}


def make_optimizer(model: nn.Module) -> optim.SGD:
    return optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)


def train_step(
    what: str,
    model: nn.Module,
    optimizer: optim.SGD,
    x: Tensor,
    y: Tensor,
    counts: Sequence[int],
) -> None:
    """One whole step of a defense: attack, outer loss, backward, update."""
    noise = torch.empty_like(x).uniform_(-EPS, EPS)
    loss = LOSSES[what](model, x, y, noise, counts)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


# evaluation -------------------------------------------------------------------------------------


def cw_loss(logits: Tensor, y: Tensor) -> Tensor:
    """The margin loss of CW-PGD, confidence 50, summed."""
    onehot = torch.zeros_like(logits).scatter_(1, y.unsqueeze(1), 1.0)
    real = (onehot * logits).sum(1)
    other = ((1.0 - onehot) * logits - onehot * 10000.0).max(1)[0]
    return -torch.clamp(real - other + 50, min=0.0).sum()


def ce_loss(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits, y)


def lsa_loss(logits: Tensor, y: Tensor) -> Tensor:
    """The cross-entropy of ten times the logits."""
    return F.cross_entropy(10.0 * logits, y)


def whitebox(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    loss: Callable[[Tensor, Tensor], Tensor],
    eps: float,
    step_size: float,
    steps: int,
    noise: Tensor | None,
    momentum: float | None,
) -> Tensor:
    """AT-BSL's `_pgd_whitebox`: `loss.backward()` fills the parameters' gradients as well."""
    x_adv = x.data.clone() if noise is None else x.data + noise
    velocity = torch.zeros_like(x)
    for _ in range(steps):
        x_adv = x_adv.detach().requires_grad_()
        with torch.enable_grad():
            value = loss(model(x_adv), y)
        value.backward()
        assert x_adv.grad is not None
        direction = x_adv.grad.data
        if momentum is not None:
            direction = direction / direction.abs().mean(dim=(1, 2, 3), keepdim=True)
            velocity = momentum * velocity + direction
            direction = velocity
        eta = torch.clamp(x_adv.data + step_size * direction.sign() - x.data, -eps, eps)
        x_adv = torch.clamp(x.data + eta, 0, 1.0)
    return x_adv


ATTACKS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], int, float | None]] = {
    "fgsm": (ce_loss, 1, None),
    "pgd20": (ce_loss, 20, None),
    "cw20": (cw_loss, 20, None),
    "mim20": (ce_loss, 20, 1.0),
    "lsa20": (lsa_loss, 20, None),
}
"""Loss, steps and momentum by name; fgsm is one step of eps from the image itself."""


def evaluate(
    model: nn.Module, x: Tensor, y: Tensor, name: str, eps: float, noise: Tensor
) -> list[bool]:
    """Attack every image; return which are still classified correctly. `clean` attacks none.

    Args:
        model: in eval mode.
        noise: starting offsets like `x`; `fgsm` and `clean` do not read them.
    """
    right: list[bool] = []
    for first in range(0, len(y), EVAL_BATCH):
        part = slice(first, first + EVAL_BATCH)
        x_adv = x[part]
        if name != "clean":
            loss, steps, momentum = ATTACKS[name]
            x_adv = whitebox(
                model,
                x[part],
                y[part],
                loss=loss,
                eps=eps,
                step_size=eps if name == "fgsm" else eps / 4,
                steps=steps,
                noise=None if name == "fgsm" else noise[part],
                momentum=momentum,
            )
        right += (model(x_adv).data.max(1)[1] == y[part]).tolist()
    return right


def autoattack(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> list[bool]:
    """Standard AutoAttack called directly; which images still stand."""
    from pyautoattack import AutoAttack

    attack = AutoAttack(model, eps=eps, seed=0, version="standard", device=x.device)
    x_adv, _ = attack.run_standard_evaluation(x, y, batch_size=250)
    right: list[bool] = []
    with torch.no_grad():
        for part, labels in zip(x_adv.split(250), y.split(250), strict=True):
            right += (model(part).max(1)[1] == labels).tolist()
    return right


# data -------------------------------------------------------------------------------------------


class PILImages(Dataset):
    """Images as torchvision's CIFAR data sets keep them: an array, made PIL one by one."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images = images.permute(0, 2, 3, 1).contiguous().numpy().astype(np.uint8)
        self.labels = labels.tolist()
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
        return self.transform(Image.fromarray(self.images[i])), self.labels[i]


def epoch(dataset: PILImages, batch_size: int, device: torch.device) -> Iterator[Tensor]:
    """One epoch of augmented batches, float in [0, 1], on the device."""
    loader = DataLoader(
        dataset,
        batch_size=batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=1,
        pin_memory=device.type == "cuda",
    )
    for x, _ in loader:
        yield x.to(device)
