"""hhsearch of profiles of known structures (pdb70): the HH-suite's program, with AlphaFold's flags."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from parafold.errors import SearchError
from parafold.msa.alignment import Alignment
from parafold.programs import find_program, run_program
from parafold.protein.alignment import Msa
from parafold.templates.hits import TemplateHit, parse_hhr
from parafold.templates.hmmsearch import a3m_rows
from parafold.templates.profile import distinct_rows

_MAX_LINE = 1_000_000
_NEEDED = ("_a3m.ffdata", "_a3m.ffindex", "_hhm.ffdata", "_hhm.ffindex", "_cs219.ffdata", "_cs219.ffindex")


def hhsearch(
    msa: Msa | Alignment | Iterable[str],
    prefixes: str | Path | Sequence[str | Path],
    *,
    workers: int | None = None,
    timeout: float | None = None,
) -> list[TemplateHit]:
    """The known structures that resemble a query, as hhsearch orders them: `hhsearch_hhr`, read.

    Raises:
        SearchError: see `hhsearch_hhr`.
        InputError: the program's output is damaged.
    """
    return parse_hhr(hhsearch_hhr(msa, prefixes, workers=workers, timeout=timeout), "hhsearch's output")


def hhsearch_hhr(
    msa: Msa | Alignment | Iterable[str],
    prefixes: str | Path | Sequence[str | Path],
    *,
    workers: int | None = None,
    timeout: float | None = None,
) -> str:
    """Search databases of profiles with a query's alignment; the program's hhr output.

    Args:
        msa: the alignment of the query with its homologs in uniref90, or its a3m rows, the query first.
        prefixes: of the databases: "pdb70" for pdb70_a3m.ffdata and the others.
        workers: threads; by default the program's two.
        timeout: seconds after which the program is stopped.

    Raises:
        SearchError: the program is not installed (with the ways to get it) or failed, or a database is
            missing.
    """
    paths = [Path(prefixes)] if isinstance(prefixes, str | Path) else [Path(prefix) for prefix in prefixes]
    if not paths:
        raise SearchError("no database of profiles to search; give the prefix of pdb70")
    program = find_program("hhsearch")
    for path in paths:
        _check_files(path)
    rows = distinct_rows(a3m_rows(msa))
    with tempfile.TemporaryDirectory(prefix="parafold-hhsearch-") as folder:
        query, output = Path(folder, "query.a3m"), Path(folder, "output.hhr")
        query.write_text("".join(f">{number or 'query'}\n{row}\n" for number, row in enumerate(rows)))
        databases = [argument for path in paths for argument in ("-d", path)]
        cores = ["-cpu", str(workers)] if workers else []
        run_program(
            [program, "-i", query, "-o", output, "-maxseq", str(_MAX_LINE), *cores, *databases],
            what=f"hhsearch of a query of {len(rows[0])} residues in {paths[0]}",
            timeout=timeout,
        )
        try:
            return output.read_text(errors="replace")
        except OSError as error:
            raise SearchError(
                f"hhsearch of {paths[0]} left no result ({error.strerror}); run it by hand to see why"
            ) from error


def _check_files(prefix: Path) -> None:
    missing = next((end for end in _NEEDED if not prefix.with_name(prefix.name + end).is_file()), None)
    if missing:
        raise SearchError(
            f"{prefix}{missing}: no such file; give the prefix that all files of the HH-suite database have, "
            "as in databases/pdb70/pdb70"
        )
