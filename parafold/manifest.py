"""What a target's folder holds and what it was made from: `manifest.json`, which makes a run resumable.

The work on a target is a few stages (`msas`, `features`, one per prediction, `ranking`). Each finished stage
is recorded with a key, the digest of everything that decides its result, and with size and digest of every
file it wrote. A later run takes a stage as done when key and files still agree, and redoes it otherwise.

`manifest.json` stands in the folder of a finished target only; until then, and again while a later run adds
to it, the record is called `manifest.partial.json`.
"""

import hashlib
import importlib.metadata
import json
import platform
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from parafold import files

NAME = "manifest.json"
PARTIAL = "manifest.partial.json"
FORMAT = 1
_PACKAGES = ("parafold", "jax", "jaxlib", "dm-haiku", "numpy", "gemmi", "pyhmmer", "safetensors")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a number. Imports none of them."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def digest(value: Any) -> str:
    """SHA-256 of a JSON-serializable value, independent of the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class Manifest:
    """The record of one target's folder.

    Raises `OutputError` where a record cannot be written. A damaged record counts as none: everything it
    spoke of is done again.
    """

    def __init__(self, folder: Path, *, fresh: bool = False):
        self.folder = folder
        self._content: dict[str, Any] = {"format": FORMAT, "stages": {}}
        self._checked: dict[str, bool] = {}
        if not fresh:
            self._read()

    def _read(self) -> None:
        for name in (NAME, PARTIAL):
            try:
                content = json.loads((self.folder / name).read_text())
                stages = content["stages"]
                sound = content["format"] == FORMAT and all(
                    isinstance(stage["key"], str) and isinstance(stage["files"], dict)
                    for stage in stages.values()
                )
            except (OSError, ValueError, TypeError, KeyError, AttributeError):
                continue
            if sound:
                self._content = content
                return

    @property
    def complete(self) -> bool:
        """Whether the folder's record carries its final name."""
        return (self.folder / NAME).is_file()

    def is_done(self, stage: str, key: str) -> bool:
        """Whether a stage was finished with this key and all its files are as it left them."""
        record = self._content["stages"].get(stage)
        if record is None or record["key"] != key:
            return False
        if stage not in self._checked:
            self._checked[stage] = all(self._is_intact(*item) for item in record["files"].items())
        return self._checked[stage]

    def _is_intact(self, name: str, expected: Mapping[str, Any]) -> bool:
        path = self.folder / name
        try:
            return path.stat().st_size == expected["bytes"] and files.sha256_file(path) == expected["sha256"]
        except (OSError, KeyError, TypeError):
            return False

    def details(self, stage: str) -> dict[str, Any]:
        """What was noted with a stage."""
        return self._content["stages"][stage]["details"]

    def reopen(self) -> None:
        """Take away the final name before anything in the folder changes, and the litter of a killed run."""
        try:
            (self.folder / NAME).unlink(missing_ok=True)
            for unfinished in self.folder.rglob(files.UNFINISHED):
                unfinished.unlink(missing_ok=True)
        except OSError as error:
            raise files.output_error(self.folder / NAME, error) from error
        self._write(PARTIAL)

    def record(self, stage: str, key: str, paths: Iterable[Path], details: Mapping[str, Any]) -> None:
        """Note a finished stage with the files it wrote; what only an earlier one wrote goes away."""
        earlier = self._content["stages"].get(stage, {"files": {}})["files"]
        self._content["stages"][stage] = {
            "key": key,
            "details": dict(details),
            "files": {
                path.relative_to(self.folder).as_posix(): {
                    "bytes": path.stat().st_size,
                    "sha256": files.sha256_file(path),
                }
                for path in paths
            },
        }
        self._checked[stage] = True
        self._write(PARTIAL)
        for name in earlier.keys() - self._content["stages"][stage]["files"].keys():
            (self.folder / name).unlink(missing_ok=True)

    def finish(self, summary: Mapping[str, Any]) -> Path:
        """Write the record under its final name, with command, versions and a summary of the target."""
        self._content = {
            "format": FORMAT,
            "command": sys.argv,
            "versions": versions(),
            **summary,
            "stages": self._content["stages"],
        }
        path = self._write(NAME)
        (self.folder / PARTIAL).unlink(missing_ok=True)
        return path

    def _write(self, name: str) -> Path:
        path = self.folder / name
        files.atomic_write(path, json.dumps(self._content, indent=1) + "\n")
        return path
