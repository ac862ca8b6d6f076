"""AlphaFold's features.pkl, read without trusting it.

A pickle is a program. Here its instructions are looked through first, then run by an unpickler for which the
only callables are a few stand-ins of our own: they record what a numpy array is made of and build it after
checks. Anything else that the file asks for is refused by name. numpy itself is never handed a state from the
file.
"""

import io
import math
import os
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from parafold.errors import FeaturesError
from parafold.features.build import Features, Kind
from parafold.features.raw import Arrays
from parafold.features.schema import REBUILD, SCHEMAS, check_layout, check_values
from parafold.files import atomic_write
from parafold.protein.residue import RESTYPES_WITH_X

MAX_BYTES = 8 << 30
_TEXT = ("domain_name", "sequence", "msa_species_identifiers", "template_domain_names", "template_sequence")
_OTHER_NAMES = {
    "template_all_atom_mask": "template_all_atom_masks"
}  # as OpenFold calls it in a monomer's features
_PLAIN_DTYPES = frozenset(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)) | {
    "b1",
    "f2",
    "f4",
    "f8",
}
_STACK_LIMIT = 100  # containers within containers; features need five


def read_features_pickle(
    path: str | os.PathLike, name: str | None = None, max_bytes: int = MAX_BYTES
) -> Features:
    """Read the features.pkl of an AlphaFold run; what no model reads is left out.

    Args:
      path: the file.
      name: of the target; by default its description, else the file's folder.
      max_bytes: larger files are refused.

    Raises:
      FeaturesError: the file is missing, too large, damaged, holds anything but arrays, dicts, lists, text
        and numbers, or its arrays do not fit together.
    """
    where = os.fspath(path)
    try:
        if Path(path).stat().st_size > max_bytes:
            raise FeaturesError(f"{where}: more than the {max_bytes} bytes allowed; {REBUILD}")
        data = Path(path).read_bytes()
    except OSError as error:
        raise FeaturesError(f"{where}: cannot be read, {error.strerror}; {REBUILD}") from error
    content = _load(where, data)
    if not isinstance(content, dict):
        raise FeaturesError(f"{where}: holds a {type(content).__name__}, not a dict of features; {REBUILD}")
    arrays = {_OTHER_NAMES.get(key, key): value for key, value in content.items() if isinstance(key, str)}
    kind: Kind = "multimer" if "asym_id" in arrays else "monomer"
    if kind == "multimer":
        arrays |= {key: arrays[new] for key, new in _OTHER_NAMES.items() if new in arrays}
    arrays = {key: _array(where, key, arrays[key]) for key in SCHEMAS[kind] if key in arrays}
    arrays = _current_form(where, kind, arrays)
    sequences = _sequences(where, kind, arrays)
    layout = {
        key: ("S" if array.dtype.kind == "S" else array.dtype.name, array.shape)
        for key, array in arrays.items()
    }
    check_layout(where, kind, sequences, layout)
    check_values(where, kind, sequences, arrays)
    described = arrays["domain_name"][0].decode("utf-8", "replace") if kind == "monomer" else ""
    return Features(name or described or Path(path).absolute().parent.name, kind, sequences, arrays)


def write_features_pickle(path: str | os.PathLike, features: Features) -> None:
    """Write features as AlphaFold writes its features.pkl: text in object arrays, pickle protocol 4.

    Raises:
      OutputError: the file cannot be written.
    """
    content = {
        key: array.astype(object) if array.dtype.kind == "S" else array
        for key, array in features.arrays.items()
    }
    atomic_write(path, pickle.dumps(content, protocol=4))


class _Dtype:
    """Stand-in for numpy.dtype: remembers the type's name and byte order."""

    def __init__(self, code: Any, *_: Any):
        self.code = code.removeprefix("|").removeprefix("<") if isinstance(code, str) else ""
        self.order = "<"

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("an array's type is damaged")
        self.order = state[1].replace("|", "<").replace("=", "<")

    def build(self) -> np.dtype:
        if self.code in _PLAIN_DTYPES or (self.code[:1] == "S" and self.code[1:].isdigit()):
            return np.dtype(self.order + self.code)
        raise pickle.UnpicklingError(f"arrays of type {self.code!r} are not features")


class _Array:
    """Stand-in for numpy.ndarray: holds what an array is made of until `build`."""

    def __init__(self) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def build(self) -> np.ndarray:
        try:
            _, shape, dtype, fortran, data = self.state
            shape = tuple(int(size) for size in shape)
            count = math.prod(shape)
        except (TypeError, ValueError):
            raise pickle.UnpicklingError("an array is damaged") from None
        if min(shape, default=0) < 0 or not isinstance(dtype, _Dtype):
            raise pickle.UnpicklingError("an array is damaged")
        if dtype.code in ("O", "O8"):
            return _text_array(data, shape)
        plain = dtype.build()
        if not isinstance(data, bytes) or len(data) != count * plain.itemsize:
            raise pickle.UnpicklingError("an array's shape and its bytes do not fit together")
        array = np.frombuffer(data, plain).reshape(shape, order="F" if fortran else "C")
        return np.ascontiguousarray(array, plain.newbyteorder("=")).reshape(shape)


class _NdarrayType:
    """What `numpy.ndarray` in a file stands for; it is only ever handed to `_reconstruct`."""


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.state = (1, shape, dtype, order == "F", bytes(data))
    return array


