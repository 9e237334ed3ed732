"""`python -m ostler.cli` is the `ostler` command; the server in the background is started this way."""

from ostler.cli.main import main

main()
