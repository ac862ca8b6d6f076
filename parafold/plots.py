"""The three pictures of a prediction: MSA coverage, pLDDT along the chain, predicted aligned error.

Every function returns PNG bytes. matplotlib is used through its objects, without pyplot: nothing global
changes and a plot can be drawn in any thread.
"""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import MaxNLocator

# AlphaFold's confidence bands: lower bound, colour, name.
BANDS = (
    (90.0, "#0053D6", "very high"),
    (70.0, "#65CBF3", "confident"),
    (50.0, "#FFDB13", "low"),
    (0.0, "#FF7D45", "very low"),
)
_GAP = 21
_GREY = "#5A5A5A"
_COLORMAP = "cividis"  # even in lightness and readable with every kind of colour vision


def msa_coverage(
    msa: Int[np.ndarray, "n r"],
    mask: Bool[np.ndarray, "n r"] | None = None,
    *,
    chain_starts: Sequence[int] = (),
    title: str = "",
) -> bytes:
    """Aligned sequences, closest at the bottom, coloured by identity with the query; the line is the depth.

    Args:
        msa: residue numbers of the alignment, the query first, 21 for a gap.
        mask: False where a row is padding.
        chain_starts: first residues of the chains after the first.
    """
    covered = msa != _GAP
    if mask is not None:
        covered &= mask
    used = covered.any(axis=1)
    covered = covered[used]
    identity = np.sum((msa[used] == msa[0]) & covered, axis=1) / covered.sum(axis=1)
    order = np.lexsort((-covered.sum(axis=1), -identity))
    picture = np.where(covered, identity[:, None], np.nan)[order]
    depth, length = picture.shape

    figure, axes = _figure(7.2, 3.6)
    image = axes.imshow(
        picture,
        aspect="auto",
        interpolation="nearest",
        cmap=_COLORMAP,
        vmin=0,
        vmax=1,
        extent=(0.5, length + 0.5, depth + 0.5, 0.5),
    )
    (line,) = axes.plot(np.arange(1, length + 1), covered.sum(axis=0), color="black", linewidth=1.4)
    line.set_path_effects([Stroke(linewidth=3.2, foreground="white"), Normal()])
    axes.set_xlim(0.5, length + 0.5)
    axes.set_ylim(0.5, depth * 1.04 + 0.5)
    _mark_chains(axes, chain_starts, vertical_only=True)
    axes.set_xlabel("residue")
    axes.set_ylabel("sequences")
    axes.set_title(
        _titled(title, f"MSA coverage, {depth:,} sequence{'s' if depth != 1 else ''}"), fontsize=10
    )
    bar = figure.colorbar(image, ax=axes, pad=0.02)
    bar.set_label("identity with the query")
    return _png(figure)


def plddt(
    predictions: Mapping[str, Float[np.ndarray, " r"]],
    *,
    chain_starts: Sequence[int] = (),
    title: str = "",
) -> bytes:
    """pLDDT along the residues over AlphaFold's confidence bands; the first prediction is the bold line."""
    figure, axes = _figure(7.2, 3.2)
    length = len(next(iter(predictions.values())))
    top = 100.0
    for lower, color, name in BANDS:
        axes.axhspan(lower, top, color=color, alpha=0.28, linewidth=0)
        axes.text(
            1.01,
            (lower + top) / 2,
            name,
            transform=axes.get_yaxis_transform(),
            va="center",
            fontsize=8,
            color=_GREY,
        )
        top = lower
    residues = np.arange(1, length + 1)
    for rank, (name, values) in reversed(list(enumerate(predictions.items()))):
        best = rank == 0
        axes.plot(
            residues,
            values,
            color="black" if best else _GREY,
            linewidth=1.5 if best else 0.7,
            alpha=1.0 if best else 0.6,
            marker="o" if length == 1 else None,
            label=f"{name} (mean {np.mean(values):.1f})" if best else None,
        )
    if len(predictions) > 1:
        axes.plot([], [], color=_GREY, linewidth=0.7, alpha=0.6, label=f"{len(predictions) - 1} more")
    axes.set_xlim(0.5, length + 0.5)
    axes.set_ylim(0, 100)
    _mark_chains(axes, chain_starts, vertical_only=True)
    axes.set_xlabel("residue")
    axes.set_ylabel("pLDDT")
    axes.set_title(_titled(title, "confidence per residue"), fontsize=10)
    axes.legend(loc="lower left", fontsize=8, framealpha=0.85)
    return _png(figure)


def pae(
    predicted_aligned_error: Float[np.ndarray, "r r"],
    largest: float,
    *,
    chain_starts: Sequence[int] = (),
    title: str = "",
) -> bytes:
    """Predicted aligned error in Å: aligned residue downwards, scored residue to the right."""
    length = predicted_aligned_error.shape[0]
    figure, axes = _figure(5.2, 4.4)
    image = axes.imshow(
        predicted_aligned_error,
        cmap=_COLORMAP,
        vmin=0,
        vmax=largest,
        interpolation="nearest",
        extent=(0.5, length + 0.5, length + 0.5, 0.5),
    )
    _mark_chains(axes, chain_starts, vertical_only=False)
    axes.set_xlabel("scored residue")
    axes.set_ylabel("aligned residue")
    axes.set_title(_titled(title, "predicted aligned error", separator="\n"), fontsize=10)
    bar = figure.colorbar(image, ax=axes, pad=0.03, fraction=0.046)
    bar.set_label("expected position error (Å)")
    return _png(figure)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=160, layout="constrained")
    axes = figure.add_subplot()
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _mark_chains(axes: Axes, starts: Sequence[int], *, vertical_only: bool) -> None:
    for start in starts:
        for draw in (axes.axvline,) if vertical_only else (axes.axvline, axes.axhline):
            # White under black shows on dark and on light ground.
            draw(start + 0.5, color="white", linewidth=2.2)
            draw(start + 0.5, color="black", linewidth=1.0)


def _titled(title: str, what: str, separator: str = ": ") -> str:
    if not title:
        return what
    return f"{title if len(title) <= 50 else title[:47] + '...'}{separator}{what}"


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # No version in the file: the same prediction gives the same bytes.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
