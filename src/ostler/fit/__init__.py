"""Fit: the room that knows what goes in.

Here live the devices of this host (memory in all, memory free) and the estimate of the memory
that a model needs. For now the estimate is a plain sum for one device; the exact one, by device
and tensor, with a ledger, comes later in this room. Nothing here starts or stops anything.
`hardware.py` reads descriptions of hardware that is not here.
Start reading at `estimate.py`.
"""
