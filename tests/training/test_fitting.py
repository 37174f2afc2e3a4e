"""Checkpoints as people have them: read as they were meant, or told in one line what to do."""

from __future__ import annotations

import argparse
import pickle
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ltrobust.errors import UserError
from ltrobust.models import Network, build_model
from ltrobust.training.checkpoint import load_weights, read_state_dict
from ltrobust.training.fitting import Fitted, fit_weights

Weights = dict[str, torch.Tensor]


def network(arch: str = "small-cnn", **shape: int) -> Network:
    return build_model(arch, **{"num_classes": 10, "in_channels": 1, "image_size": 8, **shape})


def fitted(path: Path, key: str | None = None) -> Fitted:
    return fit_weights(network(), read_state_dict(path, key), f"checkpoint {path.name}")


def prefixed(prefix: str, weights: Weights) -> Weights:
    return OrderedDict((prefix + name, value) for name, value in weights.items())


def same(found: Weights, expected: Weights) -> bool:
    return all(torch.equal(found[name].float(), expected[name].float()) for name in expected)


def optimizer() -> dict[str, Any]:
    parameter = nn.Parameter(torch.zeros(2, 2))
    parameter.grad = torch.ones(2, 2)
    found = torch.optim.SGD([parameter], 0.1, momentum=0.9)
    found.step()
    return found.state_dict()


