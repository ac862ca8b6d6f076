"""The published AlphaFold 2 parameters: where they lie on this machine, and how to get them."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import re
import shutil
import ssl
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, runtime_checkable

from numpy.lib import format as npy

from parafold.errors import OutputError, WeightsError
from parafold.files import atomic_write, make_folder, output_error, user_data_folder

URL = "https://storage.googleapis.com/alphafold/alphafold_params_2022-12-06.tar"
LICENCE = (
    "AlphaFold 2 parameters, (c) DeepMind Technologies Limited, under the Creative Commons Attribution 4.0 "
    "International licence (CC BY 4.0, https://creativecommons.org/licenses/by/4.0/): free to use and share, "
    "also commercially, with attribution. Cite Jumper et al. 2021, https://doi.org/10.1038/s41586-021-03819-2"
)
# Beside the parameters once all of them are there: where they come from, their licence, sizes and digests.
RECORD = "parafold_weights.json"

# Called with the bytes that have arrived and the bytes there are (None where the server does not tell).
Progress = Callable[[int, int | None], None]


@runtime_checkable
class _Readable(Protocol):
    """A member of a tar or zip archive: less than `typing.IO`."""

    def read(self, n: int = -1, /) -> bytes: ...

    def tell(self) -> int: ...


_TIMEOUT_SECONDS = 60
_ATTEMPTS = 5
_CHUNK = 1 << 20
_BROKEN = (ConnectionError, TimeoutError)
_PARAMETERS = re.compile(r"params_(\w+)\.npz")


def default_folder() -> Path:
    """Where `fetch` puts the parameters unless told otherwise: the user's data folder of this platform."""
    return user_data_folder() / "params"


def find(path: str | Path | None = None) -> dict[str, Path]:
    """The parameter files in a folder (or its `params` folder, as AlphaFold lays it out), or the one file
    given: published model name, such as `model_1_ptm`, -> `.npz` file. Looks in `default_folder()` for None.

    Raises:
        WeightsError: there is nothing of that name, or no parameters in it.
    """
    folder = default_folder() if path is None else Path(path)
    if folder.is_file():
        if folder.suffix != ".npz":
            raise WeightsError(
                f"{folder}: not a parameter file; give a params_*.npz or the folder that holds them"
            )
        match = _PARAMETERS.fullmatch(folder.name)
        return {match.group(1) if match else folder.stem: folder}
    for place in (folder, folder / "params"):
        if files := _parameters_in(place):
            return files
    advice = "run `parafold weights fetch`, or give the folder that holds params_*.npz"
    if not folder.exists():
        raise WeightsError(f"{folder}: no such folder of parameters; {advice}")
    raise WeightsError(f"{folder}: holds no params_*.npz; {advice}")


