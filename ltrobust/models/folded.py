"""A faster view of a network in eval mode, for searching adversarial images, never for verdicts.

Batch norms are folded into the convolutions before them, convolution weights are stored in the
precision and memory format they are used in, and all of it is made again from the network's present
weights by `refresh`. The view computes the same function up to rounding; whoever searches with it
must take the verdict with the network itself.
"""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from ltrobust.errors import Notice

TOLERANCE = 1e-4
"""Largest difference of a logit, relative to the largest logit, that counts as rounding."""


CPU_PIECE = 32
"""About how many images pass together in float32 on a CPU: their maps stay in its cache, which is
worth 1.3x. In bfloat16, with half the bytes, it is worth nothing."""

IMAGE_CHANNELS = 4
"""Up to so many channels the gradient of a convolution is computed for squares of pixels."""


class FoldedNetwork(nn.Module):
    """A network with folded batch norms.

    It shares everything but its convolutions with the network, so that it must only be used while
    that is in eval mode, and after `refresh` where the weights have changed.

    Args:
        net: maps images (B, C, H, W) to logits; the parts with convolutions must be traceable by
            torch.fx. Not changed.
        bf16: run in bfloat16; logits come out as float32.
    """

    def __init__(self, net: nn.Module, *, bf16: bool = False) -> None:
        super().__init__()
        graph = _Tracer().trace(net)
        self.bf16 = bf16
        self._convolutions = _fold_graph(net, graph, bf16)
        # the body's modules are the network's own: they are kept out of sight of .parameters()
        self._body = [_body(net, graph, self._convolutions, bf16)]
        self.refresh()

    def refresh(self) -> None:
        """Fold again, from the weights and statistics that the network has now."""
        for convolution in self._convolutions.values():
            convolution.refresh()

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, C), float32."""
        number = 1 if x.device.type != "cpu" or self.bf16 else max(1, round(len(x) / CPU_PIECE))
        images = _Converted.apply(x, torch.bfloat16 if self.bf16 else torch.float32)
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            if number == 1:
                return self._body[0](images).float()
            return torch.cat([self._body[0](part) for part in images.chunk(number)]).float()


class FoldedConvolution(nn.Module):
    """A convolution and the batch norm after it, if any, as one convolution without gradients."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d | None, bf16: bool) -> None:
        super().__init__()
        self._source = (conv, norm)
        self._dtype = torch.bfloat16 if bf16 else torch.float32
        self._back: Tensor | None = None

    @torch.no_grad()
    def refresh(self) -> None:
        """Take the present weights and statistics."""
        conv, norm = self._source
        weight, bias = conv.weight.detach(), conv.bias
        if norm is not None:
            assert norm.running_mean is not None
            assert norm.running_var is not None
            scale = torch.rsqrt(norm.running_var + norm.eps)
            scale = scale if norm.weight is None else scale * norm.weight
            shift = norm.running_mean if bias is None else norm.running_mean - bias
            bias = -shift * scale if norm.bias is None else norm.bias - shift * scale
            weight = weight * scale[:, None, None, None]
        self.weight = weight.to(self._dtype, memory_format=torch.channels_last, copy=True)
        self.bias = None if bias is None else bias.detach().to(self._dtype, copy=True)
        self._back = None

    def forward(self, x: Tensor) -> Tensor:
        """Convolve images or maps (B, C, H, W)."""
        conv = self._source[0]
        if self._is_first(x):
            if self._back is None:
                back = _back_weight(self.weight)
                self._back = back.contiguous(memory_format=torch.channels_last)
            return _FirstConvolution.apply(x, self.weight, self.bias, self._back)
        return F.conv2d(
            x, self.weight, self.bias, conv.stride, conv.padding, conv.dilation, conv.groups
        )

    def _is_first(self, x: Tensor) -> bool:
        """Whether this is a 3x3 convolution of images on a CPU whose gradient is wanted."""
        conv = self._source[0]
        return (
            x.requires_grad
            and x.device.type == "cpu"
            and conv.in_channels <= IMAGE_CHANNELS
            and conv.groups == 1
            and conv.kernel_size == (3, 3)
            and conv.stride == conv.padding == conv.dilation == (1, 1)
            and x.shape[2] % 2 == x.shape[3] % 2 == 0
        )


class Float32(nn.Module):
    """A part of the network that runs in float32 wherever it stands.

    The last layer is cheap, and logits in bfloat16 would be as coarse as a hundredth.
    """

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self._part = [part]  # the network's own: kept out of sight of .parameters()

    def forward(self, x: Tensor, *rest: Any, **named: Any) -> Any:
        """Whatever the part makes of `x` in float32."""
        with torch.autocast(x.device.type, enabled=False):
            return self._part[0](x.float(), *rest, **named)


