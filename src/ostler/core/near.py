"""Near names: what a person may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def near_names(wrong: str, known: Iterable[str], *, limit: int = 3) -> list[str]:
    """Up to `limit` known names that look or begin like `wrong`, best first."""
    folded = {name.lower(): name for name in known}
    wrong = wrong.lower()
    close = difflib.get_close_matches(wrong, folded, n=limit, cutoff=0.6)
    begin = [name for name in folded if wrong and (name.startswith(wrong) or wrong in name)]
    return [folded[name] for name in dict.fromkeys([*close, *sorted(begin)])][:limit]
