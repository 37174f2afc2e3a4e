"""From anybody's state dict to one of our networks: names, normalisation, and why one does not fit.

What wraps a network leaves prefixes in its names and buffers beside it. Prefixes are found by
looking for the network's own names, so that it does not matter what the wrapper was called.
Whatever may change what the network computes is used (a normalisation) or refused, never dropped.
Files are read elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ltrobust.data import DATASETS
from ltrobust.errors import UserError
from ltrobust.models import ARCHS, Network, build_model

StateDict = dict[str, Tensor]

WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""Parts of a name that DataParallel, averaged and compiled models and the like put in."""

COUNTER = "num_batches_tracked"
"""Batches that a batch norm has seen: nothing in eval mode reads it, and older files lack it."""

NORMALIZATIONS = {"mean": "std", "mu": "sigma", "new_mean": "new_std"}
"""How buffers of a normalisation (x - mean) / std inside a model are called."""


@dataclass(frozen=True)
class Fitted:
    """A state dict brought into the form of a network.

    Attributes:
        weights: the network's own names and shapes.
        normalization: channel means and standard deviations, float32 (1,) or (C,), which the
            weights bring with them for images in [0, 1]; None: the network takes these as they are.
        notes: what was read in another way than it stands in the file, in words.
    """

    weights: StateDict
    normalization: tuple[Tensor, Tensor] | None
    notes: tuple[str, ...]


def fit_weights(net: Network, weights: StateDict, what: str) -> Fitted:
    """Find a network's weights in a state dict of anybody's.

    Args:
        net: the network that they are for; not changed.
        weights: a state dict with whatever its wrappers added.
        what: the state dict in the user's words, for errors.

    Raises:
        UserError: it does not fit, in one line with the cause and the way out.
    """
    own = net.state_dict()
    named = dict(weights) if own.keys() <= weights.keys() else _without_wrappers(weights)
    named = {n: v for n, v in named.items() if n.rpartition(".")[2] != "n_averaged"}
    prefixes = _prefixes(named, _body(net))
    if not prefixes:
        raise _misfit(net, named, what)
    prefix = prefixes[0]
    for other in prefixes[1:]:
        if not _same(named, prefix, other, own):
            keys = " or ".join(f"--checkpoint-key {p.rstrip('.')}" for p in prefixes if p)
            raise UserError(f"{what} holds several networks; choose with {keys}")
        named = {n: v for n, v in named.items() if not n.startswith(other)}
    named, normalization, notes = _take_normalization(net, named, prefix, what)
    root = prefix.removesuffix("backbone.")
    beside = [name for name in named if not name.startswith(root)]
    if beside:
        raise UserError(
            f"{what} holds {_listed(beside)} beside the network under '{root}', which may change "
            f"what is computed; --checkpoint-key {root.rstrip('.')} takes the network alone"
        )
    found = to_our_layout({n.removeprefix(root): v for n, v in named.items()}, net.head_name)
    found, renamed = _with_own_head(net, found)
    found |= {n: v for n, v in own.items() if n.endswith(COUNTER) and n not in found}
    if found.keys() != own.keys() or any(found[n].shape != own[n].shape for n in own):
        raise _misfit(net, found, what)
    _check_values(own, found, what)
    return Fitted(found, normalization, (*notes, *renamed))


def to_our_layout(weights: StateDict, head: str) -> StateDict:
    """Rename the keys of RoBal's released networks to those of the architecture alone.

    They keep the network under `backbone.` and the last layer under `classifier.` (`classifier.fc.`
    for a linear one). Two entries that nothing reads are left out: the cosine head's running mean
    `moving_ed`, which starts as uninitialised memory, and its bias where it is frozen at zero.

    Args:
        weights: a state dict; one in another layout keeps its names.
        head: the architecture's own name for its last layer.
    """
    # TRADES' wide residual network carries a block that it never runs
    weights = {k: v for k, v in weights.items() if not k.startswith("sub_block1.")}
    if not any(name.startswith("backbone.") for name in weights):
        return weights
    renamed = {}
    for name, value in weights.items():
        if name.startswith("classifier."):
            part = name.removeprefix("classifier.")
            frozen = part == "bias" and "classifier.weight" in weights and not value.any()
            if part == "moving_ed" or frozen:
                continue
            name = f"{head}.{part.removeprefix('fc.')}"
        renamed[name.removeprefix("backbone.")] = value
    return renamed


