"""The speed scripts: they run and write what they promise, and both their sides compute the same.

Nothing here looks at how fast anything is.
"""

from __future__ import annotations

import copy
import functools
import importlib
import json
import multiprocessing
import operator
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ltrobust.attacks.pgd import pgd
from ltrobust.attacks.suite import attack_loss, attack_spec
from ltrobust.config import TrainingAttack
from ltrobust.data import LongTailedData
from ltrobust.method import METHODS, Context, load_builtin_methods
from ltrobust.training.step import train_step

SPEED = Path(__file__).parents[2] / "benchmarks" / "speed"
CLASSES, COUNTS = 5, (40, 20, 10, 5, 2)
EPS, STEP_SIZE, STEPS = 8 / 255, 2 / 255, 10

CASES = {
    "training.py": {
        f"{what}/{precision}/{arch}"
        for what in ("pgd-at", "at-bsl", "taet", "trades")
        for precision in ("fp32", "bf16")
        for arch in ("small-cnn", "resnet18")
    },
    "autoattack.py": {"autoattack/fp32/small-cnn", "autoattack/bf16/small-cnn"},
    "evaluation.py": {"evaluation/fp32/small-cnn"},
    "data.py": {"data/uint8"},
}
ONLY = {"training.py": "small-cnn"}
"""The cases that are run here; a ResNet-18 is only more of the same."""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Import a file of benchmarks/speed as the scripts do, and forget it afterwards."""
    monkeypatch.syspath_prepend(str(SPEED))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "").parent == SPEED:
            del sys.modules[name]


@dataclass
class FixedStart(Context):
    """A context whose attacks start from given noise."""

    noise: Tensor | None = None

    def start(self, x: Tensor) -> Tensor | None:
        return self.noise


def tiny_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, CLASSES),
    ).double()


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Images, labels without class 4, and starting noise; double, so that no sign is chance."""
    draw = torch.Generator().manual_seed(1)
    x = torch.rand(12, 3, 8, 8, generator=draw, dtype=torch.double)
    y = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 0])
    noise = (2 * torch.rand(x.shape, generator=draw, dtype=torch.double) - 1) * EPS
    return x, y, noise


# running ----------------------------------------------------------------------------------------


def test_every_script_that_is_run_is_known_here() -> None:
    found = {f.name for f in SPEED.glob("*.py") if not f.name.startswith(("_", "plain"))}
    assert found == {*CASES, "against.py", "captured.py", "shared.py"}


@pytest.mark.slow
def test_two_checkouts_are_set_against_each_other(tmp_path: Path) -> None:
    target = tmp_path / "against.json"
    command = [sys.executable, str(SPEED / "against.py"), str(SPEED.parents[1]), "--quick"]
    subprocess.run([*command, "--json", str(target)], check=True, capture_output=True)
    rows = json.loads(target.read_text())
    assert {name.split("/")[0] for name in rows} == {"training", "evaluation", "autoattack"}
    assert all(0 < row["low"] == row["ratio"] and row["n"] == 1 for row in rows.values())


@pytest.mark.slow
def test_shared_steps_are_measured_and_compute_the_same(tmp_path: Path) -> None:
    target = tmp_path / "shared.json"
    command = [sys.executable, str(SPEED / "shared.py"), "--device", "cpu", "--quick"]
    subprocess.run([*command, "--json", str(target)], check=True, capture_output=True)
    (row,) = json.loads(target.read_text()).values()
    assert row["same_bits"] == 1
    assert row["predicted"] == pytest.approx(11.5 / 6.5)
    assert row["ms"] > 0


