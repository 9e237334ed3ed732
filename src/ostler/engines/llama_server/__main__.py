"""`python -m ostler.engines.llama_server`."""

from ostler.engines.llama_server.main import main

main()
