"""Flags, suite keys and settings are the same thing, and every one of them does something."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from ltrobust import cli
from ltrobust.bench.plan import Plan, make_plan
from ltrobust.bench.settings import Settings, make_settings
from ltrobust.errors import UserError

COMMANDS: dict[str, Any] = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
ABOUT_THE_COMMAND = {"suite", "track", "dry_run", "json_output", "debug", "help"}


@pytest.fixture(autouse=True)
def _no_plugin_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ltrobust.bench.settings.load_plugin", lambda path: None)


FLAGS = {
    "methods": (["trades"], ("trades",)),
    "dataset": (["cifar10-lt"], "cifar10-lt"),
    "imbalance_ratio": (["20", "5"], (20.0, 5.0)),
    "imbalance_type": (["step"], "step"),
    "split_seed": (["4"], 4),
    "limit_train": (["70"], 70),
    "limit_test": (["30"], 30),
    "test_protocol": (["long-tailed"], "long-tailed"),
    "arch": (["resnet18"], "resnet18"),
    "recipe": (["paper"], "paper"),
    "augment": (["randaugment"], "randaugment"),
    "select": (["best"], "best"),
    "epochs": (["3"], 3),
    "batch_size": (["8"], 8),
    "eps": (["0.03"], 0.03),
    "seeds": (["1,2"], (1, 2)),
    "attacks": (["clean,cw5"], ("clean", "cw5")),
    "attack_seed": (["3"], 3),
    "search": (["bf16"], "bf16"),
    "precision": (["bf16"], "bf16"),
    "device": (["cpu"], "cpu"),
    "threads": (["3"], 3),
    "grad_checkpointing": ([None], True),
    "micro_batch": (["16"], 16),
    "devices_per_run": (["2"], 2),
    "profile": ([None], True),
    "watch": (["pgd20"], ("pgd20",)),
    "watch_every": (["2"], 2),
    "save_every": (["0"], 0.0),
    "no_capture": ([None], True),
    "no_estimate": ([None], True),
    "no_report": ([None], True),
    "no_checks": ([None], True),
    "data_dir": (["there"], Path("there")),
    "download": ([None], True),
    "plugin": (["a.py", "b.py"], (Path("a.py"), Path("b.py"))),
    "option": (["taet.gamma=0.2", "taet.alpha=0.3"], ("taet.gamma=0.2", "taet.alpha=0.3")),
    "output": (["out"], Path("out")),
    "overwrite": (["all"], "all"),
    "launcher": (["slurm"], "slurm"),
    "jobs": (["2"], 2),
    "at_once": (["9"], 9),
    "detach": ([None], True),
    "slurm": (["partition=gpu", "time=1:00:00"], ("partition=gpu", "time=1:00:00")),
}
"""For every setting: what to type (once per item, None for a bare flag), and what it becomes."""
SAVES_OR_MEASURES = {
    *("threads", "grad_checkpointing", "micro_batch", "profile", "watch", "watch_every"),
    *("save_every", "no_capture", "no_estimate", "no_report", "devices_per_run"),
}
LAUNCHING = {"launcher", "jobs", "at_once", "detach", "slurm"}
ABOUT_THE_MACHINE = (
    SAVES_OR_MEASURES
    | {
        "no_checks",
        *("device", "data_dir", "download", "plugin", "output", "overwrite"),
    }
    | LAUNCHING
)
"""Settings that change no number: a plan with them has the same ids."""


def flags_of(command: str) -> set[str]:
    """Names of a command's options and arguments."""
    return {parameter.name for parameter in COMMANDS[command].params}


