"""`make dev`: a server with the demo model that starts again whenever the code changes.

Its data is in `.dev/` of the checkout. Engines outlive the restarts, as they do for users.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from importlib import resources
from pathlib import Path

from watchfiles import PythonFilter, run_process

CHECKOUT = Path(__file__).parents[1]
OSTLER = str(Path(sys.executable).with_name("ostler"))
DATA = CHECKOUT / ".dev"


def add_the_demo_model() -> None:
    """Add `demo`, once the server answers, where it is not there yet."""
    model = str(resources.files("ostler") / "data" / "ostler-demo-Q8_0.gguf")
    command = [OSTLER, "--url", "http://127.0.0.1:11500", "--no-start"]
    for _ in range(40):
        shown = subprocess.run([*command, "show", "demo"], capture_output=True, text=True, check=False)
        if shown.returncode == 0:
            return
        added = subprocess.run(
            [*command, "add", model, "--name", "demo"], capture_output=True, text=True, check=False
        )
        if added.returncode == 0:
            print(added.stdout, end="")
            return
        threading.Event().wait(0.25)


def main() -> None:
    """Serve until Ctrl-C."""
    threading.Thread(target=add_the_demo_model, daemon=True).start()
    command = f"{OSTLER} serve --data-dir {DATA} --port 11500 --log-level debug"
    run_process(CHECKOUT / "src", target=command, target_type="command", watch_filter=PythonFilter())


if __name__ == "__main__":
    main()
