"""Instances: the room where running engines are looked after.

An instance is one engine serving one model. A keeper per model owns its state (`keeper.py`) and makes
every transition (`life.py`); the scheduler decides who may start and who leaves for it (`plan.py` is
the pure decision, `scheduler.py` the queue, `residence.py` joins both to the keepers, `memory.py` sees
what is free); leases count the requests in flight (`leases.py`). What is known of a start before it
happens is in `preparing.py`, `looking_ahead.py` and `dry_runs.py`; `furnishing.py` makes the tools of all.
Command lines are built in `engines`, processes live in `runtimes`, recipes in `models`; HTTP and
who may ask stay with the doors. Start reading at `service.py`.
"""
