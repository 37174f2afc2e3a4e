"""RandAugment and AutoAugment for whole batches, every image with operations of its own.

The draws and the pixels are torchvision's, bit for bit on a CPU; only the order of work differs.
All images that drew operations of one kind are treated together, so that a batch takes at most a
hundred kernel launches on a GPU instead of thousands: moved pixels by maps of where they come from,
pixels that depend on their value alone by tables, mixtures of two images by one sum. Maps and
tables are torchvision's own results on images of positions and of grey levels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import transforms
from torchvision.transforms.autoaugment import _apply_op

POLICIES: dict[str, Callable[[], torch.nn.Module]] = {
    "randaugment": lambda: transforms.RandAugment(num_ops=2, magnitude=8),
    "autoaugment": lambda: transforms.AutoAugment(transforms.AutoAugmentPolicy.CIFAR10),
}
"""torchvision's policies with the settings of AT-BSL-RA and AT-BSL-AuA."""

ROUNDS = 2
"""Operations that an image undergoes, in both policies."""
MOVED = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
TABLED = ("Brightness", "Posterize", "Solarize", "Invert")
MEASURED = ("AutoContrast", "Equalize")
MIXED = ("Color", "Contrast", "Sharpness")
GREY = (0.2989, 0.587, 0.114)
LEVELS = 256
NEVER = 2**40

Operation = tuple[str, float]
"""A name of torchvision's and a magnitude, with its sign."""


def drawn(policy: str, count: int, size: tuple[int, int], seed: int) -> list[list[Operation]]:
    """The operations of each round for each of `count` images (H, W), as torchvision draws them."""
    draw = torch.Generator().manual_seed(seed)
    one = _rand_augment if policy == "randaugment" else _auto_augment
    told = POLICIES[policy]()
    images = [one(told, size, draw) for _ in range(count)]
    return [list(operations) for operations in zip(*images, strict=True)]


def _rand_augment(policy: Any, size: tuple[int, int], draw: torch.Generator) -> list[Operation]:
    space = _space(policy.num_magnitude_bins, size)
    found = []
    for _ in range(policy.num_ops):
        name, magnitudes, signed = space[int(torch.randint(len(space), (1,), generator=draw))]
        magnitude = magnitudes[policy.magnitude] if magnitudes else 0.0
        if signed and torch.randint(2, (1,), generator=draw):
            magnitude *= -1.0
        found.append((name, magnitude))
    return found


def _auto_augment(policy: Any, size: tuple[int, int], draw: torch.Generator) -> list[Operation]:
    chosen = int(torch.randint(len(policy.policies), (1,), generator=draw))
    chances = torch.rand((ROUNDS,), generator=draw)
    signs = torch.randint(2, (ROUNDS,), generator=draw)
    space = {one[0]: one for one in _space(10, size, auto=True)}
    found = []
    for number, (name, chance, strength) in enumerate(policy.policies[chosen]):
        _, magnitudes, signed = space[name]
        magnitude = 0.0 if strength is None else magnitudes[strength]
        if signed and signs[number] == 0:
            magnitude *= -1.0
        found.append((name, magnitude) if chances[number] <= chance else ("Identity", 0.0))
    return found


def possible(policy: str, size: tuple[int, int]) -> list[Operation]:
    """All operations that a policy may draw for images (H, W), with either sign."""
    told: Any = POLICIES[policy]()
    if policy == "randaugment":
        space = _space(told.num_magnitude_bins, size)
        chosen = [(name, told.magnitude) for name, *_ in space]
    else:
        space = _space(10, size, auto=True)
        chosen = [(name, strength) for pair in told.policies for name, _, strength in pair]
    told_of = {name: (values, signed) for name, values, signed in space}
    found: list[Operation] = []
    for name, strength in chosen:
        values, signed = told_of[name]
        magnitude = values[strength] if values and strength is not None else 0.0
        found += [(name, magnitude), (name, -magnitude)] if signed else [(name, magnitude)]
    return found