def _without_wrappers(weights: StateDict) -> StateDict:
    names = {n: ".".join(p for p in n.split(".") if p not in WRAPPERS) for n in weights}
    if len(set(names.values())) < len(names):
        return dict(weights)
    return {names[name]: value for name, value in weights.items()}


def _body(net: Network) -> StateDict:
    """All that a file must hold under one prefix: everything but the last layer and counters."""
    head = f"{net.head_name}."
    return {
        name: value
        for name, value in net.state_dict().items()
        if not name.startswith(head) and not name.endswith(COUNTER)
    }


def _prefixes(named: Iterable[str], body: StateDict) -> list[str]:
    """What stands before all names of `body` somewhere in `named`, shortest first."""
    names, first = set(named), next(iter(body))
    ends = [name for name in names if name == first or name.endswith(f".{first}")]
    before = [end.removesuffix(first) for end in ends]
    return sorted((p for p in before if all(p + n in names for n in body)), key=len)


def _same(named: StateDict, prefix: str, other: str, own: Iterable[str]) -> bool:
    pairs = ((named.get(prefix + name), named.get(other + name)) for name in own)
    return all(a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs)


def _take_normalization(
    net: Network, named: StateDict, prefix: str, what: str
) -> tuple[StateDict, tuple[Tensor, Tensor] | None, list[str]]:
    """Take the buffers of a normalisation out of a state dict: what is left, values, a note."""
    channels = next(iter(_body(net).values())).shape[1]
    own = {prefix + name for name in net.state_dict()}
    pairs: dict[str, str] = {}
    for name in named:
        parent, dot, last = name.rpartition(".")
        partner = f"{parent}{dot}{NORMALIZATIONS.get(last)}"
        small = partner in named and named[name].numel() == named[partner].numel() <= 4
        if small and name not in own and name.count(".") <= prefix.count(".") + 1:
            pairs[name] = partner
    left = {n: v for n, v in named.items() if n not in {*pairs, *pairs.values()}}
    values = [tuple(named[n].reshape(-1).float() for n in pair) for pair in pairs.items()]
    values = [(mean, std) for mean, std in values if bool((mean != 0).any() or (std != 1).any())]
    if not values:  # none, or (x - 0) / 1
        return left, None, []
    (mean, std), words = values[0], " and ".join(next(iter(pairs.items())))
    if any(not (torch.equal(mean, m) and torch.equal(std, s)) for m, s in values[1:]):
        raise UserError(f"{what} holds two normalisations ({_listed(pairs)}); it must have one")
    if len(mean) not in (1, channels):
        raise UserError(
            f"{what}: {words} normalise images of {len(mean)} channels, the data has {channels}; "
            "give its own --dataset"
        )
    if not (bool(mean.isfinite().all()) and bool((std > 0).all()) and bool(std.isfinite().all())):
        raise UserError(f"{what}: {words} are no means and positive standard deviations")
    if bool((mean.abs() > 1).any()):
        raise UserError(
            f"{what}: {words} are for images in [0, 255], and images here are in [0, 1]; divide "
            "both by 255 in the file"
        )
    note = f"{words} of the file normalise its images: (x - {_numbers(mean)}) / {_numbers(std)}"
    return left, (mean, std), [note]


def _numbers(values: Tensor) -> str:
    return ",".join(f"{value:.4g}" for value in values.tolist())


def _with_own_head(net: Network, found: StateDict) -> tuple[StateDict, list[str]]:
    """Rename the last layer where it is a linear one that only has another name."""
    own, head = net.state_dict(), net.head_name
    surplus = sorted(found.keys() - own.keys())
    parts = {f"{head}.bias": "bias", f"{head}.weight": "weight"}
    theirs = surplus[0].removesuffix(".bias") if len(surplus) == 2 else ""
    linear = isinstance(net.head, torch.nn.Linear) and not parts.keys() & found.keys()
    if not linear or surplus != [f"{theirs}.bias", f"{theirs}.weight"]:
        return found, []
    if found[f"{theirs}.weight"].shape[1:] != own[f"{head}.weight"].shape[1:]:
        return found, []
    renamed = {n: v for n, v in found.items() if n not in surplus}
    renamed |= {name: found[f"{theirs}.{part}"] for name, part in parts.items()}
    return renamed, [f"the file's last layer '{theirs}' is taken as '{head}'"]


