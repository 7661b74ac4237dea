"""`python -m robotrl.cli` is `robotrl`."""

from robotrl.cli import app

app()