@lru_cache(maxsize=8)
def _space(
    bins: int, size: tuple[int, int], *, auto: bool = False
) -> tuple[tuple[str, list[float], bool], ...]:
    """Names, magnitudes (none: []) and whether the sign is drawn, of all operations."""
    policy = POLICIES["autoaugment" if auto else "randaugment"]()
    space = policy._augmentation_space(bins, size)  # type: ignore[operator]
    return tuple(
        (name, values.tolist() if values.dim() else [], signed)
        for name, (values, signed) in space.items()
    )


class Tables:
    """Maps and tables of the operations, made when they are first wanted.

    Args:
        size: height and width of the images.
        device: of the images.
    """

    def __init__(self, size: tuple[int, int], device: torch.device) -> None:
        self._size, self._device = size, device
        self._rows: dict[str, dict[Operation, int]] = {"moved": {}, "tabled": {}}
        self._kept: dict[str, list[Tensor]] = {"moved": [], "tabled": [torch.arange(LEVELS)]}
        self._on_device: dict[str, Tensor] = {}
        ramp = torch.arange(LEVELS, dtype=torch.uint8)
        stretched = torch.minimum(ramp, ramp[:, None])[:, None, None]
        contrast = transforms.functional.autocontrast(stretched).view(LEVELS, LEVELS)
        self.contrast = contrast.long().to(device)
        """Grey level by largest minus smallest level and level minus smallest, (256, 256)."""
        kernel = torch.ones(1, 1, 3, 3, dtype=torch.float32)
        kernel[..., 1, 1] = 5
        self.blur = (kernel / kernel.sum()).to(device)
        self.grey = torch.tensor(GREY, dtype=torch.float32).view(1, -1, 1, 1).to(device)
        self.one = torch.ones((), dtype=torch.int64).to(device)

    def row(self, kind: str, operation: Operation) -> int:
        """The row of a map or table in `all`."""
        rows, kept = self._rows[kind], self._kept[kind]
        if operation not in rows:
            rows[operation] = len(kept)
            kept.append(self._map(operation) if kind == "moved" else self._table(operation))
            self._on_device.pop(kind, None)
        return rows[operation]

    def all(self, kind: str) -> Tensor:
        """All maps (R, H * W), positions from 1 and 0 for outside, or tables (R, 256); int64."""
        if kind not in self._on_device:
            self._on_device[kind] = torch.stack(self._kept[kind]).to(self._device)
        return self._on_device[kind]

    def _map(self, operation: Operation) -> Tensor:
        count = self._size[0] * self._size[1]
        places = torch.arange(1, count + 1, dtype=torch.float32).view(1, *self._size)
        return _torchvision(places, operation).flatten().long()

    def _table(self, operation: Operation) -> Tensor:
        ramp = torch.arange(LEVELS, dtype=torch.uint8)
        if operation[0] == "Brightness":  # in float32, whatever torch's default is
            return (torch.tensor(1.0 + operation[1]).float() * ramp).clamp(0, LEVELS - 1).long()
        return _torchvision(ramp.view(1, 16, 16), operation).flatten().long()


def _torchvision(image: Tensor, operation: Operation) -> Tensor:
    nearest = transforms.InterpolationMode.NEAREST
    return _apply_op(image, *operation, interpolation=nearest, fill=None)


@lru_cache(maxsize=4)
def tables(policy: str, size: tuple[int, int], device: torch.device) -> Tables:
    """The maps and tables of a policy for images of one size on one device."""
    made = Tables(size, device)
    for operation in possible(policy, size):
        for kind, names in (("moved", MOVED), ("tabled", TABLED)):
            if operation[0] in names:
                made.row(kind, operation)
    return made


