"""What all commands share: exit codes, and errors in one line."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import typer

from parafold.display import complain
from parafold.errors import ParafoldError

FAILED = 2
INTERRUPTED = 130

_P = ParamSpec("_P")
_R = TypeVar("_R")


def one_line_errors(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """Errors that the user can mend end in one line and exit code 2, Ctrl-C in one line and 130."""

    @functools.wraps(command)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return command(*args, **kwargs)
        except ParafoldError as error:
            complain(str(error))
            raise typer.Exit(FAILED) from error
        except KeyboardInterrupt:
            complain("interrupted; what was finished is kept, and the same command continues from there")
            raise typer.Exit(INTERRUPTED) from None

    return run
