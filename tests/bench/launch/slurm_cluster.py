"""A SLURM cluster of several nodes on this one machine: no systemd, no cgroups, loopback only.

    bash tests/bench/launch/apart.sh python tests/bench/launch/slurm_cluster.py DIRECTORY 2 bash

starts one and runs a command (here a shell, to try `sinfo`) in it. Debian's packages are slurmctld,
slurmd, slurm-client and munge. All daemons are children of this process, in the foreground.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo")
PORT = 17000
CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
# listen on the addresses that stand here, not on all
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# the life of a credential, which is also how long a requeued job waits (120 s by default)
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld
SlurmdLogFile={folder}/log/slurmd-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
GresTypes=gpu
# a node that is gone is noticed in seconds
SlurmdTimeout=5
SlurmctldTimeout=10
InactiveLimit=0
KillWait=3
MinJobAge=300
MaxArraySize=1001
MaxJobCount=20000
ReturnToService=2
JobRequeue=1
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=5 \\
    MaxTime=INFINITE State=UP
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why no cluster can be started here; "" where one can."""
    if os.environ.get("LTROBUST_APART") != "1":
        return "not in namespaces of its own: bash tests/bench/launch/apart.sh starts tests there"
    gone = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"{', '.join(gone)} not installed" if gone else ""


class SlurmCluster:
    """Nodes n1, n2, ... of as many cores as the machine has and one GPU each that is none.

    Args:
        folder: takes all that the daemons write; a short path.
        nodes: how many.
    """

    def __init__(self, folder: Path, nodes: int = 2) -> None:
        self.folder, self.nodes = folder, [f"n{i + 1}" for i in range(nodes)]
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        os.environ["SLURM_CONF"] = str(folder / "slurm.conf")

    def __enter__(self) -> SlurmCluster:
        for name in ("munge", "state", "log", *(f"spool-{node}" for node in self.nodes)):
            (self.folder / name).mkdir(parents=True)
        self._configure()
        munge = self.folder / "munge"
        files = [f"--{name}-file={munge}/{name}" for name in ("key", "pid", "log", "seed")]
        self._start("munged", "--foreground", "--force", f"--socket={munge}/socket", *files)
        wait_until(lambda: (munge / "socket").exists(), "munged")
        self._start("slurmctld", "-D", "-c")
        for node in self.nodes:
            self.start_node(node)
        wait_until(lambda: self.idle() == set(self.nodes), "the nodes")
        return self

    def __exit__(self, *error: object) -> None:
        for daemon in reversed(self._daemons.values()):
            daemon.terminate()
        for daemon in self._daemons.values():
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()

    def start_node(self, node: str) -> None:
        """Start the daemon of a node, again after it was killed."""
        self._start("slurmd", "-D", "-c", "-N", node, known_as=node)

    def kill_node(self, node: str) -> None:
        """Kill the daemon of a node; its jobs live on, as behind a cut network."""
        self._daemons[node].kill()
        self._daemons[node].wait()

    def idle(self) -> set[str]:
        """Nodes that have nothing to do."""
        return set(call("sinfo", "--noheader", "--Node", "--states=idle", "--format=%N").split())

    def logs(self) -> str:
        """The ends of all logs."""
        files = sorted((self.folder / "log").iterdir())
        return "\n".join(f"{file.name}:\n{file.read_text()[-3000:]}" for file in files)

    def _start(self, program: str, *words: str, known_as: str = "") -> None:
        with (self.folder / "log" / f"{program}.out").open("ab") as log:
            daemon = subprocess.Popen(
                [program, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._daemons[known_as or program] = daemon

    def _configure(self) -> None:
        key = self.folder / "munge" / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        host = socket.gethostname().partition(".")[0]
        config, gpus = CONFIG.format(host=host, port=PORT, folder=self.folder), ""
        for i, node in enumerate(self.nodes):
            device = self.folder / f"gpu-{node}"
            subprocess.run(["mknod", device, "c", "1", "3"], check=True)  # another /dev/null
            config += f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 "
            config += f"Port={PORT + 1 + i} CPUs={os.cpu_count()} RealMemory=1000 Gres=gpu:1\n"
            gpus += f"NodeName={node} Name=gpu File={device}\n"
        (self.folder / "slurm.conf").write_text(config)
        (self.folder / "gres.conf").write_text(gpus)


def call(*words: str) -> str:
    """What one of SLURM's programs prints; "" where it fails."""
    return subprocess.run(words, capture_output=True, text=True, timeout=30).stdout.strip()


def wait_until(true: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
    """Wait for something, and give up with its name."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(0.1)


if __name__ == "__main__":
    with SlurmCluster(Path(sys.argv[1]).absolute(), int(sys.argv[2])):
        sys.exit(subprocess.run(sys.argv[3:]).returncode)
