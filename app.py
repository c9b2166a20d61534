"""The web app, and a Space's entry point: ``python app.py --help``. ``bonaface app`` is the same command."""

from bonaface.web.app import main, run

__all__ = ["main"]

if __name__ == "__main__":
    run()
