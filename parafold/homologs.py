"""The relatives of a target's chains, alignments and templates: the user's own, or found by a search."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parafold import files
from parafold.errors import InputError, SearchError
from parafold.features import Features
from parafold.features.build import Kind
from parafold.msa import Alignment, Database, Progress, Search
from parafold.msa.fingerprint import fingerprint
from parafold.protein.alignment import Msa, parse_a3m
from parafold.protein.sequence import Chain, FoldInput
from parafold.templates import OwnTemplate, TemplateResult, read_own_template
from parafold.templates.search import find_templates, read_obsolete

Say = Callable[[str], None]
Target = FoldInput | Features


@dataclass(frozen=True)
class OwnMsa:
    """An alignment that the user gave, with what identifies it."""

    path: Path
    msa: Msa
    digest: str


@dataclass(frozen=True)
class TemplateSearch:
    """Where templates are found for chains without own ones.

    Attributes:
        mmcif_folder: the structures, PDBID.cif or PDBID.cif.gz.
        pdb_seqres: the FASTA file of their sequences, searched in process; preferred for multimers.
        pdb70: the prefix of their profiles, searched by the program hhsearch; preferred for monomers.
        max_date: later releases are not used, "YYYY-MM-DD".
        obsolete: the PDB's list of entries that others have replaced.
        max_hits: templates of each chain at most.

    Raises:
        InputError: neither pdb_seqres nor pdb70.
    """

    mmcif_folder: Path
    pdb_seqres: Path | None = None
    pdb70: Path | None = None
    max_date: str = datetime.date.max.isoformat()
    obsolete: Path | None = None
    max_hits: int = 20

    def __post_init__(self) -> None:
        if self.pdb_seqres is None and self.pdb70 is None:
            raise InputError("a search for templates needs pdb_seqres or pdb70; name one of them")

    def database(self, kind: Kind) -> Database:
        """What is searched for a target of that kind, as AlphaFold does where both are there."""
        preferred, other = (
            (self.pdb70, self.pdb_seqres) if kind == "monomer" else (self.pdb_seqres, self.pdb70)
        )
        path = preferred or other
        assert path is not None
        return Database("templates", path)

    def identity(self, kind: Kind) -> dict[str, Any]:
        """What decides the templates beside the alignment and the structures, JSON values only."""
        return {
            "database": fingerprint(self.database(kind)).key,
            "mmcif": str(self.mmcif_folder.resolve()),
            "max_date": self.max_date,
            "obsolete": files.sha256_file(self.obsolete) if self.obsolete else None,
            "max_hits": self.max_hits,
        }

    def find(self, query: str, rows: Iterable[str], kind: Kind) -> TemplateResult:
        """The templates of a chain, from the a3m rows of its alignment, the query first.

        Raises:
            InputError, SearchError: see `find_templates`.
        """
        return find_templates(
            query,
            rows,
            self.database(kind),
            self.mmcif_folder,
            self.max_date,
            max_hits=self.max_hits,
            obsolete=read_obsolete(self.obsolete) if self.obsolete else None,
        )


class Searches:
    """Searches for the chains of many targets at once: each database is read once for all of them."""

    # Targets that come early need not wait for the searches of thousands.
    _AT_ONCE = 64

    def __init__(self, databases: Sequence[Database], cache: Path | None, progress: Say) -> None:
        self.databases = list(databases)
        self._cache = cache
        self._progress = progress
        self._expected: list[str] = []
        self._found: dict[str, list[Alignment] | SearchError] = {}
        self.identities = [
            {
                "name": database.name,
                "kind": database.kind,
                "fingerprint": fingerprint(database).key,
                "max_hits": database.max_hits,
                "z": database.z,
            }
            for database in self.databases
        ]

    @property
    def for_pairing(self) -> list[str]:
        """The databases whose alignments pair the chains of a complex: the kind decides, not the name."""
        return [database.name for database in self.databases if database.kind == "uniprot"]

    def expect(self, sequences: Sequence[str]) -> None:
        """Sequences that will be asked for, in this order."""
        self._expected = list(dict.fromkeys([*self._expected, *sequences]))

    def take(self, sequence: str) -> list[Alignment]:
        """The alignments of a sequence, one for each database.

        Raises:
            SearchError: it cannot be searched for, or a database cannot be read.
        """
        if sequence not in self._found:
            others = [other for other in self._expected if other != sequence]
            batch = [sequence, *others[: self._AT_ONCE - 1]]
            search = Search(
                {sequence: sequence for sequence in batch},
                self.databases,
                cache=self._cache,
                progress=self._report,
                warn=self._progress,
                on_error=self._found.__setitem__,
            )
            self._found |= {name: list(found.values()) for name, found in search.run()}
            self._expected = others[self._AT_ONCE - 1 :]
        found = self._found.pop(sequence)
        if isinstance(found, SearchError):
            raise found
        return found

    def _report(self, progress: Progress) -> None:
        queries = f"{progress.queries} sequence{'s' if progress.queries > 1 else ''}"
        names = ", ".join(database.name for database in self.databases)
        left = f" ({progress.time_left})" if progress.time_left else ""
        self._progress(f"searching {names} for {queries}, {progress.fraction:.0%}{left}")


def own_msas(paths: Sequence[Path], targets: Sequence[Target]) -> dict[str, OwnMsa]:
    """Chain sequence -> the user's alignment for it."""
    sequences = {
        chain.sequence for target in targets if isinstance(target, FoldInput) for chain in target.chains
    }
    found: dict[str, OwnMsa] = {}
    for path in paths:
        msa = read_a3m(path)
        query = msa.sequences[0]
        if query not in sequences:
            raise InputError(
                f"{path}: its first sequence ({len(query)} residues) is no chain of the input;"
                " the query must come first, without gaps"
            )
        found[query] = OwnMsa(path, msa, files.sha256_file(path))
    return found


def read_a3m(path: Path) -> Msa:
    try:
        text = path.read_text()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not text; give an alignment in a3m format") from error
    return parse_a3m(text, source=str(path))


def own_templates(texts: Sequence[str], targets: Sequence[Target]) -> list[OwnTemplate]:
    """The user's templates, each of which belongs to a chain of some target."""
    chains = [
        (target.name, chain) for target in targets if isinstance(target, FoldInput) for chain in target.chains
    ]
    templates = [read_own_template(text) for text in texts]
    for text, template in zip(texts, templates, strict=True):
        if any(belongs(template, chain) for _, chain in chains):
            continue
        if template.target is not None or not chains:
            ids = ", ".join(dict.fromkeys(chain.id for _, chain in chains)) or "none: features are complete"
            raise InputError(f"{text}: no chain {template.target or ''} in the input; its chains are {ids}")
        fits = [(template.fit(chain.sequence), name, chain.id) for name, chain in chains]
        fit, name, chain_id = max(fits, key=lambda item: item[0].identity - item[0].needed)
        raise InputError(
            f"{text}: similar to no chain of the input (closest: chain {chain_id} of {name}, {fit});"
            f" to use it all the same name the chain: --template {template.path}:{template.name}={chain_id}"
        )
    return templates


def belongs(template: OwnTemplate, chain: Chain) -> bool:
    if template.target is not None:
        return template.target == chain.id
    return template.fit(chain.sequence).is_enough