def typed(name: str) -> list[str]:
    """The command line that gives a setting its value of `FLAGS`."""
    flag = "--" + name.replace("_", "-")
    return [part for value in FLAGS[name][0] for part in (flag, value) if part is not None]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings that a command line comes to; nothing is planned or run."""
    seen: list[Settings] = []

    def note(cells: Sequence[Settings]) -> None:
        seen.append(cells[0])
        raise typer.Exit

    monkeypatch.setattr("ltrobust.bench.plan.make_grid", note)
    return seen


def test_bench_has_a_flag_for_every_setting_and_no_other() -> None:
    assert flags_of("bench") - ABOUT_THE_COMMAND == set(Settings.model_fields)


def test_the_example_values_cover_every_setting() -> None:
    assert set(FLAGS) == set(Settings.model_fields)
    for name, (_, value) in FLAGS.items():
        assert value != Settings.model_fields[name].default or name == "device"


@pytest.mark.parametrize("name", FLAGS)
def test_a_flag_is_spelled_like_its_setting_and_explained(name: str) -> None:
    (parameter,) = (p for p in COMMANDS["bench"].params if p.name == name)
    assert "--" + name.replace("_", "-") in parameter.opts
    assert parameter.help
    assert parameter.rich_help_panel


@pytest.mark.parametrize("name", FLAGS)
def test_a_flag_sets_its_setting_and_only_that(name: str, asked: list[Settings]) -> None:
    runner = CliRunner()
    runner.invoke(cli.app, ["bench"])
    runner.invoke(cli.app, ["bench", *typed(name)])
    plain, changed = asked
    assert getattr(changed, name) == FLAGS[name][1]
    others = set(Settings.model_fields) - {name}
    assert all(getattr(changed, key) == getattr(plain, key) for key in others)


@pytest.mark.parametrize("name", FLAGS)
def test_a_suite_key_sets_its_setting_and_the_flag_overrides_it(
    name: str, asked: list[Settings], tmp_path: Path
) -> None:
    values = FLAGS[name][0]
    shown = "true" if values == [None] else f"[{', '.join(values)}]" if len(values) > 1 else None
    suite = tmp_path / "mine.yaml"
    suite.write_text(
        f"{name}: {shown or values[0]}\noutput: {tmp_path}\n"
        if name != "output"
        else f"output: {values[0]}\n"
    )
    CliRunner().invoke(cli.app, ["bench", "--suite", str(suite)])
    assert getattr(asked[0], name) == FLAGS[name][1]
    off = {"download": ["--no-download"], "seeds": ["--seeds", "7"], "epochs": ["--epochs", "9"]}
    if name in off:
        CliRunner().invoke(cli.app, ["bench", "--suite", str(suite), *off[name]])
        assert getattr(asked[1], name) == {"download": False, "seeds": (7,), "epochs": 9}[name]


def test_train_takes_the_settings_of_a_training_and_no_others() -> None:
    left_out = {"methods", "attacks", "attack_seed", "search", "limit_test", "test_protocol"}
    left_out |= {"no_checks", *LAUNCHING}
    own = {"method"}
    assert flags_of("train") - ABOUT_THE_COMMAND == set(Settings.model_fields) - left_out | own


def test_evaluate_takes_settings_of_an_evaluation_and_no_unknown_ones() -> None:
    own = {"run_directory", "checkpoint", "model", "normalize", "method", "seed", "precision"}
    own |= {"checkpoint_key", "model_args", "name"}
    names = flags_of("evaluate") - ABOUT_THE_COMMAND
    assert own <= names
    assert names - own <= set(Settings.model_fields)
    training_only = {"epochs", "batch_size", "seeds", "recipe", "limit_train"}
    assert not names & training_only


def test_every_command_explains_itself_with_an_example() -> None:
    for name, command in COMMANDS.items():
        assert command.help, name
        assert f"ltrobust {name}" in (command.epilog or ""), name


def ids(plan: Plan) -> tuple[list[str], list[list[str]]]:
    """All that a plan's results are found by."""
    return [p.run.run_id for p in plan.runs], [sorted(p.attack_ids()) for p in plan.runs]


def planned(**settings: Any) -> Plan:
    return make_plan(make_settings({"methods": "at-bsl,taet", "device": "cpu", **settings}))


@pytest.mark.parametrize("name", sorted(set(FLAGS) - ABOUT_THE_MACHINE))
def test_no_flag_is_dead_each_changes_what_is_run(name: str) -> None:
    more = {"arch": "small-cnn", "epochs": 5} if name == "recipe" else {}
    assert ids(planned(**{name: FLAGS[name][1]}, **more)) != ids(planned(**more))


@pytest.mark.parametrize(
    "name", ["data_dir", "download", "output", "overwrite", *sorted(SAVES_OR_MEASURES | LAUNCHING)]
)
def test_settings_about_the_machine_leave_all_ids_alone(name: str) -> None:
    assert ids(planned(**{name: FLAGS[name][1]})) == ids(planned())


@pytest.mark.parametrize(
    ("key", "near"), [("epoch", "epochs"), ("imbalance-ratio", "imbalance_ratio")]
)
def test_a_mistyped_suite_key_is_refused_with_the_nearest(
    tmp_path: Path, key: str, near: str
) -> None:
    suite = tmp_path / "mine.yaml"
    suite.write_text(f"{key}: 5\n")
    with pytest.raises(UserError, match=f"did you mean '{near}'"):
        make_settings({}, suite)
