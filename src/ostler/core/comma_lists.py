"""Lists that people and headers write with commas."""

from __future__ import annotations


def comma_list(text: str | None) -> list[str]:
    """The parts of "a, b,,c" without blanks around them; empty ones are left out."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]
