"""The data sets by name: what each brings to a run, and where it and its defaults come from.

How their files are read stands in `ltrobust.data.load` and the modules that it calls.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any

from ltrobust.data.layouts import CIFAR10, CIFAR100
from ltrobust.data.spec import (
    FOLDER,
    FOLDER_PREFIX,
    HUGGING_FACE,
    NATURAL,
    About,
    DataName,
    DatasetSpec,
    parse_name,
)
from ltrobust.errors import UserError, unknown
from ltrobust.plugins import load_installed
from ltrobust.registry import Registry

MEDMNIST, TINY, IMAGENET = "medmnist", "tiny-imagenet-lt", "imagenet-lt"
MEDMNIST_SIZES = (28, 64, 128, 224)
LARGE, LARGE_ARCH = 128, "torchvision:resnet18"
"""From this size on the first layer must not keep every pixel: the ImageNet form of ResNet-18."""
TINY_CLASSES = 200
IMAGENET_SIZE = 224
REAL, FIXTURES = "the real files", "fixtures in the official layout, not the real files"
FIELD = (
    "radius, ResNet-18, crop and flip as in RoBal (Wu et al. 2021) and its successors on "
    "CIFAR-10-LT; 100 epochs of 128: ours, one recipe for every defense"
)
OWN_LAYOUTS = {
    FOLDER: "your images: PATH/train/<class>, PATH/test/<class>",
    HUGGING_FACE: "your parquet files in a layout of Hugging Face",
}
SIDES = ("organ",)
"""Of MedMNIST: sets with classes for left and right, which a mirror would exchange."""


def padding_of(size: int) -> int:
    """Padding of the random crop: the field's 4 pixels up to 64, an eighth of larger images."""
    return 4 if size <= 64 else size // 8


def _cifar(title: str, url: str) -> About:
    return About(
        citation='A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009',
        url=url,
        licence=f"none stated by the authors of {title}; they ask to be cited",
        checksum="labels of all images and CRC-32 of every 500th, in ltrobust/data/canonical.npz",
        defaults=FIELD,
        tried_on=REAL,
    )


def _digits() -> DatasetSpec:
    return DatasetSpec(
        name="digits-lt",
        num_classes=10,
        imbalance_ratio=10.0,
        eps=0.1,
        epochs=25,
        batch_size=64,
        arch="small-cnn",
        crop_padding=0,
        flip=False,  # a mirrored digit is another shape
        description="scikit-learn's 8x8 digits, embedded: 120 down to 12 images a class",
        class_names=tuple("0123456789"),
        about=About(
            citation='E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI '
            "Machine Learning Repository, 1998, as in scikit-learn",
            url="https://archive.ics.uci.edu/dataset/80",
            licence="CC BY 4.0",
            checksum="CRC-32 3779387638 of pixels and labels",
            defaults="ours: small enough for a laptop; nobody's published setting",
            tried_on=REAL,
        ),
    )


def _svhn() -> DatasetSpec:
    about = About(
        citation='Y. Netzer, T. Wang, A. Coates, A. Bissacco, B. Wu, A. Y. Ng, "Reading Digits in '
        'Natural Images with Unsupervised Feature Learning", NIPS workshop 2011',
        url="http://ufldl.stanford.edu/housenumbers",
        licence="for non-commercial use only",
        checksum="MD5 e26dedcc434d2e4c54c9b2d4a06d8373 of train_32x32.mat, "
        "eb5a983be6a315427106f1b164d9cef3 of test_32x32.mat (torchvision's)",
        defaults="radius 8/255 as in Rice, Wong, Kolter 2020 on SVHN; ratio, ResNet-18 and recipe "
        "as on cifar10-lt: ours",
        tried_on=FIXTURES,
    )
    text = "SVHN, house numbers, cut to the ratio from its own imbalance"
    digits = tuple("0123456789")
    return DatasetSpec("svhn-lt", 10, 50.0, text, flip=False, class_names=digits, about=about)


