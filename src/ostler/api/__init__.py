"""API: Ostler's doors over HTTP, except the one for inference (that is `gateway`).

`native/` is Ostler's own REST API under /ostler/v1, one file per noun; `dialects/` will hold other
systems' APIs. A door parses, calls one function of a room, and shapes the answer: no rule, no table
and no file is touched here. Roles are said at each route (`door.py`); errors become answers in
`errors.py` and nowhere else. Start reading at `app.py`.
"""

from ostler.api.app import build_api
from ostler.api.services import Services

__all__ = ["Services", "build_api"]
