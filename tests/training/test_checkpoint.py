"""Checkpoints of the published code load, safely, and say what does not fit."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from ltrobust.errors import UserError
from ltrobust.models import build_model
from ltrobust.models.heads import CosineHead
from ltrobust.training.checkpoint import load_weights, read_state_dict, to_bytes


def small(head: object = None) -> torch.nn.Module:
    return build_model("small-cnn", num_classes=10, head=head)


def cosine(in_features: int, num_classes: int) -> CosineHead:
    return CosineHead(in_features, num_classes, gamma=1 / 32)


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_wrappers_and_data_parallel_prefixes_are_taken_off(
    tmp_path: Path, wrapper: str | None, prefix: str
) -> None:
    saved, loaded = small(), small()
    content = {prefix + name: value for name, value in saved.state_dict().items()}
    torch.save({wrapper: content, "epoch": 3} if wrapper else content, tmp_path / "model.pt")
    load_weights(loaded, read_state_dict(tmp_path / "model.pt"), "it")
    assert same(saved, loaded)


@pytest.mark.parametrize("step", [1, -1], ids=["as it is saved", "the other way round"])
def test_robal_layout_with_cosine_head_loads(tmp_path: Path, step: int) -> None:
    saved, loaded = small(cosine), small(cosine)
    content = {
        f"module.backbone.{name}": value
        for name, value in saved.state_dict().items()
        if not name.startswith("linear")
    }
    content["module.classifier.weight"] = saved.state_dict()["linear.weight"]
    content["module.classifier.bias"] = torch.zeros(10)
    content["module.classifier.moving_ed"] = torch.full((1, 128), torch.nan)
    content = dict(list(content.items())[::step])
    torch.save({"state_dict": content}, tmp_path / "robal.pth")
    load_weights(loaded, read_state_dict(tmp_path / "robal.pth"), "it")
    assert same(saved, loaded)


def test_robal_layout_with_linear_head_loads(tmp_path: Path) -> None:
    saved, loaded = small(), small()
    content = {
        name.replace("linear.", "classifier.fc.")
        if name.startswith("linear")
        else f"backbone.{name}": value
        for name, value in saved.state_dict().items()
    }
    torch.save(content, tmp_path / "at.pth")
    load_weights(loaded, read_state_dict(tmp_path / "at.pth"), "it")
    assert same(saved, loaded)


def test_a_learned_bias_of_a_cosine_head_is_not_dropped_silently() -> None:
    net = small(cosine)
    content = {f"backbone.{k}": v for k, v in net.state_dict().items() if "linear" not in k}
    content["classifier.weight"] = net.state_dict()["linear.weight"]
    content["classifier.bias"] = torch.ones(10)
    with pytest.raises(UserError, match=r"unexpected: linear\.bias"):
        load_weights(small(cosine), content, "it")


def test_keys_that_do_not_fit_are_named() -> None:
    weights = small().state_dict()
    weights["conv9.weight"] = weights.pop("conv1.weight")
    weights["linear.bias"] = torch.zeros(3)
    with pytest.raises(UserError) as caught:
        load_weights(small(), weights, "checkpoint x.pt")
    text = str(caught.value)
    assert "missing: conv1.weight" in text
    assert "unexpected: conv9.weight" in text
    assert "linear.bias is (3,), needed (10,)" in text


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_a_pickle_with_code_is_refused_and_never_run(tmp_path: Path) -> None:
    evil, witness = tmp_path / "evil.pt", tmp_path / "ran"
    evil.write_bytes(pickle.dumps({"state_dict": Bomb(witness)}))
    with pytest.raises(UserError, match="cannot be read as weights only"):
        read_state_dict(evil)
    torch.save({"state_dict": Bomb(witness)}, evil)
    with pytest.raises(UserError, match="cannot be read as weights only"):
        read_state_dict(evil)
    assert not witness.exists()


def test_a_text_is_said_to_be_no_file_of_weights(tmp_path: Path) -> None:
    file = tmp_path / "text.pt"
    file.write_text("hello world")
    with pytest.raises(
        UserError, match=r"text\.pt.* it is no file of torch\.save; save the weights"
    ):
        read_state_dict(file)


def test_damaged_files_are_user_errors(tmp_path: Path) -> None:
    for name, content in (("a.pt", b"junk"), ("b.safetensors", b"junk"), ("c.pt", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name):
            read_state_dict(tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(UserError, match="holds no state dict"):
        read_state_dict(tmp_path / "list.pt")


def test_equal_weights_give_equal_bytes() -> None:
    weights = small().state_dict()
    facts = {"b": 1, "a": [1, 2]}
    assert to_bytes(weights, facts) == to_bytes(dict(weights), {"a": [1, 2], "b": 1})


def test_the_unused_block_of_trades_wide_network_is_no_obstacle() -> None:
    weights = small().state_dict()
    weights["sub_block1.layer.0.bn1.weight"] = torch.ones(3)
    loaded = small()
    load_weights(loaded, weights, "it")
    del weights["sub_block1.layer.0.bn1.weight"]
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in weights.items())
