"""A worker does tasks of a plan. As a program it is told their numbers, one a line, and answers each line:

    python -m parafold.msa.worker FOLDER

It ends as soon as its input does, so that no worker outlives the process that started it.
"""

from __future__ import annotations

import contextlib
import functools
import json
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

from parafold.errors import ParafoldError, SearchError
from parafold.msa.database import file_size
from parafold.msa.engines import Engine
from parafold.msa.plan import Plan, load_prepared, result_path
from parafold.msa.results import Result, ResultWriter, TaskRecord
from parafold.msa.sealed import DamagedError

_Opened = tuple[Plan, list[Engine], dict[str, dict[int, bytes]]]


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
        for chunk in engine.search(queries, database, task.shard, plan.memory):
            writer.add(chunk)
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
    return plan, engines, {engine.name: load_prepared(folder, engine.name) for engine in engines}


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _peak_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * max(
        resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )


def _main(folder: Path) -> None:
    # Ctrl-C in a terminal reaches workers too: their parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What libraries print must not be taken for answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    numbers: SimpleQueue[int] = SimpleQueue()
    threading.Thread(target=_listen, args=(numbers,), daemon=True).start()
    limited = False
    while True:
        number = numbers.get()
        answer: dict[str, int | str] = {"task": number}
        try:
            if not limited:
                limit_memory(Plan.load(folder).memory)
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


def limit_memory(size: int) -> None:
    """Let this process allocate no more than `size` bytes: what needs more fails by itself, instead of being
    killed together with others."""
    with contextlib.suppress(ValueError, OSError):  # a lower limit holds already, or the system has none
        resource.setrlimit(resource.RLIMIT_DATA, (size, resource.getrlimit(resource.RLIMIT_DATA)[1]))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
