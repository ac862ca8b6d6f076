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
    place, shared = Path(folder), True
    try:
        if not _sees(place, digest):
            if not package:
                return Outcome(unseen=True)
            place, shared = Path(_unpacked(digest, *package).name), False
        _limit_memory(place)
        run_task(place, number)
        if shared:
            return Outcome()
        path = result_path(place, number)
        result = path.read_bytes()
        path.unlink()
        return Outcome(result)
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


@functools.lru_cache(maxsize=1)
def _unpacked(digest: str, package: Any) -> tempfile.TemporaryDirectory[str]:
    """A folder made of the package, which lives as long as this process, or until there is another plan."""
    import ray

    folder = tempfile.TemporaryDirectory(prefix="parafold-", ignore_cleanup_errors=True)
    content: Package = ray.get(package)
    for name, data in content.items():
        path = Path(folder.name) / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    return folder


@functools.cache
def _limit_memory(folder: Path) -> None:
    """Keeps the tasks to the plan's memory, beside what Ray's own threads hold. What needs more fails by itself;
    a process that is killed for lack of memory would be started again and again."""
    limit = Plan.load(folder).memory + _allocated()
    with contextlib.suppress(ValueError, OSError):  # a lower limit holds already, or the system has none
        resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def _allocated() -> int:
    """Bytes of private memory that this process has asked for; 0 where there is no /proc."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmData:"):
                return int(line.split()[1]) << 10
    return 0
