"""Dialects: other systems' HTTP APIs, spoken over Ostler's rooms.

One package per system. A dialect only translates: JSON in, one call of a service function, JSON
out, with that system's own paths, names and error bodies. It touches no table, no runtime and no
file, and no other part of Ostler knows that it exists. Of two there are only the views of our estimates.
"""
