"""Data sets, long-tailed splits and on-device augmentation.

What the specs say is there without torch, which everything else is imported with when it is asked
for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ltrobust.data.catalog import DATASETS, dataset_spec
from ltrobust.data.spec import (
    DEFAULT_DATASET,
    FOLDER_PREFIX,
    LOCAL_PREFIXES,
    NATURAL,
    About,
    DatasetSpec,
)

if TYPE_CHECKING:
    from ltrobust.data.augment import enlarge, policy_augment, random_crop_flip, to_float
    from ltrobust.data.base import LongTailedData
    from ltrobust.data.load import data_fingerprint, data_label, load_data, outline_data
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
_MODULES = {
    **dict.fromkeys(("enlarge", "policy_augment", "random_crop_flip", "to_float"), "augment"),
    "LongTailedData": "base",
    **dict.fromkeys(("data_fingerprint", "data_label", "load_data", "outline_data"), "load"),
    **dict.fromkeys(("long_tail_counts", "long_tail_indices"), "split"),
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"ltrobust.data.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'ltrobust.data' has no attribute '{name}'")
