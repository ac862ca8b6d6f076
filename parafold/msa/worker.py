"""A worker does tasks of a plan. As a program it is told their numbers, one a line, and answers each line:

    python -m parafold.msa.worker FOLDER

It ends as soon as its input does, so that no worker outlives the process that started it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import TextIO

from parafold.errors import ParafoldError, SearchError
from parafold.msa.database import file_size
from parafold.msa.engines import Engine
from parafold.msa.engines.base import QueryError
from parafold.msa.plan import Plan, result_path
from parafold.msa.prepared import Prepared
from parafold.msa.results import Result, ResultWriter, TaskRecord
from parafold.msa.sealed import DamagedError

_Opened = tuple[Plan, list[Engine], dict[str, Prepared]]


def run_task(folder: Path, number: int) -> None:
    """Do one task and leave its result in the folder.

    Raises:
        SearchError: the database cannot be read or has changed, or the engine failed.
        OutputError: the result cannot be written.
    """
    plan, engines, prepared = _opened(folder)
    task = plan.tasks[number]
    database, engine = plan.databases[task.database], engines[task.database]
    for file in [task.shard.path] if engine.can_split else database.files:
        if file_size(file) != plan.file_bytes[str(file)]:
            raise SearchError(f"{file}: has changed since the search was planned; start the search again")
    queries = {query: prepared[engine.name][query] for query in task.queries}
    started, wall, cpu = time.time(), time.perf_counter(), _cpu_seconds()
    with ResultWriter(result_path(folder, number), plan.key) as writer:
        try:
            for chunk in engine.search(queries, database, task.shard, plan.memory):
                writer.add(chunk)
        except QueryError as error:
            raise SearchError(f"{_names(plan, error.query)} in {database.name}: {error}") from error
        except MemoryError as error:
            raise SearchError(
                f"{plan.task_name(number)}: searching for {', '.join(_names(plan, q) for q in task.queries)} "
                "takes too much memory; give workers more (--max-memory)"
            ) from error
        record = TaskRecord(
            task=number,
            database=database.name,
            bytes=task.shard.bytes,
            queries=len(queries),
            query_residues=sum(len(plan.sequences[query]) for query in queries),
            sequences=writer.sequences,
            residues=writer.residues,
            started=started,
            cpu_seconds=_cpu_seconds() - cpu,
            wall_seconds=time.perf_counter() - wall,
            peak_bytes=_peak_bytes(),
            worker=f"{socket.gethostname()}:{os.getpid()}",
            oddities=dict(writer.oddities),
        )
        writer.finish(record)


def is_done(folder: Path, number: int) -> bool:
    """Whether a task's result is complete and undamaged; a damaged one is removed."""
    path = result_path(folder, number)
    if not path.exists():
        return False
    try:
        Result(path, _opened(folder)[0].key)
    except DamagedError:
        path.unlink(missing_ok=True)
        return False
    return True


def run_share(folder: Path, index: int, of: int) -> Iterator[int]:
    """Do what is missing of the tasks of worker `index` of `of`; yields the number of each as it is done.

    Raises:
        SearchError, OutputError: see `run_task`.
    """
    for number in _opened(folder)[0].share(index, of):
        if not is_done(folder, number):
            run_task(folder, number)
        yield number


def _opened(folder: Path) -> _Opened:
    try:
        return _read(folder, (folder / "plan.json").stat().st_mtime_ns)
    except OSError:
        return _read(folder, 0)  # says what is wrong with it


@functools.lru_cache(maxsize=4)
def _read(folder: Path, modified_ns: int) -> _Opened:
    plan = Plan.load(folder)
    made: dict[tuple[str, str], Engine] = {}
    engines = []
    for name, options in plan.engines:
        key = (name, json.dumps(options, sort_keys=True))
        engines.append(made.setdefault(key, plan.engine(len(engines))))
    return plan, engines, {engine.name: Prepared(folder, engine.name) for engine in engines}


def _names(plan: Plan, query: int) -> str:
    return " = ".join(name for name, number in plan.names.items() if number == query)


def _cpu_seconds() -> float:
    """Of this process and of the programs that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _peak_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    try:
        # Linux counts in `ru_maxrss` what the process that started this one had in memory then.
        status = Path("/proc/self/status").read_text()
        return unit * max(children, int(status.partition("VmHWM:")[2].split()[0]))
    except (OSError, IndexError):
        return unit * max(children, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _main(folder: Path) -> None:
    # Ctrl-C in a terminal reaches workers too: their parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What libraries print must not be taken for answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    numbers: SimpleQueue[int] = SimpleQueue()
    threading.Thread(target=_listen, args=(numbers,), daemon=True).start()
    logging.getLogger("parafold").addHandler(_LastWords(folder))
    logging.getLogger("parafold").setLevel(logging.INFO)
    limited = False
    while True:
        number = numbers.get()
        answer: dict[str, int | str] = {"task": number}
        try:
            if not limited:
                # The engines' libraries are loaded then, and count.
                limit_memory(_opened(folder)[0].memory)
                limited = True
            run_task(folder, number)
        except ParafoldError as error:
            answer["error"] = f"{type(error).__name__}: {error}"
        except MemoryError:
            answer["error"] = "SearchError: out of memory; give workers more (--max-memory) or use fewer"
        print(json.dumps(answer), file=answers)


def _listen(numbers: SimpleQueue[int]) -> None:
    for line in sys.stdin:
        numbers.put(int(line))
    os._exit(0)


class _LastWords(logging.StreamHandler[TextIO]):
    """What an engine notes before it takes a risk, where the parent looks if this process dies of it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(sys.stderr)
        self._folder = folder

    def format(self, record: logging.LogRecord) -> str:
        query = getattr(record, "query", None)
        name = "" if query is None else f"{_names(_opened(self._folder)[0], query)}: "
        return name + super().format(record)


def limit_memory(size: int) -> None:
    """Keep this process's resident memory below `size` bytes: what needs more fails by itself, instead of
    being killed together with others. The files that are mapped into it, libraries above all, count as if
    they were in memory as a whole; what remains may be allocated."""
    allowed = max(0, size - _mapped_bytes())
    with contextlib.suppress(ValueError, OSError):  # a lower limit holds already, or the system has none
        resource.setrlimit(resource.RLIMIT_DATA, (allowed, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def _mapped_bytes() -> int:
    """The size of the files that are mapped into this process; 0 where there is no /proc."""
    total = 0
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/maps").read_text().splitlines():
            addresses, _, _, _, inode, *_ = line.split(maxsplit=5)
            if inode != "0":
                start, end = (int(address, 16) for address in addresses.split("-"))
                total += end - start
    return total


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
