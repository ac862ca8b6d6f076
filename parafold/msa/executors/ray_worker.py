"""What a Ray worker process does on its node. Only paths and bytes travel, no objects of a search library."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import resource
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from parafold.errors import ParafoldError
from parafold.msa.plan import Plan, result_path
from parafold.msa.worker import run_task

Package = dict[str, bytes]


class Outcome(NamedTuple):
    """Of a task: `result` is its file where the node does not see the plan's folder (`unseen`: nor had its
    bytes), `error` the kind and message of what it raised."""

    result: bytes = b""
    unseen: bool = False
    error: tuple[str, str] | None = None


def do_task(folder: str, digest: str, number: int, package: list[Any]) -> Outcome:
    """Do one task of the plan in `folder` whose plan.json has this digest: in that folder if this node sees
    it, otherwise in one made of `package`, which holds a reference to what `pack` made, or nothing."""
    try:
        if _sees(Path(folder), digest):
            _run_task(Path(folder), number)
            return Outcome()
        if not package:
            return Outcome(unseen=True)
        # For this task only: Ray kills its processes, which leaves them no time to tidy up.
        with tempfile.TemporaryDirectory(prefix="parafold-") as name:
            _unpack(package[0], Path(name))
            _run_task(Path(name), number)
            return Outcome(result_path(Path(name), number).read_bytes())
    except ParafoldError as error:
        return Outcome(error=(type(error).__name__, str(error)))
    except MemoryError:
        return Outcome(error=("SearchError", "out of memory; give workers more (--max-memory) or use fewer"))


def pack(folder: Path) -> Package:
    """What a task needs of a plan's folder: name -> content."""
    paths = [folder / "plan.json", *(folder / "prepared").iterdir()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def _sees(folder: Path, digest: str) -> bool:
    try:
        return hashlib.sha256((folder / "plan.json").read_bytes()).hexdigest() == digest
    except OSError:
        return False


def _unpack(package: Any, folder: Path) -> None:
    import ray

    content: Package = ray.get(package)
    for name, data in content.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)


def _run_task(folder: Path, number: int) -> None:
    _limit_memory(Plan.load(folder).memory)
    run_task(folder, number)


@functools.cache
def _limit_memory(size: int) -> None:
    """Keeps tasks to the plan's memory, beside what Ray's own threads hold. What needs more fails by itself;
    a process that is killed for lack of memory would be started again and again."""
    limit = size + _allocated()
    with contextlib.suppress(ValueError, OSError):  # a lower limit holds already, or the system has none
        resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def _allocated() -> int:
    """Bytes of private memory that this process has asked for; 0 where there is no /proc."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmData:"):
                return int(line.split()[1]) << 10
    return 0
