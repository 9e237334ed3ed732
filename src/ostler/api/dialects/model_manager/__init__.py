"""Model Manager's API, spoken over Ostler's rooms: KServe models from a catalog.

Here so far: how an estimate of ours looks in its compatibility reports and recommendations (`fits.py`).
Field names and sentences are Model Manager's own, so that its clients notice nothing; only the number of
GiB is better, where the files of a model are known. Nothing here decides anything.
"""
