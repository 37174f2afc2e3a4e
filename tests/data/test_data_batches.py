"""CIFAR from the official archive: read without trusting it, downloaded only when allowed."""

from __future__ import annotations

import hashlib
import http.server
import pickle
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_on_disk import pack, pixels_of, write_batches
from torchvision.datasets import CIFAR100

from ltrobust.data import load_data
from ltrobust.errors import UserError


@pytest.fixture(autouse=True)
def _published(publish: Callable[..., None]) -> None:
    """What `write_batches` writes is, for these tests, what the authors published."""
    publish("train", pixels_of(1000, 0), [i % 100 for i in range(1000)])
    publish("test", pixels_of(200, 1), [i % 100 for i in range(200)])


def refused(data_dir: Path, **settings: Any) -> str:
    """Load, expect a UserError of one line, return the line."""
    with pytest.raises(UserError) as caught:
        load_data("cifar100-lt", data_dir=data_dir, imbalance_ratio=4, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("nested", ["", "cifar100"])
def test_the_extracted_folder_is_read(tmp_path: Path, nested: str, protocol: int):
    pixels = write_batches(tmp_path / nested, protocol=protocol)
    data = load_data("cifar100-lt", data_dir=tmp_path, imbalance_ratio=4)
    assert data.num_classes == 100
    assert (data.train_counts[0], data.train_counts[-1]) == (10, 2)
    assert np.array_equal(data.train_images.numpy(), pixels["train"][data.train_index])
    assert np.array_equal(data.train_labels.numpy(), data.train_index.numpy() % 100)
    assert np.array_equal(data.test_images.numpy(), pixels["test"])


def test_the_archive_is_read_and_nothing_is_extracted(tmp_path: Path):
    pixels = write_batches(tmp_path)
    archive = pack(tmp_path)
    data = load_data("cifar100-lt", data_dir=tmp_path, imbalance_ratio=4)
    assert np.array_equal(data.train_images.numpy(), pixels["train"][data.train_index])
    assert list(tmp_path.iterdir()) == [archive]


class Bomb:
    """Runs a function when a plain unpickler loads it."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path, protocol: int):
    write_batches(tmp_path)
    victim = tmp_path / "victim"
    bomb = {"data": Bomb(open, str(victim), "w"), "fine_labels": []}
    path = tmp_path / "cifar-100-python" / "train"
    path.write_bytes(pickle.dumps(bomb, protocol=protocol))
    line = refused(tmp_path)
    assert str(path) in line
    assert "io.open" in line
    assert not victim.exists()


@pytest.mark.parametrize("function", [eval, getattr, print, np.load])
def test_no_other_function_gets_through(tmp_path: Path, function: Any):
    write_batches(tmp_path)
    path = tmp_path / "cifar-100-python" / "train"
    path.write_bytes(pickle.dumps({"data": Bomb(function, "1")}))
    assert "not allowed" in refused(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"junk",
        pickle.dumps([1, 2]),
        pickle.dumps({"data": np.zeros((2, 3072), np.uint8)}),
        pickle.dumps({"data": np.zeros((2, 3072), np.float32), "fine_labels": [0, 1]}),
        pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "fine_labels": [0]}),
        pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "fine_labels": ["a", "b"]}),
    ],
)
def test_a_damaged_batch_is_named(tmp_path: Path, content: bytes):
    write_batches(tmp_path)
    path = tmp_path / "cifar-100-python" / "test"
    path.write_bytes(content)
    assert f"'{path}' is not a CIFAR batch" in refused(tmp_path)


def test_a_missing_batch_is_named(tmp_path: Path):
    write_batches(tmp_path)
    (tmp_path / "cifar-100-python" / "test").unlink()
    assert "cifar-100-python/test" in refused(tmp_path)


def test_an_archive_without_a_batch_is_refused(tmp_path: Path):
    write_batches(tmp_path)
    (tmp_path / "cifar-100-python" / "test").unlink()
    pack(tmp_path)
    assert "has no 'cifar-100-python/test'" in refused(tmp_path)


@pytest.mark.parametrize("keep", [10, 0.5])
def test_a_truncated_archive_is_named(tmp_path: Path, keep: float):
    write_batches(tmp_path)
    archive = pack(tmp_path)
    content = archive.read_bytes()
    archive.write_bytes(content[: int(keep if keep > 1 else keep * len(content))])
    assert f"archive '{archive}' is damaged" in refused(tmp_path)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Serve a small archive where torchvision looks for CIFAR-100; yield the archive."""
    folder = tmp_path / "www"
    write_batches(folder)
    archive = pack(folder)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    handler = partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(CIFAR100, "url", f"http://127.0.0.1:{httpd.server_port}/{archive.name}")
        monkeypatch.setattr(CIFAR100, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
        yield archive
        httpd.shutdown()
        thread.join()


def test_nothing_is_downloaded_unless_allowed(server: Path, tmp_path: Path):
    assert "--download" in refused(tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_download_fetches_the_archive_once(server: Path, tmp_path: Path):
    root = tmp_path / "data"
    data = load_data("cifar100-lt", data_dir=root, imbalance_ratio=4, download=True)
    assert len(data.test_labels) == 200
    assert [path.name for path in (root / "cifar100").iterdir()] == [server.name]
    server.unlink()
    again = load_data("cifar100-lt", data_dir=root, imbalance_ratio=4, download=True)
    assert again.split_sha256 == data.split_sha256


def test_a_download_with_a_wrong_checksum_leaves_nothing(server: Path, tmp_path: Path):
    server.write_bytes(server.read_bytes()[:-1])
    assert "cannot download CIFAR100" in refused(tmp_path / "data", download=True)
    assert list((tmp_path / "data" / "cifar100").iterdir()) == []


def test_a_batch_of_other_labels_or_images_is_refused(tmp_path: Path):
    pixels = write_batches(tmp_path)
    path = tmp_path / "cifar-100-python" / "train"
    labels = [i % 100 for i in range(1000)]
    batch = {"data": pixels["train"].reshape(1000, 3072), "fine_labels": labels}
    swapped = {**batch, "fine_labels": [1, 0, *labels[2:]]}
    path.write_bytes(pickle.dumps(swapped))
    assert "labels are in no known order" in refused(tmp_path)
    path.write_bytes(pickle.dumps({**batch, "data": 255 - batch["data"]}))
    assert "image 0 has other pixels" in refused(tmp_path)
    half = {"data": batch["data"][:500], "fine_labels": labels[:500]}
    path.write_bytes(pickle.dumps(half))
    assert "500 instead of 1,000" in refused(tmp_path)
