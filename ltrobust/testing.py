"""A conformance test for defenses: `check_method("mine")` in a test of your own.

It runs a defense on a few of scikit-learn's digits on the CPU, a few seconds in all, and raises
AssertionError that says what the defense breaks. It needs no test framework, and it does not judge
whether the defense is any good.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import MISSING, dataclass, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ltrobust.bench.plan import make_plan
from ltrobust.bench.settings import make_settings
from ltrobust.combination import find
from ltrobust.config import Recipe, Run
from ltrobust.context import HeldOut
from ltrobust.data import LongTailedData, load_data
from ltrobust.data.augment import to_float
from ltrobust.errors import RunError, UserError
from ltrobust.graphs import Graphs
from ltrobust.method import (
    METHODS,
    Citation,
    Context,
    Method,
    load_builtin_methods,
)
from ltrobust.modifier import Modifier, PostHoc
from ltrobust.plugins import load_plugin
from ltrobust.tape import Tapes
from ltrobust.team import LEAST, Team
from ltrobust.training.checkpoint import (
    from_bytes,
    load_weights,
    state_from_bytes,
    state_to_bytes,
    to_bytes,
)
from ltrobust.training.engine import TrainingModel
from ltrobust.training.overfitting import FEW_STEPS
from ltrobust.training.schedule import learning_rates
from ltrobust.training.step import train_step
from ltrobust.training.trainer import (
    Base,
    State,
    Trained,
    base_run,
    build,
    epoch_context,
    own_recipe,
    run_context,
    spare_feedback,
    take_over,
    train,
)
from ltrobust.turns import in_turns

EPOCHS = 5
"""Enough for a defense that works in stages: TAET's first one takes two of them."""
STOPS = (1, 3)
"""Epochs after which a training is stopped and resumed: early and late."""
ROUNDING = 1e-6
IMAGES = (40, 100)
"""Training images: the second for a defense that refuses classes of one image."""


class _StoppedError(Exception):
    """Ends a training between two epochs."""


@dataclass(frozen=True)
class Trial:
    """A defense and the small problem that it is tried on.

    Attributes:
        run: the run: the unified recipe on digits-lt with small batches and a short attack.
        data: its images.
        eps: the largest change that the attack may make.
    """

    run: Run
    data: LongTailedData
    eps: float

    @cached_property
    def stage(self) -> Recipe | None:
        """What is trained: the run's recipe, or of a post-hoc method that of its fine-tuning."""
        return own_recipe(self.run)

    def base(self, seed: int) -> Base | None:
        """The trained run that a post-hoc method acts on."""
        if find(self.run.method).base is None:
            return None
        if seed not in self._bases:
            run = base_run(self.run.model_copy(update={"seed": seed}))
            if seed:  # it only has to be another one than that of seed 0
                short = run.recipe.model_copy(update={"epochs": 1})
                run = run.model_copy(update={"recipe": short})
            inner = Trial(run, self.data, self.eps)
            trained = train(run, self.data, device=torch.device("cpu"), base=inner.base(seed))
            self._bases[seed] = trained.as_base()
        return self._bases[seed]

    @cached_property
    def _bases(self) -> dict[int, Base]:
        return {}

    def build(self, seed: int = 0) -> Trained:
        """The network and the defense as training begins."""
        run = self.run.model_copy(update={"seed": seed})
        trained = build(run, self.data.train_counts, self.data.image_shape)
        take_over(run, trained, self.base(seed))
        return trained

    def train(
        self,
        seed: int = 0,
        state: State | None = None,
        last: int = 0,
        graphs: Graphs | None = None,
        team: Team | None = None,
        **changes: Any,
    ) -> list[State]:
        """Train with the real trainer, to the end or until the epoch `last` of the training is
        done, and return the state after every epoch."""
        run = self.run.model_copy(update={"seed": seed, **changes})
        states: list[bytes] = []

        def save(state: State) -> None:
            states.append(state_to_bytes(state))
            if len(state["history"]) == last:
                raise _StoppedError

        with suppress(_StoppedError):
            train(
                run,
                self.data,
                device=torch.device("cpu"),
                state=state,
                save=save,
                base=self.base(seed),
                graphs=graphs,
                team=team,
            )
        return [state_from_bytes(content) for content in states]

    @cached_property
    def unbroken(self) -> list[State]:
        """The states of one whole training, which several checks compare with."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            return self.train()

    def contexts(self, trained: Trained, model: TrainingModel) -> Iterator[Context]:
        """What the defense is told in each epoch of the run."""
        if self.stage is None:
            return
        data = spare_feedback(self.data, trained)
        common = run_context(self.run, self.stage, data, trained, model, torch.device("cpu"))
        rates = learning_rates(self.stage.schedule, self.stage.lr, self.stage.epochs)
        for epoch, rate in enumerate(rates, common.first_epoch):
            yield epoch_context(common, self.run, epoch, rate)

    def batches(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Two batches with their positions: one of many classes, one of the largest class alone."""
        x, y = to_float(self.data.train_images), self.data.train_labels
        some, one = torch.arange(0, len(y), 3), (y == y[0]).nonzero().flatten()
        return [(x[some], y[some], some), (x[one], y[one], one)]

    def require(self, condition: object, message: str) -> None:
        """Raise AssertionError with the defense's name unless `condition` holds."""
        if not condition:
            raise AssertionError(f"method {self.run.method}: {message}")


