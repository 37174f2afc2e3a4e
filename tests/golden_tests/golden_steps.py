"""Our methods, with the options of a stored training-step case; see the table.

Options that switch on quirks of the released code are on, as `--recipe paper` sets them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from golden_store import Arguments, tensor
from torch import Tensor, nn

from ltrobust.config import TrainingAttack
from ltrobust.method import METHODS, Context, Method, load_builtin_methods

load_builtin_methods()


@dataclass
class StepCase:
    """A method and, unless the stored network keeps its linear layer, the head it builds."""

    method: Method
    head: nn.Module | None = None


@dataclass
class StoredStart(Context):
    """A context whose attacks start from stored noise."""

    delta: Tensor | None = None

    def start(self, x: Tensor) -> Tensor | None:
        return self.delta


def training_attack(args: Arguments) -> TrainingAttack:
    """The inner attack of a case; the start named here is not drawn."""
    args.given("rand_start_mode", "rand_start_step")  # already in the stored noise
    names = {"eps": "epsilon", "step_size": "step_size", "steps": "perturb_steps"}
    short = {"eps": "eps", "step_size": "ss", "steps": "ns"}  # in REAT's code
    return TrainingAttack(**{key: args.get(names[key], args.get(short[key])) for key in names})


def build(name: str, counts: Tensor, **options: Any) -> Method:
    return METHODS.get(name)(counts, **options)


def pgd_at(args: Arguments, counts: Tensor) -> StepCase:
    args.must_be("loss_opt", None)
    return StepCase(build("pgd-at", counts))


def trades(args: Arguments, counts: Tensor) -> StepCase:
    return StepCase(build("trades", counts, repeat_clean=True, **args.given("beta")))


def robal(args: Arguments, counts: Tensor) -> StepCase:
    for loss in ("adv_loss_opt", "nat_loss_opt"):
        args.must_be(loss, None)
    args.must_be("reg_opt", "trades")
    cosine = dict(args.get("classifier")["CosPlus"])
    assert not cosine.pop("bias", False)
    scale, eta = cosine.pop("scale", 16), cosine.pop("eta", 1)
    gamma = cosine.pop("gamma", 0.03125)
    cosine.pop("mu", None)  # of the moving average that nothing reads
    assert not cosine, f"not read: {set(cosine)}"
    weights = args.given("beta_adv", "beta_nat", "beta_reg")
    margin = {"m": 0.0, "s": 1.0, "tau_b": 0.0, "tau_m": 0.0, **args.get("MultiMargin")}
    method = build("robal", counts, extra_passes=True, gamma=gamma, **margin, **weights)
    head = method.head(1, len(counts))
    head.scale, head.eta = scale, eta
    return StepCase(method, head)


def at_bsl(args: Arguments, counts: Tensor) -> StepCase:
    return StepCase(build("at-bsl", counts))


def reat(args: Arguments, counts: Tensor) -> StepCase:
    args.must_be("sample_per_class", "samples_per_cls")
    method = build("reat", counts, collapsed_tail=True, tail_by_index=True)
    method.load_state_dict({"predicted": tensor("train_step", args.get("at_per_class"))})
    return StepCase(method)


def taet(args: Arguments, counts: Tensor) -> StepCase:
    args.must_be("num_classes", len(counts))
    options = args.given("alpha", "beta", "gamma")
    return StepCase(build("taet", counts, count_absent=True, **options))


def taet_loop(args: Arguments, counts: Tensor) -> StepCase:
    args.must_be("num_classes", len(counts))
    options = args.given("alpha", "beta", "gamma")
    return StepCase(build("taet", counts, count_absent=True, wasted_clean=True, **options))