def fold(net: nn.Module, example: Tensor, *, bf16: bool = False) -> FoldedNetwork | None:
    """Return a folded view of `net`, or None and a `Notice` when that fails or changes the logits.

    Args:
        net: a network in eval mode.
        example: a few images (B, C, H, W) on the network's device to compare on, in float32.
        bf16: whether the view runs in bfloat16.
    """
    try:
        folded = FoldedNetwork(net)
        with torch.no_grad():
            expected, found = net(example), folded(example)
            apart = float((found - expected).abs().max() / expected.abs().max().clamp_min(1))
            if not apart <= TOLERANCE:
                raise ValueError(f"its logits are apart by {apart:.1e} of the largest")
            if bf16:
                folded = FoldedNetwork(net, bf16=True)
                folded(example)  # whether it runs at all
        return folded
    except Exception as error:  # fx refuses control flow that depends on data: any network may
        reason = " ".join(str(error).split())[:200]
        text = f"attacks run the network as it is, which is slower: it cannot be folded ({reason})"
        warnings.warn(Notice(text), stacklevel=2)
        return None


class _Tracer(fx.Tracer):
    """Looks only into modules that hold convolutions or batch norms."""

    def is_leaf_module(self, module: nn.Module, _name: str) -> bool:
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            return True
        return not any(isinstance(m, nn.Conv2d | nn.BatchNorm2d) for m in module.modules())


def _fold_graph(net: nn.Module, graph: fx.Graph, bf16: bool) -> dict[str, FoldedConvolution]:
    """Replace the convolutions of a graph, and take out the batch norms that they absorb."""
    modules = dict(net.named_modules())
    folded: dict[str, FoldedConvolution] = {}
    for node in list(graph.nodes):
        module = modules.get(node.target) if node.op == "call_module" else None
        if type(module) is not nn.Conv2d or module.padding_mode != "zeros":
            continue
        norm = _norm_after(node, modules)
        if norm is not None:
            (after,) = node.users
            after.replace_all_uses_with(node)
            graph.erase_node(after)
        name = f"folded_{len(folded)}"
        node.target = name
        folded[name] = FoldedConvolution(module, norm, bf16)
    return folded


def _norm_after(node: fx.Node, modules: dict[str, nn.Module]) -> nn.BatchNorm2d | None:
    """The batch norm that alone takes a convolution's output, if there is one."""
    if len(node.users) != 1:
        return None
    (after,) = node.users
    module = modules.get(str(after.target)) if after.op == "call_module" else None
    usable = type(module) is nn.BatchNorm2d and module.track_running_stats
    return module if usable and after.args == (node,) else None  # type: ignore[return-value]


def _body(
    net: nn.Module, graph: fx.Graph, convolutions: dict[str, FoldedConvolution], bf16: bool
) -> fx.GraphModule:
    root = {name: net.get_submodule(name) for name in _called(graph) if name not in convolutions}
    if bf16:
        calls = [str(node.target) for node in graph.nodes if node.op == "call_module"]
        weighty = [n for n in calls if n in convolutions or list(root[n].parameters())]
        if weighty[-1] in root:
            root[weighty[-1]] = Float32(root[weighty[-1]])
    attributes = {name: _attribute(net, name) for name in _fetched(graph)}
    return fx.GraphModule({**root, **convolutions, **attributes}, graph)


def _called(graph: fx.Graph) -> set[str]:
    return {str(node.target) for node in graph.nodes if node.op == "call_module"}


def _fetched(graph: fx.Graph) -> set[str]:
    return {str(node.target) for node in graph.nodes if node.op == "get_attr"}


def _attribute(net: nn.Module, name: str) -> object:
    found: object = net
    for part in name.split("."):
        found = getattr(found, part)
    return found


class _Converted(torch.autograd.Function):
    """Change the memory format and dtype of images; gradients come back as the images were.

    pyautoattack takes views of gradients, which channels_last tensors do not allow.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.contiguous, ctx.dtype = x.is_contiguous(), x.dtype
        # in two steps: faster by half than one copy that changes both
        return x.contiguous(memory_format=torch.channels_last).to(dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        memory_format = torch.contiguous_format if ctx.contiguous else torch.preserve_format
        return gradient.to(ctx.dtype, memory_format=memory_format), None


class _FirstConvolution(torch.autograd.Function):
    """A 3x3 convolution whose image gradient is computed for squares of four pixels at once.

    CPU kernels pad an image's three channels to sixteen; the twelve of four pixels leave less to
    pad. The sums are the same: a square's gradient is a 4x4 convolution of stride 2 of what comes
    back.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, back: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        return F.conv2d(x, weight, bias, padding=1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (back,) = ctx.saved_tensors
        return F.pixel_shuffle(F.conv2d(gradient, back, stride=2, padding=1), 2), None, None, None


def _back_weight(weight: Tensor) -> Tensor:
    """Weight (4C, O, 4, 4) that takes gradients (O) to those of squares of pixels (C, 2, 2)."""
    channels, planes = weight.shape[:2]
    turned = weight.flip(2, 3).transpose(0, 1)
    back = weight.new_zeros(planes, 2, 2, channels, 4, 4)
    for row, column in itertools.product(range(2), range(2)):
        back[:, row, column, :, row : row + 3, column : column + 3] = turned
    return back.flatten(0, 2)
