"""Where tasks run: in this process, in many, on a Ray cluster, as Slurm jobs."""

from parafold.msa.executors.base import EXECUTORS, Executor, make_executor

__all__ = ["EXECUTORS", "Executor", "make_executor"]
