"""Run the `ltrobust` commands of a page for real, in order, on settings that take seconds.

    python tests/docs/smoke.py README.md

The commands run in a temporary folder by the `ltrobust` beside this interpreter, on digits and the
small network, with few images, one epoch and cheap attacks; everything else is as written.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from pages import ROOT, blocks, shell_lines

TRAINING = "--dataset digits-lt --arch small-cnn --epochs 1 --limit-train 60 --precision fp32"
ATTACKING = "--limit-test 20 --attacks clean,pgd2"
REMOVED = re.compile(
    r"--(dataset|arch|epochs|attacks|imbalance-ratio|precision) \S+|--download|--limit-\w+ \d+"
)
MODELS = """
from ltrobust.models import build_model


def robust_net():
    return build_model("small-cnn", num_classes=10, in_channels=1, image_size=8).eval()
"""
OURS = re.compile(r"^ltrobust (bench|train|evaluate)\b(.*)$")


def small(line: str) -> str:
    """The command line with settings that take seconds."""
    match = OURS.match(line.split("  #")[0])
    if match is None or "--help" in line:
        return line
    command, rest = match[1], REMOVED.sub("", match[2]).replace("--seeds 0-2", "--seeds 0,1")
    if "--model" in rest:
        rest = re.sub(r"--normalize \S+", "--normalize 0.5,0.5", rest)
        return f"ltrobust evaluate {rest} --dataset digits-lt {ATTACKING}"
    if "--checkpoint" in rest:
        return f"ltrobust evaluate {rest} --dataset digits-lt --arch small-cnn {ATTACKING}"
    extra = {"bench": f"{TRAINING} {ATTACKING}", "train": TRAINING, "evaluate": ATTACKING}[command]
    if command == "bench" and "--output" not in rest:
        extra += f" --output {default_output(match[2])}"
    return f"ltrobust {command} {rest} {extra}"


def default_output(flags: str) -> str:
    """Where the results of a bench lie as it is written, whatever data it runs on here."""
    named = re.search(r"--suite (\S+)", flags) or re.search(r"--dataset (\S+)", flags)
    return f"results/{named[1] if named else 'digits-lt'}"


def write_files(page: Path, folder: Path) -> None:
    """Put there what the commands expect: the page's Python files, a checkpoint and a module."""
    import torch

    from ltrobust.models import build_model

    for block in blocks(page, "python"):
        name = re.match(r"# (\w+\.py)\n", block.body)
        if name:
            (folder / name[1]).write_text(block.body, encoding="utf-8")
    model = build_model("small-cnn", num_classes=10, in_channels=1, image_size=8)
    torch.save(model.state_dict(), folder / "model.pt")
    (folder / "my_models.py").write_text(MODELS, encoding="utf-8")


def run_page(page: Path) -> None:
    """Run the commands of a page; raises CalledProcessError at the first that fails."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as folder:
        write_files(page, Path(folder))
        for line in shell_lines(page):
            if line.startswith("ltrobust "):
                command = small(line)
                print(f"$ {command}", flush=True)
                subprocess.run(
                    ["bash", "-c", command],
                    cwd=folder,
                    env={**os.environ, "PATH": path},
                    check=True,
                )


if __name__ == "__main__":
    for name in sys.argv[1:] or ["README.md"]:
        run_page(ROOT / name)
