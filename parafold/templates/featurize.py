"""From search hits to template features, with the choices of the published AlphaFold."""

import datetime
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from parafold.errors import InputError
from parafold.protein.residue import ATOM_ORDER
from parafold.templates.align import GAP_OPENING, global_alignment
from parafold.templates.entry import TemplateChain
from parafold.templates.features import MIN_ATOMS, TemplateFeatures, stack, template_features
from parafold.templates.hits import TemplateHit
from parafold.templates.library import Library, MissingFileError, NoDataError, SkippedError

# The published limits: a hit must cover more than this part of the query with aligned columns, ...
_MIN_ALIGNED = 0.1
# ... must not be the query itself (a piece of it longer than this part), ...
_MAX_SUBSEQUENCE = 0.95
# ... and not be shorter than this.
_MIN_RESIDUES = 10
# Of the shorter sequence, where the file's differs from the hit's and is aligned anew.
_MIN_IDENTITY = 0.9
# Neighbours further apart (Å) mean that the coordinates are broken; chain breaks are far below it.
_MAX_CA_CA = 150.0
# Structures that a message names.
_SHOWN = 5


@dataclass(frozen=True)
class TemplateResult:
    """Template features of a chain, and why hits were left out: `errors` need a look, `warnings` do not."""

    features: TemplateFeatures
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class _MismatchError(Exception):
    """The hit and the structure file contradict each other."""


def featurize_hits(
    query: str,
    hits: Iterable[TemplateHit],
    mmcif_folder: str | Path,
    max_template_date: str | datetime.date,
    max_hits: int = 20,
    *,
    release_dates: Mapping[str, datetime.date] | None = None,
    obsolete: Mapping[str, str | None] | None = None,
) -> TemplateResult:
    """The features of the best `max_hits` usable hits, best `sum_probs` first; hmmsearch's stay in order.

    Structures are read from `mmcif_folder`/PDBID.cif (or .cif.gz); those released after `max_template_date`
    (a date or "YYYY-MM-DD") are left out. `release_dates` (PDB id -> date) spares reading files for their
    dates; `obsolete` maps withdrawn PDB ids to their successors or None, see `read_obsolete`. Hits of
    hmmsearch that give the same template sequence as an earlier one are left out, as the published code does
    for them; they are taken one by one until there are enough. A file that is missing or damaged costs its
    hits and a warning.

    Raises InputError for a date or hit name that cannot be read, an empty query, or a folder without any
    mmCIF file.
    """
    if not query:
        raise InputError("templates for an empty query; give its sequence")
    library = Library(mmcif_folder, max_template_date, release_dates, obsolete)
    found: list[TemplateFeatures] = []
    errors: list[str] = []
    warnings: list[str] = []
    missing: dict[str, None] = {}
    seen: set[bytes] = set()
    for hit in _best_first(hits):
        if len(found) >= max_hits:
            break
        label = hit.name.split()[0] if hit.name.strip() else repr(hit.name)
        try:
            features, note = _featurize(query, hit, library)
        except SkippedError:
            continue
        except MissingFileError:
            missing[label] = None
            continue
        except NoDataError as problem:
            warnings.append(f"{label}: {problem}")
            continue
        except _MismatchError as problem:
            errors.append(f"{label}: {problem}")
            continue
        if note:
            warnings.append(note)
        letters = bytes(features["template_sequence"].item())
        if hit.sum_probs is None and letters in seen:
            continue
        seen.add(letters)
        found.append(features)
    if missing:
        warnings.append(_missing_files(library.folder, list(missing)))
    return TemplateResult(stack(found, len(query)), errors, warnings)


def _missing_files(folder: Path, names: list[str]) -> str:
    count = f"{len(names)} hit" + ("s" if len(names) > 1 else "")
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return f"{folder} lacks the mmCIF files of {count}, left out: {shown}; fetch them for the best templates"


def _best_first(hits: Iterable[TemplateHit]) -> Iterator[TemplateHit]:
    """hhsearch's hits by score; hmmsearch's, which may be very many, one by one as they come."""
    remaining = iter(hits)
    first = next(remaining, None)
    if first is not None and first.sum_probs is None:
        yield first
        yield from remaining
    elif first is not None:
        yield from sorted((first, *remaining), key=lambda hit: -(hit.sum_probs or 0))


