"""From sequences to their multiple sequence alignments."""

from parafold.msa.alignment import Alignment, SearchResults
from parafold.msa.database import Database, databases_in, demo_databases
from parafold.msa.engines import ENGINES
from parafold.msa.execute import Progress
from parafold.msa.executors import EXECUTORS
from parafold.msa.search import Search, search

__all__ = [
    "ENGINES",
    "EXECUTORS",
    "Alignment",
    "Database",
    "Progress",
    "Search",
    "SearchResults",
    "databases_in",
    "demo_databases",
    "search",
]
