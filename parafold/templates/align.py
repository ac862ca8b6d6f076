"""Global alignment of two sequences."""

from collections.abc import Sequence

import gemmi

from parafold.protein.residue import RESTYPE_1TO3, UNKNOWN

# Costs of opening a gap in an alignment scored with BLOSUM62; each residue in it costs one more.
GAP_OPENING = gemmi.AlignmentScoring("b").gapo


def global_alignment(first: str, second: str, gap_opening: Sequence[int] = ()) -> dict[int, int]:
    """Residue of the first sequence -> residue of the second, scored with BLOSUM62.

    `gap_opening` has len(second) + 1 costs (0 or less): of a gap before each residue of the second sequence,
    and of one behind its last. Left out, it is GAP_OPENING everywhere.
    """
    names = [[RESTYPE_1TO3.get(letter, UNKNOWN) for letter in sequence] for sequence in (first, second)]
    result = gemmi.align_string_sequences(names[0], names[1], list(gap_opening), gemmi.AlignmentScoring("b"))
    pairs: dict[int, int] = {}
    i = j = 0
    for a, b in zip(result.add_gaps(first, 1), result.add_gaps(second, 2), strict=True):
        if a != "-" and b != "-":
            pairs[i] = j
        i += a != "-"
        j += b != "-"
    return pairs
