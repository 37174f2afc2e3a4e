"""Defenses that keep something beside the network: a generator, a strategy network, margins."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import torch
from golden2_steps import Builder, Case, Step, TinyNetwork, build, sgd_of
from golden_steps import StoredStart
from golden_store import assert_close
from ltrobust.methods.adt import ADT
from ltrobust.methods.adt_expam import ADTExpAM
from ltrobust.methods.las_at import LASAT
from ltrobust.methods.mma import MMA
from torch import Tensor, nn

from ltrobust.config import TrainingAttack
from ltrobust.context import Context


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


def mma(case: Case) -> Step:
    hinge = case.args.get("hinge_maxeps")
    clean_weight = case.args.get("clean_loss_coeff")
    method = build(
        "mma",
        case,
        d_max=1.0,
        search_max=case.args.get("maxeps") / hinge,
        min_margin=case.args.get("mineps") / hinge,
        step_scale=case.args.get("eps_iter_scale"),
        search_steps=case.args.get("num_search_steps"),
        clean_weight=clean_weight,
        train_mode=True,
    )
    assert isinstance(method, MMA)
    before = case.tensor("prev_eps")
    method.margins = before.clone()
    radius = before.clamp_min(case.args.get("mineps")).view(-1, 1, 1, 1)
    start = (case.x + case.tensor("start_unit") * radius).clamp(0, 1) - case.x

    def check(net: TinyNetwork) -> None:
        assert method.margins is not None
        # the published search ends at a float32; its last step is a thousandth of the radius
        assert_close(method.margins, case.tensor("curr_eps"), 1e-7)
        assert torch.equal(method.margins > 0, case.tensor("correct"))

    return Step(
        method,
        TrainingAttack(eps=hinge, step_size=0, steps=case.args.get("nb_iter")),
        optimizer=sgd_of(case),
        context={"delta": start},
        check=check,
        loss_of=lambda loss: (loss - clean_weight * case.tensor("clean_loss")) / (1 - clean_weight),
    )


class StoredStrategy(nn.Module):
    """The small strategy network of the case; our actions have no choice of an attack."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        weight = case.tensor("strategy.conv.weight")
        width, channels = weight.shape[:2]
        self.conv = nn.Conv2d(channels, width, 3, stride=2, padding=1)
        self.bn = nn.BatchNorm2d(width)
        names = ("Attack_method", "Attack_epsilon", "Attack_iters", "Attack_step_size")
        for name in names:
            choices = len(case.tensor(f"strategy.{name}.bias"))
            setattr(self, name, nn.Linear(width, choices))
        self.double()
        self.load_state_dict({name: case.tensor(f"strategy.{name}") for name in self.state_dict()})

    def forward(self, x: Tensor) -> Tensor:
        features = self.bn(self.conv(x)).relu().mean((2, 3))
        heads = (self.Attack_epsilon, self.Attack_iters, self.Attack_step_size)
        return torch.cat([head(features) for head in heads], 1)


@dataclass
class Starts(StoredStart):
    """A context whose attacks begin, one after the other, where those of the case did."""

    left: list[Tensor] = field(default_factory=list)

    def start(self, x: Tensor) -> Tensor | None:
        return self.left.pop(0)


def las_at(case: Case) -> Step:
    case.args.must_be("attack_types", ["IFGSM"])
    case.args.must_be("exp_iter", 1)
    (strategy_lr,) = numbers(r"^SGD lr (\S+)$", case.args.get("policy_optimizer"))
    steps, eps, step_size, restarts, lr, weight_decay = numbers(
        r"^PGD-(\d+), (\d+)/255, (\d+)/255, (\d+) restarts, .*\(lr (\S+), .*wd (\S+)\)",
        case.args.get("reward_attack"),
    )
    own = {key: case.args.get(key) for key in ("a", "b", "c")}
    shares = {"b": case.args.get("R2_param"), "c": case.args.get("R3_param")}
    eighth = eps / 8  # of the recipe's radius, in which our choices are counted
    method = build(
        "las-at",
        case,
        eps_choices=[n / eighth for n in case.args.get("epsilon_types")],
        steps_choices=[n * 10 / steps for n in case.args.get("attack_iters_types")],
        step_size_choices=[n / eighth for n in case.args.get("step_size_types")],
        true_share=case.args.get("factor"),
        interval=case.args.get("interval_num"),
        strategy_lr=strategy_lr,
        clip=case.args.get("clip_grad_norm"),
        loss_reward=own["a"],
        robust_reward=own["b"] * shares["b"],
        clean_reward=own["c"] * shares["c"],
        restarts=int(restarts),
        weight_decay=weight_decay,
        released_reward=True,
    )
    assert isinstance(method, LASAT)
    strategy = StoredStrategy(case)
    chosen = [
        [case.tensor(f"action.{when}.{what}") for what in ("epsilon", "iters", "step")]
        for when in ("policy", "target")
    ]
    replace(
        method,
        make_strategy=lambda x: strategy,
        actions=lambda scores, ctx: chosen.pop(0),
    )
    method.__post_init__()
    reached: list[Tensor] = []
    _keep_first(method, reached)
    keys = ["policy", *(f"reward_restart{n + 1}" for n in range(int(restarts)))]
    starts = [case.tensor(f"start_delta.{key}") for key in keys] + [case.tensor("start_delta")]
    starts = [start.clamp(-case.x, 1 - case.x) for start in starts]
    _use_starts(method, starts)

    def check(net: TinyNetwork) -> None:
        assert not chosen
        assert not starts
        assert method.reward is not None
        assert_close(reached[0], case.tensor("x_adv_policy"), 1e-6)
        assert_close(method.reward, case.tensor("reward")[0], 1e-6)
        assert_close(method.policy_loss, case.tensor("policy_loss"), 1e-6)
        for name, parameter in strategy.named_parameters():
            stored = case.tensor(f"grad_strategy.{name}")
            gradient = torch.zeros_like(stored) if parameter.grad is None else parameter.grad
            assert_close(gradient, stored, 1e-6)

    return Step(
        method,
        TrainingAttack(eps=eps / 255, step_size=step_size / 255, steps=int(steps)),
        optimizer=sgd_of(case),
        context={"lr": lr, "sampling": torch.Generator()},
        check=check,
    )


def _keep_first(method: LASAT, reached: list[Tensor]) -> None:
    """Collect what the strategy's attacks return, that of the strategy's own lesson first."""
    attacked = method._attacked

    def kept(*arguments: Any) -> Tensor:
        reached.append(attacked(*arguments))
        return reached[-1]

    method._attacked = kept  # type: ignore[method-assign]


def _use_starts(method: LASAT, starts: list[Tensor]) -> None:
    """Let the method's attacks begin at stored starts, in order."""
    attack = method.attack

    def started(model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        return attack(model, x, y, Starts(**vars(ctx), left=starts))

    method.attack = started  # type: ignore[method-assign]


STEPS: dict[str, Builder] = {
    "adt_exp": adt_exp,
    "adt_expam": adt_expam,
    "las_at": las_at,
    "mma": mma,
}
