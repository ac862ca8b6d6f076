"""A template that the user brings, aligned to the query by sequence."""

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


def own_template(path_and_chain: str, query: str) -> TemplateFeatures:
    """The features (t = 1) of a user's template, "FILE:CHAIN", for a query sequence.

    FILE is PDB or mmCIF, CHAIN the author's chain name, which may be left out where there is one protein
    chain only. The chain is aligned to the query globally (BLOSUM62); gaps at its breaks cost no opening.

    Raises InputError if the file cannot be read, has no such chain, or nothing of it aligns with the query.
    """
    path, chains, name = _find(path_and_chain)
    chain = chains[name]
    mapping = global_alignment(query, chain.sequence, _gap_opening(chain))
    label = f"{path.name.partition('.')[0].lower()}_{name}"
    features = template_features(chain, mapping, len(query), label, sum_probs=0.0)
    if features["template_all_atom_masks"].sum() < MIN_ATOMS:
        raise InputError(
            f"{path}: no residue with coordinates of chain {name!r} aligns with the query; "
            "give a template of a related protein"
        )
    return stack([features], len(query))


def _find(path_and_chain: str) -> tuple[Path, dict[str, TemplateChain], str]:
    before, _, name = path_and_chain.rpartition(":")
    is_whole = not before or Path(path_and_chain).is_file()
    path = Path(path_and_chain if is_whole else before)
    chains = read_chains(path)
    if not chains:
        raise InputError(f"{path}: no protein chain in it; give a PDB or mmCIF file of a protein")
    first, *others = chains
    if is_whole and others:
        raise InputError(
            f"{path} has the protein chains {', '.join(chains)}; say which, as in {path}:{first}"
        )
    if is_whole:
        name = first
    elif name not in chains:
        raise InputError(f"{path}: no protein chain {name!r}; its protein chains are {', '.join(chains)}")
    return path, chains, name


def _gap_opening(chain: TemplateChain) -> list[int]:
    """What a gap in the chain costs before each residue and at its end: nothing at its ends and breaks."""
    positions, mask = chain.atoms()
    ca, known = positions[:, ATOM_ORDER["CA"]], mask[:, ATOM_ORDER["CA"]] > 0
    costs = [0]
    for i, j in pairwise(range(len(chain.sequence))):
        is_break = known[i] and known[j] and np.linalg.norm(ca[i] - ca[j]) > _BREAK
        costs.append(0 if is_break else GAP_OPENING)
    return [*costs, 0]