def _parameters_in(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    found = ((_PARAMETERS.fullmatch(file.name), file) for file in sorted(folder.iterdir()) if file.is_file())
    return {match.group(1): file for match, file in found if match}


def fetch(
    dest: str | Path | None = None, progress: Progress | None = None, *, url: str = URL
) -> dict[str, Path]:
    """Download the published parameters into a folder and check them: model name -> `.npz` file.

    The archive arrives under a temporary name; a download that broke off is taken up where it stopped. It is
    checked against the size and digest that the server states, each parameter file against its own header,
    and only files that passed get their final names. Does nothing when all of it is there already.

    Raises:
        WeightsError: the server cannot be reached, or what arrived is damaged or not the parameters.
        OutputError: the folder cannot be written, or the disk is full.
    """
    folder = make_folder(default_folder() if dest is None else Path(dest))
    if _is_complete(folder, url):
        return find(folder)
    archive = folder / (PurePosixPath(url).name + ".part")
    try:
        _download(url, archive, progress)
        try:
            files = _unpack(archive, folder)
        except WeightsError:
            # Kept, it would fail again for ever.
            _discard(archive)
            raise
        record = {"url": url, "licence": LICENCE, "files": files}
        atomic_write(folder / RECORD, json.dumps(record, indent=1) + "\n")
        _discard(archive)
    except OSError as error:
        raise output_error(folder, error) from error
    return find(folder)


def _is_complete(folder: Path, url: str) -> bool:
    try:
        record = json.loads((folder / RECORD).read_text())
        return record["url"] == url and all(
            (folder / name).stat().st_size == entry["bytes"] for name, entry in record["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


@dataclass(frozen=True)
class _Remote:
    """What the server tells of the archive, as far as it does; kept beside the part that has arrived."""

    etag: str | None = None
    size: int | None = None
    md5: str | None = None

    @classmethod
    def read(cls, archive: Path) -> _Remote | None:
        try:
            return cls(**json.loads(_remote_file(archive).read_text()))
        except (OSError, ValueError, TypeError):
            return None


def _download(url: str, archive: Path, progress: Progress | None) -> None:
    """Bring `archive` to its full length and check it, with a few new attempts when the connection breaks."""
    failures = 0
    remote = _Remote.read(archive)
    while remote is None or remote.size is None or _size(archive) != remote.size:
        before = _size(archive)
        try:
            remote = _receive(url, archive, remote, progress)
        except (urllib.error.URLError, http.client.HTTPException, ssl.SSLError, *_BROKEN) as error:
            reason, retry = _reason(error)
            failures = 1 if _size(archive) > before else failures + 1
            if retry and failures < _ATTEMPTS:
                remote = _Remote.read(archive)
                continue
            raise WeightsError(
                f"{url}: {reason} after {_size(archive)} bytes; run it again to go on from there, or "
                f"download it by other means, unpack it, and name its folder with --weights"
            ) from error
        if remote.size is None:
            break
    if remote.md5 is not None and _md5(archive) != remote.md5:
        _discard(archive)
        raise WeightsError(f"{url}: the download is damaged (wrong digest) and was removed; run it again")


def _reason(error: Exception) -> tuple[str, bool]:
    """What went wrong in words, and whether another attempt may help."""
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code} {error.reason}", error.code >= 500
    reason = getattr(error, "reason", None) or str(error) or type(error).__name__
    return f"the download broke off ({reason})", True


def _receive(url: str, archive: Path, remote: _Remote | None, progress: Progress | None) -> _Remote:
    """One request for what is missing."""
    have = _size(archive)
    request = urllib.request.Request(url, headers={"User-Agent": "parafold"})
    if have and remote and remote.etag:
        # If-Range: the rest of the same file, or all of it if the file has changed meanwhile.
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", remote.etag)
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:
        if response.status != 206:
            have = 0
        length = response.headers.get("Content-Length")
        size = have + int(length) if length and length.isdigit() else None
        md5 = _stated_md5(response.headers.get_all("x-goog-hash") or [])
        remote = _Remote(response.headers.get("ETag"), size, md5)
        _require_space(archive.parent, size, have)
        _remote_file(archive).write_text(json.dumps(asdict(remote)))
        with archive.open("r+b" if have else "wb") as file:
            file.seek(have)
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                have += len(chunk)
                if progress:
                    progress(have, size)
            file.flush()
            os.fsync(file.fileno())
        if size is not None and have < size:
            raise ConnectionError(f"the connection closed {size - have} bytes before the end")
        return remote


def _require_space(folder: Path, expected: int | None, have: int) -> None:
    """The archive and what it holds lie side by side for a moment."""
    free = shutil.disk_usage(folder).free
    if expected is not None and free < 2 * expected - have:
        raise OutputError(
            f"{folder}: {free / 1e9:.1f} GB free, the parameters need {(2 * expected - have) / 1e9:.1f} GB "
            "while they are unpacked; free some space or choose another folder"
        )


def _stated_md5(hashes: list[str]) -> str | None:
    """The digest among Google Storage's headers (`x-goog-hash: crc32c=...,md5=...`), in base64."""
    for item in ",".join(hashes).split(","):
        name, _, value = item.strip().partition("=")
        if name == "md5":
            return value
    return None


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).digest()
    return base64.b64encode(digest).decode()


def _unpack(archive: Path, folder: Path) -> dict[str, dict[str, Any]]:
    """Take the parameters and the licence out of the archive, each checked before it gets its final name."""
    files: dict[str, dict[str, Any]] = {}
    try:
        with tarfile.open(archive, "r:") as tar:
            for member in tar:
                name = _safe_name(member)
                source = tar.extractfile(member) if name else None
                if name and source:
                    with source:
                        files[name] = _place(source, folder / name)
    except (tarfile.TarError, EOFError) as error:
        _discard(archive)
        raise WeightsError(
            f"{archive}: not an intact tar archive ({error}), removed; run it again"
        ) from error
    if not any(_PARAMETERS.fullmatch(name) for name in files):
        raise WeightsError(f"{archive}: holds no params_*.npz, removed; check the address")
    return files


def _safe_name(member: tarfile.TarInfo) -> str | None:
    """The plain name under which a member is kept, None for one that is not wanted.

    Raises:
        WeightsError: the member would lead out of the folder, or is a link: not the published archive.
    """
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or not (member.isfile() or member.isdir()):
        raise WeightsError(
            f"the archive holds {member.name!r}, which no parameter archive does; check the address"
        )
    wanted = member.isfile() and (_PARAMETERS.fullmatch(path.name) or path.name == "LICENSE")
    return path.name if wanted else None


def _place(source: _Readable, target: Path) -> dict[str, Any]:
    """Write one file beside its final name, check it, and rename it."""
    beside = target.with_name(f".part-{target.name}")
    digest = hashlib.sha256()
    size = 0
    try:
        with beside.open("wb") as file:
            while chunk := source.read(_CHUNK):
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
            file.flush()
            os.fsync(file.fileno())
        if target.suffix == ".npz":
            check_npz(beside)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
    return {"bytes": size, "sha256": digest.hexdigest()}


def check_npz(path: Path) -> int:
    """The number of arrays in an `.npz` file, after checking that each is a plain array as long as its header
    says. Reads the headers only.

    Raises:
        WeightsError: the file is damaged, empty, or holds Python objects.
    """
    try:
        with zipfile.ZipFile(path) as npz:
            names = npz.namelist()
            for name in names:
                with npz.open(name) as file:
                    shape, dtype, header = _npy_header(file)
                count = 1
                for extent in shape:
                    count *= extent
                if dtype.hasobject or npz.getinfo(name).file_size != header + count * dtype.itemsize:
                    raise WeightsError(
                        f"{path}: array {name} is damaged or no plain array; fetch the file again"
                    )
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError) as error:
        raise WeightsError(f"{path}: not an intact .npz file ({error}); fetch it again") from error
    if not names:
        raise WeightsError(f"{path}: holds no array; fetch it again")
    return len(names)


def _npy_header(file: _Readable) -> tuple[tuple[int, ...], Any, int]:
    """Shape, dtype and the header's own length."""
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype, file.tell()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _remote_file(archive: Path) -> Path:
    return archive.with_suffix(".json")


def _discard(archive: Path) -> None:
    archive.unlink(missing_ok=True)
    _remote_file(archive).unlink(missing_ok=True)
