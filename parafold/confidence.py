"""Confidence from head logits: pLDDT, predicted aligned error, pTM, ipTM (Suppl. 1.9.6, 1.9.7). numpy only.

A matrix of 64 logits per residue pair is the largest thing a prediction leaves behind, so everything that
reads it goes by blocks of rows and never holds a second copy.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num

_ROWS = 64
MIN_TM_RESIDUES = 19  # below it the TM-score's d0 has no meaning
IPTM_WEIGHT = 0.8  # of ipTM in the ranking of complexes; the rest is pTM's


def plddt(logits: Float[np.ndarray, "r bins"]) -> Float[np.ndarray, " r"]:
    """Suppl. Alg. 29, predicted lDDT of the CA atom of each residue, 0 to 100."""
    bins = logits.shape[-1]
    centers = (np.arange(bins, dtype=np.float32) + 0.5) / bins
    return 100.0 * _expectation(logits, centers)


def aligned_error(
    logits: Float[np.ndarray, "r r bins"], breaks: Float[np.ndarray, " bins-1"]
) -> tuple[Float[np.ndarray, "r r"], float]:
    """Suppl. 1.9.7, predicted aligned error in Å.

    Entry [i, j] is the expected error of residue j when prediction and truth are aligned on residue i.

    Returns:
        The matrix, and the largest value it can take.
    """
    centers = _bin_centers(breaks)
    return _expectation(logits, centers), float(centers[-1])


def tm_score(
    logits: Float[np.ndarray, "r r bins"],
    breaks: Float[np.ndarray, " bins-1"],
    asym_id: Num[np.ndarray, " r"] | None = None,
) -> float:
    """Suppl. 1.9.7 eq. 38, predicted TM-score (pTM); with `asym_id`, that of the interfaces (ipTM).

    ipTM counts only pairs of residues from different chains and is 0 for a single chain.
    """
    length = logits.shape[0]
    d0 = 1.24 * (max(length, MIN_TM_RESIDUES) - 15) ** (1.0 / 3.0) - 1.8
    expected = _expectation(logits, 1.0 / (1.0 + np.square(_bin_centers(breaks)) / d0**2))
    interfaces_only = asym_id is not None
    pairs = asym_id[:, None] != asym_id[None, :] if interfaces_only else np.ones((length, length), bool)
    per_alignment = np.sum(expected * pairs, axis=-1) / (1e-8 + np.sum(pairs, axis=-1))
    return float(per_alignment.max())


def metrics(
    plddt_logits: Float[np.ndarray, "r bins"],
    pae_logits: Float[np.ndarray, "r r pae_bins"] | None = None,
    pae_breaks: Float[np.ndarray, " pae_bins-1"] | None = None,
    asym_id: Num[np.ndarray, " r"] | None = None,
    *,
    multimer: bool = False,
) -> dict[str, Any]:
    """All confidences of one prediction, under AlphaFold's names.

    `predicted_aligned_error`, `max_predicted_aligned_error` and `ptm` are there when the model has that head,
    `iptm` for multimers. `ranking_confidence` is the mean pLDDT of a monomer (0 to 100) and
    0.8 ipTM + 0.2 pTM of a multimer (0 to 1).
    """
    found: dict[str, Any] = {"plddt": plddt(plddt_logits)}
    if pae_logits is not None and pae_breaks is not None:
        pae, largest = aligned_error(pae_logits, pae_breaks)
        found["predicted_aligned_error"] = pae
        found["max_predicted_aligned_error"] = largest
        found["ptm"] = tm_score(pae_logits, pae_breaks)
        if multimer:
            if asym_id is None:
                raise ValueError("the ipTM of a multimer needs asym_id")
            found["iptm"] = tm_score(pae_logits, pae_breaks, asym_id)
    if multimer:
        found["ranking_confidence"] = IPTM_WEIGHT * found["iptm"] + (1.0 - IPTM_WEIGHT) * found["ptm"]
    else:
        found["ranking_confidence"] = float(np.mean(found["plddt"]))
    return found


def metrics_of_outputs(outputs: Mapping[str, Any], *, multimer: bool) -> dict[str, Any]:
    """`metrics` of the model's output tree (`predicted_lddt`, `predicted_aligned_error`)."""
    pae = outputs.get("predicted_aligned_error", {})
    return metrics(
        outputs["predicted_lddt"]["logits"],
        pae.get("logits"),
        pae.get("breaks"),
        pae.get("asym_id"),
        multimer=multimer,
    )


def probabilities(logits: Float[np.ndarray, "*axes bins"]) -> Float[np.ndarray, "*axes bins"]:
    """Softmax over the last axis."""
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def chain_breaks(chain_index: Int[np.ndarray, " r"]) -> list[int]:
    """Positions at which a new chain begins, without the first."""
    return [int(i) + 1 for i in np.flatnonzero(np.diff(chain_index))]


def _bin_centers(breaks: np.ndarray) -> np.ndarray:
    step = breaks[1] - breaks[0]
    return np.append(breaks + step / 2, breaks[-1] + 1.5 * step)


def _expectation(logits: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The mean of `values` under softmax(logits) over the last axis."""
    result = np.empty(logits.shape[:-1], np.float32)
    for start in range(0, logits.shape[0], _ROWS):
        block = logits[start : start + _ROWS].astype(np.float32)
        block = np.exp(block - block.max(axis=-1, keepdims=True))
        result[start : start + _ROWS] = (block @ values) / block.sum(axis=-1)
    return result
