"""`python -m robotrl.cli` is `robotrl`."""

from robotrl.cli import app

if __name__ == "__main__":
    app()
