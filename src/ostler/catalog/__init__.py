"""Catalog: recipes that are no models yet.

`pulling.py` makes a model of a predefined alias (`models/predefined.py`) once its file is here. Here will
also live what reads, checks and publishes the entries of a git repository: validation, manifests and
pull requests. A catalog entry becomes an ordinary model (`models`), read-only, with its origin noted;
nothing else treats it differently.
"""
