"""`Features`, what a search is turned into and a model is run on."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from parafold.errors import FeaturesError
from parafold.features import monomer, multimer
from parafold.features.pad import pad_multimer
from parafold.features.pairing import MSA_FEATURES
from parafold.features.raw import Arrays, chain_features, msa_features
from parafold.protein.alignment import Msa

if TYPE_CHECKING:
    from parafold.protein.sequence import FoldInput

Kind = Literal["monomer", "multimer"]

_MOST_PAIRING_HITS = 50_000


@dataclass(frozen=True)
class Features:
    """One target's features.

    Attributes:
      name: of the target.
      kind: which models can take it.
      sequences: of the chains, in the order of the arrays' residues: copies of one sequence stand together,
        see `multimer.chain_order`.
      arrays: for a monomer AlphaFold's raw features, for a multimer the merged and padded ones.
    """

    name: str
    kind: Kind
    sequences: tuple[str, ...]
    arrays: Arrays

    def __len__(self) -> int:
        """Number of residues."""
        return sum(map(len, self.sequences))


def build(
    fold_input: "FoldInput",
    msas: Mapping[str, Mapping[str, Msa]],
    templates: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    kind: Kind | None = None,
    pairing: Collection[str] = ("uniprot",),
) -> Features:
    """Features of a target from what was found for its chains.

    Args:
      fold_input: the chains.
      msas: chain sequence -> database name -> alignment, in the order in which their rows are to stand. A
        sequence without an entry gets an alignment of itself alone.
      templates: chain sequence -> raw template features.
      kind: "multimer" gives a single chain to a multimer model; by default one chain is a monomer.
      pairing: names of the databases that serve to pair the chains of a complex and nothing else; where none
        of them was searched, the other alignments serve for both.

    Raises:
      FeaturesError: an alignment does not belong to its sequence, or several chains for a monomer model.
    """
    chains = fold_input.chains
    kind = kind or ("monomer" if len(chains) == 1 else "multimer")
    if kind == "monomer" and len(chains) > 1:
        raise FeaturesError(
            f"{fold_input.name}: a monomer model takes one chain, not {len(chains)}; use a multimer model"
        )
    is_paired = len({chain.sequence for chain in chains}) > 1
    made: dict[str, Arrays] = {}
    for chain in chains:
        if chain.sequence not in made:
            made[chain.sequence] = _chain(
                chain.sequence,
                chain.description,
                msas.get(chain.sequence, {}),
                (templates or {}).get(chain.sequence),
                pairing,
                is_paired,
            )
    ordered = [
        chains[number].sequence for number in multimer.chain_order([chain.sequence for chain in chains])
    ]
    if kind == "monomer":
        arrays = made[ordered[0]]
    else:
        arrays = multimer.assemble([made[sequence] for sequence in ordered])
    return Features(fold_input.name, kind, tuple(ordered), arrays)


def model_inputs(
    features: Features, config: Any, seed: int, length: int | None = None, num_msa: int | None = None
) -> Arrays:
    """The arrays that a model is given.

    Args:
      features: of one target.
      config: the model's configuration; of a monomer's, `config.data` says how its alignment is sampled.
      seed: of a monomer's sampling; a multimer is sampled in the model.
      length: residues to pad to, see `bucket`; by default none are added.
      num_msa: alignment rows to pad a multimer to, so that targets share a compiled program.

    Returns:
      For a monomer the published processed features, one sample a pass on the first axis; for a multimer its
      merged features, without that axis, in 32-bit types.

    Raises:
      FeaturesError: the model is of the other kind, or `length` is less than the residues.
    """
    data = getattr(config, "data", None)
    if (features.kind == "monomer") != (data is not None):
        other = "multimer" if features.kind == "monomer" else "monomer"
        raise FeaturesError(
            f"{features.name}: these are features for a {features.kind} model, this is a {other} model; "
            "build them again for it or choose another model"
        )
    length = len(features) if length is None else length
    if length < len(features):
        raise FeaturesError(
            f"{features.name}: {len(features)} residues do not fit into {length}; choose a larger length"
        )
    if features.kind == "monomer":
        return monomer.process(features.arrays, data, seed, length)
    rows = len(features.arrays["msa"])
    padded = pad_multimer(features.arrays, length, max(rows, num_msa or 0))
    return {name: _in_32_bits(name, array) for name, array in padded.items()}


def _chain(
    sequence: str,
    description: str,
    found: Mapping[str, Msa],
    templates: Mapping[str, np.ndarray] | None,
    pairing: Collection[str],
    is_paired: bool,
) -> Arrays:
    own: Sequence[Msa] = [msa for database, msa in found.items() if database not in pairing]
    own = own or [Msa.query_only(sequence)]
    features = chain_features(sequence, description, own, templates)
    if not is_paired:
        return features
    pairs = [msa.truncate(_MOST_PAIRING_HITS) for database, msa in found.items() if database in pairing]
    to_pair = msa_features(pairs) if pairs else features
    names = (*MSA_FEATURES, "msa_species_identifiers")
    return features | {name + "_all_seq": to_pair[name] for name in names if name in to_pair}


def _in_32_bits(name: str, array: np.ndarray) -> np.ndarray:
    """Chain numbers as integers (they are counted with), all else as JAX would take it by default."""
    if name in ("asym_id", "entity_id", "sym_id") or array.dtype == np.int64:
        return array.astype(np.int32)
    return array.astype(np.float32) if array.dtype == np.float64 else array