NAMESPACE = argparse.Namespace(lr=np.float32(0.1), out=Path("out"))
SHAPES: dict[str, Callable[[Weights], Any]] = {
    "compiled": lambda w: prefixed("_orig_mod.", w),
    "compiled, then parallel": lambda w: prefixed("module._orig_mod.", w),
    "parallel, then compiled": lambda w: prefixed("_orig_mod.module.", w),
    "lightning": lambda w: {
        "state_dict": prefixed("model.", w),
        "optimizer_states": [optimizer()],
        "hyper_parameters": {"args": NAMESPACE},
        "callbacks": {},
    },
    "lightning of a compiled net": lambda w: {"state_dict": prefixed("net._orig_mod.", w)},
    "a compiled layer": lambda w: {
        n.replace("conv1.", "conv1._orig_mod."): v for n, v in w.items()
    },
    "averaged": lambda w: {"n_averaged": torch.tensor(5), **prefixed("module.", w)},
    "without counters": lambda w: {n: v for n, v in w.items() if "num_batches" not in n},
    "any key": lambda w: {"student": w, "epoch": np.int64(7), "acc": np.float64(91.2)},
    "arguments": lambda w: {"state_dict": w, "args": NAMESPACE, "optimizer": optimizer()},
    "a dict of another type": lambda w: {"state_dict": w, "log": defaultdict(list, a=[1])},
    "optimiser by name": lambda w: {"net": w, "optimizer": {"state": {n: {"m": w[n]} for n in w}}},
    "parameters": lambda w: {
        n: nn.Parameter(v) if v.is_floating_point() else v for n, v in w.items()
    },
    "float64": lambda w: {n: v.double() for n, v in w.items()},
    "identity": lambda w: {
        "normalize.mean": torch.zeros(3),
        "normalize.std": torch.ones(3),
        **prefixed("model.", w),
    },
    "a copy inside": lambda w: {**prefixed("model.", w), **prefixed("attacker.model.", w)},
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_in_which_people_hold_weights(tmp_path: Path, shape: str, legacy: bool) -> None:
    weights = network().state_dict()
    file = tmp_path / "model.pt"
    torch.save(SHAPES[shape](weights), file, _use_new_zipfile_serialization=not legacy)
    found = fitted(file)
    assert found.normalization is None
    counters = {n for n in weights if "num_batches" in n}
    assert found.weights.keys() == weights.keys()
    assert same(found.weights, weights)
    assert counters <= found.weights.keys()


def test_safetensors_under_any_name(tmp_path: Path) -> None:
    from ltrobust.training.checkpoint import to_bytes

    weights = network().state_dict()
    for name in ("model.SAFETENSORS", "model.pt", "model.bin"):
        (tmp_path / name).write_bytes(to_bytes(prefixed("module.", weights)))
        assert fitted(tmp_path / name).weights.keys() == weights.keys()


@pytest.mark.parametrize(
    ("names", "prefix"),
    [
        (("mu", "sigma"), ""),
        (("0.mean", "0.std"), "1."),
        (("normalize.mean", "normalize.std"), ""),
        (("module.normalizer.new_mean", "module.normalizer.new_std"), "module.model."),
    ],
)
def test_a_normalisation_in_the_file_is_used(names: tuple[str, str], prefix: str) -> None:
    weights = prefixed(prefix, network().state_dict())
    weights |= {names[0]: torch.full((1, 1, 1, 1), 0.25), names[1]: torch.full((1, 1, 1, 1), 0.5)}
    found = fit_weights(network(), weights, "it")
    assert found.normalization is not None
    assert [value.tolist() for value in found.normalization] == [[0.25], [0.5]]
    assert "(x - 0.25) / 0.5" in found.notes[0]
    with pytest.raises(UserError, match="the network alone does not do that"):
        load_weights(network(), weights, "it")


def test_a_last_layer_of_another_name_is_taken_and_told() -> None:
    weights = {n.replace("linear", "fc"): v for n, v in network().state_dict().items()}
    found = fit_weights(network(), weights, "it")
    assert torch.equal(found.weights["linear.weight"], weights["fc.weight"])
    assert found.notes == ("the file's last layer 'fc' is taken as 'linear'",)


def test_two_networks_in_a_file_are_asked_about(tmp_path: Path) -> None:
    raw, averaged = network().state_dict(), network().state_dict()
    file = tmp_path / "ema.pt"
    torch.save({"state_dict": raw, "state_dict_ema": averaged}, file)
    with pytest.raises(UserError, match=r"several networks.*--checkpoint-key state_dict_ema"):
        fitted(file)
    assert torch.equal(
        fitted(file, "state_dict_ema").weights["conv1.weight"], averaged["conv1.weight"]
    )
    torch.save({"model": raw, "model_ema": {"module": averaged, "decay": 0.9}}, file)
    with pytest.raises(UserError, match=r"--checkpoint-key model_ema\.module"):
        fitted(file)
    torch.save({**prefixed("online_model.", raw), **prefixed("ema_model.", averaged)}, file)
    with pytest.raises(UserError, match=r"several networks.*--checkpoint-key ema_model"):
        fitted(file)
    assert same(fitted(file, "ema_model").weights, averaged)
    with pytest.raises(UserError, match=r"unknown key.*known: ema_model, online_model"):
        fitted(file, "shadow")


def wide(weights: Weights) -> Weights:
    return {n: torch.cat([v, v]) if v.dim() else v for n, v in weights.items()}


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (
            lambda: network("resnet18").state_dict(),
            ["the layers of resnet18; give --arch resnet18"],
        ),
        (
            lambda: prefixed("module.", network("preactresnet18").state_dict()),
            ["--arch preactresnet18"],
        ),
        (
            lambda: network(num_classes=100).state_dict(),
            ["100 classes, the data 10", "cifar100-lt"],
        ),
        (lambda: network(num_classes=7).state_dict(), ["7 classes, the data 10", "folder:PATH"]),
        (lambda: network(in_channels=4).state_dict(), ["images of 4 channels, the data has 1"]),
        (lambda: wide(network().state_dict()), ["another width", "--model"]),
        (lambda: {"features.0.weight": torch.ones(3, 3)}, ["named otherwise", "--model"]),
        (
            lambda: {**network().state_dict(), "attention.0.weight": torch.ones(3, 3)},
            ["further layers", "--model"],
        ),
        (
            lambda: {n: v for n, v in network().state_dict().items() if n != "linear.bias"},
            ["--method", "missing: linear.bias"],
        ),
        (
            lambda: {
                **prefixed("model.", network().state_dict()),
                "criterion.weight": torch.ones(10),
            },
            ["criterion.weight beside the network", "--checkpoint-key model"],
        ),
        (
            lambda: {**network().state_dict(), "bn1.running_var": torch.full((32,), torch.nan)},
            ["no finite numbers (bn1.running_var)"],
        ),
        (lambda: {n: v.to(torch.int8) for n, v in network().state_dict().items()}, ["torch.int8"]),
        (
            lambda: {
                **network().state_dict(),
                "mean": torch.tensor([125.0]),
                "std": torch.tensor([60.0]),
            },
            ["[0, 255]", "divide both by 255"],
        ),
        (
            lambda: {**network().state_dict(), "mu": torch.rand(3), "sigma": torch.rand(3) + 1},
            ["3 channels, the data has 1"],
        ),
    ],
)
def test_what_does_not_fit_is_told_with_the_way_out(
    make: Callable[[], Weights], parts: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        fit_weights(network(), make(), "checkpoint x.pt")
    text = str(caught.value)
    assert text.startswith(("checkpoint x.pt ", "checkpoint x.pt:"))
    assert all(part in text for part in parts), text
    assert "\n" not in text
    assert len(text) < 400


def test_the_deeper_of_two_networks_is_suggested() -> None:
    weights = network("wrn-34-10").state_dict()
    with pytest.raises(UserError, match="--arch wrn-34-10"):
        fit_weights(network("wrn-28-10"), weights, "it")


def text_file(content: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(content)


def cut_off(path: Path) -> None:
    torch.save(network().state_dict(), path)
    path.write_bytes(path.read_bytes()[:100_000])


def numpy_archive(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.ones(3))


def plain_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_whole_model_is_refused_by_its_type(tmp_path: Path, wrapped: bool, legacy: bool) -> None:
    file, model = tmp_path / "whole.pth", nn.Sequential(nn.Linear(2, 2))
    content = {"model": model, "epoch": 3} if wrapped else model
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UserError) as caught:
        read_state_dict(file)
    text = str(caught.value)
    assert "torch.nn.modules." in text
    assert "torch.save(model.state_dict(), FILE)" in text
    assert text.isprintable()
    assert "weights_only" not in text


@pytest.mark.parametrize(
    ("write", "part"),
    [
        (text_file(""), "is empty"),
        (text_file("<!DOCTYPE html><html></html>"), "web page"),
        (text_file("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "git lfs pull"),
        (text_file('{"weight_map": {}}\n'), "text file"),
        (lambda path: path.mkdir(), "is a directory"),
        (cut_off, "cut off or damaged"),
        (numpy_archive, "numpy archive"),
        (plain_zip, "zip archive without weights"),
        (lambda path: path.write_bytes(b"\x1f\x8b\x08"), "gzip"),
        (lambda path: path.write_bytes(pickle.dumps({"a": np.ones(3)})), "numpy"),
        (lambda path: torch.save({"a": np.ones(3)}, path), "a is numpy"),
        (lambda path: torch.save({"optimizer": optimizer()}, path), "holds no state dict"),
    ],
)
def test_other_files_are_told_by_what_they_are(
    tmp_path: Path, write: Callable[[Path], object], part: str
) -> None:
    file = tmp_path / "model.pt"
    write(file)
    with pytest.raises(UserError, match=part) as caught:
        read_state_dict(file)
    assert str(caught.value).isprintable()
