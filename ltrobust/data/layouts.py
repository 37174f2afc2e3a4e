"""How CIFAR-10 and CIFAR-100 are laid out on disk, by their authors and by Hugging Face.

Only names: the official archives are those of Krizhevsky (2009) as torchvision keeps them, the
parquet columns those of `uoft-cs/cifar10` and `uoft-cs/cifar100`.
"""

from __future__ import annotations

from dataclasses import dataclass

CIFAR10_NAMES = "airplane automobile bird cat deer dog frog horse ship truck"

CIFAR100_NAMES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house
kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree
plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew
skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank
telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf
woman worm
"""


@dataclass(frozen=True)
class CifarLayout:
    """One CIFAR data set on disk.

    Attributes:
        title: the data set's own name; also that of torchvision's class.
        folder: the subfolder of the data directory that is looked at too.
        archive: official archive.
        batches: folder inside the archive.
        train_batches: its training files, in canonical order.
        test_batches: its test files.
        batch_key: the labels' key in a batch.
        parquet_config: Hugging Face's folder of parquet files.
        parquet_label: the labels' column.
        class_names: one name a class.
    """

    title: str
    folder: str
    archive: str
    batches: str
    train_batches: tuple[str, ...]
    test_batches: tuple[str, ...]
    batch_key: str
    parquet_config: str
    parquet_label: str
    class_names: tuple[str, ...]


CIFAR10 = CifarLayout(
    title="CIFAR10",
    folder="cifar10",
    archive="cifar-10-python.tar.gz",
    batches="cifar-10-batches-py",
    train_batches=tuple(f"data_batch_{i}" for i in range(1, 6)),
    test_batches=("test_batch",),
    batch_key="labels",
    parquet_config="plain_text",
    parquet_label="label",
    class_names=tuple(CIFAR10_NAMES.split()),
)

CIFAR100 = CifarLayout(
    title="CIFAR100",
    folder="cifar100",
    archive="cifar-100-python.tar.gz",
    batches="cifar-100-python",
    train_batches=("train",),
    test_batches=("test",),
    batch_key="fine_labels",
    parquet_config="cifar100",
    parquet_label="fine_label",
    class_names=tuple(CIFAR100_NAMES.split()),
)
