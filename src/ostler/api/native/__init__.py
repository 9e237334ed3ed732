"""Ostler's own REST API, under /ostler/v1: one file per noun, each with its routes and its shapes.

Every route is a function of a few lines: it takes a checked body, calls a room, and gives a value
that the shape in its return annotation turns into JSON. Start reading at `models.py`.
"""