def check_method(
    name: str,
    *,
    options: dict[str, Any] | None = None,
    plugin: str | Path | None = None,
    max_change: float | None = None,
) -> None:
    """Check that a registered defense keeps the contract of `ltrobust.method.Method`.

    It must build for any number of classes, give finite losses whose gradients reach every
    trainable weight, attack within eps and [0, 1] and leave the model as it found it, survive
    saving and resuming bit for bit, and depend on its seed and on no other source of randomness.

    Args:
        name: the name it is registered under.
        options: options of the method other than its defaults.
        plugin: the Python file to load first, if it is not installed.
        max_change: how far the attack may change a pixel; default the recipe's eps.

    Raises:
        AssertionError: it breaks the contract; the message says how.
        UserError: there is no such method, or the plugin cannot be loaded.
    """
    load_builtin_methods()
    if plugin is not None:
        load_plugin(Path(plugin))
    trial = make_trial(name, options or {}, max_change)
    for check in CHECKS:
        check(trial)


def make_trial(name: str, options: dict[str, Any], max_change: float | None = None) -> Trial:
    """Set up the small problem on which a defense is tried."""
    part = METHODS.get(name) if "+" not in name else None
    if part is not None and issubclass(part, Modifier):
        options = {f"{part.name}.{key}": value for key, value in options.items()}
        name = f"{part.trial}+{name}"
    method = find(name)
    last = method.parts[-1]
    if issubclass(last, PostHoc) and "epochs" in last.option_defaults():
        options = {f"{last.name}.epochs": EPOCHS, **options}  # a fine-tuning as long as training
    options = method.check_options(options)
    small = {"batch_size": 20, "epochs": EPOCHS, "device": "cpu"}
    for images in IMAGES:
        settings = make_settings({"methods": name, "limit_train": images, **small})
        run = make_plan(settings).runs[-1].run
        data = load_data(run.data.name, limit_train=images, limit_test=10)
        if not _refused(name, options, data.train_counts):
            break
    attack = run.recipe.attack.model_copy(update={"steps": FEW_STEPS + 1})
    recipe = run.recipe.model_copy(update={"attack": attack, "lr": 0.02})
    changes = {"options": options, "recipe": recipe}
    return Trial(run.model_copy(update=changes), data, max_change or attack.eps)


def _refused(name: str, options: dict[str, Any], counts: tuple[int, ...]) -> bool:
    """Whether a method refuses classes of so few images."""
    try:
        find(name)(torch.tensor(counts), **options)
    except UserError:
        return True
    return False


