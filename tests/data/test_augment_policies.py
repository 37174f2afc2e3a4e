"""RandAugment and AutoAugment: each image its own draw, repeatable, and "none" does nothing."""

from __future__ import annotations

import pytest
import torch

from ltrobust.data.augment import POLICIES, enlarge, policy_augment


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def copies_of_one_image(count: int = 24) -> torch.Tensor:
    image = torch.randint(256, (1, 3, 32, 32), dtype=torch.uint8, generator=gen(1))
    return image.expand(count, -1, -1, -1).contiguous()


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_identical_images_in_a_batch_come_out_different(policy: str) -> None:
    out = policy_augment(copies_of_one_image(), policy, generator=gen())  # type: ignore[arg-type]
    assert out.dtype == torch.uint8
    assert out.shape == (24, 3, 32, 32)
    different = {bytes(image.numpy().tobytes()) for image in out}
    # one draw for the whole batch would leave a single version
    assert len(different) > 8


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_the_generator_decides_and_the_global_one_is_left_alone(policy: str) -> None:
    batch = copies_of_one_image(6)
    torch.manual_seed(5)
    expected_next = torch.rand(3)
    torch.manual_seed(5)
    first = policy_augment(batch, policy, generator=gen(3))  # type: ignore[arg-type]
    assert torch.equal(torch.rand(3), expected_next)
    assert torch.equal(first, policy_augment(batch, policy, generator=gen(3)))  # type: ignore[arg-type]
    assert not torch.equal(first, policy_augment(batch, policy, generator=gen(4)))  # type: ignore[arg-type]


def test_none_changes_nothing() -> None:
    batch = copies_of_one_image(3)
    assert policy_augment(batch, "none", generator=gen()) is batch


def test_published_settings_of_the_policies() -> None:
    rand = POLICIES["randaugment"]()
    assert (rand.num_ops, rand.magnitude) == (2, 8)
    assert POLICIES["autoaugment"]().policy.value == "cifar10"


def test_enlarge_resizes_only_when_asked() -> None:
    batch = copies_of_one_image(2)
    assert enlarge(batch, None) is batch
    assert enlarge(batch, 32) is batch
    large = enlarge(batch, 64)
    assert large.shape == (2, 3, 64, 64)
    assert large.dtype == torch.uint8
