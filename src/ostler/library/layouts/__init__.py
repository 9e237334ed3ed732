"""Layouts: how a root arranges its files.

A layout is one row in LAYOUTS: it walks its kind of folder, and, where Ostler fills roots of its kind,
says which paths go when a file set is deleted. Start at `base.py`; `folder.py` is the simplest.
"""

from __future__ import annotations

from collections.abc import Mapping

from ostler.library.layouts.base import Layout
from ostler.library.layouts.folder import FolderLayout
from ostler.library.layouts.hub_cache import HubCacheLayout
from ostler.library.layouts.llama_cache import LlamaCacheLayout

LAYOUTS: Mapping[str, Layout] = {
    layout.name: layout for layout in (FolderLayout(), HubCacheLayout(), LlamaCacheLayout())
}
