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
