"""``python -m hub``: publish on the Hub. ``bonaface hub`` is the same command."""

from bonaface.cli.hub import main

if __name__ == "__main__":
    main()