@pytest.mark.slow
def test_captured_steps_are_measured_as_ordinary_ones_without_a_gpu(tmp_path: Path) -> None:
    target = tmp_path / "captured.json"
    command = [sys.executable, str(SPEED / "captured.py"), "--device", "cpu", "--quick"]
    done = subprocess.run([*command, "--json", str(target)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads(target.read_text())
    assert set(rows) == {"pgd-at/bf16/ordinary"}
    assert all(value > 0 for value in rows["pgd-at/bf16/ordinary"].values())


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_script_runs_from_anywhere_and_writes_its_cases(name: str, tmp_path: Path) -> None:
    target = tmp_path / "out" / "figures.json"
    only = ONLY.get(name, "")
    command = [sys.executable, str(SPEED / name), "--quick", "--threads", "1", "--only", only]
    done = subprocess.run(
        [*command, "--json", str(target)],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads(target.read_text())
    assert set(rows) == {case for case in CASES[name] if only in case}
    for row in rows.values():
        assert set(row) == {"plain", "fast", "ratio", "n"}
        assert row["plain"] > 0
        assert row["ratio"] == pytest.approx(row["fast"] / row["plain"])
        assert row["n"] == 1
    assert [f.name for f in target.parent.iterdir()] == ["figures.json"]


def test_the_cases_of_training_are_known_here(script: Callable[[str], ModuleType]) -> None:
    assert set(script("training").CASES) == CASES["training.py"]


def test_every_target_belongs_to_a_case(script: Callable[[str], ModuleType]) -> None:
    assert set(script("_harness").TARGETS) <= set().union(*CASES.values())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--only", "nothing"], "no such case; there are a/fp32, b/fp32"),
        (["--threads", "0"], "at least 1"),
        (["--device", "tpu"], "give cpu"),
    ],
)
def test_a_wrong_argument_is_told_in_one_line(
    script: Callable[[str], ModuleType],
    arguments: list[str],
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as left:
        script("_harness").parse("test", ("a/fp32", "b/fp32"), arguments)
    assert left.value.code == 2
    assert told in capsys.readouterr().err.splitlines()[-1]


def test_the_sides_take_turns_and_every_other_round_runs_backwards(
    script: Callable[[str], ModuleType],
) -> None:
    calls: list[str] = []
    sides = {name: lambda name=name: calls.append(name) for name in ("plain", "fast")}
    seconds = script("_harness").alternate(
        sides, repeats=3, budget=60.0, device=torch.device("cpu")
    )
    warm, rounds = calls[:2], calls[2:]
    assert warm == ["plain", "fast"]
    assert rounds == ["plain", "fast", "fast", "plain", "plain", "fast"]
    assert [len(s) for s in seconds.values()] == [3, 3]


def test_each_side_has_a_process_of_its_own(script: Callable[[str], ModuleType]) -> None:
    # partial(f) is a side that is made by partial and runs f
    sides = dict.fromkeys(("plain", "fast"), (functools.partial, (os.getpid,)))
    seconds, pids = script("_harness").judged(sides, 3, 60.0, torch.device("cpu"))
    assert [len(s) for s in seconds.values()] == [3, 3]
    assert len({os.getpid(), *pids.values()}) == 3
    assert not multiprocessing.active_children()


def test_a_side_that_fails_ends_the_script(script: Callable[[str], ModuleType]) -> None:
    sides = {"plain": (functools.partial, (operator.truediv, 1, 0))}
    with pytest.raises(SystemExit, match="a side ended with an error"):
        script("_harness").judged(sides, 1, 60.0, torch.device("cpu"))


def test_no_round_begins_after_the_budget(script: Callable[[str], ModuleType]) -> None:
    seconds = script("_harness").alternate(
        {"plain": lambda: None}, repeats=9, budget=-1.0, device=torch.device("cpu")
    )
    assert len(seconds["plain"]) == 1


def test_a_peak_leaves_out_products_that_take_too_long(
    script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    peak, tried = script("_peak"), []
    monkeypatch.setattr(peak, "_products", lambda size, *_: tried.append(size) or 1.0)
    assert peak.matrix_peak(torch.bfloat16, torch.device("cpu"), (256, 512, 1024), 0.5) == 1.0
    assert tried == [256, 512]  # at 1 GFLOP/s the next takes 2.1 seconds


def test_figures_are_medians(script: Callable[[str], ModuleType]) -> None:
    row = script("_harness").compare([2.0, 100.0, 2.0], [0.5, 0.5, 90.0], images=8)
    assert row == {"plain": 4.0, "fast": 16.0, "ratio": 4.0, "n": 3}


# the two sides compute the same -----------------------------------------------------------------


@pytest.mark.parametrize("what", ["pgd-at", "at-bsl", "taet", "trades"])
def test_both_sides_of_a_training_step_have_the_same_loss_and_gradients(
    script: Callable[[str], ModuleType], what: str
) -> None:
    plain = script("plain")
    load_builtin_methods()
    x, y, noise = batch()
    published, ours = tiny_net(), tiny_net()
    expected = plain.LOSSES[what](published, x, y, noise, COUNTS)
    expected.backward()
    options = {"count_absent": True} if what == "taet" else {}
    ctx = FixedStart(
        class_counts=torch.tensor(COUNTS),
        epoch=50,
        epochs=100,
        attack=TrainingAttack(eps=EPS, step_size=STEP_SIZE, steps=STEPS),
        generator=torch.Generator(),
        noise=noise,
    )
    method = METHODS.get(what)(torch.tensor(COUNTS), **options)
    found = train_step(ours, method, x, y, ctx)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)
    for mine, theirs in zip(ours.parameters(), published.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-5, atol=1e-8)


def test_the_defenses_differ_on_this_batch(script: Callable[[str], ModuleType]) -> None:
    """Otherwise the test above could compare the wrong two."""
    plain = script("plain")
    x, y, noise = batch()
    losses = [loss(tiny_net(), x, y, noise, COUNTS).item() for loss in plain.LOSSES.values()]
    assert len({round(loss, 3) for loss in losses}) == len(losses)


@pytest.mark.parametrize("name", ["fgsm", "pgd20", "cw20", "mim20", "lsa20"])
def test_both_sides_of_an_evaluation_attack_find_the_same_images(
    script: Callable[[str], ModuleType], name: str
) -> None:
    plain = script("plain")
    x, y, noise = batch()
    net = tiny_net().eval()
    spec = attack_spec(name, EPS)
    start = noise if spec.start == "uniform" else None
    loss, steps, momentum = plain.ATTACKS[name]
    expected = plain.whitebox(
        copy.deepcopy(net),
        x,
        y,
        loss=loss,
        eps=EPS,
        step_size=EPS if name == "fgsm" else EPS / 4,
        steps=steps,
        noise=start,
        momentum=momentum,
    )
    assert spec.steps is not None
    assert spec.step_size is not None
    found = pgd(
        net,
        x,
        y,
        eps=spec.eps,
        step_size=spec.step_size,
        steps=spec.steps,
        loss=attack_loss(spec),
        start=start,
        momentum=spec.momentum,
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_the_plain_evaluation_attacks_misclassified_images_too(
    script: Callable[[str], ModuleType],
) -> None:
    plain = script("plain")
    x, _, noise = batch()
    net = tiny_net().eval()
    passed: list[int] = []
    net.register_forward_hook(lambda module, inputs, output: passed.append(len(inputs[0])))
    with torch.no_grad():
        wrong = (net(x).argmax(1) + 1) % CLASSES
    right = plain.evaluate(net, x, wrong, "pgd20", EPS, noise)
    assert len(right) == len(x)
    assert passed == [len(x)] * (1 + 20 + 1)


def test_the_stored_network_is_what_evaluation_scripts_attack(
    script: Callable[[str], ModuleType],
) -> None:
    counts = [5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 100]
    empty = torch.empty(0, dtype=torch.int64)
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    data = LongTailedData(
        name="cifar10-lt",
        class_names=tuple("abcdefghij"),
        train_images=image,
        train_labels=torch.arange(10).repeat_interleave(torch.tensor(counts)),
        train_index=empty,
        test_images=image,
        test_labels=torch.zeros(1, dtype=torch.int64),
        test_index=torch.zeros(1, dtype=torch.int64),
    )
    attacked = script("_subject").checkpoint(data, torch.device("cpu"))
    net, x, y = attacked.plain()
    stored = next((SPEED / "subject/runs").glob("pgd-at-*"))
    weights = load_file(stored / "model.safetensors")
    assert torch.equal(net.net.conv1.weight, weights["conv1.weight"])
    assert all(p.requires_grad and p.is_contiguous() for p in net.parameters())
    assert not net.training
    assert (x.shape, y.shape, attacked.eps) == ((1, 3, 32, 32), (1,), 8 / 255)


# the yardsticks ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "passes"),
    [
        ("pgd-at", 10 * 2 + 2),  # each attack step and the outer loss: forward and one gradient
        ("trades", 10 * 2 + 2 * 2 + 1),  # two outer passes, and the clean logits once
    ],
)
def test_a_step_needs_these_operations(
    script: Callable[[str], ModuleType], what: str, passes: int
) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, CLASSES))
    x, y = torch.rand(4, 3, 2, 2), torch.zeros(4, dtype=torch.int64)
    gflop = script("_peak").step_gflop(net, x, y, what, steps=10)
    assert gflop == pytest.approx(passes * 2 * 12 * CLASSES / 1e9)


def test_a_shortened_autoattack_ends_with_its_block(script: Callable[[str], ModuleType]) -> None:
    from pyautoattack import AutoAttack

    with script("autoattack").shortened():
        short = AutoAttack(nn.Identity(), eps=EPS, device="cpu")
    full = AutoAttack(nn.Identity(), eps=EPS, device="cpu")
    assert (short.apgd.n_iter, short.fab.n_iter, short.square.n_queries) == (3, 2, 20)
    assert (full.apgd.n_iter, full.fab.n_iter, full.square.n_queries) == (100, 100, 5000)
