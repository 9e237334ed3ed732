"""Catalog: recipes that come from a git repository.

Here will live what reads, checks and publishes catalog entries: validation, manifests and pull
requests. A catalog entry becomes an ordinary model (`models`), read-only, with its origin noted;
nothing else treats it differently. The room is empty yet.
"""
