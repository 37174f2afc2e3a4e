"""Data sets, long-tailed splits and on-device augmentation."""

from __future__ import annotations

from ltrobust.data.augment import enlarge, policy_augment, random_crop_flip, to_float
from ltrobust.data.base import LongTailedData
from ltrobust.data.catalog import DATASETS, dataset_spec
from ltrobust.data.load import data_fingerprint, data_label, load_data, outline_data
from ltrobust.data.spec import (
    DEFAULT_DATASET,
    FOLDER_PREFIX,
    LOCAL_PREFIXES,
    NATURAL,
    About,
    DatasetSpec,
)
from ltrobust.data.split import long_tail_counts, long_tail_indices

__all__ = [
    "DATASETS",
    "DEFAULT_DATASET",
    "FOLDER_PREFIX",
    "LOCAL_PREFIXES",
    "NATURAL",
    "About",
    "DatasetSpec",
    "LongTailedData",
    "data_fingerprint",
    "data_label",
    "dataset_spec",
    "enlarge",
    "load_data",
    "long_tail_counts",
    "long_tail_indices",
    "outline_data",
    "policy_augment",
    "random_crop_flip",
    "to_float",
]