def check_declaration(trial: Trial) -> None:
    """It is a documented dataclass with a citation, and options that a run's record can hold."""
    run = trial.run
    for cls in find(run.method).parts:
        _check_class(trial, cls)
    copy = Run.model_validate_json(run.model_dump_json())
    trial.require(copy == run, "options do not survive JSON; use numbers, strings and booleans")
    method = find(run.method)
    if method.recipe is not None:
        method.check_options(method.recipe.options)


def _check_class(trial: Trial, cls: type[Method]) -> None:
    own_doc = inspect.cleandoc(cls.__dict__.get("__doc__") or "")
    trial.require(is_dataclass(cls), "is no dataclass; add @dataclass below @register_method")
    trial.require(own_doc and not own_doc.startswith(f"{cls.__name__}("), "has no docstring")
    trial.require(isinstance(cls.paper, Citation), "has no Citation as its paper")
    for option, default in cls.option_defaults().items():
        trial.require(default is not MISSING, f"option {option} has no plain default")
    defaults = cls.option_defaults()
    trial.require(cls.check_options(defaults) == defaults, "a default is not of its option's type")


def check_steps(trial: Trial) -> None:
    """Losses and gradients are finite, and over the epochs every trainable weight gets one."""
    trained = trial.build()
    model = TrainingModel(trained.net, "fp32")
    reached: set[str] = set()
    for ctx in trial.contexts(trained, model):
        trained.method.on_epoch_start(ctx)
        for x, y, index in trial.batches():
            step = ctx.changed(index=index)
            loss = train_step(model, trained.method, x, y, step).detach()
            where = f"in epoch {ctx.epoch} of {ctx.epochs}"
            trial.require(loss.dim() == 0, f"its loss is no scalar {where}")
            trial.require(loss.isfinite(), f"its loss is {float(loss)} {where}")
            reached |= _step(trial, trained.net, where)
        trained.method.on_epoch_end(ctx)
    missed = {n for n, p in trained.net.named_parameters() if p.requires_grad} - reached
    trial.require(
        not missed or trial.stage is None, f"no gradient ever reaches {', '.join(sorted(missed))}"
    )


def _step(trial: Trial, net: nn.Module, where: str) -> set[str]:
    """Take a small step of gradient descent; return the names of the weights that it moves."""
    moved = set()
    for name, parameter in net.named_parameters():
        if parameter.grad is None:
            continue
        trial.require(parameter.grad.isfinite().all(), f"gradient of {name} not finite {where}")
        if parameter.grad.any():
            moved.add(name)
        with torch.no_grad():
            parameter.sub_(parameter.grad, alpha=0.01)
    return moved


def check_attack(trial: Trial) -> None:
    """Attacked images are near the clean ones, and the model is left as it was."""
    trained = trial.build()
    model = TrainingModel(trained.net, "fp32").train()
    x, y, index = trial.batches()[0]
    for ctx in trial.contexts(trained, model):
        trained.method.on_epoch_start(ctx)
        clean, before = x.clone(), _facts(model)
        x_adv = trained.method.attack(model, x, y, ctx.changed(index=index))
        trial.require(torch.equal(x, clean), "its attack changes the clean images in place")
        trial.require(x_adv.shape == x.shape, "its attack changes the shape of the images")
        trial.require(x_adv.dtype == x.dtype, "its attack changes the dtype of the images")
        trial.require(not x_adv.requires_grad, "its attack returns images with a graph; detach")
        change = float((x_adv - x).abs().max())
        near = change <= trial.eps + ROUNDING  # false for nan as well
        trial.require(near, f"its attack changes pixels by {change:.4f}, eps {trial.eps:.4f}")
        inside = x_adv.min() >= 0 and x_adv.max() <= 1
        trial.require(inside, "its attack leaves [0, 1]")
        trial.require(
            _facts(model) == before,
            "its attack leaves the model changed (train mode, requires_grad, gradients or "
            "weights); do it under ltrobust.attacks.pgd.attack_mode",
        )


