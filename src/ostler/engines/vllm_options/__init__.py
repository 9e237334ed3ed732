"""vLLM's options, one row each, as of the version below.

The rows stand in files by what they are about. `since` and `until` are vLLM versions, found by
reading the flags of every release from 0.8.0 on; a row without `since` is older than that.
`tests/engines/vllm_flags.txt` is the list of flags of that version, and a test holds the two
together; where a real vLLM is installed, another test compares the rows with its parser.
"""

from __future__ import annotations

from ostler.engines.options import OptionTable
from ostler.engines.vllm_options.adapters import ADAPTERS
from ostler.engines.vllm_options.chat import CHAT
from ostler.engines.vllm_options.code import CODE
from ostler.engines.vllm_options.compute import COMPUTE
from ostler.engines.vllm_options.logs import LOGGING
from ostler.engines.vllm_options.machines import MACHINES
from ostler.engines.vllm_options.media import MEDIA
from ostler.engines.vllm_options.memory import MEMORY
from ostler.engines.vllm_options.model import MODEL
from ostler.engines.vllm_options.old import OLD
from ostler.engines.vllm_options.owned import GONE, OWNED, RENAMED
from ostler.engines.vllm_options.parallel import PARALLEL
from ostler.engines.vllm_options.scheduling import SCHEDULING
from ostler.engines.vllm_options.serving import SERVING
from ostler.engines.vllm_options.speculative import SPECULATIVE

AS_OF = "0.32.0"
"""The vLLM whose flags these are; later versions may know more (`extra_args`)."""

TABLE = OptionTable(
    "vllm",
    (
        *MEMORY,
        *MODEL,
        *PARALLEL,
        *SCHEDULING,
        *CHAT,
        *ADAPTERS,
        *MEDIA,
        *SPECULATIVE,
        *CODE,
        *COMPUTE,
        *SERVING,
        *LOGGING,
        *MACHINES,
        *OLD,
    ),
    owned=OWNED,
    renamed=RENAMED,
    gone=GONE,
    models_may_be_repos=True,
)
