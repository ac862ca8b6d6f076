"""Plots of the MSA experiments."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import FuncFormatter
from msa_records import critical_path, last_run, median

from parafold.bench import msa_table

COLOURS = {"serial": "0.3", "static": "tab:orange", "ours": "tab:blue"}


def plot_scaling(results: Path) -> Path:
    """Table 1, runtime by length, speedup by workers, and the baseline, as far as they were measured."""
    figure, axes = plt.subplots(2, 2, figsize=(11, 8.5), layout="constrained")
    _report(axes[0, 0])
    _lengths(axes[0, 1], last_run("lengths", results))
    _workers(axes[1, 0], last_run("workers", results))
    _baseline(axes[1, 1], last_run("baseline", results))
    path = results.with_suffix(".png")
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def plot_prediction(curves: Sequence[dict[str, Any]], results: Path) -> Path:
    """Predicted time by processors, one panel for each number of queries."""
    counts = sorted({curve["queries"] for curve in curves})
    figure, axes = plt.subplots(
        1, len(counts), figsize=(5.5 * len(counts), 4.8), squeeze=False, layout="constrained"
    )
    for axis, count in zip(axes[0], counts, strict=True):
        chosen = [curve for curve in curves if curve["queries"] == count]
        limits = sorted({c["bandwidth_gb"] for c in chosen if c["bandwidth_gb"] is not None})
        shades = dict(
            zip([*limits, None], plt.colormaps["viridis"](np.linspace(0.85, 0, len(limits) + 1)), strict=True)
        )
        for curve in chosen:
            special = {"static": ("tab:orange", "--"), "ours, BFD by hhblits": ("tab:red", ":")}
            colour, line = special.get(curve["case"], (shades[curve["bandwidth_gb"]], "-"))
            disk = (
                "no disk limit" if curve["bandwidth_gb"] is None else f"disk {curve['bandwidth_gb']:g} GB/s"
            )
            label = f"{curve['case']}, {disk}" if curve["case"] == "ours" else curve["case"]
            axis.plot(curve["processors"], curve["seconds"], line, color=colour, label=label)
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        _plain(axis)
        axis.set(xlabel="processors", ylabel="predicted seconds")
        axis.set_title(
            f"{count} {'query' if count == 1 else 'queries'} of {chosen[0]['length']} residues, 204 GB"
        )
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    path = results.with_suffix(".png")
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def plot_table(fits: Sequence[Any], results: Path) -> Path:
    """Table 1 (points) and what explains it with two and with six parameters (broken lines)."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True, layout="constrained")
    for axis, fit in zip(axes, (fits[1], fits[-1]), strict=True):
        _report(axis)
        for row, colour in zip(fit.minutes, _LENGTH_COLOURS, strict=True):
            axis.plot(msa_table.PROCESSORS, row, "--", color=colour)
        axis.set(ylim=(0, 1.2 * msa_table.MINUTES.max()))
        axis.set_title(
            f"{fit.explanation.name}: {len(fit.parameters)} parameters, {fit.error:.1%}", fontsize=10
        )
    path = results.with_name("msa_table.png")
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


_LENGTH_COLOURS = plt.colormaps["viridis"](np.linspace(0.85, 0.1, len(msa_table.LENGTHS)))


def _report(axis: Any) -> None:
    for length, minutes, colour in zip(msa_table.LENGTHS, msa_table.MINUTES, _LENGTH_COLOURS, strict=True):
        axis.plot(msa_table.PROCESSORS, minutes, "o-", color=colour, label=f"{length} residues", lw=1, ms=4)
    axis.set(xlabel="processors", ylabel="minutes", xticks=msa_table.PROCESSORS, ylim=(0, None))
    axis.set_title("the 2023 report's Table 1")
    axis.legend(fontsize=8)


def _lengths(axis: Any, records: Sequence[dict[str, Any]]) -> None:
    points = defaultdict(lambda: defaultdict(list))
    for record in records:
        if record["case"] in ("serial", "static 2", "ours 2"):
            points[record["case"]][record["lengths"][0]].append(record)
    for case, by_length in points.items():
        lengths = sorted(by_length)
        colour = COLOURS[case.split()[0]]
        axis.loglog(lengths, [median(by_length[n]) for n in lengths], "o-", label=case, color=colour, base=2)
    if points:
        _plain(axis)
        axis.set(xlabel="query residues", ylabel="wall seconds")
        axis.set_title(f"measured here, {sum(records[0]['databases'].values()) / 1e6:.0f} MB, two cores")
        axis.legend(fontsize=8)


def _workers(axis: Any, records: Sequence[dict[str, Any]]) -> None:
    records = [record for record in records if "tasks" in record]
    serial = median([r for r in records if r["case"] == "serial"], "cpu_seconds")
    points = defaultdict(lambda: defaultdict(list))
    for record in records:
        points[record["case"].split()[0]][record["workers"]].append(critical_path(record, overheads=False))
    points["ours"][1] = points["static"][1] = points.pop("serial", {}).get(1, [])
    most = max((max(by_workers) for by_workers in points.values()), default=1)
    for case, by_workers in points.items():
        if len(by_workers) > 1:
            counts = sorted(by_workers)
            speedups = [serial / np.median(by_workers[n]) for n in counts]
            axis.plot(counts, speedups, "o-", label=case, color=COLOURS[case])
    axis.plot([1, most], [1, most], color="0.7", lw=1, zorder=0)
    reported = msa_table.MINUTES[3, 0] / msa_table.MINUTES[3]
    axis.plot(msa_table.PROCESSORS, reported, "s:", label="2023 report, 96 residues", color="tab:red")
    axis.set(xlabel="workers", ylabel="speedup by CPU time of the busiest worker")
    axis.set_title("one query, three databases")
    axis.legend(fontsize=8)


def _baseline(axis: Any, records: Sequence[dict[str, Any]]) -> None:
    points = defaultdict(lambda: defaultdict(list))
    for record in records:
        points[record["engine"]][record["lengths"][0]].append(record)
    for engine, by_length in points.items():
        lengths = sorted(by_length)
        axis.loglog(lengths, [median(by_length[n]) for n in lengths], "o-", label=engine, base=2)
    if points:
        _plain(axis)
        axis.set(xlabel="query residues", ylabel="wall seconds")
        axis.set_title(f"one process, {sum(records[0]['databases'].values()) / 1e6:.0f} MB")
        axis.legend(fontsize=8)


def _plain(axis: Any) -> None:
    """Plain numbers on both logarithmic axes."""
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
