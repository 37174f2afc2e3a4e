"""Our methods, with the options of a stored training-step case; see the table.

Options that switch on quirks of the released code are on, as `--recipe paper` sets them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from golden_store import Arguments, tensor
from torch import Tensor, nn

from ltrobust.combination import find
from ltrobust.config import TrainingAttack
from ltrobust.method import Context, Method, load_builtin_methods

load_builtin_methods()


@dataclass
class StepCase:
    """What of ours must reproduce a case.

    Attributes:
        method: the method, with the quirks of the release.
        head: the head that it builds, unless the stored network keeps its linear layer.
        epoch: from 0; by default the last of 100, where every method is in its final stage.
        epochs: of the run.
        optimizer: settings of SGD; None: no step.
        clipped: whether the release clips the start to the image.
    """

    method: Method
    head: nn.Module | None = None
    epoch: int = 99
    epochs: int = 100
    optimizer: dict[str, Any] | None = None
    clipped: bool = False


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
    return find(name)(counts, **options)


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


def robustlt(args: Arguments, counts: Tensor) -> StepCase:
    return _in_robustlts_loop(
        args,
        counts,
        "pgd-at+robustlt",
        {
            "robustlt.alpha": args.get("robustlt_alpha"),
            "robustlt.beta": args.get("robustlt_beta"),
            "robustlt.mode": "train-kept",
            "robustlt.passes_after": "attacked, clean",
        },
    )


def awp(args: Arguments, counts: Tensor) -> StepCase:
    epochs = args.get("num_epochs", 100)
    return _in_robustlts_loop(
        args,
        counts,
        "pgd-at+awp",
        {
            "awp.rule": "optimizer",
            "awp.gamma": args.get("awp_gamma"),
            "awp.warmup": args.get("awp_warmup") / epochs,
            "awp.mode": "train-kept",
            "awp.passes_after": "attacked, clean",
        },
    )


def _in_robustlts_loop(
    args: Arguments, counts: Tensor, name: str, options: dict[str, Any]
) -> StepCase:
    """A step of RobustLT's repository, which attacks in train mode and names the optimizer."""
    return StepCase(
        build(name, counts, **options),
        epoch=args.get("current_epoch") - 1,
        epochs=args.get("num_epochs", 100),
        optimizer=args.get("optimizer")["SGD"],
        clipped=True,
    )
