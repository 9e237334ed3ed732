"""One field of a multipart form (RFC 7578), found without touching the rest."""

from __future__ import annotations

import re

from ostler.gateway.errors import BadBody

_BOUNDARY = re.compile(rb'boundary=(?:"([^"]{1,70})"|([^\s;,"]{1,70}))', re.IGNORECASE)
_NAME = re.compile(rb'[;\s]name=(?:"([^"]*)"|([^\s;"]+))', re.IGNORECASE)
MAX_FIELD_BYTES = 4096
MAX_PARTS = 1_000


def field_of_form(body: bytes, content_type: bytes, field: bytes) -> str | None:
    """The text of the first part with this name, or None. Raises BadBody for what is no form."""
    found = _span_of_field(body, content_type, field)
    if found is None:
        return None
    begin, end = found
    if end - begin > MAX_FIELD_BYTES:
        raise BadBody(f"the form's field {field.decode()} is longer than {MAX_FIELD_BYTES} bytes")
    return body[begin:end].decode("utf-8", "replace").strip()


def with_field_of_form(body: bytes, content_type: bytes, field: bytes, value: bytes) -> bytes:
    """The form with another value in the first part with this name, where there is one. Raises BadBody."""
    found = _span_of_field(body, content_type, field)
    return body if found is None else body[: found[0]] + value + body[found[1] :]


def _span_of_field(body: bytes, content_type: bytes, field: bytes) -> tuple[int, int] | None:
    """Where the value of that part stands.

    Parts are found by searching for the boundary, so a large file in front of the field is skipped
    at the speed of a search and nothing is copied.
    """
    match = _BOUNDARY.search(content_type)
    if match is None:
        raise BadBody("the form has no boundary", hint="Content-Type: multipart/form-data; boundary=...")
    delimiter = b"--" + (match[1] or match[2])
    at = 0 if body.startswith(delimiter) else body.find(b"\r\n" + delimiter) + 2
    if at < 2 and not body.startswith(delimiter):
        raise BadBody("the form has no part with its boundary")
    for _ in range(MAX_PARTS):
        at += len(delimiter)
        if body[at : at + 2] == b"--":
            return None
        begin = body.find(b"\r\n", at) + 2
        end = body.find(b"\r\n" + delimiter, max(at, begin - 2))
        if begin < 2 or end < 0:
            raise BadBody("the form ends in the middle of a part")
        value_begin = _value_begin(body, begin, end, field)
        if value_begin is not None:
            return value_begin, end
        at = end + 2
    raise BadBody(f"the form has more than {MAX_PARTS} parts")


def _value_begin(body: bytes, begin: int, end: int, field: bytes) -> int | None:
    """Where the value begins of the part between begin and end, if it is the field."""
    split = body.find(b"\r\n\r\n", begin, end)
    if split < 0 or split - begin > 16_384:
        return None
    for line in body[begin:split].split(b"\r\n"):
        key, _, value = line.partition(b":")
        if key.strip().lower() != b"content-disposition":
            continue
        named = _NAME.search(value)
        if named and (named[1] if named[1] is not None else named[2]) == field:
            return split + 4
    return None
