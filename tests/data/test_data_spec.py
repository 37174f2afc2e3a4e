"""Names and defaults of the data sets."""

from __future__ import annotations

import pytest

from ltrobust.data import DATASETS, DEFAULT_DATASET, data_label, dataset_spec
from ltrobust.data.catalog import known_name
from ltrobust.data.spec import DataName, parse_name
from ltrobust.errors import UserError


def test_registered_data_sets_in_listing_order():
    assert DATASETS.names()[:8] == [
        *("digits-lt", "cifar10-lt", "cifar100-lt", "svhn-lt", "tiny-imagenet-lt"),
        *("tiny-imagenet-lt:20", "imagenet-lt", "medmnist:dermamnist"),
    ]
    assert len(DATASETS.names()) == 7 + 11
    assert DEFAULT_DATASET == "digits-lt"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("digits-lt", (10, 10, 0.1, 25, 64, "small-cnn", 0, False)),
        ("cifar10-lt", (10, 50, 8 / 255, 100, 128, "resnet18", 4, True)),
        ("cifar100-lt", (100, 10, 8 / 255, 100, 128, "resnet18", 4, True)),
        ("svhn-lt", (10, 50, 8 / 255, 100, 128, "resnet18", 4, False)),
        ("tiny-imagenet-lt", (200, 10, 8 / 255, 100, 128, "resnet18", 4, True)),
        ("tiny-imagenet-lt:20", (20, 10, 8 / 255, 100, 128, "resnet18", 4, True)),
        ("tiny-imagenet-lt:7@32", (7, 10, 8 / 255, 100, 128, "resnet18", 4, True)),
        ("imagenet-lt", (1000, None, 4 / 255, 90, 256, "resnet50-224", 28, True)),
        ("medmnist:dermamnist", (7, None, 8 / 255, 100, 128, "resnet18", 4, True)),
        ("medmnist:dermamnist@64", (7, None, 8 / 255, 100, 128, "resnet18", 4, True)),
        ("medmnist:organamnist", (11, None, 8 / 255, 100, 128, "resnet18", 4, False)),
        ("folder:/my/images", (None, None, 8 / 255, 100, 128, "resnet18", 4, True)),
        (
            "folder:/my/images@224",
            (None, None, 8 / 255, 100, 128, "torchvision:resnet18", 28, True),
        ),
        ("hf:/my/files", (None, None, 8 / 255, 100, 128, "resnet18", 4, True)),
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


@pytest.mark.parametrize("name", ["folder:", "folder:@64", "hf:", "hf: "])
def test_a_folder_without_a_path_is_refused(name: str):
    with pytest.raises(UserError, match=f"{name.partition(':')[0]}:PATH"):
        dataset_spec(name)


@pytest.mark.parametrize(
    ("typed", "known"),
    [
        ("dermamnist", "medmnist:dermamnist"),
        ("dermamnist@28", "medmnist:dermamnist"),
        ("medmnist:bloodmnist@224", "medmnist:bloodmnist@224"),
        ("tiny-imagenet-lt:200", "tiny-imagenet-lt"),
        ("tiny-imagenet-lt:020", "tiny-imagenet-lt:20"),
        ("imagenet-lt@224", "imagenet-lt"),
        ("imagenet-lt@64", "imagenet-lt@64"),
    ],
)
def test_a_data_set_has_one_name(typed: str, known: str):
    assert str(known_name(typed)) == data_label(typed) == dataset_spec(typed).name == known


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cifar10-lt@64", "has one size; leave out @64"),
        ("svhn-lt@64", "has one size"),
        ("dermamnist@32", "sizes @28, @64, @128, @224"),
        ("folder:x@4", "use @8 to @1024; a path that ends so is written 'folder:x@4/'"),
        ("medmnist:chestmnist", "several labels an image"),
        ("medmnist:dermanist", "did you mean 'medmnist:dermamnist'"),
        ("tiny-imagenet-lt:1", "2 to 200"),
        ("tiny-imagenet-lt:many", "2 to 200"),
        ("imagenet-lt:20", "unknown dataset"),
    ],
)
def test_what_there_is_not_is_refused(name: str, words: str):
    with pytest.raises(UserError) as caught:
        dataset_spec(name)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_come_apart_and_together_again():
    name = "hf:/my/files:image=pixels:label=kind@64"
    parts = DataName("hf", "/my/files", 64, image="pixels", label="kind")
    assert (parse_name(name), str(parts)) == (parts, name)
    odd = DataName("folder", "/a/b@64", 32)
    assert str(odd) == "folder:/a/b@64/@32"
    assert parse_name(str(odd)) == DataName("folder", "/a/b@64/", 32)
    assert data_label("folder:/a/b@64/") == "folder:b@64/"
    assert data_label("hf:/a/b:label=kind@64") == "hf:b:label=kind@64"


def test_every_registered_data_set_says_where_it_comes_from():
    for name in DATASETS:
        about = DATASETS.get(name).about
        assert all((about.citation, about.url, about.licence, about.checksum, about.defaults))
        assert about.tried_on


def test_each_size_of_a_set_has_its_own_file_and_checksum():
    small, large = (dataset_spec(f"dermamnist{size}").about.checksum for size in ("", "@64"))
    assert small.endswith(" of dermamnist.npz")
    assert large.endswith(" of dermamnist_64.npz")
    assert small[:36] != large[:36]
