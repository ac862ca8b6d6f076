"""Pictures of a search: how deep its alignment is, and which worker did which task when. PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from parafold.errors import InputError
from parafold.features.raw import msa_features
from parafold.msa.results import TaskRecord
from parafold.plots import msa_coverage
from parafold.protein.alignment import Msa

# Told apart with every kind of colour vision (Okabe and Ito).
_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")


def plot_depth(msa: Msa, title: str = "") -> bytes:
    """The aligned rows, closest to the query at the bottom, and the depth at each residue (the line)."""
    return msa_coverage(msa_features([msa])["msa"], title=title)


def plot_timelines(searches: Mapping[str, Sequence[TaskRecord]], workers: int = 1) -> bytes:
    """Searches on one time axis: a row for each worker, a bar for each of its tasks.

    Args:
        searches: title -> the tasks that the search did (`SearchResults.tasks`).
        workers: how many each search was given; those that did nothing are known by it only.

    Raises:
        InputError: a search did no task, as when all was in the cache.
    """
    rows_of = {title: _rows(title, tasks) for title, tasks in searches.items()}
    databases = list(dict.fromkeys(task.database for tasks in searches.values() for task in tasks))
    colors = {name: _COLORS[number % len(_COLORS)] for number, name in enumerate(databases)}
    heights = [max(len(rows), workers) for rows in rows_of.values()]
    figure = Figure(figsize=(7.2, 1.1 + sum(0.5 + 0.34 * rows for rows in heights)), dpi=160)
    figure.set_layout_engine("constrained")
    panels = figure.subplots(len(searches), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axes, count, (title, tasks) in zip(panels, heights, searches.items(), strict=True):
        rows = rows_of[title]
        begin = min(task.started for task in tasks)
        for task in tasks:
            axes.barh(
                rows[task.worker],
                task.wall_seconds,
                left=task.started - begin,
                height=0.72,
                color=colors[task.database],
                edgecolor="white",
                linewidth=0.6,
            )
        seconds = max(task.started + task.wall_seconds for task in tasks) - begin
        busy = sum(task.wall_seconds for task in tasks) / (seconds * count) if seconds else 1.0
        axes.set_yticks(range(count), [f"worker {row + 1}" for row in range(count)], fontsize=8)
        axes.set_ylim(count - 0.5, -0.5)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(
            f"{title}: {len(tasks)} tasks in {seconds:.2f} s, workers busy {busy:.0%} of it",
            fontsize=10,
            loc="left",
        )
    panels[-1].set_xlabel("seconds since the first task began")
    legend = [Patch(color=color, label=name) for name, color in colors.items()]
    figure.legend(
        handles=legend, loc="outside lower center", ncols=min(4, len(legend)), fontsize=8, frameon=False
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _rows(title: str, tasks: Sequence[TaskRecord]) -> dict[str, int]:
    """Worker -> row, in the order in which they began."""
    if not tasks:
        raise InputError(f"{title}: the search did no task; was all in the cache? search with cache=None")
    names = dict.fromkeys(task.worker for task in sorted(tasks, key=lambda task: task.started))
    return {name: row for row, name in enumerate(names)}
