"""The study of decoded images on disk runs, and says what it promises."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

STUDY = Path(__file__).parents[2] / "benchmarks" / "studies" / "image_cache.py"


@pytest.mark.slow
def test_it_tells_speed_and_memory_of_each_part(tmp_path: Path):
    words = ["--images", "40", "--size", "16", "--batch", "8", "--read", "24", "--cold"]
    out = tmp_path / "cache.json"
    subprocess.run(
        [sys.executable, STUDY, *words, "--folder", tmp_path, "--json", out],
        check=True,
        capture_output=True,
        timeout=120,
    )
    found = json.loads(out.read_text())
    assert found["file_gb"] == round(40 * 3 * 16 * 16 / 1e9, 3)
    images = {part: found[part]["images"] for part in ("building", "first", "warm", "cold")}
    assert images == {"building": 40, "first": 24, "warm": 24, "cold": 24}
    for part in images:
        assert found[part]["images_per_second"] > 0
        assert found[part]["peak_memory_gb"] > 0
    assert 0 <= found["cold"]["in_memory_before"] <= 1
    assert [path.name for path in tmp_path.iterdir()] == ["cache.json"]
