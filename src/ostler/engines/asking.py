"""Asking a program one thing: it is started, prints, and ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

log = logging.getLogger(__name__)

TIMEOUT_S = 20.0
LIMIT_BYTES = 1024 * 1024


async def run_program(
    *command: str, env: Mapping[str, str] | None = None, with_errors: bool = True
) -> str | None:
    """What a program prints, by default both streams together; None where it fails, hangs or is not there.

    No more than `LIMIT_BYTES` are read. `env` are all its variables, by default those of this process.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT if with_errors else asyncio.subprocess.DEVNULL,
            env=env,
        )
    except OSError as error:
        log.info("%s cannot be asked: %s", command[0], error)
        return None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(TIMEOUT_S):
            text = await process.stdout.read(LIMIT_BYTES)
            chunk = text
            while chunk and len(text) < LIMIT_BYTES:
                chunk = await process.stdout.read(LIMIT_BYTES - len(text))
                text += chunk
            code = await process.wait() if len(text) < LIMIT_BYTES else 0
    except TimeoutError:
        log.warning("%s did not answer %s within %.0f s", command[0], command[-1], TIMEOUT_S)
        return None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if code != 0:
        log.info("%s does not answer %s (exit code %d)", command[0], command[-1], code)
        return None
    return text.decode(errors="replace")
