"""Runs one training step of ours as a case of the second set describes it, and compares.

What of ours a case means stands in the files `steps2_*.py`, each a table from case names to
builders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from golden_net import HEAD as HEAD
from golden_net import GoldenNet as TinyNetwork
from golden_net import golden_net
from golden_steps import StoredStart
from golden_store import SECOND, Arguments, assert_close
from torch import Tensor, nn

from ltrobust.combination import find
from ltrobust.config import TrainingAttack
from ltrobust.method import Method, load_builtin_methods
from ltrobust.training.engine import TrainingModel
from ltrobust.training.step import train_step

load_builtin_methods()
FILE = "train_step"


def tiny_network(key: str) -> TinyNetwork:
    """One of the stored networks: net, net10, netn or net10n."""
    return golden_net(FILE, SECOND, key)


class Case:
    """A stored case: its arguments, arrays and inputs."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.facts = facts
        self.name: str = facts["name"]
        self.args = Arguments(facts["args"])
        own = f"{self.name}."
        self.keys = {k.removeprefix(own) for k in SECOND.arrays(FILE) if k.startswith(own)}

    def tensor(self, key: str) -> Tensor:
        """One of the case's own arrays."""
        return SECOND.tensor(FILE, f"{self.name}.{key}")

    def has(self, key: str) -> bool:
        return key in self.keys

    @property
    def counts(self) -> Tensor:
        """Training images per class, int64 (C,)."""
        ten = "10" if self.facts["net_key"].startswith("net10") else ""
        return torch.tensor(SECOND.document(FILE)[f"samples_per_cls{ten}"])

    @property
    def x(self) -> Tensor:
        return SECOND.tensor(FILE, "x_u8").double() / 255

    @property
    def y(self) -> Tensor:
        return torch.tensor(SECOND.document(FILE)[self.facts["labels"]])

    def start(self) -> Tensor | None:
        """The stored start, clipped where the release clips it."""
        if not self.has("start_delta"):
            return None
        delta = self.tensor("start_delta")
        rule = self.facts["start_point"]
        clipped = rule in ("clamp(x + start_delta, 0, 1)", "x + clamp(start_delta, -x, 1 - x)")
        return delta.clamp(-self.x, 1 - self.x) if clipped else delta


@dataclass
class Step:
    """What of ours must reproduce a case.

    Attributes:
        method: the method, with the quirks of the release.
        attack: the inner attack.
        epoch: from 0.
        epochs: of the run.
        net: the network, where it is not the stored one as it is.
        optimizer: settings of SGD for the parameters that require gradients; None: no step.
        stepped: which of them it moves, where a release computes gradients that it does not use.
        context: further fields of the context.
        names: our names of parameters and buffers to published ones, where they differ.
        check: further comparisons, given the network after the step.
        loss_of: what is compared with the stored loss, given what the step returned.
    """

    method: Method
    attack: TrainingAttack
    epoch: int = 99
    epochs: int = 100
    net: TinyNetwork | None = None
    optimizer: dict[str, Any] | None = None
    stepped: Callable[[TinyNetwork], Iterable[nn.Parameter]] | None = None
    context: dict[str, Any] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    check: Callable[[TinyNetwork], None] | None = None
    loss_of: Callable[[Tensor], Tensor] = lambda loss: loss


Builder = Callable[[Case], Step]


def build(name: str, case: Case, **options: Any) -> Method:
    """A defense or combination for the case's class counts."""
    return find(name)(case.counts, **options)


def attack_of(
    case: Case, eps: str = "epsilon", step_size: str = "step_size", steps: str = "perturb_steps"
) -> TrainingAttack:
    """The inner attack, from the case's arguments of these names; the start is stored."""
    return TrainingAttack(
        eps=case.args.get(eps), step_size=case.args.get(step_size), steps=case.args.get(steps)
    )


def sgd_of(case: Case) -> dict[str, Any]:
    """Settings of the optimizer that a case describes, such as "SGD lr 0.1, momentum 0.9"."""
    settings: dict[str, Any] = {"nesterov": False}
    for part in case.args.get("optimizer").removeprefix("SGD ").split(", "):
        key, _, value = part.rpartition(" ")
        if part == "nesterov":
            settings["nesterov"] = True
        else:
            settings[key.replace(" ", "_")] = float(value)
    return settings


def run(case: Case, step: Step) -> None:
    """Do the step and compare all that is stored."""
    net = step.net or tiny_network(case.facts["net_key"])
    ctx = StoredStart(
        class_counts=case.counts,
        epoch=step.epoch,
        epochs=step.epochs,
        attack=step.attack,
        generator=torch.Generator(),
        delta=case.start(),
        index=torch.arange(len(case.y)),
    )
    model = TrainingModel(net, "fp32")
    ctx = ctx.changed(model=model, **step.context)
    optimizer = None
    if step.optimizer is not None:
        trainable = [p for p in net.parameters() if p.requires_grad]
        moved = trainable if step.stepped is None else list(step.stepped(net))
        optimizer = torch.optim.SGD(moved, **step.optimizer)
    attacked = _watch(step.method)
    loss = train_step(model, step.method, case.x, case.y, ctx, optimizer)

    assert_close(attacked[-1], case.tensor("x_adv"), 1e-6)
    assert_close(step.loss_of(loss), case.tensor("loss"), 1e-6)
    _compare(case, step, net)
    if step.check is not None:
        step.check(net)
    case.args.assert_all_read()


def _compare(case: Case, step: Step, net: TinyNetwork) -> None:
    """Gradients, parameters after the step, and buffers."""
    trainable = {name: p for name, p in net.named_parameters() if p.requires_grad}
    theirs = {name: _published(case, step, name) for name in dict(net.named_parameters())}
    stored = {key.removeprefix("grad.") for key in case.keys if key.startswith("grad.")}
    assert {theirs[name] for name in trainable} == stored
    for name, parameter in trainable.items():
        assert parameter.grad is not None, name
        assert_close(parameter.grad, case.tensor(f"grad.{theirs[name]}"), 1e-6)
    if step.optimizer is not None:
        for name, parameter in net.named_parameters():
            if case.has(f"param_after.{theirs[name]}"):
                assert_close(parameter, case.tensor(f"param_after.{theirs[name]}"), 1e-6)
    for name, buffer in net.named_buffers():
        key = f"buf.{_published(case, step, name)}"
        if case.has(key):
            assert_close(buffer, case.tensor(key), 1e-7)


def _published(case: Case, step: Step, name: str) -> str:
    """The published name of a parameter or buffer of ours."""
    if name in step.names:
        return step.names[name]
    head, _, part = name.partition(".")
    options = [name, f"backbone.{name}"]
    if head == HEAD:
        options += [f"classifier.fc.{part}", f"classifier.{part}"]
    kinds = ("grad", "buf", "param_after")
    for option in options:
        if any(case.has(f"{kind}.{option}") for kind in kinds):
            return option
    return name


def _watch(method: Method) -> list[Tensor]:
    """Collect what the method's attack returns."""
    returned: list[Tensor] = []
    attack = method.attack

    def watched(*arguments: Any) -> Tensor:
        returned.append(attack(*arguments))
        return returned[-1]

    method.attack = watched  # type: ignore[method-assign]
    return returned
