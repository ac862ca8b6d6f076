"""`python -m parafold` is the command line."""

from parafold.cli import main

main()
