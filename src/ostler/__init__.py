"""Ostler: the control plane for your own language models.

Each folder below is one room of the house and introduces itself in its `__init__.py`.
Start reading at `app.py`, where everything is built and wired.
"""

__version__ = "0.1.0"
