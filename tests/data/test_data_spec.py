"""Names and defaults of the data sets."""

from __future__ import annotations

import pytest

from ltrobust.data import DATASETS, DEFAULT_DATASET, dataset_spec
from ltrobust.errors import UserError


def test_registered_data_sets_in_listing_order():
    assert DATASETS.names() == ["digits-lt", "cifar10-lt", "cifar100-lt"]
    assert DEFAULT_DATASET == "digits-lt"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("digits-lt", (10, 10, 0.1, 25, 64, "small-cnn", 0, False)),
        ("cifar10-lt", (10, 50, 8 / 255, 100, 128, "resnet18", 4, True)),
        ("cifar100-lt", (100, 10, 8 / 255, 100, 128, "resnet18", 4, True)),
        ("folder:/my/images", (None, None, 8 / 255, 100, 128, "resnet18", 4, True)),
    ],
)
def test_a_data_set_carries_its_defaults(name: str, expected: tuple[object, ...]):
    spec = dataset_spec(name)
    assert spec.name == name
    assert (
        spec.num_classes,
        spec.imbalance_ratio,
        spec.eps,
        spec.epochs,
        spec.batch_size,
        spec.arch,
        spec.crop_padding,
        spec.flip,
    ) == expected


def test_a_mistyped_name_gets_the_nearest_match_and_the_list():
    with pytest.raises(UserError, match=r"did you mean 'cifar10-lt'\?.*digits-lt.*folder:PATH"):
        dataset_spec("cifar10lt")


def test_a_folder_without_a_path_is_refused():
    with pytest.raises(UserError, match="folder:PATH"):
        dataset_spec("folder:")
