"""How much memory a training will take on a CUDA device, estimated on a CPU.

Activations are measured: a few images pass through the real network, and what autograd keeps for
the backward pass is added up; that grows linearly with the batch. The rest is counted or, where it
is the device's own, allowed for. No data is loaded and no step is made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from ltrobust.attacks.pgd import attack_mode
from ltrobust.combination import find
from ltrobust.config import Run
from ltrobust.method import Context
from ltrobust.models import build_model
from ltrobust.seeds import generator
from ltrobust.training.engine import TrainingModel
from ltrobust.training.recompute import repeated_blocks
from ltrobust.training.trainer import Thrift, build

CUDA_ALLOWANCE = 2_800_000_000
"""Bytes allowed for the CUDA context, cuDNN and cuBLAS workspaces, and the allocator's gaps.

On an H200 a step of resnet18 (batch 128, bf16) reserved 2.8 GB, of which 0.6 are counted here and
nearly all else is workspace that cuDNN tries its algorithms with; the context comes on top."""
TRANSIENT = 3
"""Copies of the largest activation that live beside the kept ones: gradients and outputs."""
IMAGE_COPIES = 8
"""Copies of a batch of images: clean, attacked, start, bounds, gradient, uint8, augmentation."""
LOOK_BATCH = 250
"""Images at a time where an epoch's accuracy is measured or its checkpoint is judged."""
FEW = (2, 3)
"""Batches that are measured; what grows between them is an image's share."""


@dataclass(frozen=True)
class Costs:
    """What a network costs in training, in bytes; all but the first three per image.

    Attributes:
        weights: parameters and buffers, float32.
        copies: convolution weights folded for the attack, in the run's precision.
        casts: copies of weights that autocast makes and autograd keeps; 0 in float32.
        image: an image, float32.
        attack: kept for the gradient of the images, parameters frozen.
        outer: kept by a train-mode pass for the gradient of the parameters.
        recomputed: the same with gradient checkpointing.
        block: kept within the costliest block while it is computed again; 0 without blocks.
        largest: the largest single activation.
    """

    weights: int
    copies: int
    casts: int
    image: int
    attack: int
    outer: int
    recomputed: int
    block: int
    largest: int