@dataclass
class Packed:
    """Numbers that go to the device in one piece, as views of it."""

    integers: list[list[int]] = field(default_factory=list)
    floats: list[list[float]] = field(default_factory=list)
    flags: list[list[bool]] = field(default_factory=list)

    def put(self, values: Sequence[int]) -> int:
        """Add integers; their place among the views."""
        self.integers.append(list(values))
        return len(self.integers) - 1

    def put_floats(self, values: Sequence[float]) -> int:
        """Add float32 numbers; their place among the views of these."""
        self.floats.append(list(values))
        return len(self.floats) - 1

    def put_flags(self, values: Sequence[bool]) -> int:
        """Add flags; their place among the views of these."""
        self.flags.append(list(values))
        return len(self.flags) - 1

    def sent(self, device: torch.device) -> Sent:
        """Views of the integers, int64, the floats, float32, and the flags, on the device."""
        parts: tuple[tuple[list[Any], torch.dtype], ...] = (
            (self.integers, torch.int64),
            (self.floats, torch.float32),
            (self.flags, torch.bool),
        )
        flat = [torch.tensor([v for part in p for v in part], dtype=t) for p, t in parts]
        packed = torch.cat([values.view(torch.uint8) for values in flat])
        if device.type != "cpu":
            packed = packed.pin_memory().to(device, non_blocking=True)
        pieces = packed.split([values.numel() * values.element_size() for values in flat])
        views = [
            list(piece.view(kind).split([len(part) for part in own])) if own else []
            for piece, (own, kind) in zip(pieces, parts, strict=True)
        ]
        return Sent(*views)


@dataclass(frozen=True)
class Sent:
    """Views of what was packed, in the order in which it was put."""

    integers: list[Tensor]
    floats: list[Tensor]
    flags: list[Tensor]


Work = Callable[[Tensor, Sent], None]
"""Changes images (B, C, H, W) in place, given what was sent to their device."""


def augment(images: Tensor, policy: str, seed: int) -> Tensor:
    """Apply a policy to uint8 images (B, C, H, W), each image with its own operations.

    Args:
        images: not changed.
        policy: a name in `POLICIES`.
        seed: of all that is drawn.
    """
    size = (images.shape[2], images.shape[3])
    known, packed = tables(policy, size, images.device), Packed()
    works: list[Work] = []
    for operations in drawn(policy, len(images), size, seed):
        for kind, names in ((_moved, MOVED), (_levels, TABLED + MEASURED), (_mixed, MIXED)):
            chosen = [(i, o) for i, o in enumerate(operations) if o[0] in names]
            if kind is _mixed:
                chosen = [(i, o) for i, o in chosen if not _untouched(o[0], images)]
            if chosen:
                where, own = [i for i, _ in chosen], [o for _, o in chosen]
                works.append(kind(where, own, known, packed, images.shape[1]))
    found = images.clone()
    sent = packed.sent(images.device)
    for work in works:
        work(found, sent)
    return found


def _untouched(name: str, images: Tensor) -> bool:
    """Whether a mixture leaves such images alone."""
    small = min(images.shape[2:]) <= 2
    return (name == "Color" and images.shape[1] == 1) or (name == "Sharpness" and small)


def _moved(
    where: list[int], operations: list[Operation], known: Tables, packed: Packed, _channels: int
) -> Work:
    """Shears, shifts and rotations."""
    rows = packed.put([known.row("moved", operation) for operation in operations])
    place = packed.put(where)

    def work(images: Tensor, sent: Sent) -> None:
        chosen = images.index_select(0, sent.integers[place])
        flat = F.pad(chosen.flatten(2), (1, 0))  # position 0 is black
        maps = known.all("moved").index_select(0, sent.integers[rows])
        moved = flat.gather(2, maps[:, None].expand(-1, chosen.shape[1], -1))
        images.index_copy_(0, sent.integers[place], moved.view_as(chosen))

    return work


