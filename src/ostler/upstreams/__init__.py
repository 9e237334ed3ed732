"""Upstreams: engines that Ostler does not start, and that answer under names of their own.

Which they are stands in the settings or was entered by an administrator (`entries.py`); `pools.py` looks
after them, learns which models they serve, and hands out leases to the gateway; `breaker.py` leaves one
alone that keeps failing. What may not come in: starting and stopping, that is `instances`, and forwarding,
that is the gateway's. Start reading at `pools.py`.
"""
