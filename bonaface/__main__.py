"""``python -m bonaface``: the command line."""

from bonaface.cli.main import main

main()