def _featurize(query: str, hit: TemplateHit, library: Library) -> tuple[TemplateFeatures, str | None]:
    """The features of one hit, and a remark if it had to be aligned anew."""
    name = re.match(r"([a-zA-Z0-9]{4})_([a-zA-Z0-9.]+)", hit.name)
    if name is None:
        raise InputError(
            f"template hit {hit.name!r}: the name must begin with a PDB id and chain, like 4pqx_A"
        )
    pdb_id, chain_name = library.current_id(name[1].lower()), name[2]
    _check_hit(query, hit)
    library.check_date(library.release_dates.get(pdb_id))
    chains = library.chains(pdb_id)
    if not chains:
        raise NoDataError("no protein chains in its file")

    sequence = hit.hit_sequence.replace("-", "")
    mapping = _query_to_hit(query, hit)
    place = _find_sequence(sequence, chain_name, chains)
    note = None
    if place is not None:
        chain_name, start = place
        mapping = {row: partner + start for row, partner in mapping.items()}
        # The letters are the hit's; they differ from the file's where one of the two has an X.
        found = chains[chain_name]
        letters = found.sequence[:start] + sequence + found.sequence[start + len(sequence) :]
        chain = TemplateChain(letters, found.residues)
    else:
        chain_name, realigned = _realign(sequence, chain_name, chains)
        mapping = {row: realigned[partner] for row, partner in mapping.items() if partner in realigned}
        note = f"{pdb_id}_{chain_name}: its file has a sequence other than the hit's; aligned anew"
        chain = chains[chain_name]
    _check_distances(chain)
    label = f"{pdb_id}_{chain_name}"
    features = template_features(chain, mapping, len(query), label, hit.sum_probs or 0)
    if features["template_all_atom_masks"].sum() < MIN_ATOMS:
        raise NoDataError("no coordinates where it aligns with the query")
    return features, note


def _check_hit(query: str, hit: TemplateHit) -> None:
    sequence = hit.hit_sequence.replace("-", "")
    is_query = sequence in query and len(sequence) / len(query) > _MAX_SUBSEQUENCE
    if hit.aligned_cols / len(query) <= _MIN_ALIGNED or is_query or len(sequence) < _MIN_RESIDUES:
        raise SkippedError


def _query_to_hit(query: str, hit: TemplateHit) -> dict[int, int]:
    """Residue of the query -> residue of the hit's sequence without gaps."""
    start = query.find(hit.query.replace("-", ""))
    if not hit.query or start < 0:
        raise _MismatchError("the hit's query is not part of the query")
    if max(hit.indices_query) < 0 or max(hit.indices_hit) < 0:
        raise _MismatchError("nothing of the query or of the structure is in the alignment")
    first_query = min(i for i in hit.indices_query if i >= 0)
    first_hit = min(i for i in hit.indices_hit if i >= 0)
    length = len(hit.hit_sequence.replace("-", ""))
    return {
        i - first_query + start: j - first_hit
        for i, j in zip(hit.indices_query, hit.indices_hit, strict=False)
        if i >= 0 and j >= 0 and j - first_hit < length and i - first_query + start < len(query)
    }


def _find_sequence(sequence: str, name: str, chains: Mapping[str, TemplateChain]) -> tuple[str, int] | None:
    """Chain and start of the hit's sequence: in its own chain, another one, or with X for any letter."""
    in_order = [name, *(other for other in chains if other != name)]
    for candidate in in_order:
        if candidate in chains and sequence in chains[candidate].sequence:
            return candidate, chains[candidate].sequence.find(sequence)
    pattern = re.compile("".join("." if letter == "X" else f"[{letter}X]" for letter in sequence))
    for candidate, chain in chains.items():
        if found := pattern.search(chain.sequence):
            return candidate, found.start()
    return None


def _realign(sequence: str, name: str, chains: Mapping[str, TemplateChain]) -> tuple[str, dict[int, int]]:
    """Residue of the hit -> residue of the chain, where the database had another version of the sequence.

    Residues without a partner have none; the published code gives them the last residue of the chain.
    """
    if name not in chains:
        if len(chains) > 1:
            raise _MismatchError(f"its file has no protein chain {name}, only {', '.join(chains)}")
        (name,) = chains
    deposited = chains[name].sequence
    # What the hit's version has more at its ends, mostly a tag, opens no gap in the chain.
    costs = [0, *[GAP_OPENING] * (len(deposited) - 1), 0]
    mapping = global_alignment(sequence, deposited, costs)
    same = sum(sequence[i] == deposited[j] for i, j in mapping.items())
    if same / min(len(sequence), len(deposited)) < _MIN_IDENTITY:
        raise _MismatchError("the sequence in its file is less than 90 % identical to the hit's")
    return name, mapping


def _check_distances(chain: TemplateChain) -> None:
    positions, mask = chain.atoms()
    if not np.isfinite(positions).all():
        raise NoDataError("not all coordinates in its file are numbers; fetch it again")
    ca, known = positions[:, ATOM_ORDER["CA"]], mask[:, ATOM_ORDER["CA"]] > 0
    distances = np.linalg.norm(np.diff(ca, axis=0), axis=1)[known[1:] & known[:-1]]
    if (distances > _MAX_CA_CA).any():
        raise NoDataError(f"neighbouring residues are {distances.max():.0f} Å apart in its file")
