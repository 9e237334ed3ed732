"""Usage: what went through the gateway, counted and kept.

A finished request becomes one `RequestRecord`; the `UsageWriter` takes it without ever making the
request wait and stores it in batches; `UsageLog` finds and adds up what is stored, `UsageFigures` says how
long requests took and how many came when. How token counts are read out of an engine's answer is in
`counts.py`. What goes on now is here too: `engine_numbers.py` asks the running engines, `host_series.py`
samples the host. Nothing in here decides about a request: who may ask and where it goes is said elsewhere.
Start reading at `writer.py`.
"""

from ostler.usage.counts import TokenCounts, read_counts
from ostler.usage.log import UsageLog, UsageTotal
from ostler.usage.records import RequestRecord
from ostler.usage.writer import UsageWriter

__all__ = ["RequestRecord", "TokenCounts", "UsageLog", "UsageTotal", "UsageWriter", "read_counts"]