@dataclass(frozen=True)
class MemoryNeed:
    """What decides how much memory a run takes.

    Attributes:
        costs: of its network.
        batch_size: images of a batch.
        passes: train-mode passes whose activations live at once (TRADES: two).
        data_bytes: the training images on the device.
        judged: whether an attack chooses the epoch (any selection but the last one).
        thrift: how memory is saved.
    """

    costs: Costs
    batch_size: int
    passes: float
    data_bytes: int
    judged: bool = False
    thrift: Thrift = field(default_factory=Thrift)

    def bytes(self) -> int:
        """Estimated bytes of device memory at the worst moment of the training."""
        costs = self.costs
        # weights, gradients, momentum, and the folded copy for the attack
        standing = 3 * costs.weights + costs.copies + self.data_bytes
        optimizer = costs.weights  # its temporaries, when no activation is left
        moments = (self.attack_bytes(), self.outer_bytes(), self._look_bytes(), optimizer)
        return standing + max(moments) + CUDA_ALLOWANCE

    def attack_bytes(self) -> int:
        """Activations of the inner attack, and the images."""
        costs = self.costs
        piece = min(self.thrift.micro_batch or self.batch_size, self.batch_size)
        return piece * (costs.attack + TRANSIENT * costs.largest) + self._images()

    def outer_bytes(self) -> int:
        """Activations of the passes that train the weights, and the images."""
        costs = self.costs
        kept = costs.recomputed if self.thrift.grad_checkpointing else costs.outer
        block = costs.block if self.thrift.grad_checkpointing else 0
        each = self.passes * kept + block + TRANSIENT * costs.largest
        return int(self.batch_size * each) + int(self.passes * costs.casts) + self._images()

    def _look_bytes(self) -> int:
        kept = self.costs.attack if self.judged else 0
        return LOOK_BATCH * (kept + TRANSIENT * self.costs.largest)

    def _images(self) -> int:
        return IMAGE_COPIES * self.batch_size * self.costs.image

    def thriftier(self, limit: int) -> list[tuple[str, int]]:
        """What to change, in this order, to come below `limit` bytes: flags, and bytes with each.

        First gradient checkpointing, then pieces of the batch for the attack, as long as they help,
        then a smaller batch, which is another training; every step keeps those before it.
        """
        found: list[tuple[str, int]] = []
        need = self
        for flag, other in _savings(need):
            if need.bytes() <= limit:
                break
            changed = other(need)
            if changed.bytes() < need.bytes():
                need = changed
                found.append((flag(need), need.bytes()))
        while need.bytes() > limit and need.batch_size > 16:
            need = replace(need, batch_size=need.batch_size // 2)
        if need.batch_size != self.batch_size:
            found.append((f"--batch-size {need.batch_size}", need.bytes()))
        return found


Saving = tuple[Callable[[MemoryNeed], str], Callable[[MemoryNeed], MemoryNeed]]


def _savings(need: MemoryNeed) -> list[Saving]:
    savings: list[Saving] = []
    if not need.thrift.grad_checkpointing:
        savings.append((lambda _: "--grad-checkpointing", _checkpointed))
    savings.append((lambda changed: f"--micro-batch {changed.thrift.micro_batch}", _in_pieces))
    return savings


def _checkpointed(need: MemoryNeed) -> MemoryNeed:
    return replace(need, thrift=replace(need.thrift, grad_checkpointing=True))


def _in_pieces(need: MemoryNeed) -> MemoryNeed:
    """Halve the pieces until the attack takes less than the outer pass; never below 8 images."""
    piece = need.thrift.micro_batch or need.batch_size
    while piece > 8 and need.attack_bytes() > need.outer_bytes():
        piece //= 2
        need = replace(need, thrift=replace(need.thrift, micro_batch=piece))
    return need


def measure(run: Run, class_counts: tuple[int, ...], image_shape: tuple[int, int, int]) -> Costs:
    """Measure the network of a run with a few images of noise on the CPU, in a few seconds.

    Args:
        run: gives architecture, method (for its head), precision.
        class_counts: training images per class.
        image_shape: channels, height and width of the images.
    """
    net = build(run, class_counts, image_shape).net
    channels, height, _ = image_shape
    size = net.input_size or height
    few = [torch.rand(count, channels, size, size, generator=_noise()) for count in FEW]
    bf16 = run.precision == "bf16"
    model = TrainingModel(net, run.precision)
    blocks = repeated_blocks(net)

    def attacked(x: Tensor) -> Tensor:
        with attack_mode(model):
            return model(x.requires_grad_())

    attack = _growth(attacked, few, net, ())
    model.train()
    outer = _growth(model, few, net, blocks)
    again = TrainingModel(net, run.precision, grad_checkpointing=True).train()
    recomputed = _growth(again, few, net, ()) if blocks else outer
    return Costs(
        weights=sum(t.nbytes for t in (*net.parameters(), *net.buffers())),
        copies=sum(_folded_bytes(m, bf16) for m in net.modules() if isinstance(m, nn.Conv2d)),
        casts=outer.constant,
        image=few[0][0].nbytes,
        attack=attack.total,
        outer=outer.total,
        recomputed=recomputed.total,
        block=outer.costliest_block if blocks else 0,
        largest=outer.largest,
    )


def outer_passes(run: Run, class_counts: tuple[int, ...]) -> float:
    """How many train-mode passes of the network a method's loss holds in memory at once.

    Found on a small network: what autograd keeps for the loss over what it keeps for one pass.
    """
    # one for each batch: some keep things from the attack to the loss
    methods = {n: find(run.method)(torch.tensor(class_counts), **run.options) for n in FEW}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = build_model("small-cnn", num_classes=len(class_counts), head=methods[FEW[0]].head)
    model = TrainingModel(net, "fp32")
    few = [torch.rand(count, 3, 32, 32, generator=_noise()) for count in FEW]
    one = _growth(model.train(), few, net, ())
    # the last epoch: some methods attack no image in the first ones
    attack = run.recipe.attack.model_copy(update={"steps": 1})
    epochs = run.recipe.epochs
    ctx = Context(
        class_counts=torch.tensor(class_counts),
        epoch=epochs - 1,
        epochs=epochs,
        attack=attack,
        generator=generator("cpu", run.seed, "attack"),
        model=model,
        sampling=generator("cpu", run.seed, "sampling"),
        index=torch.arange(max(FEW)),
    )
    labels = [torch.arange(len(x)) % len(class_counts) for x in few]
    attacked = {
        len(x): methods[len(x)].attack(model.train(), x, y, _of(ctx, x))
        for x, y in zip(few, labels, strict=True)
    }

    def loss(x: Tensor) -> Tensor:
        y = labels[FEW.index(len(x))]
        return methods[len(x)].loss(model.train(), x, y, attacked[len(x)], _of(ctx, x))

    return _growth(loss, few, net, ()).total / one.total


def _of(ctx: Context, x: Tensor) -> Context:
    """The context of a batch of a few images."""
    return ctx.changed(index=torch.arange(len(x)))


def kept_bytes(run: Callable[[Tensor], Tensor], x: Tensor, net: nn.Module) -> int:
    """Bytes that autograd keeps for the backward pass of `run(x)`, besides the weights of `net`."""
    return sum(_kept(run, x, net, ()).bytes.values())


def _noise() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _folded_bytes(conv: nn.Conv2d, bf16: bool) -> int:
    return (conv.weight.numel() + conv.out_channels) * (2 if bf16 else 4)


@dataclass(frozen=True)
class _Growth:
    """What autograd keeps: bytes for each image, by block where there are any, and once."""

    total: int
    constant: int
    costliest_block: int
    largest: int


def _growth(
    run: Callable[[Tensor], Tensor],
    batches: list[Tensor],
    net: nn.Module,
    blocks: tuple[nn.Module, ...],
) -> _Growth:
    less, more = (_kept(run, x, net, blocks) for x in batches)
    added = len(batches[1]) - len(batches[0])
    slopes = {key: (more.bytes[key] - less.bytes[key]) // added for key in more.bytes}
    total = sum(slopes.values())
    return _Growth(
        total=total,
        constant=max(0, sum(less.bytes.values()) - total * len(batches[0])),
        costliest_block=max((slopes[key] for key in slopes if key is not None), default=0),
        largest=more.largest // len(batches[1]),
    )


@dataclass(frozen=True)
class _Kept:
    bytes: Counter[nn.Module | None]
    largest: int


def _kept(
    run: Callable[[Tensor], Tensor], x: Tensor, net: nn.Module, blocks: tuple[nn.Module, ...]
) -> _Kept:
    """Bytes of the storages that autograd keeps, each once, by the block that is being computed."""
    known = {_place(tensor) for tensor in (*net.parameters(), *net.buffers())}
    found: Counter[nn.Module | None] = Counter()
    largest = 0
    inside: list[nn.Module] = []

    def pack(tensor: Tensor) -> Tensor:
        nonlocal largest
        if _place(tensor) not in known:
            known.add(_place(tensor))
            found[inside[-1] if inside else None] += tensor.untyped_storage().nbytes()
            if tensor.dim() == 4 and len(tensor) == len(x):
                largest = max(largest, tensor.untyped_storage().nbytes())
        return tensor.detach()

    with ExitStack() as stack:
        for block in blocks:
            stack.enter_context(_noted(block, inside))
        hooks: AbstractContextManager[Any] = torch.autograd.graph.saved_tensors_hooks(
            pack, lambda tensor: tensor
        )
        with hooks:
            out = run(x)
    # the graph has lived until here: no storage could have taken the place of another one
    assert out.requires_grad
    return _Kept(found, largest)


@contextmanager
def _noted(block: nn.Module, inside: list[nn.Module]) -> Any:
    before = block.register_forward_pre_hook(lambda module, _: inside.append(module))
    after = block.register_forward_hook(lambda *_: inside.pop() and None)
    try:
        yield
    finally:
        before.remove()
        after.remove()


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
