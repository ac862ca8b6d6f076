"""What an executor is."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from parafold.errors import SearchError

_HOMES = {
    "serial": ("parafold.msa.executors.serial", "SerialExecutor"),
    "processes": ("parafold.msa.executors.processes", "ProcessExecutor"),
    "ray": ("parafold.msa.executors.ray", "RayExecutor"),
    "slurm": ("parafold.msa.executors.slurm", "SlurmExecutor"),
}
EXECUTORS = tuple(_HOMES)


class Executor(ABC):
    """Does the tasks of a plan's folder. A context manager: nothing that it started outlives it."""

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers

    def start(self, folder: Path) -> None:  # noqa: B027
        """May start workers ahead of `run`, while the plan is still being written to the folder."""

    @abstractmethod
    def run(self, folder: Path, tasks: Sequence[int]) -> Iterator[int]:
        """Do the tasks, started in this order; yields each one's number when its result is in the folder.

        Raises:
            SearchError: a task failed, or the executor cannot start.
            OutputError: a result cannot be written.
        """

    def close(self) -> None:  # noqa: B027
        """End everything that this executor started."""

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()


def make_executor(executor: str | Executor, workers: int | None = None, **options: Any) -> Executor:
    """The executor of that name (`serial`, `processes`, `ray`, `slurm`); an executor is returned as it is.

    Raises:
        SearchError: there is none of that name, its package is not installed, or it does not know an option.
    """
    if isinstance(executor, Executor):
        return executor
    if executor not in _HOMES:
        raise SearchError(f"no executor {executor!r}; the executors are {', '.join(EXECUTORS)}")
    module, cls = _HOMES[executor]
    try:
        return getattr(importlib.import_module(module), cls)(workers, **options)
    except TypeError as error:
        raise SearchError(f"executor {executor}: {error}; see its documentation for its options") from error
