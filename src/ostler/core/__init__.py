"""Core: the floor that every room stands on.

Here live the words that all rooms share: errors, states, events, principals, settings,
the clock, the launch spec, and the database with its migrations. Nothing in here knows
what a model file, an engine or an HTTP request is, and nothing here imports another room.
Start reading at `errors.py`, `states.py` and `database.py`.
"""
