"""What to fold: targets of one or more chains, read from FASTA or AlphaFold 3's JSON."""

import re
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from parafold.errors import InputError
from parafold.protein.alignment import fasta_records, text_lines
from parafold.protein.alphafold3_json import Entity, read_jobs
from parafold.protein.residue import RESTYPES_WITH_X
from parafold.protein.text_file import read_text

Dialect = Literal["auto", "colabfold", "alphafold", "alphafold3"]

# A chain of fewer residues has no fold; a target of more has a pair representation that fits no device.
MIN_CHAIN_RESIDUES = 2
MAX_RESIDUES = 16_384
_MAX_NAME = 80
# str.upper would turn letters of other alphabets into amino acids.
_UPPER = str.maketrans(string.ascii_lowercase, string.ascii_uppercase)


@dataclass(frozen=True)
class Chain:
    """One protein chain: its id in the structure file, its residues (twenty letters and X), its header."""

    id: str
    sequence: str
    description: str = ""

    def __post_init__(self):
        fault = _fault(self.sequence)
        if fault:
            raise InputError(f"chain {self.id}: {fault}")


@dataclass(frozen=True)
class FoldInput:
    """One target: a name that is safe as a file name, and its chains. Its length is that of all chains."""

    name: str
    chains: tuple[Chain, ...]

    def __post_init__(self):
        if not self.chains:
            raise InputError(f"{self.name}: no chains; give at least one sequence")
        ids = [chain.id for chain in self.chains]
        if len(set(ids)) != len(ids):
            raise InputError(f"{self.name}: two chains have the same id; ids are {', '.join(ids)}")
        if len(self) > MAX_RESIDUES:
            raise InputError(
                f"{self.name}: {len(self):,} residues, more than the limit of {MAX_RESIDUES:,}; "
                "fold its domains or fewer chains at a time"
            )

    def __len__(self) -> int:
        return sum(len(chain.sequence) for chain in self.chains)

    @property
    def is_complex(self) -> bool:
        return len(self.chains) > 1

    @property
    def sequences(self) -> tuple[str, ...]:
        return tuple(chain.sequence for chain in self.chains)

    @property
    def unique_sequences(self) -> tuple[str, ...]:
        """Each different sequence once, in the order of its first chain."""
        return tuple(dict.fromkeys(self.sequences))


def chain_id(index: int) -> str:
    """The id of the chain with a 0-based index: A ... Z, AA, BA, ... as in AlphaFold's mmCIF files."""
    letters = ""
    while index >= 0:
        letters += chr(ord("A") + index % 26)
        index = index // 26 - 1
    return letters


def safe_name(text: str, fallback: str = "target") -> str:
    """The first word of a header as a file name: letters, digits, '.', '_' and '-', no leading '.' or '-'."""
    word = (text.split() or [""])[0]
    name = re.sub(r"[^A-Za-z0-9._-]", "_", word).lstrip(".-")[:_MAX_NAME]
    return name if name.strip("_.-") else fallback


def read_inputs(
    path: str | Path,
    dialect: Dialect = "auto",
    on_error: Callable[[str, InputError], None] | None = None,
) -> list[FoldInput]:
    """Reads the targets of a file.

    Dialects: "colabfold", FASTA with one target a record and ':' between its chains; "alphafold", FASTA with
    one target a file, named after it, and one chain a record; "alphafold3", AlphaFold 3's or the AlphaFold
    server's JSON, proteins only (its seeds are not read). "auto" takes JSON for "alphafold3" and FASTA for
    "colabfold".

    Lower case is read as upper case, blanks and a '*' at the end of a chain are dropped. Names become safe
    file names, and distinct ones also where upper and lower case count as the same.

    With `on_error` a bad target is handed to it, with its name, and left out; without, it is raised. What
    makes the whole file unreadable is always raised. All errors are InputError and name file, line and
    remedy.
    """
    path = Path(path)
    text = read_text(path, "FASTA or JSON")
    if dialect == "auto":
        is_json = path.suffix.lower() == ".json" or text.lstrip()[:1] in ("{", "[")
        dialect = "alphafold3" if is_json else "colabfold"
    if dialect == "alphafold3":
        targets = _json_targets(text, path)
    elif dialect == "colabfold":
        targets = _colabfold_targets(text, path)
    elif dialect == "alphafold":
        targets = iter([_alphafold_target(text, path)])
    else:
        raise InputError(f"dialect {dialect!r} is not known; use auto, colabfold, alphafold or alphafold3")

    inputs: list[FoldInput] = []
    taken: set[str] = set()
    for wanted, where, make_chains in targets:
        name = _distinct(wanted, taken)
        try:
            chains = make_chains()
            try:
                inputs.append(FoldInput(name, chains))
            except InputError as error:
                raise InputError(f"{where}: {error}") from None
        except InputError as error:
            if on_error is None:
                raise
            on_error(name, error)
    return inputs


