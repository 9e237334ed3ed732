"""Fit: the room that knows what goes in.

Here live the devices of this host (`devices.py`, or others in their place: `pretend.py`, which reads
descriptions by `hardware.py`), the estimate of the memory that a model needs (`estimate.py`), what that
means for each device (`need.py`), and the ledger of who holds what (`ledger.py`). Nothing here starts or
stops anything: who leaves for whom is decided in `instances`. Start reading at `ledger.py`.
"""
