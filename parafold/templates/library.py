"""The mmCIF files of known structures: a folder like AlphaFold's pdb_mmcif, or a copy of the PDB's."""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Mapping
from pathlib import Path

from parafold.errors import InputError
from parafold.protein.text_file import read_text
from parafold.templates.entry import TemplateChain, read_block, read_block_chains, release_date

_ENDINGS = (".cif", ".cif.gz")
_PDB_ID = re.compile("[0-9a-z]{4}")


class SkippedError(Exception):
    """The hit fails a filter, nothing is wrong with it."""


class NoDataError(Exception):
    """The structure file lacks what the hit promises."""


class MissingFileError(Exception):
    """There is no file of the structure."""


class Library:
    """Where the structures are, and which of them may be used.

    `latest` is a date or "YYYY-MM-DD"; `release_dates` and `obsolete` are by lower-case PDB id. Files are
    named PDBID.cif or PDBID.cif.gz, in lower or upper case, and may be in folders named by the id's two
    letters in the middle.

    Raises:
        InputError: the date is no date, or the folder is missing or holds no mmCIF file.
    """

    def __init__(
        self,
        folder: str | Path,
        latest: str | datetime.date,
        release_dates: Mapping[str, datetime.date] | None = None,
        obsolete: Mapping[str, str | None] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.latest = _date(latest)
        self.release_dates = release_dates or {}
        self.obsolete = obsolete or {}
        # Chains of one entry follow one another among hits.
        self._last: tuple[str, dict[str, TemplateChain]] | None = None
        _check_folder(self.folder)

    def current_id(self, pdb_id: str) -> str:
        """The id under which an entry is known today. Raises NoDataError if it was withdrawn."""
        if pdb_id in self.obsolete:
            successor = self.obsolete[pdb_id]
            if successor is None:
                raise NoDataError("withdrawn from the PDB")
            if pdb_id not in self.release_dates:
                return successor
        return pdb_id

    def check_date(self, date: datetime.date | None) -> None:
        """Raises SkippedError for a date after the latest allowed."""
        if date is not None and date > self.latest:
            raise SkippedError

    def chains(self, pdb_id: str) -> dict[str, TemplateChain]:
        """The chains of an entry. Raises MissingFileError, NoDataError, or SkippedError for its date."""
        if self._last is None or self._last[0] != pdb_id:
            self._last = (pdb_id, self._read(self._file(pdb_id)))
        return self._last[1]

    def _file(self, pdb_id: str) -> Path:
        folders = (self.folder, self.folder / pdb_id[1:3], self.folder / pdb_id[1:3].upper())
        for folder in folders:
            for name in (pdb_id, pdb_id.upper()):
                for ending in _ENDINGS:
                    if (path := folder / f"{name}{ending}").is_file():
                        return path
        raise MissingFileError

    def _read(self, path: Path) -> dict[str, TemplateChain]:
        try:
            block = read_block(path)
            date = release_date(block)
            if date is None:
                raise NoDataError(
                    f"{path} gives no release date to compare with the latest allowed, {self.latest}"
                )
            self.check_date(date)
            return read_block_chains(block, path)
        except InputError as error:
            raise NoDataError(str(error)) from None


def read_obsolete(path: str | Path) -> dict[str, str | None]:
    """The PDB's list of withdrawn entries, obsolete.dat: lower-case id -> first successor, None without one.

    Raises:
        InputError: it cannot be read, or is damaged; naming the line.
    """
    successors: dict[str, str | None] = {}
    for number, raw in enumerate(read_text(path, "obsolete.dat").splitlines(), start=1):
        line = raw.strip()
        # OBSLTE    31-JUL-94 116L     216L
        if line.startswith("OBSLTE"):
            old, new = line[20:24].lower(), line[29:33].lower()
            if not _PDB_ID.fullmatch(old) or not (_PDB_ID.fullmatch(new) or len(line) == 24):
                raise InputError(
                    f"{path} line {number}: expected a line such as 'OBSLTE    31-JUL-94 116L     216L'; "
                    "fetch the file again"
                )
            successors[old] = new or None
    if not successors:
        raise InputError(f"{path}: no line begins with OBSLTE; give the PDB's file obsolete.dat")
    return successors


def _date(date: str | datetime.date) -> datetime.date:
    if not isinstance(date, str):
        return date
    try:
        return datetime.date.fromisoformat(date)
    except ValueError:
        raise InputError(f"template date {date!r}: write it as YYYY-MM-DD") from None


def _check_folder(folder: Path) -> None:
    """A folder without any structure is the wrong one; one that lacks some is a copy that is not complete."""
    try:
        with os.scandir(folder) as entries:
            found = any(_holds_structures(entry) for entry in entries)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be read ({error.strerror}); give the folder of the templates' mmCIF files"
        ) from None
    if not found:
        raise InputError(f"{folder}: no .cif files in it; give the folder of the templates' mmCIF files")


def _holds_structures(entry: os.DirEntry) -> bool:
    return entry.name.lower().endswith(_ENDINGS) or (len(entry.name) == 2 and entry.is_dir())
