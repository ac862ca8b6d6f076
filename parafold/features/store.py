"""features.safetensors: features in a file that can be handed from one machine to another.

The file is a safetensors file, so nothing in it can be executed. Its metadata holds one entry, JSON text with
the format's version, what `Features` holds beside arrays, and type, shape and SHA-256 digest of every array,
and a digest of all that. Text is stored as its bytes.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from parafold.errors import FeaturesError
from parafold.features.build import Features
from parafold.features.schema import REBUILD, check_layout, check_values
from parafold.files import atomic_write

FORMAT, VERSION = "parafold features", 1
MAX_BYTES = 32 << 30
_KEY = "parafold"
_Entry = tuple[str, tuple[int, ...], str]  # type ("S" for text), shape without the text's width, digest


def write_features(path: str | os.PathLike, features: Features) -> None:
    """Write features to `path`; a file of that name is complete.

    Raises:
      FeaturesError: the arrays are not what `Features` should hold.
      OutputError: the file cannot be written.
    """
    where = f"features of {features.name}"
    _check(where, features)
    tensors = {name: _as_numbers(array) for name, array in features.arrays.items()}
    header = {
        "format": FORMAT,
        "version": VERSION,
        "name": features.name,
        "kind": features.kind,
        "sequences": list(features.sequences),
        "arrays": {
            name: {
                "dtype": _dtype_name(array),
                "shape": list(array.shape),
                "sha256": hashlib.sha256(tensors[name].tobytes()).hexdigest(),
            }
            for name, array in sorted(features.arrays.items())
        },
    }
    text = json.dumps(header | {"sha256": _digest(header)}, sort_keys=True)
    atomic_write(path, safetensors.numpy.save(tensors, metadata={_KEY: text}))


def read_features(path: str | os.PathLike, max_bytes: int = MAX_BYTES) -> Features:
    """Read and check a features file.

    Raises:
      FeaturesError: there is no such file, it is larger than `max_bytes`, it is no features file or of
        another version, or it is truncated, damaged or inconsistent. The message names the file and the
        array.
    """
    where = os.fspath(path)
    try:
        size = Path(path).stat().st_size
    except OSError as error:
        raise FeaturesError(f"{where}: cannot be read, {error.strerror}; {REBUILD}") from error
    if size > max_bytes:
        raise FeaturesError(f"{where}: {size} bytes are more than the {max_bytes} allowed; {REBUILD}")
    try:
        with safetensors.safe_open(path, framework="numpy") as stream:
            name, kind, sequences, entries = _header(where, stream.metadata() or {})
            check_layout(where, kind, sequences, {key: entry[:2] for key, entry in entries.items()})
            odd = sorted(set(stream.keys()) ^ set(entries))
            if odd:
                raise FeaturesError(f"{where}: array {odd[0]} is not both announced and stored; {REBUILD}")
            arrays = {key: _read_array(where, key, stream, *entries[key]) for key in sorted(entries)}
    except (safetensors.SafetensorError, OSError) as error:
        raise FeaturesError(
            f"{where}: damaged, truncated or not a features file ({_one_line(error)}); {REBUILD}"
        ) from error
    features = Features(name, kind, sequences, arrays)
    check_values(where, kind, sequences, arrays)
    return features


def _header(where: str, metadata: dict[str, str]) -> tuple[str, Any, tuple[str, ...], dict[str, _Entry]]:
    """Name, kind, sequences and the arrays' entries."""
    if _KEY not in metadata:
        raise FeaturesError(f"{where}: a safetensors file, but not of features; give the right file")
    damaged = FeaturesError(f"{where}: the header is damaged; {REBUILD}")
    try:
        header = json.loads(metadata[_KEY])
    except ValueError:
        raise damaged from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise damaged
    if header.get("version") != VERSION:
        raise FeaturesError(
            f"{where}: written in version {header.get('version')} of the format, this program reads "
            f"{VERSION}; {REBUILD} or use the program that wrote it"
        )
    if header.pop("sha256", None) != _digest(header):
        raise FeaturesError(f"{where}: the header does not fit its digest, it is damaged; {REBUILD}")
    try:
        entries = {
            str(key): (str(entry["dtype"]), tuple(int(size) for size in entry["shape"]), str(entry["sha256"]))
            for key, entry in header["arrays"].items()
        }
        sequences = tuple(str(sequence) for sequence in header["sequences"])
        return str(header["name"]), str(header["kind"]), sequences, entries
    except (KeyError, TypeError, ValueError, AttributeError):
        raise damaged from None


def _read_array(
    where: str, name: str, stream: Any, dtype: str, shape: tuple[int, ...], sha256: str
) -> np.ndarray:
    stored_shape = tuple(stream.get_slice(name).get_shape())
    width = stored_shape[-1] if dtype == "S" and stored_shape else 0
    if stored_shape != (*shape, width)[: len(shape) + (dtype == "S")] or (dtype == "S" and width == 0):
        raise FeaturesError(
            f"{where}: array {name} is stored as {list(stored_shape)}, not {list(shape)}; {REBUILD}"
        )
    numbers = stream.get_tensor(name)
    wanted = "uint8" if dtype == "S" else dtype
    if numbers.dtype.name != wanted:
        raise FeaturesError(
            f"{where}: array {name} is stored as {numbers.dtype.name}, not {wanted}; {REBUILD}"
        )
    if hashlib.sha256(numbers.tobytes()).hexdigest() != sha256:
        raise FeaturesError(f"{where}: array {name} does not fit its digest, it is damaged; {REBUILD}")
    return np.frombuffer(numbers.tobytes(), f"S{width}").reshape(shape) if dtype == "S" else numbers


def _check(where: str, features: Features) -> None:
    layout = {name: (_dtype_name(array), array.shape) for name, array in features.arrays.items()}
    check_layout(where, features.kind, features.sequences, layout)
    check_values(where, features.kind, features.sequences, features.arrays)


def _dtype_name(array: np.ndarray) -> str:
    return "S" if array.dtype.kind == "S" else array.dtype.name


def _as_numbers(array: np.ndarray) -> np.ndarray:
    """Text of fixed width as an array of bytes with one more axis."""
    array = np.ascontiguousarray(array).reshape(array.shape)
    if array.dtype.kind != "S":
        return array
    return np.frombuffer(array.tobytes(), np.uint8).reshape(*array.shape, array.dtype.itemsize)


def _digest(header: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
