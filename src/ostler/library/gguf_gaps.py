"""Reading a GGUF header in a few pieces, stepping over the vocabulary without seeing all of it.

A vocabulary is 2 to 8 MB of strings in the middle of the header, and its end is known only by
reading every length. Over a network that is what costs. So its end is guessed from a sample, a piece
around the guess is fetched, and the header is taken up again at the next key found there. Whatever
was guessed is proven before it is believed: the whole header, with the gap filled, goes through the
same parser as a local file, and the tensors must end exactly where the file ends.

What is lost is only the text of tokens, which no header object keeps: `tokenizer.ggml.tokens` has the
right length, keys inside of a gap (token types, merges) are absent. Start at `read_gguf_header_in_pieces`.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, replace

from ostler.library.byte_windows import MAX_HEADER_BYTES, ReadAt, Window
from ostler.library.errors import BrokenFile, UnsupportedFile
from ostler.library.gguf import DEFAULT_ALIGNMENT, GgufParser
from ostler.library.gguf_header import ArraySummary, GgufHeader
from ostler.library.vocabularies import Sample, bytes_to_end, bytes_to_end_of_vocabularies, sample_strings

FIRST_PIECE = 320 * 1024
JUMP_PIECE = 880 * 1024
NEXT_PIECE = 192 * 1024
MAX_BYTES = 2_000_000
"""Of one file, as long as the guesses hold; then the header is read on without gaps."""
MAX_PIECES = 3
LARGE_PIECE = 4 * 1024 * 1024
MAX_LARGE_PIECES = 16
LEAST_GAP = 64 * 1024
"""Less is not stepped over but read: that costs no more than a request."""
MAX_LOST_KEYS = 16
TABLE_SHARE = 0.35
"""How much of a piece lies behind the guess: room for the rest of the keys and for the tensors."""

_OF_VOCABULARIES = (b"tokenizer.ggml.scores", b"tokenizer.ggml.token_type", b"tokenizer.ggml.merges")
_FIRST_TENSOR = re.compile(rb"(.)\0{7}([a-z0-9_.]+\.(?:weight|bias))[\1-\4]\0{3}", re.DOTALL)
_MARKER = re.compile(
    rb"(.)\0{7}((?:tokenizer|general|split|quantize|mradermacher)\.[a-z0-9_.\-]{1,200})", re.DOTALL
)


class _Missing(Exception):
    """The parser needs bytes that no piece has; `at` is where they begin."""

    def __init__(self, at: int) -> None:
        self.at = at


class _GuessFailed(Exception):
    """The end of the vocabulary was not where it was looked for."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """Bytes of the file from `start` on."""

    start: int
    data: bytes

    @property
    def end(self) -> int:
        """The offset behind the last byte."""
        return self.start + len(self.data)


@dataclass(frozen=True, slots=True)
class _Gap:
    """What is stepped over: from the key of an array of strings to another key."""

    sample: Sample
    end: int

    def filler(self, name: str) -> bytes:
        """An entry for bytes that are not there, which reaches from the gap's begin to its end."""
        key = name.encode()
        head = struct.pack("<Q", len(key)) + key + struct.pack("<II", 9, 0)
        return head + struct.pack("<Q", self.end - self.sample.entry_at - len(head) - 8)


def read_gguf_header_in_pieces(fetch: ReadAt, size_bytes: int, first: int = FIRST_PIECE) -> GgufHeader:
    """Read a header where each `fetch(offset, length)` is a request: at most 3 of them and 2 MB.

    Only where the end of a vocabulary is not found it takes more, up to 64 MB. `first` is the length
    of the first piece in bytes. Raises as `read_gguf_header_from` does, and what `fetch` raises.
    """
    pieces = _Pieces(fetch, size_bytes)
    pieces.add(0, first)
    try:
        return _with_gaps(pieces)
    except _GuessFailed:
        return _without_gaps(pieces)


