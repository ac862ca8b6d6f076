"""Loading the reference cases, and the one way in which results are compared with them."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import oracle_params

ORACLE = Path(__file__).parent / "oracle"


def read_json(*parts: str):
    return json.loads(ORACLE.joinpath(*parts).read_text())


def read_npz(*parts: str) -> dict[str, np.ndarray]:
    with np.load(ORACLE.joinpath(*parts), allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def parameters(shapes: dict, seed: int) -> dict[str, dict[str, np.ndarray]]:
    """Seeded parameters as {module path: {name: array}}."""
    return oracle_params.flat_to_nested(oracle_params.gen_params(shapes, seed))


def flatten(tree: dict, prefix: str = "") -> dict[str, np.ndarray]:
    """Nested dicts as {"a/b/c": array}."""
    out = {}
    for key, value in tree.items():
        path = f"{prefix}/{key}" if prefix else key
        out |= flatten(value, path) if isinstance(value, dict) else {path: np.asarray(value)}
    return out


def relative_error(got, want) -> float:
    """Largest absolute difference over the root mean square of the reference (at least 1e-3)."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape, f"shape {got.shape}, reference {want.shape}"
    if want.size == 0:
        return 0.0
    scale = max(float(np.sqrt(np.mean(want**2))), 1e-3)
    return float(np.max(np.abs(got - want))) / scale


def gradient_direction(path: str, shape: tuple[int, ...]) -> np.ndarray:
    """The fixed random direction on which the reference projects a gradient leaf."""
    return np.random.default_rng(zlib.crc32(path.encode()) + 777).standard_normal(shape)
