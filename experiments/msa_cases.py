"""What the MSA experiments search for and search in: real queries, and databases of a chosen size.

Databases are real sequences followed by shuffled copies of them, as many as the size asks for: the same
lengths and residues, but no homologs, as most of a real database has none for a given query.
"""

from __future__ import annotations

import lzma
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyhmmer

from parafold.msa import Database

# Streamed chunks, about a gigabyte each, of the databases that the 2023 report searched, in its order.
SHARES = {"uniref90": 59, "small_bfd": 17, "mgnify": 71}
PROTEOME = Path(pyhmmer.__file__).parent / "tests" / "data" / "seqs" / "938293.PRJEB85.HG003687.faa"
LINE = 60

Record = tuple[str, str]


@dataclass(frozen=True)
class Cases:
    """Databases and where their sequences and the queries come from."""

    source: str
    databases: list[Database]
    proteins: list[Record]

    def query(self, length: int) -> dict[str, str]:
        """One query of exactly this length: the start of a real protein, or of several in a row where none is
        long enough. Shorter queries are the starts of longer ones."""
        together = "".join(sequence for _, sequence in self.proteins)
        enough = (sequence for _, sequence in self.proteins if len(sequence) >= max(length, 1024))
        # The shortest of them: very long proteins are repeats.
        sequence = min(enough, key=len, default=together)
        if len(sequence) < length:
            raise ValueError(f"no query of {length} residues: the proteins have {len(sequence)} together")
        return {f"{length} residues": sequence[:length]}

    def mixed(self, count: int) -> dict[str, str]:
        """Whole proteins of up to 1,024 residues, evenly over the range of their lengths."""
        proteins = sorted((r for r in self.proteins if 30 <= len(r[1]) <= 1024), key=lambda r: (len(r[1]), r))
        return dict(
            proteins[i] for i in np.linspace(0, len(proteins) - 1, count).round().astype(int).tolist()
        )


def make_cases(folder: Path, megabytes: float, data: Path | None = None) -> Cases:
    """Queries, and three databases of `megabytes` together, written to `folder` unless they are there.

    Without `data` both come from a proteome in the pyhmmer package; with it, databases grow from
    `data/search_db` and queries are those of `data/structures30`.
    """
    if data is None:
        proteins = read_fasta(PROTEOME)
        sources = dict(zip(SHARES, _shares(proteins), strict=True))
        source = f"proteome of {len(proteins)} proteins in the pyhmmer package"
    else:
        proteins = read_fasta(data / "structures30" / "sequences.fasta")
        sources = {name: read_fasta(data / "search_db" / f"{name}_demo.fasta.xz") for name in SHARES}
        source = "search_db and structures30"
    residues = {name: sum(len(s) for _, s in records) for name, records in sources.items()}
    place = folder / f"{'proteome' if data is None else 'search_db'}-{megabytes:g}MB"
    if not place.exists():
        making = folder / f".{place.name}.{os.getpid()}"
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        for number, (name, records) in enumerate(sources.items()):
            size = 1e6 * megabytes * residues[name] / sum(residues.values())
            _write(making / f"{name}.fasta", records, size, np.random.default_rng(number))
        making.rename(place)
    databases = [Database(name, place / f"{name}.fasta") for name in SHARES]
    return Cases(source, databases, proteins)


def read_fasta(path: Path) -> list[Record]:
    """Names and sequences; stop codons at ends are left out."""
    content = path.read_bytes()
    text = (lzma.decompress(content) if path.suffix == ".xz" else content).decode()
    records = []
    for entry in text.removeprefix(">").split("\n>"):
        header, _, lines = entry.partition("\n")
        records.append((header.split()[0], lines.replace("\n", "").rstrip("*")))
    return records


def _shares(proteins: list[Record]) -> Iterator[list[Record]]:
    """The proteins in three parts, whose residues are as those of the report's databases."""
    ends = np.cumsum([len(s) for _, s in proteins])
    edges = np.cumsum([0, *SHARES.values()]) / sum(SHARES.values()) * ends[-1]
    cuts = np.searchsorted(ends, edges, side="left")
    for start, end in zip(cuts, [*cuts[1:-1], len(proteins)], strict=False):
        yield proteins[start:end]


def _write(path: Path, records: list[Record], size: float, rng: np.random.Generator) -> None:
    """The records, then shuffled copies of them, until the file has the size."""
    residues = np.frombuffer("".join(s for _, s in records).encode(), np.uint8)
    lengths = np.array([len(s) for _, s in records])
    owner = np.repeat(np.arange(len(records)), lengths)
    ends = np.cumsum(lengths)
    written = copy = 0
    with path.open("w") as file:
        while written < size:
            letters = residues if copy == 0 else residues[np.argsort(owner + rng.random(len(owner)))]
            text = letters.tobytes().decode()
            for number, (name, _) in enumerate(records):
                sequence = text[ends[number] - lengths[number] : ends[number]]
                lines = "\n".join(sequence[at : at + LINE] for at in range(0, len(sequence), LINE))
                written += file.write(f">{name if copy == 0 else f'shuffled_{copy}_{number}'}\n{lines}\n")
                if written >= size:
                    break
            copy += 1