class _Pieces:
    """What was fetched of one file. Pieces that touch become one."""

    def __init__(self, fetch: ReadAt, size_bytes: int) -> None:
        self._fetch = fetch
        self.size_bytes = size_bytes
        self.all: list[_Piece] = []
        self.fetched_bytes = 0
        self.fetches = 0

    def add(self, offset: int, length: int) -> _Piece:
        """Fetch up to `length` bytes; the piece that holds them."""
        length = min(length, self.size_bytes - offset)
        if length <= 0:
            raise BrokenFile("the file ends within its header", size_bytes=self.size_bytes)
        data = self._fetch(offset, length)
        if len(data) < length:
            raise BrokenFile("the file became shorter while it was read", size_bytes=self.size_bytes)
        self.fetches += 1
        self.fetched_bytes += length
        before = next((piece for piece in self.all if piece.end == offset), None)
        if before is None:
            self.all.append(_Piece(offset, data))
        else:
            self.all[self.all.index(before)] = _Piece(before.start, before.data + data)
        return next(piece for piece in self.all if piece.start <= offset < piece.end)

    def guess(self, offset: int, length: int) -> _Piece:
        """As `add`, within what a header may cost. Raises _GuessFailed beyond it."""
        length = min(length, MAX_BYTES - self.fetched_bytes)
        if self.fetches >= MAX_PIECES or length < 4_096:
            raise _GuessFailed
        return self.add(offset, length)


def _without_gaps(pieces: _Pieces) -> GgufHeader:
    """Read on from the first piece, byte for byte."""
    pieces.all = pieces.all[:1]
    for _ in range(MAX_LARGE_PIECES):
        try:
            return _parse(pieces, [], 0)
        except _Missing as missing:
            pieces.add(max(missing.at, *(piece.end for piece in pieces.all)), LARGE_PIECE)
    raise BrokenFile(f"a header of more than {MAX_LARGE_PIECES * LARGE_PIECE} bytes cannot be right")


def _with_gaps(pieces: _Pieces) -> GgufHeader:
    """Read what can be reached, and jump over arrays of strings that lead out of it."""
    gaps: list[_Gap] = []
    piece, at = pieces.all[0], 24
    while True:
        sample = sample_strings(piece.data, at - piece.start, piece.start) if _is_plain(pieces) else None
        if sample is not None and sample.done >= 64:
            piece, at = _after(sample, piece, pieces, gaps)
            continue
        try:
            return _proven(pieces, gaps)
        except _Missing as missing:
            begin = max(missing.at, piece.end)
            grown = pieces.guess(begin, NEXT_PIECE)
            at = at if grown.start == piece.start else begin
            piece = grown


def _after(sample: Sample, piece: _Piece, pieces: _Pieces, gaps: list[_Gap]) -> tuple[_Piece, int]:
    """Where to read on behind an array of strings: the piece, and the offset of a key in it."""
    rest = bytes_to_end(sample)
    if sample.reached + rest - piece.end < NEXT_PIECE // 2:
        return pieces.guess(piece.end, int(rest) + NEXT_PIECE), sample.entry_at
    target = sample.reached + int(bytes_to_end_of_vocabularies(sample, pieces.all[0].data))
    last = pieces.fetches == MAX_PIECES - 1
    length = MAX_BYTES - pieces.fetched_bytes if last else JUMP_PIECE
    start = min(target - int(length * (1 - TABLE_SHARE)), pieces.size_bytes - length)
    if start <= piece.end + LEAST_GAP:
        return pieces.guess(piece.end, length), sample.entry_at
    found = pieces.guess(start, length)
    marker = _first_entry(found)
    if marker is None or not _is_beside_a_vocabulary(found, marker):
        found = _other_side(found, piece, pieces)
        marker = _first_entry(found)
    if marker is None or not _is_beside_a_vocabulary(found, marker):
        raise _GuessFailed
    gaps.append(_Gap(sample, marker))
    return found, marker


def _is_beside_a_vocabulary(piece: _Piece, at: int) -> bool:
    """True when only arrays lie in the gap before this entry: a gap must not swallow a chat template."""
    index = at - piece.start
    if piece.data.startswith(_OF_VOCABULARIES, index + 8):
        return True
    return index >= 64 and _looks_like_strings(piece.data[max(0, index - 16_384) : index])


def _other_side(missed: _Piece, before: _Piece, pieces: _Pieces) -> _Piece:
    """The piece behind a guess that fell short, or before one that went too far."""
    length = MAX_BYTES - pieces.fetched_bytes
    if _looks_like_strings(missed.data):
        return pieces.guess(missed.end, length)
    begin = max(before.end, missed.start - length)
    found = pieces.guess(begin, missed.start - begin)
    pieces.all = [piece for piece in pieces.all if piece not in (found, missed)]
    joined = _Piece(found.start, found.data + missed.data)
    pieces.all.append(joined)
    return joined


def _looks_like_strings(data: bytes) -> bool:
    """True inside of a vocabulary: every short string brings seven zero bytes of its length along,
    and nearly all types of tokens are 1."""
    if data.count(b".weight\2\0\0\0") > 2 or b"\0" * 64 in data:
        return False
    return data.count(b"\0" * 7) * 64 > len(data) or data.count(b"\1\0\0\0") * 8 > len(data)


