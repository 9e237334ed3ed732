"""The command line: one of the doors of the house.

Every command parses what a person typed, asks the server over HTTP (`/ostler/v1/*` and `/v1/*`) and
prints the answer. Nothing in here touches the database or an engine; only `inspect`, `settings` and
`doctor`, which must also work without a server, call rooms directly. Importing this package must stay
cheap, because `ostler --help` and shell completion wait for it: whatever is heavy (pydantic, the
server, prompt_toolkit) is imported inside the function that needs it.

Start reading at `main.py` (the commands and their sections), then `connection.py` (which server a
command talks to, and when one is started) and `client.py`.
"""
