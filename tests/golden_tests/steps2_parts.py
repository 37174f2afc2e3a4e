"""Defenses that keep something beside the network: a generator, a strategy network, margins."""

from __future__ import annotations

import re

import torch
from golden2_steps import Builder, Case, Step, TinyNetwork, build, sgd_of
from golden_store import assert_close
from ltrobust.methods.adt import ADT
from ltrobust.methods.adt_expam import ADTExpAM
from torch import nn

from ltrobust.config import TrainingAttack


def numbers(pattern: str, text: str) -> list[float]:
    """The numbers that a description holds at the groups of a pattern."""
    match = re.search(pattern, text)
    assert match is not None, f"{text!r} is not like {pattern!r}"
    return [float(group) for group in match.groups()]


def replace(method: object, **methods: object) -> None:
    """Put stored values in the place of what a method draws or builds."""
    for name, function in methods.items():
        assert hasattr(method, name)
        setattr(method, name, function)


def adt_exp(case: Case) -> Step:
    method = build(
        "adt-exp",
        case,
        samples=case.args.get("num_samples"),
        lr=case.args.get("learning_rate"),
        entropy=case.args.get("lbd"),
        kept_gradients=True,
    )
    assert isinstance(method, ADT)
    (divisor,) = numbers(r"noise_i8 / (\d+) rounded to float32", case.facts["noise"])
    stored = iter((case.tensor("noise_i8").double() / divisor).float().double())
    replace(method, noise=lambda x, ctx: next(stored))
    steps = case.args.get("perturb_steps")
    eps = case.args.get("epsilon")

    def check(net: TinyNetwork) -> None:
        assert next(stored, None) is None

    return Step(method, TrainingAttack(eps=eps, step_size=0, steps=steps), check=check)


class StoredGenerator(nn.Sequential):
    """The small generator of the case; the facts tell its layers."""

    def __init__(self, case: Case) -> None:
        first, second = case.tensor("G.0.weight"), case.tensor("G.2.weight")
        super().__init__(
            nn.Conv2d(first.shape[1], first.shape[0], 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(second.shape[1], second.shape[0], 3, padding=1),
        )
        self.double()
        self.load_state_dict({name: case.tensor(f"G.{name}") for name in self.state_dict()})


def adt_expam(case: Case) -> Step:
    case.args.get("log_interval")
    (rate, *betas) = numbers(
        r"^Adam lr (\S+), betas \((\S+), (\S+)\)$", case.args.get("optimizer_G")
    )
    assert betas == [0.5, 0.999]
    entropy = case.args.get("lbd")
    method = build("adt-expam", case, entropy=entropy, generator_lr=rate)
    assert isinstance(method, ADTExpAM)
    generator = StoredGenerator(case)
    replace(
        method,
        noise=lambda x, ctx: case.tensor("noise"),
        make_generator=lambda x: generator,
    )
    method.__post_init__()

    def check(net: TinyNetwork) -> None:
        for name, parameter in generator.named_parameters():
            assert parameter.grad is not None
            assert_close(parameter.grad, case.tensor(f"gradG.{name}"), 1e-6)
            assert_close(parameter, case.tensor(f"paramG_after.{name}"), 1e-6)

    return Step(
        method,
        TrainingAttack(eps=case.args.get("epsilon"), step_size=0, steps=1),
        optimizer=sgd_of(case),
        context={"sampling": torch.Generator()},
        check=check,
    )


STEPS: dict[str, Builder] = {"adt_exp": adt_exp, "adt_expam": adt_expam}
