"""What a GPU's driver and libraries take for themselves, by kind of device.

No GPU here has checked these sums. They are upper ends of what others saw or documents say, as `source`
names it, and an answer that uses one says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ostler.fit.device import Kind

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Overhead:
    """Bytes on each GPU that an engine uses: of the process's context, and of library workspaces."""

    context_bytes: int
    workspace_bytes: int
    source: str

    @property
    def total_bytes(self) -> int:
        """Both."""
        return self.context_bytes + self.workspace_bytes


OVERHEADS: Mapping[Kind, Overhead] = {
    "cuda": Overhead(
        550 * 1000**2,
        32 * MIB,
        "a context of 120 to 550 MB by GPU (github.com/ggml-org/llama.cpp/pull/20595); a cuBLAS workspace of"
        " 32 MiB on Hopper, 4 MiB before (docs.nvidia.com/cuda/cublas, cublasSetWorkspace)",
    ),
    "rocm": Overhead(550 * 1000**2, 32 * MIB, "taken to be as much as with CUDA"),
    "xpu": Overhead(550 * 1000**2, 32 * MIB, "taken to be as much as with CUDA"),
    "vulkan": Overhead(256 * MIB, 0, "no context of CUDA's size and no BLAS library; a set sum"),
    "metal": Overhead(128 * MIB, 0, "memory is the host's and the libraries are the system's; a set sum"),
}
"""By `Device.kind`, but for "cpu"."""


def overhead_bytes(kind: Kind) -> int:
    """What is set aside on a GPU of this kind, in bytes."""
    return OVERHEADS[kind].total_bytes
