"""A Ray cluster of several nodes on this one machine, each with one CPU, for tests.

    bash tests/bench/launch/apart.sh python tests/bench/launch/ray_cluster.py DIRECTORY 2 bash

starts one and runs a command in it. Only in namespaces: Ray listens on all addresses of a machine,
and `ray stop` ends every Ray of its user.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

PORT = 6379


def missing() -> str:
    """Why no cluster can be started here; "" where one can."""
    if importlib.util.find_spec("ray") is None:
        return "ray is not installed: pip install 'ltrobust[ray]'"
    if os.environ.get("LTROBUST_APART") != "1":
        return "not in namespaces of its own: bash tests/bench/launch/apart.sh starts tests there"
    return ""


class RayCluster:
    """Nodes n1 (the head), n2, ...

    Args:
        folder: takes Ray's files; a short path, for sockets lie in it.
        nodes: how many.
    """

    def __init__(self, folder: Path, nodes: int = 2) -> None:
        self.folder, self.nodes = folder, [f"n{i + 1}" for i in range(nodes)]
        os.environ["RAY_ADDRESS"] = f"127.0.0.1:{PORT}"
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        os.environ["RAY_AUTH_MODE"] = "disabled"

    def __enter__(self) -> RayCluster:
        head, *others = self.nodes
        words = ["--head", f"--port={PORT}", "--include-dashboard=false"]
        self._ray("start", *words, f"--temp-dir={self.folder}/t", *self._node(head))
        for node in others:
            self._ray("start", f"--address=127.0.0.1:{PORT}", *self._node(node))
        return self

    def __exit__(self, *error: object) -> None:
        self._ray("stop", "--grace-period", "5")

    def kill_node(self, node: str) -> None:
        """Kill what makes a process group of workers a node; they notice it themselves."""
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[0].endswith(b"/raylet") and f"--node-name={node}".encode() in words:
                os.kill(int(folder.name), signal.SIGKILL)
                return
        raise LookupError(node)

    def _node(self, name: str) -> list[str]:
        own = ["--node-ip-address=127.0.0.1", f"--node-name={name}", "--num-cpus=1"]
        return [*own, "--num-gpus=0", "--object-store-memory=80000000", "--disable-usage-stats"]

    def _ray(self, *words: str) -> None:
        program = Path(sys.executable).with_name("ray")
        with (self.folder / "log").open("ab") as log:
            done = subprocess.run([program, *words], stdout=log, stderr=log, timeout=120)
        assert done.returncode == 0, (self.folder / "log").read_text()


if __name__ == "__main__":
    with RayCluster(Path(sys.argv[1]).absolute(), int(sys.argv[2])):
        sys.exit(subprocess.run(sys.argv[3:]).returncode)
