"""All tasks in this process, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from parafold.msa.executors.base import Executor
from parafold.msa.worker import run_task


class SerialExecutor(Executor):
    """Starts nothing, whatever number of workers is asked for."""

    def run(self, folder: Path, tasks: Sequence[int]) -> Iterator[int]:
        for number in tasks:
            run_task(folder, number)
            yield number