def _facts(model: nn.Module) -> list[Any]:
    """Modes, flags, gradients and weights of a model, comparable with ==."""
    parameters = list(model.parameters())
    modes = [module.training for module in model.modules()]
    flags = [(p.requires_grad, p.grad is None) for p in parameters]
    return [modes, flags, to_bytes({str(i): p for i, p in enumerate(parameters)})]


def check_class_numbers(trial: Trial) -> None:
    """It trains on two classes and on a hundred, whatever is in a batch."""
    for num_classes in (2, 100):
        counts = tuple(max(1, 50 // (c + 1)) for c in range(num_classes))
        if _refused(trial.run.method, trial.run.options, counts):
            counts = tuple(max(2, count) for count in counts)
        trained = build(trial.run, counts, (1, 8, 8))
        draw = torch.Generator().manual_seed(0)
        x = torch.rand(8, 1, 8, 8, generator=draw)
        y = torch.randint(num_classes, (8,), generator=draw)
        model = TrainingModel(trained.net, "fp32")
        for ctx in trial.contexts(trained, model):
            few = HeldOut(x, y) if ctx.held_out else None
            step = ctx.changed(
                class_counts=torch.tensor(counts), index=torch.arange(len(y)), held_out=few
            )
            trained.method.on_epoch_start(step)
            loss = train_step(model, trained.method, x, y, step).detach()
            trial.require(loss.isfinite(), f"its loss is {float(loss)} with {num_classes} classes")


def check_inference(trial: Trial) -> None:
    """The inference adjustment treats each image alone and lets attacks see through it."""
    trained = trial.build()
    x = trial.batches()[0][0].clone().requires_grad_()
    raw = trained.net.eval()(x)
    logits = trained.method.adjust(raw)
    trial.require(logits.shape == (len(x), trial.data.num_classes), "adjust changes the shape")
    trial.require(logits.dtype == raw.dtype, "adjust changes the dtype")
    trial.require(logits.isfinite().all(), "adjusted logits are not finite")
    trial.require(logits.requires_grad, "adjust cuts the graph: attacks cannot see through it")
    (gradient,) = torch.autograd.grad(logits.pow(2).sum(), x)
    trial.require(gradient.any(), "adjust hides the gradient from attacks")
    alone = torch.cat([trained.method.adjust(row[None]) for row in raw])
    trial.require(torch.allclose(alone, logits), "adjust mixes the images of a batch")


def check_weights_file(trial: Trial) -> None:
    """Weights written to a file and read into a fresh network give the same logits."""
    one, other = trial.build(seed=0), trial.build(seed=1)
    load_weights(other.net, from_bytes(to_bytes(one.net.state_dict()), "weights"), "weights")
    x = trial.batches()[0][0]
    with torch.no_grad():
        expected = one.method.adjust(one.net.eval()(x))
        found = other.method.adjust(other.net.eval()(x))
    trial.require(torch.equal(found, expected), "reloaded weights give other logits")


def check_seeds(trial: Trial) -> None:
    """The run's seed decides the weights."""
    if trial.stage is None:
        return
    other = trial.train(seed=1, last=1)[0]
    different = not _same(other, trial.unbroken[0])
    trial.require(different, "another seed gives the same weights")


def check_again(trial: Trial) -> None:
    """Trained again it ends with the same weights, bit for bit, although it is stopped and resumed
    and torch's global generators stand elsewhere.

    One training shows all of it; only where it ends elsewhere the fault is looked for.
    """
    states = trial.unbroken
    stops = [epoch for epoch in STOPS if epoch < len(states)]
    if not states or _same(_in_pieces(trial, [*stops, len(states)]), states[-1]):
        return
    whole = _in_pieces(trial, [len(states)])
    message = "the same seed gives other weights; draw from ctx.generator only"
    trial.require(_same(whole, states[-1]), message)
    for epoch in stops:
        resumed = trial.train(state=states[epoch - 1])[-1]
        trial.require(
            _same(resumed, states[-1]),
            f"resumed after epoch {epoch} it ends elsewhere; return what it keeps over epochs "
            "from state_dict",
        )
    trial.require(False, "stopped and resumed more than once it ends elsewhere")


def _in_pieces(trial: Trial, ends: list[int]) -> State:
    """The last state of a training that is stopped after these epochs and resumed."""
    state = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)  # `unbroken` was trained under another one
        for end in ends:
            state = trial.train(state=state, last=end)[-1]
    assert state is not None
    return state


def check_bf16(trial: Trial) -> None:
    """It trains in bfloat16 as well."""
    two = trial.run.recipe.model_copy(update={"epochs": min(2, trial.run.recipe.epochs)})
    try:
        trial.train(precision="bf16", recipe=two)
    except RunError as error:
        raise AssertionError(f"method {trial.run.method}: in bf16 {error}") from error


def check_captured(trial: Trial) -> None:
    """Steps recorded and repeated blindly, as on a GPU, train to the same bits as ordinary ones.

    It is killed and resumed on the way. A defense whose steps cannot be recorded trains without.
    """
    if trial.stage is None:
        return
    recipe = trial.run.recipe.model_copy(update={"epochs": 2, "batch_size": 8})
    tuned = {name: 2 for name in trial.run.options if name.endswith(".epochs")}
    short: dict[str, Any] = {"recipe": recipe, "options": {**trial.run.options, **tuned}}
    ordinary = trial.train(**short)
    recorded = trial.train(graphs=Tapes(), **short)
    killed = copy.deepcopy(recorded[0])  # a training goes on in the tensors that it is given
    resumed = trial.train(graphs=Tapes(), state=killed, **short)
    found, expected = (*recorded, resumed[-1]), (*ordinary, ordinary[-1])
    trial.require(
        all(_same(*pair) for pair in zip(found, expected, strict=True)),
        "steps recorded and repeated, as on a GPU, end with other weights; keep tensors in "
        "attributes and change them in place, and neither count nor append in attack and loss",
    )


def check_shared_out(trial: Trial) -> None:
    """Its attack shared out among devices, it trains to the same bits as on one."""
    if trial.stage is None:
        return
    recipe = trial.run.recipe.model_copy(update={"epochs": 1, "batch_size": 2 * LEAST})
    tuned = {name: 1 for name in trial.run.options if name.endswith(".epochs")}
    short: dict[str, Any] = {"recipe": recipe, "options": {**trial.run.options, **tuned}}
    trial.base(0)
    alone = trial.train(**short)
    shared, _ = in_turns(2, lambda team: trial.train(team=team, **short))
    trial.require(
        all(_same(*pair) for pair in zip(shared, alone, strict=True)),
        "with its attack shared out among devices it ends with other weights; the loss and the "
        "ball of an attack are only given rows of the batch, so let them neither count nor append "
        "(ctx.observer and ctx.told_radius hear of the whole batch), or attack with ctx.whole()",
    )


def _same(one: State, other: State) -> bool:
    """Whether two states hold the same weights and the same state of the defense."""
    return all(_equal(one[part], other[part]) for part in ("net", "method"))


def _equal(one: Any, other: Any) -> bool:
    """Whether two nested dicts and lists hold the same tensors and numbers."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)


def check_options_refused(trial: Trial) -> None:
    """An option that the defense does not have is the user's error."""
    try:
        find(trial.run.method).check_options({"no_such_option": 1})
    except UserError:
        return
    trial.require(False, "accepts an option that it does not have")


CHECKS = (
    check_declaration,
    check_options_refused,
    check_steps,
    check_attack,
    check_class_numbers,
    check_inference,
    check_weights_file,
    check_seeds,
    check_again,
    check_captured,
    check_shared_out,
    check_bf16,
)
