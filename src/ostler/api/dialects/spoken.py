"""The dialects that this server speaks."""

from __future__ import annotations

from ostler.api.dialects.base import Dialect
from ostler.api.dialects.cortex.mounted import CORTEX

DIALECTS: tuple[Dialect, ...] = (CORTEX,)
