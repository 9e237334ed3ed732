"""The environment of an engine: the server's own, without what is the server's alone."""

from __future__ import annotations

import re
from collections.abc import Mapping

_OURS = ("OSTLER_", "MODEL_MANAGER_", "CORTEX_", "LLAMACTL_", "BODHI_", "LLAMA_ARG_", "LLAMA_API_KEY")
"""Our settings, and engine settings that a shell left behind: a launch spec has no hidden inputs."""

_SECRET = re.compile(
    r"TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|DATABASE_URL|_DSN$"
)


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What of the server's environment an engine may see: no setting of ours, nothing secret.

    What a model needs beyond that (a token, for example) is named in its own `env`.
    """
    return {
        name: value
        for name, value in environment.items()
        if not name.upper().startswith(_OURS) and not _SECRET.search(name.upper())
    }