def _scalar(dtype: Any, data: Any = b"") -> _Array:
    array = _Array()
    array.state = (1, (), dtype, False, data)
    return array


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Bytes as protocol 2 spells them."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("text is damaged")
    return text.encode("latin1")


def _empty() -> bytes:
    """No bytes, as protocol 2 spells them."""
    return b""


_ALLOWED: dict[tuple[str, str], Callable] = {("numpy", "dtype"): _Dtype, ("numpy", "ndarray"): _NdarrayType}
_ALLOWED |= {("_codecs", "encode"): _encode, ("__builtin__", "bytes"): _empty, ("builtins", "bytes"): _empty}
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED[(f"{_core}.multiarray", "_reconstruct")] = _reconstruct
    _ALLOWED[(f"{_core}.multiarray", "scalar")] = _scalar
    _ALLOWED[(f"{_core}.numeric", "_frombuffer")] = _frombuffer


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:
        try:
            return _ALLOWED[(module_name, global_name)]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}") from None


def _load(where: str, data: bytes) -> Any:
    try:
        _look_through(data)
        return _Unpickler(io.BytesIO(data)).load()
    except FeaturesError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise FeaturesError(
            f"{where}: refused, or damaged: {reason}; only arrays, dicts, lists, text and numbers are read; "
            f"{REBUILD}"
        ) from error


def _look_through(data: bytes) -> None:
    """Refuse what can exhaust memory before an unpickler runs: a far memo index, deep nesting."""
    depth = 0
    for count, (instruction, argument, _) in enumerate(pickletools.genops(data)):
        if instruction.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > count:
            raise pickle.UnpicklingError("its memory index is damaged")
        if instruction.name in ("EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "INST", "OBJ", "NEXT_BUFFER"):
            raise pickle.UnpicklingError(f"it uses the instruction {instruction.name}")
        depth += (instruction.name == "MARK") - (pickletools.markobject in instruction.stack_before)
        if depth > _STACK_LIMIT:
            raise pickle.UnpicklingError("it is nested too deeply")


def _text_array(data: Any, shape: tuple[int, ...]) -> np.ndarray:
    if not isinstance(data, list) or len(data) != math.prod(shape):
        raise pickle.UnpicklingError("an array of text is damaged")
    items = [item.encode() if isinstance(item, str) else item for item in data]
    if not all(isinstance(item, bytes) for item in items):
        raise pickle.UnpicklingError("an array holds objects that are not text")
    width = max(map(len, items), default=1)
    return np.array(items, f"S{max(width, 1)}").reshape(shape)


def _array(where: str, name: str, value: Any) -> np.ndarray:
    try:
        if isinstance(value, _Array):
            return value.build()
        if name in _TEXT:
            items = value if isinstance(value, list) else [value]
            return _text_array(items, (len(items),))
        return np.asarray(value) if isinstance(value, int | float) else np.array(_numbers(value))
    except (pickle.UnpicklingError, ValueError, OverflowError, UnicodeError, MemoryError) as error:
        raise FeaturesError(f"{where}: array {name}: {error}; {REBUILD}") from error


def _numbers(value: Any) -> list[int | float]:
    if not isinstance(value, list) or not all(isinstance(item, int | float) for item in value):
        raise pickle.UnpicklingError(f"a {type(value).__name__} is not an array")
    return value


def _current_form(where: str, kind: str, arrays: Arrays) -> Arrays:
    """Number types and empty templates, as AlphaFold's versions wrote them, in the one form used here."""
    length = arrays["aatype"].shape[0] if "aatype" in arrays and arrays["aatype"].ndim else 0
    count = arrays["template_domain_names"].size if "template_domain_names" in arrays else 0
    formed = {}
    for name, array in arrays.items():
        spec = SCHEMAS[kind][name]
        if spec.dtype != "S":
            if array.dtype.kind not in "biuf":
                raise FeaturesError(f"{where}: array {name} holds text instead of numbers; {REBUILD}")
            with np.errstate(all="ignore"):
                converted = array.astype(spec.dtype)
            exact = array.dtype.kind == "f" and converted.dtype.kind == "f"
            if not exact and not np.array_equal(converted, array):
                raise FeaturesError(f"{where}: array {name} does not fit into {spec.dtype}; {REBUILD}")
            array = converted
        if kind == "monomer" and spec.axes[0] == "t":
            shape = [count, *(length if axis == "r" else int(axis) for axis in spec.axes[1:])]
            if array.size == math.prod(shape):
                array = array.reshape(shape)
        formed[name] = array
    return formed


def _sequences(where: str, kind: str, arrays: Arrays) -> tuple[str, ...]:
    needed = "sequence" if kind == "monomer" else "aatype"
    if needed not in arrays or arrays[needed].size == 0:
        raise FeaturesError(f"{where}: array {needed} is missing; {REBUILD}")
    if kind == "monomer":
        return (arrays["sequence"].reshape(-1)[0].decode("latin1"),)
    aatype, chains = arrays["aatype"], arrays["asym_id"]
    if aatype.ndim != 1 or chains.shape != aatype.shape or not ((aatype >= 0) & (aatype <= 20)).all():
        raise FeaturesError(f"{where}: arrays aatype and asym_id do not fit together; {REBUILD}")
    starts = np.flatnonzero(np.diff(chains)) + 1
    return tuple("".join(RESTYPES_WITH_X[letter] for letter in part) for part in np.split(aatype, starts))
