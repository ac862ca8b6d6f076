"""AlphaFold 3's JSON inputs, and those of the AlphaFold server, as far as they describe proteins.

What AlphaFold 2 cannot do, or what would be lost without notice (ligands, nucleic acids, modified residues,
own alignments), is refused by name.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from parafold.errors import InputError

# Entity fields that change the prediction; `None` and the listed values mean that they are not used.
_UNSUPPORTED_FIELDS = {
    "modifications": [],
    "glycans": [],
    "templates": [],
    "unpairedMsa": None,
    "unpairedMsaPath": None,
    "pairedMsa": None,
    "pairedMsaPath": None,
}
_UNSUPPORTED_JOB_FIELDS = ("bondedAtomPairs", "userCCD", "userCCDPath")


@dataclass(frozen=True)
class Entity:
    """One protein of a job: its residues as written, and its chain ids or, if those are empty, its copies."""

    where: str
    sequence: str
    ids: list[str]
    count: int
    description: str


@dataclass(frozen=True)
class Job:
    """One prediction that a JSON file asks for; its fields are checked by `entities`."""

    name: str
    where: str
    content: dict[str, Any]

    def entities(self) -> Iterator[Entity]:
        """Yields the proteins. Raises InputError for anything that is not a plain protein."""
        for field in _UNSUPPORTED_JOB_FIELDS:
            if self.content.get(field):
                raise InputError(f"{self.where}: '{field}' is not supported; remove it")
        sequences = self.content.get("sequences")
        if not isinstance(sequences, list) or not sequences:
            raise InputError(
                f"{self.where}: 'sequences' must be a list with one entry for each different chain"
            )
        for number, entry in enumerate(sequences, start=1):
            where = f"{self.where}, sequence {number}"
            if not isinstance(entry, dict) or len(entry) != 1:
                raise InputError(f'{where}: expected {{"protein": {{"id": ..., "sequence": ...}}}}')
            kind, fields = next(iter(entry.items()))
            if kind not in ("protein", "proteinChain"):
                raise InputError(f"{where} is a {kind!r}; AlphaFold 2 folds proteins only, remove it")
            yield _entity(fields, where)


def read_jobs(text: str, source: str) -> list[Job]:
    """The jobs of a JSON file: one object (AlphaFold 3), or a list of them (the server).

    Raises InputError for broken JSON, with its line, and for a file that holds something else.
    """
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{source} line {error.lineno}: broken JSON, {error.msg.lower()}; correct it"
        ) from None
    except RecursionError:
        raise InputError(f"{source}: JSON nested too deeply to be an AlphaFold 3 input") from None
    listed = content if isinstance(content, list) else [content]
    if not listed:
        raise InputError(f"{source}: an empty list; an AlphaFold 3 input has 'name' and 'sequences'")
    jobs = []
    for number, job in enumerate(listed, start=1):
        where = f"{source}, job {number}" if len(listed) > 1 else source
        if not isinstance(job, dict) or "sequences" not in job:
            raise InputError(f"{where}: not an AlphaFold 3 input; it needs the fields 'name' and 'sequences'")
        name = job.get("name", "")
        jobs.append(Job(name if isinstance(name, str) else "", where, job))
    return jobs


def _entity(fields: Any, where: str) -> Entity:
    if not isinstance(fields, dict) or not isinstance(fields.get("sequence"), str):
        raise InputError(f"{where}: 'sequence' must be a text of residues")
    for field, unused in _UNSUPPORTED_FIELDS.items():
        if fields.get(field) is not None and fields[field] != unused:
            raise InputError(f"{where}: '{field}' is not supported in JSON inputs; remove it")
    ids = fields.get("id", [])
    ids = [ids] if isinstance(ids, str) else ids
    if not isinstance(ids, list) or not all(
        isinstance(id, str) and id.isalnum() and id.isascii() for id in ids
    ):
        raise InputError(f"{where}: 'id' must be letters such as \"A\", or a list of those")
    count = fields.get("count", 1)
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= 1000:
        raise InputError(f"{where}: 'count' must be a whole number from 1 to 1000")
    description = fields.get("description")
    return Entity(where, fields["sequence"], ids, count, description if isinstance(description, str) else "")
