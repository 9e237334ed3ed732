"""`--fit-memory`: what llama.cpp would allocate, by its own account, without loading a weight.

Before it loads a model, llama.cpp builds it once without memory and prints what each device would hold
(`common_get_device_memory_data` and `common_memory_breakdown_print` in its common/fit.cpp). It is let do
that, and then fails at once at an adapter that does not exist; nothing is allocated, for `no_alloc` is
set as well.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from typing import IO, Any

from ostler.engines.llama_server.arguments import Arguments
from ostler.engines.llama_server.parameters import make_parameters
from ostler.engines.llamacpp_options import NO_MEMORY, TABLE

MIB = 1 << 20
NO_FILE = "/dev/null/no-such-adapter"
LOG_TRACE = 4
LAST_LINE = "exiting due to model loading error"
LOG_WAIT_S = 2.0
LEFT_OUT = NO_MEMORY | {
    option.name
    for option in TABLE
    if option.admin_only or option.type == "path" or option.group in ("adapters", "media", "speculative")
}
"""A question opens no file but the model, and starts nothing. Adapters, projectors and draft models are
not counted, as in the estimate."""
TABLE_HEAD, UNCHANGED = "memory breakdown [MiB]", "no changes needed"
ROW = re.compile(r"\|\s+- (\S+).*?(\+ \(\s*\d+ )?=\s+(\d+) \+\s+(\d+) \+\s+(\d+)\b")


def memory_text(arguments: Arguments, x: Any) -> str | None:
    """One line of JSON for stdout; None where the engine did not say. `x` is the module xllamacpp."""
    log = _what_it_logs(arguments, x)
    told = read_breakdown(log)
    return json.dumps(told) + "\n" if told else None


def read_breakdown(log: str) -> dict[str, Any] | None:
    """What the log says of the settings as they were given; None where it says nothing.

    Of several tables the last one before "no changes needed" is of what will run; where the engine
    would change something, the first is of what was asked. Memory of no device of its own (repacked
    weights, pinned memory) is the host's.
    """
    before, said, _ = log.partition(UNCHANGED)
    tables = before.split(TABLE_HEAD)[1:]
    if not tables:
        return None
    devices: dict[str, list[int]] = {"Host": [0, 0, 0]}
    for line in tables[-1 if said else 0].splitlines()[1:]:
        if row := ROW.search(line):
            name = row[1] if row[2] else "Host"
            sums = devices.setdefault(name, [0, 0, 0])
            devices[name] = [one + int(more) * MIB for one, more in zip(sums, row.groups()[2:], strict=True)]
    rows = [
        {"name": name, "weights_bytes": model, "kv_cache_bytes": context, "compute_bytes": compute}
        for name, (model, context, compute) in devices.items()
    ]
    return {"unchanged": bool(said), "step_bytes": MIB, "devices": rows}


def _what_it_logs(arguments: Arguments, x: Any) -> str:
    """The engine's log of a start that ends before anything is loaded."""
    kept = {name: value for name, value in arguments.options.items() if name not in LEFT_OUT}
    owned = {flag: value for flag, value in arguments.owned.items() if flag in ("--model", "--offline")}
    params = make_parameters(Arguments(kept, {**owned, "--port": "0"}), x)
    params.no_alloc, params.fit_params, params.warmup = True, True, False
    params.load_mode = x.llama_load_mode.LLAMA_LOAD_MODE_NONE
    params.verbosity = LOG_TRACE
    missing = x.CommonAdapterLoraInfo()
    missing.path = NO_FILE
    params.lora_adapters = [missing]
    with tempfile.TemporaryFile() as log:
        stderr = os.dup(2)
        os.dup2(log.fileno(), 2)
        try:
            x.Server(params)
        except RuntimeError:
            return _read_to_the_end(log)
        finally:
            os.dup2(stderr, 2)
    return ""


def _read_to_the_end(log: IO[bytes]) -> str:
    """The engine logs from a thread of its own: wait for its last line."""
    until = time.monotonic() + LOG_WAIT_S
    while True:
        log.seek(0)
        text = log.read().decode(errors="replace")
        if LAST_LINE in text or time.monotonic() > until:
            return text
        time.sleep(0.005)