def _tiny(classes: int) -> DatasetSpec:
    about = About(
        citation='Y. Le, X. Yang, "Tiny ImageNet Visual Recognition Challenge", CS 231N report, '
        "2015",
        url="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        licence="none stated; images of ImageNet, for non-commercial research and education",
        checksum="MD5 90528d7ca1a48142e341f4ef8d21d0de of tiny-imagenet-200.zip",
        defaults="ratio 10 and ResNet-18 as in Cho et al. 2025 on Tiny-ImageNet-LT; else as on "
        "cifar10-lt"
        + ("" if classes == TINY_CLASSES else "; the first 20 classes as in RobustLT's code"),
        tried_on="real JPEGs: 20 of the 200 classes, 100 of their 500 training images; the "
        "parquet layout on fixtures",
    )
    part = "" if classes == TINY_CLASSES else f":{classes}"
    which = "200 classes" if not part else f"its first {classes} classes"
    text = f"Tiny ImageNet, {which}, 64x64, 500 down to 50 a class"
    return DatasetSpec(TINY + part, classes, 10.0, text, about=about)


def _imagenet() -> DatasetSpec:
    about = About(
        citation='Z. Liu, Z. Miao, X. Zhan, J. Wang, B. Gong, S. X. Yu, "Large-Scale Long-Tailed '
        'Recognition in an Open World", CVPR 2019; O. Russakovsky et al., "ImageNet Large Scale '
        'Visual Recognition Challenge", IJCV 2015',
        url="https://liuziwei7.github.io/projects/LongTail.html",
        licence="ImageNet's terms of access: non-commercial research and education",
        checksum="none published of the list files; 115,846 training and 50,000 test images",
        defaults="radius 4/255 and ResNet-50 as in RoBal's supplement, Table S8; 90 epochs of 256: "
        "the usual ones of ImageNet",
        tried_on=FIXTURES,
    )
    text = "ImageNet-LT's lists over ImageNet's folders, 1280 down to 5 a class"
    return DatasetSpec(
        IMAGENET,
        1000,
        None,
        text,
        eps=4 / 255,
        epochs=90,
        batch_size=256,
        arch="resnet50-224",
        crop_padding=padding_of(IMAGENET_SIZE),
        about=about,
    )


@cache
def medmnist_sets() -> dict[str, Any]:
    """What the authors of MedMNIST published of each set with one label an image.

    For each: task, channels, images of each part, licence, classes, MD5 of the file by size.
    """
    content: dict[str, Any] = json.loads((files("ltrobust.data") / "medmnist.json").read_text())
    return content


def _medmnist_checksum(name: str, size: int) -> str:
    file = f"{name}.npz" if size == MEDMNIST_SIZES[0] else f"{name}_{size}.npz"
    return f"MD5 {medmnist_sets()[name]['md5'][str(size)]} of {file}"


def _medmnist(name: str) -> DatasetSpec:
    facts = medmnist_sets()[name]
    images, classes = facts["images"], tuple(facts["classes"])
    derma = (
        'P. Tschandl, C. Rosendahl, H. Kittler, "The HAM10000 dataset", Scientific Data 2018; '
        if name == "dermamnist"
        else ""
    )
    about = About(
        citation=f"{derma}J. Yang, R. Shi, D. Wei, Z. Liu, L. Zhao, B. Ke, H. Pfister, B. Ni, "
        '"MedMNIST v2: A large-scale lightweight benchmark for 2D and 3D biomedical image '
        'classification", Scientific Data 2023',
        url="https://medmnist.com",
        licence=facts["licence"],
        checksum=_medmnist_checksum(name, MEDMNIST_SIZES[0]),
        defaults="radius 8/255: ours, as on CIFAR (no published figure was found); ResNet-18, 100 "
        "epochs of 128 as in the benchmark of Yang et al. 2023, the optimiser as on cifar10-lt",
        tried_on=FIXTURES,
    )
    text = (
        f"MedMNIST: {images['train']:,} images in {len(classes)} classes as imbalanced as they "
        "came, 28x28; @64, @128, @224"
    )
    return DatasetSpec(
        f"{MEDMNIST}:{name}",
        len(classes),
        None,
        text,
        flip=not name.startswith(SIDES) and name != "pneumoniamnist",
        class_names=classes,
        about=about,
    )


