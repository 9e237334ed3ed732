"""Log lines: for people or for machines, never with a secret in them."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Literal, TextIO

from ostler.core.launch import HIDDEN

_SECRETS = re.compile(
    r"(ostler-|hf_|sk-)[A-Za-z0-9_-]{16,}|(?<=[Bb]earer )[^\s'\"]+|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {
    "message",
    "asctime",
    "taskName",
    "color_message",
}


def hide_secrets(text: str) -> str:
    """The text with everything that looks like a key, token or password in a URL hidden."""
    return _SECRETS.sub(HIDDEN, text)


class TextFormatter(logging.Formatter):
    """`12:00:01 INFO  instances: qwen3-8b is running (took 2.1 s)`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback below it where there is one."""
        time = datetime.fromtimestamp(record.created, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        room = record.name.removeprefix("ostler.").replace("uvicorn.error", "server")
        line = f"{time} {record.levelname:<7} {room}: {record.getMessage()}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return hide_secrets(line)


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, and whatever was given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry.update({k: v for k, v in record.__dict__.items() if k not in _STANDARD})
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return hide_secrets(json.dumps(entry, default=str))


def set_up_logging(level: str, style: Literal["text", "json"], stream: TextIO | None = None) -> None:
    """Send every log line of this process to `stream` (stderr) in one style."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("aiosqlite", "httpx", "httpcore", "alembic", "asyncio", "urllib3", "filelock"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
