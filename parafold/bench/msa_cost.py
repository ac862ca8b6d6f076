"""What a search task costs, fitted to measured tasks, and the tasks of databases that are not there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float

from parafold.bench.simulate import Task
from parafold.msa.plan import MAX_SHARD_BYTES, TASKS_PER_WORKER
from parafold.msa.results import TaskRecord

GB = 1e9
# Sizes of the FASTA files of AlphaFold's databases, bytes.
PUBLISHED_BYTES = {"uniref90": 67 * GB, "mgnify": 120 * GB, "small_bfd": 17 * GB}
# The step of the system's CPU clock.
CLOCK_SECONDS = 0.01


@dataclass(frozen=True)
class CostModel:
    """CPU seconds of a task, a sum of four terms, none negative.

    Attributes:
        per_task: for starting it and writing its result.
        per_byte: for reading and parsing, once a task.
        per_residue: for each database residue and query, whatever the query's length.
        per_cell: for each database residue and query residue.
        residues_per_byte: of the databases it was fitted to.
        error: root mean square relative error over the tasks it was fitted to.
    """

    per_task: float
    per_byte: float
    per_residue: float
    per_cell: float
    residues_per_byte: float
    error: float = 0.0

    def seconds(self, size: float, lengths: Sequence[int]) -> float:
        """CPU seconds of searching `size` bytes for queries of these lengths."""
        terms = _terms(size, size * self.residues_per_byte, len(lengths), sum(lengths))
        return float(terms @ [self.per_task, self.per_byte, self.per_residue, self.per_cell])


def fit(tasks: Iterable[TaskRecord]) -> CostModel:
    """The model of least squared relative error.

    Raises:
        ValueError: no task.
    """
    tasks = list(tasks)
    if not tasks:
        raise ValueError("the fit needs measured tasks")
    terms = np.array([_terms(t.bytes, t.residues, t.queries, t.query_residues) for t in tasks])
    cpu = np.array([task.cpu_seconds for task in tasks])
    # What takes less than the clock can tell apart shall not decide.
    scale = np.maximum(cpu, CLOCK_SECONDS)
    weights = _least_squares(terms / scale[:, None], cpu / scale)
    error = float(np.sqrt(np.mean(((terms @ weights - cpu) / scale) ** 2)))
    density = sum(task.residues for task in tasks) / sum(task.bytes for task in tasks)
    return CostModel(*(float(weight) for weight in weights), residues_per_byte=density, error=error)


def tasks_for(
    sizes: Mapping[str, float],
    lengths: Sequence[int],
    cost: CostModel,
    workers: int,
    whole: Mapping[str, Task] | None = None,
) -> list[Task]:
    """The tasks of searching databases of these sizes (bytes) for queries of these lengths, cut as a plan for
    these workers cuts them; and those of databases that cannot be cut, as they are in `whole`."""
    total = sum(sizes.values())
    tasks = list((whole or {}).values())
    for name, size in sizes.items():
        fair = math.ceil(TASKS_PER_WORKER * workers * size / total) if workers > 1 else 1
        count = max(fair, math.ceil(size / MAX_SHARD_BYTES))
        cpu = cost.seconds(size / count, lengths)
        tasks += [Task(cpu, size / count, name, source=f"{name} {index}") for index in range(count)]
    return tasks


def _terms(size: float, residues: float, queries: int, query_residues: int) -> Float[np.ndarray, "4"]:
    return np.array([1.0, size, residues * queries, residues * query_residues])


def _least_squares(
    matrix: Float[np.ndarray, "rows terms"], values: Float[np.ndarray, "rows"]
) -> Float[np.ndarray, "terms"]:
    """The weights, none negative, of least squared error: the best over all choices of which are zero."""
    scale = np.maximum(np.abs(matrix).max(axis=0), 1e-300)
    terms = matrix.shape[1]
    best, least = np.zeros(terms), float(values @ values)
    for count in range(1, terms + 1):
        for chosen in combinations(range(terms), count):
            columns = list(chosen)
            weights, *_ = np.linalg.lstsq(matrix[:, columns] / scale[columns], values, rcond=None)
            error = float(np.sum((matrix[:, columns] / scale[columns] @ weights - values) ** 2))
            if (weights >= 0).all() and error < least:
                best = np.zeros(terms)
                best[columns], least = weights / scale[columns], error
    return best
