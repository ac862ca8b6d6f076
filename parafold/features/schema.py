"""What the arrays of `Features` must look like, and the check that they do."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from parafold.errors import FeaturesError
from parafold.features.raw import Arrays
from parafold.protein.residue import RESTYPE_ORDER_WITH_X

REBUILD = "build the features again"
_MOST_RESIDUES = 100_000
_LETTERS = (0, 21)
_MASK = (0, 1)
_COUNT = (0, 2**31 - 1)


@dataclass(frozen=True)
class _Spec:
    """Type ("S": bytes), axes ("r" residues, "n" rows, "t" templates, or a size) and range of an array."""

    dtype: str
    axes: tuple[str | int, ...]
    bounds: tuple[int, int] | None = None
    required: bool = True


_MONOMER = {
    "aatype": _Spec("int32", ("r", 21), _MASK),
    "between_segment_residues": _Spec("int32", ("r",), _COUNT),
    "domain_name": _Spec("S", (1,)),
    "residue_index": _Spec("int32", ("r",)),
    "seq_length": _Spec("int32", ("r",), (1, _MOST_RESIDUES)),
    "sequence": _Spec("S", (1,)),
    "deletion_matrix_int": _Spec("int32", ("n", "r"), _COUNT),
    "msa": _Spec("int32", ("n", "r"), _LETTERS),
    "num_alignments": _Spec("int32", ("r",), (1, 2**31 - 1)),
    "msa_species_identifiers": _Spec("S", ("n",), required=False),
    "template_aatype": _Spec("float32", ("t", "r", 22), _MASK, required=False),
    "template_all_atom_masks": _Spec("float32", ("t", "r", 37), _MASK, required=False),
    "template_all_atom_positions": _Spec("float32", ("t", "r", 37, 3), required=False),
    "template_domain_names": _Spec("S", ("t",), required=False),
    "template_sequence": _Spec("S", ("t",), required=False),
    "template_sum_probs": _Spec("float32", ("t", 1), required=False),
}
_MULTIMER = {
    "aatype": _Spec("int32", ("r",), (0, 20)),
    "all_atom_mask": _Spec("int32", ("r", 37), _MASK),
    "all_atom_positions": _Spec("float64", ("r", 37, 3)),
    "assembly_num_chains": _Spec("int64", (), (1, _MOST_RESIDUES)),
    "asym_id": _Spec("float64", ("r",), (1, _MOST_RESIDUES)),
    "bert_mask": _Spec("float32", ("n", "r"), _MASK),
    "cluster_bias_mask": _Spec("float64", ("n",), _MASK),
    "deletion_matrix": _Spec("float32", ("n", "r"), _COUNT),
    "deletion_mean": _Spec("float32", ("r",), _COUNT),
    "entity_id": _Spec("float64", ("r",), (1, _MOST_RESIDUES)),
    "entity_mask": _Spec("int32", ("r",), _MASK),
    "msa": _Spec("int32", ("n", "r"), _LETTERS),
    "msa_mask": _Spec("float32", ("n", "r"), _MASK),
    "num_alignments": _Spec("int32", (), (1, 2**31 - 1)),
    "num_templates": _Spec("int32", (), (0, 4)),
    "residue_index": _Spec("int32", ("r",)),
    "seq_length": _Spec("int32", (), (1, _MOST_RESIDUES)),
    "seq_mask": _Spec("float32", ("r",), _MASK),
    "sym_id": _Spec("float64", ("r",), (1, _MOST_RESIDUES)),
    "template_aatype": _Spec("int64", ("t", "r"), _LETTERS),
    "template_all_atom_mask": _Spec("float32", ("t", "r", 37), _MASK),
    "template_all_atom_positions": _Spec("float32", ("t", "r", 37, 3)),
}
_TEMPLATES_TOGETHER = (
    "template_aatype",
    "template_all_atom_masks",
    "template_all_atom_positions",
    "template_domain_names",
)
SCHEMAS = {"monomer": _MONOMER, "multimer": _MULTIMER}


def check_layout(
    where: str, kind: str, sequences: tuple[str, ...], layout: Mapping[str, tuple[str, tuple[int, ...]]]
) -> None:
    """Check names, types and shapes, before anything of their size is read.

    Args:
      where: the file, for messages.
      kind: "monomer" or "multimer".
      sequences: of the chains.
      layout: array name -> (dtype name, "S" for bytes; shape).

    Raises:
      FeaturesError: naming file, array and remedy.
    """
    schema = SCHEMAS.get(kind)
    if schema is None:
        raise FeaturesError(f"{where}: kind {kind!r} is neither monomer nor multimer; {REBUILD}")
    residues = sum(map(len, sequences))
    if not 1 <= residues <= _MOST_RESIDUES or not all(sequences):
        raise FeaturesError(f"{where}: chains of {residues} residues in all cannot be right; {REBUILD}")
    if kind == "monomer" and len(sequences) != 1:
        raise FeaturesError(f"{where}: {len(sequences)} chains in the features of a monomer; {REBUILD}")
    templates_given = any(name in layout for name in _TEMPLATES_TOGETHER)
    for name, spec in schema.items():
        needed = spec.required or (templates_given and name in _TEMPLATES_TOGETHER)
        if needed and name not in layout:
            raise FeaturesError(f"{where}: array {name} is missing; {REBUILD}")
    sizes = {"r": residues}
    for name in sorted(layout):
        if name not in schema:
            raise FeaturesError(f"{where}: array {name} is not one of a {kind}'s features; {REBUILD}")
        dtype, shape = layout[name]
        spec = schema[name]
        if dtype != spec.dtype:
            raise FeaturesError(f"{where}: array {name} is {dtype} instead of {spec.dtype}; {REBUILD}")
        fits = len(shape) == len(spec.axes) and all(
            size == (sizes.setdefault(axis, size) if isinstance(axis, str) else axis)
            for size, axis in zip(shape, spec.axes, strict=True)
        )
        if not fits:
            wanted = [sizes.get(axis, axis) if isinstance(axis, str) else axis for axis in spec.axes]
            raise FeaturesError(
                f"{where}: array {name} has shape {list(shape)} instead of {wanted}; {REBUILD}"
            )


def check_values(where: str, kind: str, sequences: tuple[str, ...], arrays: Arrays) -> None:
    """Check that numbers are finite, in range, and agree with the sequences.

    Raises:
      FeaturesError: naming file, array and remedy.
    """
    for name, array in arrays.items():
        bounds = SCHEMAS[kind][name].bounds
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise FeaturesError(f"{where}: array {name} holds numbers that are not finite; {REBUILD}")
        if bounds and array.size and not (bounds[0] <= array.min() and array.max() <= bounds[1]):
            raise FeaturesError(
                f"{where}: array {name} holds values from {array.min()} to {array.max()}, outside "
                f"{bounds[0]} to {bounds[1]}; {REBUILD}"
            )
    unknown = RESTYPE_ORDER_WITH_X["X"]
    letters = np.array([RESTYPE_ORDER_WITH_X.get(letter, unknown) for letter in "".join(sequences)])
    aatype = arrays["aatype"]
    if aatype.ndim == 2:
        if (aatype.sum(1) != 1).any():
            raise FeaturesError(f"{where}: array aatype is not one-hot; {REBUILD}")
        aatype = aatype.argmax(1)
    if (aatype != letters).any():
        raise FeaturesError(f"{where}: array aatype does not spell the sequence; {REBUILD}")
    for name, count in (("seq_length", len(letters)), ("num_alignments", len(arrays["msa"]))):
        said = arrays[name]
        # A complex counts the rows of its alignment before padding.
        fits = said <= count if (kind, name) == ("multimer", "num_alignments") else said == count
        if not fits.all():
            raise FeaturesError(f"{where}: array {name} says {said.max()}, there are {count}; {REBUILD}")