def _levels(
    where: list[int], operations: list[Operation], known: Tables, packed: Packed, _channels: int
) -> Work:
    """What depends on a pixel's level alone, and on what levels its image has."""
    rows = packed.put([known.row("tabled", o) if o[0] in TABLED else 0 for o in operations])
    names = [name for name, _ in operations]
    stretch = packed.put([0 if name == "AutoContrast" else NEVER for name in names])
    equal = packed.put([0 if name == "Equalize" else NEVER for name in names])
    place = packed.put(where)
    measured = [any(name == one for name in names) for one in MEASURED]

    def work(images: Tensor, sent: Sent) -> None:
        shape = (len(where), *images.shape[1:])
        x = images.index_select(0, sent.integers[place]).flatten(2).long()
        table = known.all("tabled").index_select(0, sent.integers[rows])[:, None]
        lowest, highest = x.aminmax(dim=2, keepdim=True)
        if measured[1]:
            levels, steps = _equalized(x, highest, known.one)
            table = torch.where(steps > sent.integers[equal].view(-1, 1, 1), levels, table)
        found = table.expand(-1, shape[1], -1).gather(2, x)
        if measured[0]:
            spread = highest - lowest
            wide = spread > sent.integers[stretch].view(-1, 1, 1)
            found = torch.where(wide, known.contrast[spread, x - lowest], found)
        images.index_copy_(0, sent.integers[place], found.to(images.dtype).view(shape))

    return work


def _equalized(x: Tensor, highest: Tensor, one: Tensor) -> tuple[Tensor, Tensor]:
    """New levels (B, C, 256) that spread the old ones evenly, and the pixels a level is to have.

    Where that is 0, an image stays as it is.

    Args:
        x: levels, int64 (B, C, N).
        highest: the highest of each channel (B, C, 1).
        one: the number, int64, beside them.
    """
    counts = torch.zeros(*x.shape[:2], LEVELS, dtype=torch.int64, device=x.device)
    counts.scatter_add_(2, x, one.expand_as(x))
    steps = (x.shape[2] - counts.gather(2, highest)) // (LEVELS - 1)
    below = counts.cumsum(2) - counts
    return ((below + steps // 2) // steps.clamp_min(1)).clamp_max(LEVELS - 1), steps


def _mixed(
    where: list[int], operations: list[Operation], known: Tables, packed: Packed, channels: int
) -> Work:
    """Mixtures with the grey image, with its mean, and with the blurred image."""
    shares = packed.put_floats([1.0 + magnitude for _, magnitude in operations])
    rests = packed.put_floats([1.0 - (1.0 + magnitude) for _, magnitude in operations])
    coloured = packed.put_flags([name == "Color" for name, _ in operations])
    contrasted = packed.put_flags([name == "Contrast" for name, _ in operations])
    place = packed.put(where)
    there = {name for name, _ in operations}

    def work(images: Tensor, sent: Sent) -> None:
        x = images.index_select(0, sent.integers[place]).float()
        other = _blurred(x, known.blur) if "Sharpness" in there else x
        if there - {"Sharpness"}:
            grey = (x * known.grey).sum(1, keepdim=True).trunc_() if channels == 3 else x
            if "Contrast" in there:
                mean, flags = grey.mean((1, 2, 3), keepdim=True), sent.flags[contrasted]
                other = torch.where(flags.view(-1, 1, 1, 1), mean, other)
            if "Color" in there:
                other = torch.where(sent.flags[coloured].view(-1, 1, 1, 1), grey, other)
        share, rest = (sent.floats[one].view(-1, 1, 1, 1) for one in (shares, rests))
        mixed = (share * x + rest * other).clamp_(0, LEVELS - 1)
        images.index_copy_(0, sent.integers[place], mixed.to(images.dtype))

    return work


def _blurred(x: Tensor, kernel: Tensor) -> Tensor:
    """Images whose inner pixels are means of their neighbourhood, rounded."""
    blurred = x.clone()
    inner = F.conv2d(x, kernel.expand(x.shape[1], -1, -1, -1), groups=x.shape[1])
    blurred[..., 1:-1, 1:-1] = inner.round_()
    return blurred
