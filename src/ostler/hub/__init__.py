"""The hub: asking Hugging Face what there is.

A spec that a person writes (`org/repo:Q4_K_M`) becomes a list of files at one pinned commit, with
sizes and hashes. `specs.py` reads what people write, `service.py` is the `Hub` that the other rooms
call, `choosing.py` decides (without any network) which files of a repo belong together,
`reading.py` checks every name and number of the hub's answers before anything else sees them,
`inspecting.py` reads the headers of files that stay on the hub, and makes of them the same facts as the
library does of files that are here. Only `calls.py` (JSON) and `ranges.py` (parts of files) talk to
the network.

Fetching the files is the downloads' work and does not come in here, nor does anything that writes
to disk. No module of this room imports `huggingface_hub` when it is imported itself: that costs a
tenth of a second and more, which `ostler --help` and the start of the server would pay.

Start at `Hub.resolve` in `service.py`.
"""

from ostler.hub.errors import (
    AmbiguousSelector,
    BadSpec,
    GatedRepo,
    HubBusy,
    HubError,
    HubUnreachable,
    IncompleteRepo,
    NoSuchFile,
    RangesRefused,
    RepoNotFound,
    RevisionNotFound,
    StorageRefused,
    TokenRefused,
    UnsupportedRepo,
    UntrustedAnswer,
)
from ostler.hub.inspecting import RemoteModel
from ostler.hub.records import HubFile, RepoInfo, Resolution, SearchHit, Variant
from ostler.hub.service import Hub
from ostler.hub.specs import HubSpec, looks_like_spec, parse_spec

__all__ = [
    "AmbiguousSelector",
    "BadSpec",
    "GatedRepo",
    "Hub",
    "HubBusy",
    "HubError",
    "HubFile",
    "HubSpec",
    "HubUnreachable",
    "IncompleteRepo",
    "NoSuchFile",
    "RangesRefused",
    "RemoteModel",
    "RepoInfo",
    "RepoNotFound",
    "Resolution",
    "RevisionNotFound",
    "SearchHit",
    "StorageRefused",
    "TokenRefused",
    "UnsupportedRepo",
    "UntrustedAnswer",
    "Variant",
    "looks_like_spec",
    "parse_spec",
]
