"""AlphaFold's folder of databases: what its download script puts where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from parafold.errors import SearchError
from parafold.msa.database import Database, whole_path

Preset = Literal["full_dbs", "reduced_dbs"]

# Databases are named for the alignments that AlphaFold writes: uniref90_hits.sto, bfd_uniref_hits.a3m, ...
_UNIREF90 = ("uniref90/uniref90.fasta",)
_MGNIFY = ("mgnify/mgy_clusters*.fa", "mgnify/mgy_clusters*.fasta")
_SMALL_BFD = ("small_bfd/bfd-first_non_consensus_sequences.fasta",)
_UNIPROT = ("uniprot/uniprot.fasta",)
_BFD = ("bfd/*_a3m.ffdata",)
_UNIREF30 = ("uniref30/*_a3m.ffdata", "uniclust30/*/*_a3m.ffdata", "uniclust30/*_a3m.ffdata")
_PACKED = ("", ".gz", ".xz", ".bz2")


@dataclass(frozen=True)
class DataDir:
    """What a folder of AlphaFold's databases holds; None and empty for what is not there.

    Attributes:
        preset: `full_dbs` where BFD is searched whole, with UniRef30, by hhblits; `reduced_dbs` where its
            first sequences are.
        databases: for alignments, in the order in which AlphaFold stacks them; `uniprot` is for multimers.
        pdb70: the prefix of the database that hhsearch finds templates of monomers in.
        pdb_seqres: the FASTA file that hmmsearch finds templates of multimers in.
        mmcif_files: the folder of the templates' structures.
        obsolete: the list of entries that others have replaced.
    """

    preset: Preset
    databases: tuple[Database, ...]
    pdb70: Path | None = None
    pdb_seqres: Path | None = None
    mmcif_files: Path | None = None
    obsolete: Path | None = None


def databases_in_data_dir(data_dir: str | Path, preset: Preset | None = None) -> DataDir:
    """Recognise what AlphaFold's download script puts into its `--data-dir`. Without `preset`, full where BFD
    and UniRef30 are there. FASTA files may be packed or in shards (`uniref90.fasta-00000-of-00064`).

    Raises:
        SearchError: no database is there, or not the preset's form of BFD; with what was looked for.
    """
    folder = Path(data_dir)
    if not folder.is_dir():
        raise SearchError(f"{folder}: no such folder of AlphaFold's databases; check the path")
    small = _fasta(folder, "small_bfd", _SMALL_BFD)
    prefixes = _prefix(folder, _BFD), _prefix(folder, _UNIREF30)
    whole = _bfd(*prefixes)
    # One of the two alone must not go unnoticed.
    if not whole and (preset == "full_dbs" or (any(prefixes) and not small)):
        raise _missing(folder, "BFD with UniRef30 for full_dbs", (*_BFD, *_UNIREF30))
    if preset == "reduced_dbs" and not small:
        raise _missing(folder, "small BFD for reduced_dbs", _SMALL_BFD)
    preset = preset or ("full_dbs" if whole else "reduced_dbs")
    found = (
        _fasta(folder, "uniref90", _UNIREF90),
        whole if preset == "full_dbs" else small,
        _fasta(folder, "mgnify", _MGNIFY),
        _fasta(folder, "uniprot", _UNIPROT),
    )
    databases = tuple(database for database in found if database)
    if not databases:
        raise _missing(
            folder,
            "database of AlphaFold's",
            (*_UNIREF90, *_BFD, *_UNIREF30, *_SMALL_BFD, *_MGNIFY, *_UNIPROT),
        )
    pdb70 = _prefix(folder, ("pdb70/*_a3m.ffdata", "pdb70/*_hhm.ffdata"))
    return DataDir(
        preset,
        databases,
        pdb70,
        _there(folder / "pdb_seqres" / "pdb_seqres.txt"),
        _there(folder / "pdb_mmcif" / "mmcif_files"),
        _there(folder / "pdb_mmcif" / "obsolete.dat"),
    )


def _fasta(folder: Path, name: str, patterns: Sequence[str]) -> Database | None:
    """The newest release, by name, of a FASTA database: one file, or shards of it."""
    for pattern in patterns:
        for packed in _PACKED:
            if files := sorted(folder.glob(pattern + packed)):
                return Database(name, files[-1])
        if shards := sorted(folder.glob(f"{pattern}-00000-of-[0-9][0-9][0-9][0-9][0-9]")):
            return Database(name, whole_path(shards[-1]))
    return None


def _bfd(bfd: Path | None, uniref30: Path | None) -> Database | None:
    """BFD and UniRef30, which hhblits searches in one run."""
    return Database("bfd_uniref", bfd, kind="bfd", also=(uniref30,)) if bfd and uniref30 else None


def _prefix(folder: Path, patterns: Sequence[str]) -> Path | None:
    """The prefix of the newest HH-suite database, by name, of the first pattern that fits."""
    for pattern in patterns:
        if files := sorted(folder.glob(pattern)):
            return files[-1].with_name(files[-1].name[: -len("_a3m.ffdata")])
    return None


def _there(path: Path) -> Path | None:
    return path if path.exists() else None


def _missing(folder: Path, what: str, looked_for: Sequence[str]) -> SearchError:
    return SearchError(f"{folder}: holds no {what}; looked for {', '.join(looked_for)}")
