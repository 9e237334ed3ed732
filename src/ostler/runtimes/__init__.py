"""Runtimes: the places where engines run.

A runtime gets a launch spec and makes it a process or a container (later also a Kubernetes
service); it gives back a handle, a little JSON by which the same engine is found again after a
restart of the server. Which engine it carries, when it is ready, when to start or restart it and
who may ask are not known here: readiness, retries, timeouts and policy belong to `instances`.
Start reading at `base.py`, the protocol; `process.py` carries it out on this machine, `docker.py` in
containers. Every runtime must pass `tests/runtimes/contract.py`.
"""
