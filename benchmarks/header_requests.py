"""What it costs to read the header of a 100 GB GGUF by range, for each vocabulary in a folder.

The vocabularies are GGUF files without tensors, such as `models/ggml-vocab-*.gguf` of llama.cpp's
sources. Each gets the tensors of a model of 126 layers behind it, in a file that is a hole. Run:
python -m benchmarks.header_requests FOLDER. It fails where a header takes more than 3 reads (4 requests
with the hub's redirect) or 2 MB.
"""

from __future__ import annotations

import struct
import sys
import tempfile
from pathlib import Path

from ostler.library.gguf import read_gguf_header
from ostler.library.gguf_gaps import MAX_BYTES, MAX_PIECES, read_gguf_header_in_pieces
from tests.library.gguf_files import Tensor, gguf_header

LAYERS = 126
ALIGNMENT = 32
"""All sizes of tensors here are multiples of it."""
COUNTS_BYTES = 24
"""Magic, version, number of tensors and of keys."""
TEMPLATE = {"tokenizer.chat_template": "{% for message in messages %}{{ message.content }}{% endfor %}" * 150}
PARTS = {
    "attn_norm": (8192,),
    "attn_q": (8192, 8192),
    "attn_k": (8192, 1024),
    "attn_v": (8192, 1024),
    "attn_output": (8192, 8192),
    "ffn_norm": (8192,),
    "ffn_gate": (8192, 28672),
    "ffn_up": (8192, 28672),
    "ffn_down": (28672, 8192),
}


def write_model(vocabulary: Path, path: Path) -> None:
    """A model with this vocabulary, as llama.cpp's converter would write it."""
    tensors = [Tensor("token_embd.weight", (8192, 128256)), Tensor("output_norm.weight", (8192,))]
    tensors += [
        Tensor(f"blk.{n}.{part}.weight", shape) for n in range(LAYERS) for part, shape in PARTS.items()
    ]
    keys = vocabulary.read_bytes()
    more = {} if b"tokenizer.chat_template" in keys else TEMPLATE
    n_keys = struct.unpack_from("<Q", keys, 16)[0] + len(more)
    infos = gguf_header(more, tensors, alignment=1)[COUNTS_BYTES:]
    head = keys[:8] + struct.pack("<QQ", len(tensors), n_keys) + keys[COUNTS_BYTES:] + infos
    with path.open("wb") as file:
        file.write(head + bytes(-len(head) % ALIGNMENT))
        file.truncate(file.tell() + sum(tensor.n_bytes for tensor in tensors))


def main(folder: Path) -> int:
    """The exit code: 1 where a vocabulary costs more than it may."""
    failed = False
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "model.gguf"
        for vocabulary in sorted(folder.glob("*.gguf")):
            write_model(vocabulary, path)
            reads: list[int] = []

            def fetch(offset: int, length: int, reads: list[int] = reads) -> bytes:
                reads.append(length)
                with path.open("rb") as file:
                    file.seek(offset)
                    return file.read(length)

            found = read_gguf_header_in_pieces(fetch, path.stat().st_size)
            whole = read_gguf_header(path)
            is_fine = found.tensors == whole.tensors and len(reads) <= MAX_PIECES and sum(reads) <= MAX_BYTES
            failed |= not is_fine
            of = whole.data_offset / 1e6
            print(f"{vocabulary.name:40} {len(reads)} reads, {sum(reads) / 1e6:.2f} of {of:.1f} MB")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
