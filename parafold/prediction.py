"""Prediction: one model's answer for one target. numpy only, so that reading results needs no JAX."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from parafold.protein.residue import RESTYPES_WITH_X
from parafold.protein.structure import Structure

RANDOM_NOTE = (
    "RANDOM PARAMETERS: this structure is meaningless. It shows that the program runs. "
    "Give the published parameters with --weights (parafold weights fetch)."
)


@dataclass(frozen=True)
class Prediction:
    """A structure with its confidences, at the target's true length.

    Attributes:
        atom_positions: Å, 37 atoms a residue; atom_mask is 1 where an atom exists.
        aatype: 0 to 20, 20 for an unknown residue, which has no atoms.
        chain_index: index into chain_ids for each residue.
        plddt: 0 to 100.
        pae: expected error in Å of residue j when aligned on residue i; None for models without that head.
        max_pae: the largest value `pae` can take.
        ranking_confidence: mean pLDDT of a monomer, 0.8 ipTM + 0.2 pTM of a complex.
        num_recycles: passes through the model before the last one.
        weights: file name and digest of the parameters, or what random ones they are.
        seconds: wall time of the steps `features`, `compile`, `predict`.
        outputs: the heads' arrays, flat published names (`distogram/logits`).
    """

    name: str
    model: str
    seed: int
    aatype: Int[np.ndarray, " r"]
    residue_index: Int[np.ndarray, " r"]
    chain_index: Int[np.ndarray, " r"]
    chain_ids: tuple[str, ...]
    atom_positions: Float[np.ndarray, "r 37 3"]
    atom_mask: Float[np.ndarray, "r 37"]
    plddt: Float[np.ndarray, " r"]
    pae: Float[np.ndarray, "r r"] | None
    max_pae: float | None
    ptm: float | None
    iptm: float | None
    ranking_confidence: float
    num_recycles: int
    weights: str
    is_random: bool
    seconds: Mapping[str, float] = field(default_factory=dict)
    outputs: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.aatype)

    @property
    def sequences(self) -> tuple[str, ...]:
        """One-letter sequence of each chain."""
        letters = np.array(list(RESTYPES_WITH_X))[self.aatype]
        return tuple("".join(letters[self.chain_index == i]) for i in range(len(self.chain_ids)))

    @property
    def label(self) -> str:
        """Model and seed as AlphaFold writes them in file names: `model_1_ptm_pred_0`."""
        return label(self.model, self.seed)

    @property
    def mean_plddt(self) -> float:
        return float(np.mean(self.plddt))

    def structure(self) -> Structure:
        """The coordinates, with pLDDT as B-factors."""
        return Structure(
            atom_positions=self.atom_positions,
            atom_mask=self.atom_mask,
            aatype=self.aatype,
            residue_index=self.residue_index,
            chain_index=self.chain_index,
            b_factors=np.repeat(self.plddt[:, None], self.atom_mask.shape[1], axis=1),
            chain_ids=self.chain_ids,
        )


def label(model: str, seed: int) -> str:
    """Model and seed as AlphaFold writes them in file names: `model_1_ptm_pred_0`."""
    return f"{model}_pred_{seed}"
