"""``python -m resight``: the command line without its script."""

from resight.cli import main

main()
