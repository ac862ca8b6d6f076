"""The one exception family of parafold.

A message says what is wrong, where, and what to do. The command line prints it as a single line and exits
with code 2; every other exception is a bug and shows its traceback.
"""


class ParafoldError(Exception):
    """Anything the user can mend. Catch this to catch them all."""


class InputError(ParafoldError):
    """A file or value that the user gave is wrong: FASTA, alignment, structure, option."""


class FeaturesError(ParafoldError):
    """A features file is damaged, incomplete, or does not fit the model."""


class WeightsError(ParafoldError):
    """A parameter file is missing, or its names and shapes do not fit the model."""


class SearchError(ParafoldError):
    """A database or search engine is missing or failed."""


class OutputError(ParafoldError):
    """A result could not be written: no permission, disk full, not a folder."""


class OutOfMemoryError(ParafoldError):
    """The target does not fit into the device's memory."""
