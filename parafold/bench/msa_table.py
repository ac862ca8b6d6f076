"""The 2023 course report's measurements of MSA construction, and what a few parameters explain of them.

The report gave one process to each of three databases and streamed these in chunks over the network
(COMPSCI 267, group 40; jackhmmer on Perlmutter; its Table 1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from parafold.bench.simulate import Machine, Task, simulate

LENGTHS = (16, 32, 64, 96)
PROCESSORS = (1, 2, 3)
MINUTES = np.array([[30.0, 28, 22], [52, 41, 29], [119, 83, 58], [143, 90, 62]])
# In the order in which the report's processes took them.
CHUNKS = {"uniref90": 59, "small_bfd": 17, "mgnify": 71}


@dataclass(frozen=True)
class Lanes:
    """How the report's search spends its time, minutes a chunk.

    Attributes:
        compute: for each of the four lengths.
        download: over the network connection that all processes share.
        small_bfd: by how much more a chunk of small BFD computes than one of the other two databases.
        crowding: by how much of itself each further process lengthens all computing.
    """

    compute: tuple[float, ...]
    download: float = 0.0
    small_bfd: float = 1.0
    crowding: float = 0.0

    def minutes(self) -> Float[np.ndarray, "4 3"]:
        """What the simulator predicts for each length and number of processors of the table."""
        return np.array([[self._minutes(c, processors) for processors in PROCESSORS] for c in self.compute])

    def _minutes(self, compute: float, processors: int) -> float:
        weight = {"small_bfd": self.small_bfd}
        tasks = [Task(n * compute * weight.get(name, 1.0), n, name) for name, n in CHUNKS.items()]
        bandwidth = 1 / self.download if self.download else np.inf
        machine = Machine(processors, bandwidth=bandwidth, crowding=self.crowding)
        return simulate(tasks, machine, schedule="static").seconds


@dataclass(frozen=True)
class Explanation:
    """A family of `Lanes` with free parameters, all positive.

    Attributes:
        start: from where the fit sets out, by parameter.
    """

    name: str
    start: dict[str, float]
    lanes: Callable[[Float[np.ndarray, "parameters"]], Lanes]


def _power(p: Float[np.ndarray, "..."]) -> tuple[float, ...]:
    return tuple(float(p[0] * (length / 64) ** p[1]) for length in LENGTHS)


_FREE = {f"compute {length}": 0.0105 * length for length in LENGTHS}
EXPLANATIONS = (
    Explanation(
        "compute linear in length",
        {"per residue": 0.011},
        lambda p: Lanes(tuple(float(p[0] * length) for length in LENGTHS)),
    ),
    Explanation(
        "linear; shared download",
        {"per residue": 0.011, "download": 0.16},
        lambda p: Lanes(tuple(float(p[0] * length) for length in LENGTHS), float(p[1])),
    ),
    Explanation(
        "power of length; shared download",
        {"compute 64": 0.7, "exponent": 0.9, "download": 0.15},
        lambda p: Lanes(_power(p), float(p[2])),
    ),
    Explanation(
        "power; download; small BFD's chunks",
        {"compute 64": 0.7, "exponent": 0.9, "download": 0.15, "small_bfd": 1.5},
        lambda p: Lanes(_power(p), float(p[2]), float(p[3])),
    ),
    Explanation(
        "any compute at each length; download",
        {**_FREE, "download": 0.15},
        lambda p: Lanes(tuple(map(float, p[:4])), float(p[4])),
    ),
    Explanation(
        "any; download; more processes slow all",
        {**_FREE, "download": 0.15, "crowding": 0.04},
        lambda p: Lanes(tuple(map(float, p[:4])), float(p[4]), crowding=float(p[5])),
    ),
    Explanation(
        "any; download; small BFD's chunks",
        {**_FREE, "download": 0.15, "small_bfd": 1.5},
        lambda p: Lanes(tuple(map(float, p[:4])), float(p[4]), float(p[5])),
    ),
)


@dataclass(frozen=True)
class Fit:
    """An explanation's best parameters.

    Attributes:
        error: root mean square relative error over the table.
        held_out: the same over cells that the fit did not see, one left out at a time.
    """

    explanation: Explanation
    parameters: dict[str, float]
    minutes: Float[np.ndarray, "4 3"]
    error: float
    held_out: float


def fit(explanation: Explanation) -> Fit:
    """Fit an explanation to the table by relative error."""

    def lanes(logs: Float[np.ndarray, "parameters"]) -> Float[np.ndarray, "cells"]:
        return np.log(explanation.lanes(np.exp(logs)).minutes().ravel())

    measured = np.log(MINUTES.ravel())
    start = np.log(list(explanation.start.values()))
    best = _descend(lambda logs: lanes(logs) - measured, start)
    minutes = np.exp(lanes(best)).reshape(MINUTES.shape)
    surprises = []
    for cell in range(measured.size):
        kept = np.arange(measured.size) != cell
        logs = _descend(lambda logs, kept=kept: (lanes(logs) - measured)[kept], best)
        surprises.append(np.exp((lanes(logs) - measured)[cell]) - 1)
    parameters = dict(zip(explanation.start, np.exp(best).tolist(), strict=True))
    return Fit(explanation, parameters, minutes, _rms(minutes / MINUTES - 1), _rms(np.array(surprises)))


def _rms(errors: np.ndarray) -> float:
    return float(np.sqrt(np.mean(errors**2)))


def _descend(
    residuals: Callable[[np.ndarray], np.ndarray], start: Float[np.ndarray, "parameters"], steps: int = 40
) -> Float[np.ndarray, "parameters"]:
    """Least squares by Levenberg and Marquardt's method, with a Jacobian of differences."""
    at, damping = start, 1e-2
    found = residuals(at)
    for _ in range(steps):
        jacobian = np.stack([residuals(at + step) - found for step in 1e-4 * np.eye(len(at))], axis=1) / 1e-4
        normal = jacobian.T @ jacobian
        while damping < 1e6:
            # Damped by a constant, not by the diagonal: a parameter that changes nothing must not run away.
            step = np.linalg.solve(normal + damping * np.eye(len(at)), -jacobian.T @ found)
            tried = residuals(at + step)
            if tried @ tried < found @ found:
                break
            damping *= 4
        else:
            break
        gained = (found @ found - tried @ tried) / (found @ found)
        at, found, damping = at + step, tried, damping / 8
        if gained < 1e-9:
            break
    return at
