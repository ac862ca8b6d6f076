"""From a query's alignment to its templates."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from pathlib import Path

from parafold.errors import InputError, SearchError
from parafold.msa.alignment import Alignment
from parafold.msa.database import Database
from parafold.protein.alignment import Msa
from parafold.templates.featurize import TemplateResult, featurize_hits
from parafold.templates.hhsearch import hhsearch, hhsearch_hhr
from parafold.templates.hits import TemplateHit, iterate_hmmsearch_a3m
from parafold.templates.hmmsearch import Progress, a3m_rows, as_database, hmmsearch, hmmsearch_a3m
from parafold.templates.library import Library, read_obsolete

__all__ = ["find_templates", "hhsearch", "hhsearch_hhr", "hmmsearch", "hmmsearch_a3m", "read_obsolete"]


def find_templates(
    query: str,
    msa: Msa | Alignment | Iterable[str],
    database: Database | str | Path,
    mmcif_folder: str | Path,
    max_template_date: str | datetime.date,
    *,
    max_hits: int = 20,
    obsolete: Mapping[str, str | None] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> TemplateResult:
    """Search for templates and lay their atoms along the query, with the choices of the published AlphaFold.

    Args:
        query: the sequence.
        msa: its alignment with its homologs in uniref90, or the alignment's a3m rows, the query first. An
            `Msa` has lost the letters of insertions, which move the profile's composition in its last digits.
        database: pdb_seqres, a FASTA file, which hmmsearch searches in process; or the prefix of pdb70 (with
            others in `Database.also`), which the program hhsearch searches.
        mmcif_folder: the structures, PDBID.cif or PDBID.cif.gz. One that is missing or damaged costs its hits
            and a warning.
        max_template_date: later releases are not used; a date or "YYYY-MM-DD".
        max_hits: how many templates at most, the best first.
        obsolete: withdrawn PDB ids, see `read_obsolete`.
        workers: threads; by default the cores that this process may use (hhsearch: its own choice).
        progress: called with the number of sequences searched so far; hhsearch does not tell.

    Raises:
        InputError: the alignment is another query's, the date is no date, or the folder is missing or holds
            no mmCIF file. The last two before the search begins.
        SearchError: the database is missing or cannot be searched.
    """
    Library(mmcif_folder, max_template_date)
    rows = a3m_rows(msa)
    if rows[0] != query or not query:
        raise InputError(
            f"templates of a query of {len(query)} residues: the first row of its alignment is another "
            "sequence; give the alignment of this query"
        )
    hits = _search(rows, as_database(database), workers, progress)
    return featurize_hits(query, hits, mmcif_folder, max_template_date, max_hits, obsolete=obsolete)


def _search(
    rows: list[str], database: Database, workers: int | None, progress: Progress | None
) -> Iterable[TemplateHit]:
    if database.path.is_dir():
        raise SearchError(
            f"{database.path} is a folder; give the FASTA file of pdb_seqres, or the prefix of pdb70's files"
        )
    if database.format == "hhsuite":
        return hhsearch(rows, [database.path, *database.also], workers=workers)
    if database.format != "fasta":
        raise SearchError(
            f"{database.path}: a database of {database.format} holds no templates; give pdb_seqres"
        )
    text = hmmsearch_a3m(rows, database, workers=workers, progress=progress)
    return iterate_hmmsearch_a3m(rows[0], text, skip_first=False, source=str(database.path))
