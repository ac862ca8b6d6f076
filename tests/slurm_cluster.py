"""A real Slurm cluster of one node: this machine, with daemons, ports and files of its own.

    python tests/slurm_cluster.py    # prints the variable by which sbatch finds it; Ctrl-C ends it

Needs root and the programs of Debian's packages slurm-wlm and munge. It installs nothing, needs neither
systemd nor control groups, and leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_min_interval=10000,sched_interval=1
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=long Nodes=ALL Default=YES State=UP
PartitionName=short Nodes=ALL MaxTime=1 State=UP
"""
_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
_START_SECONDS = 30


def obstacle() -> str | None:
    """Why no cluster can be started here; None if it can."""
    missing = [program for program in _PROGRAMS if not shutil.which(program, path=_path())]
    if missing:
        return f"{', '.join(missing)} not installed: apt install slurm-wlm munge"
    return None if os.geteuid() == 0 else "only root can start Slurm's daemons"


@contextlib.contextmanager
def slurm_cluster(cpus: int = 2) -> Iterator[Path]:
    """Starts the cluster, which ends with the context; yields its configuration's path, for the variable
    SLURM_CONF. The partitions are `long`, the default, and `short`, with a limit of one minute."""
    # Munge trusts no folder that others can write to, but for a sticky /tmp; a socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        configuration = folder / "slurm.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                host=socket.gethostname().partition(".")[0],
                controller_port=_free_port(),
                node_port=_free_port(),
                folder=folder,
                cpus=cpus,
            )
        )
        for part in ("state", "spool"):
            (folder / part).mkdir()
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o600)
        files = {
            "key-file": "key",
            "socket": "socket",
            "pid-file": "pid",
            "log-file": "log",
            "seed-file": "seed",
        }
        options = [f"--{option}={folder / 'munge'}.{ending}" for option, ending in files.items()]
        stack.enter_context(_daemon(["munged", "--foreground", *options], folder))
        _wait(lambda: (folder / "munge.socket").exists(), folder)
        for daemon in ("slurmctld", "slurmd"):
            stack.enter_context(_daemon([daemon, "-D", "-f", str(configuration)], folder))
        _wait(lambda: "idle" in _answer(configuration, "sinfo", "--noheader", "--format=%T"), folder)
        try:
            yield configuration
        finally:
            _answer(configuration, "scancel", "--user=root")
            with contextlib.suppress(TimeoutError):
                _wait(lambda: not _answer(configuration, "squeue", "--noheader"), folder)


@contextlib.contextmanager
def _daemon(command: list[str], folder: Path) -> Iterator[None]:
    with (folder / f"{command[0]}.out").open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PATH": _path()},
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _path() -> str:
    """Debian's daemons are in sbin, which is not on everybody's PATH."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def _answer(configuration: Path, *command: str) -> str:
    environment = {**os.environ, "SLURM_CONF": str(configuration)}
    answer = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    return answer.stdout.strip()


def _wait(ready: Callable[[], bool], folder: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while not ready():
        if time.monotonic() > end:
            logs = {path.name: path.read_text(errors="replace")[-1000:] for path in folder.glob("*.log")}
            raise TimeoutError(f"Slurm is not ready: {logs}")
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    with slurm_cluster() as path, contextlib.suppress(KeyboardInterrupt):
        print(f"export SLURM_CONF={path}", flush=True)
        signal.pause()