# A target yet to be checked: the name it asks for, where it stands, and what makes its chains or raises.
_Target = tuple[str, str, Callable[[], tuple[Chain, ...]]]


def _colabfold_targets(text: str, path: Path) -> Iterator[_Target]:
    for line, header, residues in _records(text, path):

        def chains(line=line, header=header, residues=residues) -> tuple[Chain, ...]:
            parts = [_clean(part) for part in residues.split(":")]
            for number, part in enumerate(parts, start=1):
                which = f"chain {number} of {len(parts)}" if len(parts) > 1 else "the sequence"
                _check(part, text, path, line, which)
            return tuple(Chain(chain_id(i), part, header) for i, part in enumerate(parts))

        yield safe_name(header, safe_name(path.stem)), f"{path} line {line}", chains


def _alphafold_target(text: str, path: Path) -> _Target:
    records = list(_records(text, path))

    def chains() -> tuple[Chain, ...]:
        made = []
        for index, (line, header, residues) in enumerate(records):
            if ":" in residues:
                raise InputError(
                    f"{_line_of(':', text, path, line)}: ':' separates chains in the dialect colabfold only; "
                    "give each chain its own record, or read the file with that dialect"
                )
            sequence = _clean(residues)
            _check(sequence, text, path, line, "the sequence")
            made.append(Chain(chain_id(index), sequence, header))
        return tuple(made)

    return safe_name(path.stem.replace(" ", "_")), f"{path} line {records[0][0]}", chains


def _json_targets(text: str, path: Path) -> Iterator[_Target]:
    for job in read_jobs(text, str(path)):

        def chains(job=job) -> tuple[Chain, ...]:
            made: list[Chain] = []
            for entity in job.entities():
                sequence = _clean(entity.sequence)
                fault = _fault(sequence)
                if fault:
                    raise InputError(f"{entity.where}: {fault}")
                made += _copies(entity, sequence, taken=len(made))
            return tuple(made)

        yield safe_name(job.name.replace(" ", "_"), safe_name(path.stem)), job.where, chains


def _copies(entity: Entity, sequence: str, taken: int) -> list[Chain]:
    ids = entity.ids or [chain_id(taken + i) for i in range(entity.count)]
    return [Chain(id, sequence, entity.description) for id in ids]


def _records(text: str, path: Path) -> Iterator[tuple[int, str, str]]:
    records = list(fasta_records(text, str(path)))
    if not records:
        raise InputError(f"{path}: no sequence in it; a FASTA record is a line '>NAME' and lines of residues")
    return iter(records)


def _clean(residues: str) -> str:
    return "".join(residues.split()).translate(_UPPER).removesuffix("*")


def _fault(sequence: str) -> str | None:
    """What is wrong with a cleaned sequence, and the remedy; None if nothing is."""
    bad = next((letter for letter in sequence if letter not in RESTYPES_WITH_X), None)
    if bad == "-":
        return "'-' is a gap, not an amino acid; give the sequence without gaps"
    if bad == "*":
        return "'*' (stop) inside the sequence; give the translated part only"
    if bad:
        return f"{bad!r} is not an amino acid; {'replace it by X' if bad.isalpha() else 'remove it'}"
    if len(sequence) < MIN_CHAIN_RESIDUES:
        has = "1 residue" if sequence else "no residues"
        return f"the sequence has {has}, at least {MIN_CHAIN_RESIDUES} are needed"
    return None


def _check(sequence: str, text: str, path: Path, header_line: int, which: str) -> None:
    """Raises InputError naming the line of the first illegal letter of a record."""
    fault = _fault(sequence)
    if not fault:
        return
    bad = next((letter for letter in sequence if letter not in RESTYPES_WITH_X), None)
    if bad:
        raise InputError(f"{_line_of(bad, text, path, header_line)}: {fault}")
    raise InputError(f"{path} line {header_line}: {fault.replace('the sequence', which, 1)}")


def _line_of(letter: str, text: str, path: Path, header_line: int) -> str:
    lines = text_lines(text)
    found = (i for i in range(header_line, len(lines)) if letter in _clean(lines[i]))
    return f"{path} line {next(found, header_line - 1) + 1}"


def _distinct(name: str, taken: set[str]) -> str:
    """The name, or name_2, name_3, ... if it is taken; case alone does not tell files apart everywhere."""
    candidate, number = name, 1
    while candidate.lower() in taken:
        number += 1
        candidate = f"{name}_{number}"
    taken.add(candidate.lower())
    return candidate
