"""Dialects: other systems' HTTP APIs, spoken over Ostler's rooms.

One package per system. A dialect only translates: JSON in, one call of a service function, JSON
out, with that system's own paths, names and error bodies. It touches no table, no runtime and no
file, and no other part of Ostler knows that it exists. What a dialect has to say of itself is in
`base.py`; those that are spoken stand in `spoken.py`.
"""
