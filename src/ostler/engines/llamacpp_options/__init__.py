"""llama-server's options, one row each, as of the build below.

The rows stand in files by what they are about. `tests/engines/llama_server_flags.txt` is the
list of flags of that build, and a test holds the two together; where a real llama-server is
installed, another test compares the rows with its `--help`.
"""

from __future__ import annotations

from ostler.engines.llamacpp_options.chat import ADAPTERS, CHAT, MEDIA
from ostler.engines.llamacpp_options.compute import COMPUTE
from ostler.engines.llamacpp_options.context import CONTEXT
from ostler.engines.llamacpp_options.owned import GONE, OWNED, RENAMED
from ostler.engines.llamacpp_options.sampling import SAMPLING
from ostler.engines.llamacpp_options.serving import LOGGING, SERVING
from ostler.engines.llamacpp_options.speculative import DRAFT, NGRAM
from ostler.engines.options import OptionTable

AS_OF = "b11434"
"""The build of llama.cpp whose flags these are; later builds may know more (`extra_args`)."""

TABLE = OptionTable(
    "llamacpp",
    (*CONTEXT, *COMPUTE, *ADAPTERS, *MEDIA, *CHAT, *SAMPLING, *DRAFT, *NGRAM, *SERVING, *LOGGING),
    owned=OWNED,
    renamed=RENAMED,
    gone=GONE,
)

NO_MEMORY_GROUPS = ("chat", "sampling", "logging")
NO_MEMORY = frozenset(
    {option.name for option in TABLE if option.group in NO_MEMORY_GROUPS} - {"backend_sampling"}
) | {
    "slot_prompt_similarity",
    "slot_save_path",
    "timeout",
    "sse_ping_interval",
    "metrics",
    "slots",
    "props",
    "tags",
    "ui",
    "ui_config",
    "ui_config_file",
    "ui_mcp_proxy",
    "static_path",
    "cors_origins",
    "cors_methods",
    "cors_headers",
    "cors_credentials",
    "tools",
    "tools_runtime",
    "agent",
    "mcp_servers_config",
    "mcp_servers_json",
    "keep",
    "prio",
    "prio_batch",
    "poll",
    "poll_batch",
    "perf",
}
"""Options that change no buffer of the engine; `backend_sampling` puts samplers into its graph."""
