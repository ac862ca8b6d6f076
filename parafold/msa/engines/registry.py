"""Engines by name."""

from __future__ import annotations

import importlib
from typing import Any

from parafold.errors import SearchError
from parafold.msa.engines.base import Engine

# Loaded when asked for: an engine's library is needed only by those who use it.
_HOMES = {
    "pyhmmer": ("parafold.msa.engines.pyhmmer", "PyHmmer"),
    "jackhmmer": ("parafold.msa.engines.jackhmmer", "JackhmmerProgram"),
    "hhblits": ("parafold.msa.engines.hhblits", "HHblits"),
    "mmseqs": ("parafold.msa.engines.mmseqs", "MMseqs"),
    "needleman-wunsch": ("parafold.msa.engines.needleman_wunsch", "NeedlemanWunsch"),
}
ENGINES = tuple(_HOMES)


def make_engine(name: str, **options: Any) -> Engine:
    """The engine of that name, with the options of its constructor.

    Raises:
        SearchError: there is none, or it does not know an option.
    """
    if name not in _HOMES:
        raise SearchError(f"no engine {name!r}; the engines are {', '.join(ENGINES)}")
    module, cls = _HOMES[name]
    try:
        return getattr(importlib.import_module(module), cls)(**options)
    except TypeError as error:
        raise SearchError(f"engine {name}: {error}; see its documentation for its options") from error
