"""BodhiApp's API, spoken over Ostler's rooms: aliases, model files, downloads, tokens, settings.

Its paths are `/bodhi/v1/*` and `/ping`, as its guide "Model Management" of 2025-07 has them. `door.py` says
who comes in and how a list is asked for, `errors.py` how failures look, `mounted.py` which routers there
are, `entries.py` how a model of ours looks as an alias. One file per noun; BodhiApp's own names, ranges and
numbers stand here and in `models/alias_params.py`, and nowhere else in Ostler.
"""
