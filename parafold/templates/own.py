"""A template that the user brings, aligned to the query by sequence."""

import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from parafold.errors import InputError
from parafold.protein.residue import ATOM_ORDER
from parafold.templates.align import GAP_OPENING, global_alignment
from parafold.templates.entry import TemplateChain, read_chains
from parafold.templates.features import MIN_ATOMS, TemplateFeatures, stack, template_features

# Neighbouring CA atoms are 3.8 Å apart; beyond this residues are missing between them.
_BREAK = 4.5


@dataclass(frozen=True)
class OwnTemplate:
    """A chain of a user's structure, and the id of the chain that it is meant for, if the user named one."""

    path: Path
    name: str
    chain: TemplateChain
    target: str | None = None

    def alignment(self, query: str) -> dict[int, int]:
        """Residue of the query -> residue of the template: global, BLOSUM62, free gaps at its breaks."""
        return global_alignment(query, self.chain.sequence, _gap_opening(self.chain))

    def fit(self, query: str) -> "Fit":
        """How similar the query is."""
        pairs = self.alignment(query)
        same = sum(query[i] == self.chain.sequence[j] != "X" for i, j in pairs.items())
        return Fit(same, len(pairs))

    def features(self, query: str) -> TemplateFeatures:
        """The template features (t = 1) for a query.

        Raises InputError if no residue with coordinates aligns with it.
        """
        label = f"{self.path.name.partition('.')[0].lower()}_{self.name}"
        features = template_features(self.chain, self.alignment(query), len(query), label, sum_probs=0.0)
        if features["template_all_atom_masks"].sum() < MIN_ATOMS:
            raise InputError(
                f"{self.path}: no residue with coordinates of chain {self.name!r} aligns with the query; "
                "give a template of a related protein"
            )
        return stack([features], len(query))


@dataclass(frozen=True)
class Fit:
    """How many of the aligned residues of two sequences are identical."""

    identical: int
    aligned: int

    @property
    def identity(self) -> float:
        return self.identical / self.aligned if self.aligned else 0.0

    @property
    def needed(self) -> float:
        """The identity above which two proteins are alike: Rost's curve (1999), five percent above it."""
        length = max(self.aligned, 1)
        return min(0.9, 0.05 + 4.8 * length ** (-0.32 * (1 + math.exp(-length / 1000))))

    @property
    def is_enough(self) -> bool:
        return self.identity >= self.needed

    def __str__(self) -> str:
        return (
            f"{self.identical} of {self.aligned} aligned residues identical, {self.identity:.0%};"
            f" {self.needed:.0%} needed at this length"
        )


def read_own_template(text: str) -> OwnTemplate:
    """The user's template "FILE", "FILE:CHAIN", or "FILE:CHAIN=TARGET" for the chain TARGET of the input.

    FILE is PDB or mmCIF, CHAIN the author's chain name, which may be left out where there is one protein
    chain only.

    Raises InputError if the file cannot be read or has no such chain.
    """
    before, _, target = text.rpartition("=")
    if not before or not target or Path(text).is_file() or not _file_and_chain(before)[0].is_file():
        before, target = text, ""
    path, wanted = _file_and_chain(before)
    chains = read_chains(path)
    if not chains:
        raise InputError(f"{path}: no protein chain in it; give a PDB or mmCIF file of a protein")
    name = next(iter(chains)) if wanted is None else wanted
    if wanted is None and len(chains) > 1:
        raise InputError(f"{path} has the protein chains {', '.join(chains)}; say which, as in {path}:{name}")
    if name not in chains:
        raise InputError(f"{path}: no protein chain {name!r}; its protein chains are {', '.join(chains)}")
    return OwnTemplate(path, name, chains[name], target or None)


def own_template(path_and_chain: str, query: str) -> TemplateFeatures:
    """The features (t = 1) of a user's template, see `read_own_template`, for a query, however similar.

    Raises InputError if it cannot be read, has no such chain, or nothing of it aligns with the query.
    """
    return read_own_template(path_and_chain).features(query)


def _file_and_chain(text: str) -> tuple[Path, str | None]:
    before, _, name = text.rpartition(":")
    is_whole = not before or Path(text).is_file()
    return (Path(text), None) if is_whole else (Path(before), name)


def _gap_opening(chain: TemplateChain) -> list[int]:
    """What a gap in the chain costs before each residue and at its end: nothing at its ends and breaks."""
    positions, mask = chain.atoms()
    ca, known = positions[:, ATOM_ORDER["CA"]], mask[:, ATOM_ORDER["CA"]] > 0
    costs = [0]
    for i, j in pairwise(range(len(chain.sequence))):
        is_break = known[i] and known[j] and np.linalg.norm(ca[i] - ca[j]) > _BREAK
        costs.append(0 if is_break else GAP_OPENING)
    return [*costs, 0]