def _check_values(own: StateDict, found: StateDict, what: str) -> None:
    whole = [n for n in own if own[n].is_floating_point() and not found[n].is_floating_point()]
    if whole:
        raise UserError(
            f"{what} holds {found[whole[0]].dtype} values ({_listed(whole)}) where floating point "
            "numbers are needed; save the weights before they are quantised"
        )
    broken = [n for n in own if bool((~found[n].isfinite()).any() & own[n].isfinite().all())]
    if broken:
        raise UserError(
            f"{what} holds values that are no finite numbers ({_listed(broken)}): the training "
            "diverged or the file is damaged; take another checkpoint"
        )


def _misfit(net: Network, found: StateDict, what: str) -> UserError:
    """Why a state dict does not fit a network, and what to do."""
    own = net.state_dict()
    arch = _architecture(found, net)
    if arch is not None:
        return UserError(f"{what} does not fit: these are the layers of {arch}; give --arch {arch}")
    prefix = _closest_prefix(found, own)
    found = {n.removeprefix(prefix): v for n, v in found.items()}
    wrong = [n for n in own if n in found and found[n].shape != own[n].shape]
    lists = {
        "missing": [n for n in own if n not in found and not n.endswith(COUNTER)],
        "unexpected": [n for n in found if n not in own],
        "shape": [f"{n} is {tuple(found[n].shape)}, needed {tuple(own[n].shape)}" for n in wrong],
    }
    examples = "; ".join(f"{kind}: {_listed(names)}" for kind, names in lists.items() if names)
    cause = _cause(net, found, wrong)
    return UserError(f"{what} does not fit the architecture: {cause} ({examples})")


def _closest_prefix(found: StateDict, own: StateDict) -> str:
    """The prefix under which most of a network's own names stand."""
    counts: dict[str, int] = {"": 0}
    for name in found:
        parts = name.split(".")
        for cut in range(len(parts)):
            if ".".join(parts[cut:]) in own:
                prefix = "".join(f"{part}." for part in parts[:cut])
                counts[prefix] = counts.get(prefix, 0) + 1
    best = max(counts, key=lambda prefix: counts[prefix])
    inside = sum(name.startswith(best) for name in found)
    return best if 2 * inside >= len(found) else ""


def _cause(net: Network, found: StateDict, wrong: list[str]) -> str:
    own, body, head = net.state_dict(), _body(net), f"{net.head_name}."
    if not body.keys() <= found.keys():
        return "its layers are named otherwise; give the model by --model module:callable"
    first = next(iter(body))
    if set(wrong) & body.keys() - {first}:
        return (
            "it has another width; give it, as in --arch resnet18:width=32, or the model by "
            "--model module:callable"
        )
    if first in wrong and found[first].shape[1:2] != own[first].shape[1:2]:
        theirs, ours = found[first].shape[1], own[first].shape[1]
        return f"it takes images of {theirs} channels, the data has {ours}; give its own --dataset"
    classes = [found[n].shape[0] for n in wrong if n == f"{head}weight" and found[n].dim() > 0]
    if classes:
        fitting = [n for n in DATASETS if DATASETS.get(n).num_classes == classes[0]]
        known = f"--dataset {_listed(fitting)}, or " if fitting else ""
        which = f"{known}its own --dataset folder:PATH"
        return f"it has {classes[0]} classes, the data {net.num_classes}; give {which}"
    surplus = [n for n in found if n not in own]
    if any(n in body or n.count(".") > 1 for n in surplus):
        return "it has further layers; give the model by --model module:callable"
    return (
        f"its last layer is not the '{net.head_name}' of this defense; name the defense whose "
        "head it has by --method, or give the model by --model module:callable"
    )


def _architecture(found: StateDict, net: Network) -> str | None:
    """Name of another architecture that a state dict holds more layers of than of the network."""
    fitting = {"": _body(net)}
    for name in ARCHS:
        with torch.device("meta"):
            fitting[name] = _body(build_model(name, num_classes=net.num_classes))
    sizes = {name: len(body) for name, body in fitting.items() if _holds(found, body)}
    best = max(sizes, key=lambda name: sizes[name], default="")  # on equal terms the network's
    return best or None


def _holds(found: StateDict, body: StateDict) -> bool:
    """Whether all of a body is there, for images of any number of channels."""
    others = list(body)[1:]
    prefixes = _prefixes(found, body)
    return any(all(found[p + n].shape == body[n].shape for n in others) for p in prefixes)


def _listed(names: Iterable[str], most: int = 3) -> str:
    """The first names of a list, and how many more there are."""
    everything = list(names)
    more = len(everything) - most
    return ", ".join(everything[:most]) + (f" and {more} more" if more > 0 else "")
