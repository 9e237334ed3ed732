"""Downloads: from a spec to files in the hub cache.

`service.py` plans a download (files, sizes, what is here already, disk space) and runs it as a
job. The bytes are fetched by a child process (`worker.py`), so that cancelling is real and a crash
takes nothing with it: `fetch.py` shares the work between connections, `transfer.py` makes one
request, `partial.py` keeps what has arrived, `placing.py` puts verified files into the standard
layout of the hub cache. The worker knows neither the database nor the hub's API: it gets an order
(`order.py`) with addresses, sizes and hashes. Its modules import little, so that it starts fast.
Start reading at `Downloads.pull`, then `worker.main`.
"""