DATASETS: Registry[DatasetSpec] = Registry("dataset", lambda: load_installed("ltrobust.datasets"))
DATASETS.add("digits-lt", _digits())
DATASETS.add(
    "cifar10-lt",
    DatasetSpec(
        "cifar10-lt",
        10,
        50.0,
        "CIFAR-10, 5000 down to 100 a class",
        class_names=CIFAR10.class_names,
        about=_cifar("CIFAR-10", "https://www.cs.toronto.edu/~kriz/cifar.html"),
    ),
)
DATASETS.add(
    "cifar100-lt",
    DatasetSpec(
        "cifar100-lt",
        100,
        10.0,
        "CIFAR-100, 500 down to 50 a class",
        class_names=CIFAR100.class_names,
        about=_cifar("CIFAR-100", "https://www.cs.toronto.edu/~kriz/cifar.html"),
    ),
)
DATASETS.add("svhn-lt", _svhn())
DATASETS.add(TINY, _tiny(TINY_CLASSES))
DATASETS.add(f"{TINY}:20", _tiny(20))
DATASETS.add(IMAGENET, _imagenet())
for _name in ("dermamnist", *(name for name in medmnist_sets() if name != "dermamnist")):
    DATASETS.add(
        f"{MEDMNIST}:{_name}", _medmnist(_name), aliases=("dermamnist",) * (_name == "dermamnist")
    )

OPEN = (f"{FOLDER_PREFIX}PATH", f"{HUGGING_FACE}:PATH")
"""What stands for data of the user's own in the list of names."""


def known_name(name: str) -> DataName:
    """Take a name apart and put its parts into the one spelling that results know.

    Raises:
        UserError: there is no such data set, or it cannot be had in that size.
    """
    parsed = parse_name(name)
    if parsed.local:
        return parsed
    bare = replace(parsed, size=None)
    if str(bare) not in DATASETS and parsed.family != TINY:
        raise _no_such(str(bare))
    if str(bare) in DATASETS:
        bare = parse_name(DATASETS.canonical(str(bare)))
    named = replace(bare, size=parsed.size)
    return CHECKS.get(named.family, _fixed_size)(named)


def _no_such(name: str) -> UserError:
    if name.removeprefix(f"{MEDMNIST}:") == "chestmnist":
        return UserError(
            f"dataset '{name}' has several labels an image; only sets with one label are known"
        )
    return unknown("dataset", name, [*DATASETS, "dermamnist", *OPEN])


def _fixed_size(name: DataName) -> DataName:
    if name.size is not None:
        raise UserError(
            f"dataset '{name}': {replace(name, size=None)} has one size; leave out @{name.size}"
        )
    return name


def _medmnist_size(name: DataName) -> DataName:
    if name.size is not None and name.size not in MEDMNIST_SIZES:
        sizes = ", ".join(f"@{size}" for size in MEDMNIST_SIZES)
        raise UserError(f"dataset '{name}': MedMNIST is published in the sizes {sizes}")
    return replace(name, size=None) if name.size == MEDMNIST_SIZES[0] else name


def _tiny_classes(name: DataName) -> DataName:
    if not name.argument:
        return name
    count = int(name.argument) if name.argument.isdecimal() else 0
    if not 2 <= count <= TINY_CLASSES:
        raise UserError(
            f"dataset '{name}': behind {TINY}: stands how many of its {TINY_CLASSES} classes are "
            f"taken, 2 to {TINY_CLASSES}, such as {TINY}:20"
        )
    return replace(name, argument="" if count == TINY_CLASSES else str(count))


def _any_size(name: DataName) -> DataName:
    return replace(name, size=None) if name.size == IMAGENET_SIZE else name


CHECKS: dict[str, Callable[[DataName], DataName]] = {
    MEDMNIST: _medmnist_size,
    TINY: _tiny_classes,
    IMAGENET: _any_size,
}


def dataset_spec(name: str) -> DatasetSpec:
    """Return the spec of a registered data set, of `folder:PATH` or of `hf:PATH`.

    Raises:
        UserError: the name is unknown, or names no path, or one that is no text.
    """
    known = known_name(name)
    if known.local:
        about = About(defaults=FIELD)
        spec = DatasetSpec(name, None, None, OWN_LAYOUTS[known.family], about=about)
    elif str(replace(known, size=None)) in DATASETS:
        spec = DATASETS.get(str(replace(known, size=None)))
    else:
        spec = _tiny(int(known.argument))
    if known.size is None:
        return spec
    large = known.size >= LARGE and known.family != IMAGENET
    about = spec.about
    if known.family == MEDMNIST:
        about = replace(about, checksum=_medmnist_checksum(known.argument, known.size))
    return replace(
        spec,
        about=about,
        name=name if known.local else str(known),
        crop_padding=padding_of(known.size),
        arch=LARGE_ARCH if large else spec.arch,
    )


def checked_ratio(ratio: object) -> float | None:
    """An imbalance ratio as runs know it: None for all images."""
    return None if ratio == NATURAL else ratio  # type: ignore[return-value]