def _first_entry(piece: _Piece) -> int | None:
    """The offset of the first key with a type, or of the first tensor; None if neither is there."""
    for match in _MARKER.finditer(piece.data):
        end = match.start(2) + match[1][0]
        kind = piece.data[end : end + 4]
        if end <= match.end(2) and len(kind) == 4 and kind[0] <= 12 and not any(kind[1:]):
            return piece.start + match.start()
    for match in _FIRST_TENSOR.finditer(piece.data):
        if match[1][0] == len(match[2]):
            return piece.start + match.start()
    return None


def _proven(pieces: _Pieces, gaps: list[_Gap]) -> GgufHeader:
    """The header with as many keys lost in the gaps as makes everything else add up."""
    if not gaps:
        return _parse(pieces, gaps, 0)
    missing: _Missing | None = None
    for lost in range(MAX_LOST_KEYS):
        try:
            header = _parse(pieces, gaps, lost)
        except _Missing as error:
            if error.at >= gaps[-1].end and missing is None:
                missing = error
        except (BrokenFile, UnsupportedFile):
            continue
        else:
            if _fills_its_file(header):
                return header
    raise missing or _GuessFailed


def _fills_its_file(header: GgufHeader) -> bool:
    """True when the last tensor ends with the file, as it does in every file that a writer has finished."""
    ends = (header.data_offset + tensor.offset + tensor.n_bytes for tensor in header.tensors)
    alignment = header.count("general.alignment") or DEFAULT_ALIGNMENT
    return 0 <= header.size_bytes - max(ends, default=header.data_offset) < alignment


def _parse(pieces: _Pieces, gaps: list[_Gap], lost: int) -> GgufHeader:
    """The header as the parser of local files sees it, with every gap filled. Raises _Missing."""
    names = [f"tokenizer.ggml.gap-{number}" for number in range(len(gaps))]
    shown = [_patched(piece, gaps, names, lost) for piece in pieces.all]
    header = GgufParser(_GappyWindow(shown, pieces.size_bytes)).parse()
    if not gaps:
        return header
    metadata = {key: value for key, value in header.metadata.items() if key not in names}
    for gap in gaps:
        metadata[gap.sample.key] = ArraySummary("string", gap.sample.count)
    return replace(header, metadata=metadata)


def _patched(piece: _Piece, gaps: list[_Gap], names: list[str], lost: int) -> _Piece:
    """The piece with fewer keys in its count, and cut off where a gap begins."""
    data = piece.data
    if lost and piece.start == 0:
        n_keys = struct.unpack_from("<Q", data, 16)[0] - lost
        data = data[:16] + struct.pack("<Q", max(0, n_keys)) + data[24:]
    for gap, name in zip(gaps, names, strict=True):
        at = gap.sample.entry_at - piece.start
        if 0 <= at < len(data):
            data = data[:at] + gap.filler(name)
    return _Piece(piece.start, data)


def _is_plain(pieces: _Pieces) -> bool:
    """True for a GGUF in the usual byte order; others are read without gaps."""
    return pieces.all[0].data[:8] in (b"GGUF\x02\0\0\0", b"GGUF\x03\0\0\0")


class _GappyWindow(Window):
    """A window onto pieces that are here; anything else raises _Missing."""

    def __init__(self, pieces: list[_Piece], size_bytes: int) -> None:
        super().__init__(_no_read, size_bytes)
        self._pieces = pieces

    def ensure(self, offset: int, length: int, what: str) -> int:
        """As a window does, out of the pieces."""
        index = offset - self.start
        if index >= 0 and index + length <= len(self.buffer):
            return index
        if offset + length > min(self.size_bytes, MAX_HEADER_BYTES):
            raise BrokenFile(f"the file ends within {what}", size_bytes=self.size_bytes)
        for piece in self._pieces:
            if piece.start <= offset and offset + length <= piece.end:
                self.start, self.buffer = piece.start, piece.data
                return offset - piece.start
        raise _Missing(offset)

    def reach(self, offset: int, length: int) -> int:
        """As a window does; at the end of a piece with what is left of it."""
        for piece in self._pieces:
            if piece.start <= offset < piece.end:
                self.start, self.buffer = piece.start, piece.data
                if piece.end - offset < length and piece.end < self.size_bytes:
                    raise _Missing(offset)
                return offset - piece.start
        raise _Missing(offset)


def _no_read(offset: int, length: int) -> bytes:
    raise _Missing(offset)
