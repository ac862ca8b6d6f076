"""parafold: AlphaFold 2 on current JAX, and a toolkit for making it parallel.

The names below are loaded on first use, so that importing the package stays quick and does not load JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "AlphaFold": "parafold.model.alphafold",
    "model_config": "parafold.model.config",
    "Predictor": "parafold.predict",
    "Prediction": "parafold.prediction",
    "Features": "parafold.features",
    "FoldInput": "parafold.protein.sequence",
    "Msa": "parafold.protein.alignment",
    "read_inputs": "parafold.protein.sequence",
    "search": "parafold.msa",
    "ParafoldError": "parafold.errors",
}
__all__ = ["__version__", *_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from parafold.errors import ParafoldError as ParafoldError
    from parafold.features import Features as Features
    from parafold.model.alphafold import AlphaFold as AlphaFold
    from parafold.model.config import model_config as model_config
    from parafold.msa import search as search
    from parafold.predict import Predictor as Predictor
    from parafold.prediction import Prediction as Prediction
    from parafold.protein.alignment import Msa as Msa
    from parafold.protein.sequence import FoldInput as FoldInput
    from parafold.protein.sequence import read_inputs as read_inputs


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'parafold' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
