"""What `ltrobust datasets show` tells of a data set: its terms, its defaults and its checksums."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from ltrobust.data.catalog import dataset_spec
from ltrobust.data.load import data_fingerprint, outline_data
from ltrobust.errors import UserError


def describe_dataset(name: str, data_dir: Path | None = None, **split: Any) -> dict[str, Any]:
    """Everything known of a data set, and of one split where its files are there.

    Args:
        name: as on the command line.
        data_dir: where the files are.
        split: further arguments of `load_data`, such as `imbalance_ratio`.

    Returns:
        The fields of the spec; `missing` with why there is no split, or `split` with counts,
        checksums and the sources of all parts; `content_sha256` is what tells data apart that a
        name alone does not, "" of published data.

    Raises:
        UserError: the name is unknown.
    """
    facts = dataset_spec(name).facts()
    try:
        with warnings.catch_warnings(action="ignore"):
            data = outline_data(name, data_dir=data_dir, **split)
    except UserError as error:
        return {**facts, "missing": str(error)}
    facts["class_names"] = data.class_names
    facts["split"] = {
        "train_counts": data.train_counts,
        "imbalance_ratio": data.imbalance_ratio,
        "test_images": len(data.test_labels),
        "image_shape": data.image_shape,
        "split_sha256": data.split_sha256,
        "content_sha256": data_fingerprint(name, data_dir),
        "source": data.source,
        "notes": data.notes,
    }
    return facts


def lines_of(facts: dict[str, Any]) -> list[str]:
    """The same as lines to read."""
    about, ratio = facts["about"], facts["imbalance_ratio"]
    lines = [f"{facts['name']}: {facts['description']}", ""]
    lines += [f"{key}: {about[key]}" for key in ("citation", "url", "licence") if about[key]]
    if about["checksum"]:
        lines.append(f"published checksum: {about['checksum']}")
    lines += [
        f"defaults: imbalance ratio {'natural' if ratio is None else f'{ratio:g}'}, eps "
        f"{255 * facts['eps']:.4g}/255, {facts['arch']}, {facts['epochs']} epochs of batches of "
        f"{facts['batch_size']}, crop padding {facts['crop_padding']}, "
        f"{'flips' if facts['flip'] else 'no flips'}",
        f"where they come from: {about['defaults']}",
    ]
    if about["tried_on"]:
        lines.append(f"loader tried on: {about['tried_on']}")
    if facts["class_names"]:
        lines.append(f"classes ({len(facts['class_names'])}): {', '.join(facts['class_names'])}")
    if "missing" in facts:
        return [*lines, "", f"not read: {facts['missing']}"]
    return [*lines, "", *_split_lines(facts["split"])]


def _split_lines(split: dict[str, Any]) -> list[str]:
    counts, shape = split["train_counts"], "x".join(map(str, split["image_shape"]))
    lines = [
        f"here: {sum(counts):,} training images, {max(counts):,} down to {min(counts):,} a class "
        f"(ratio {split['imbalance_ratio']:.4g}), {split['test_images']:,} test images, {shape}",
        f"split sha256: {split['split_sha256']}",
    ]
    if split["content_sha256"]:
        lines.append(f"content sha256: {split['content_sha256']}")
    for part, facts in split["source"].items():
        if part == "files":
            lines += [f"{name}: {checksum}" for name, checksum in facts.items()]
        else:
            lines.append(
                f"{part}: {facts['images']:,} images, {facts['order']} order, labels sha256 "
                f"{facts['labels_sha256']}"
            )
    return [*lines, *split["notes"]]
