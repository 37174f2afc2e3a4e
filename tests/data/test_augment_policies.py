"""RandAugment and AutoAugment: each image its own draw, repeatable, and "none" does nothing."""

from __future__ import annotations

import pytest
import torch

from ltrobust.data.augment import enlarge, policy_augment
from ltrobust.data.policies import POLICIES, augment, drawn, tables


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


def one_by_one(images: torch.Tensor, policy: str, seed: int) -> torch.Tensor:
    """What torchvision makes of each image alone."""
    transform = POLICIES[policy]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.stack([transform(image) for image in images])


def assorted(channels: int, side: int) -> torch.Tensor:
    """Noise, dark and narrow images, ramps, and one grey level alone."""
    draw = gen(2)
    noise = torch.randint(256, (60, channels, side, side), dtype=torch.uint8, generator=draw)
    ramp = torch.arange(side * side).remainder(256).to(torch.uint8).view(1, 1, side, side)
    narrow = noise[:30] // 9 + 100
    flat = torch.full((20, channels, side, side), 77, dtype=torch.uint8)
    nearly = flat.clone()
    nearly[:, :, 0, 0] = 200
    return torch.cat([noise, narrow, flat, nearly, ramp.expand(30, channels, -1, -1)])


@pytest.mark.parametrize("policy", sorted(POLICIES))
@pytest.mark.parametrize(("channels", "side"), [(3, 32), (1, 8), (3, 2)])
def test_in_groups_as_torchvision_image_by_image(policy: str, channels: int, side: int) -> None:
    images = assorted(channels, side)
    for seed in range(3):
        together = augment(images, policy, seed)
        assert torch.equal(together, one_by_one(images, policy, seed))


def test_every_operation_of_both_policies_is_drawn_and_done_by_some_group() -> None:
    seen = {
        operation[0]
        for policy in POLICIES
        for operations in drawn(policy, 500, (32, 32), 0)
        for operation in operations
    }
    space = POLICIES["randaugment"]()._augmentation_space(31, (32, 32))  # type: ignore[operator]
    assert seen == set(space) | {"Invert"}


def test_maps_and_tables_are_made_once() -> None:
    for policy in POLICIES:
        known = tables(policy, (32, 32), torch.device("cpu"))
        moved, tabled = known.all("moved"), known.all("tabled")
        for seed in range(20):
            augment(copies_of_one_image(64), policy, seed)
        assert known.all("moved") is moved
        assert known.all("tabled") is tabled
