"""Why a llama.cpp engine ended, read from its last log lines.

The rules are data: the first whose pattern is found wins, so the particular stands before the
general. Groups of the pattern may be named in `reason` and `hint`. The patterns were provoked
from llama-server b11434 and xllamacpp 2026.10.11549; those on GPU memory are from its source.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from ostler.engines.base import Diagnosis


@dataclass(frozen=True, slots=True)
class Rule:
    """One known end: the line that tells it, and what to say."""

    pattern: re.Pattern[str]
    title: str
    reason: str
    hint: str


def _rule(pattern: str, title: str, reason: str, hint: str) -> Rule:
    return Rule(re.compile(pattern, re.IGNORECASE), title, reason, hint)


SMALLER = (
    "Set a smaller context_length or parallel_slots, a smaller kv_cache_type such as q8_0, fewer gpu_layers, "
    "or take a smaller quantization; or stop another model: ostler ps"
)

RULES: tuple[Rule, ...] = (
    _rule(
        r"invalid argument: (?P<flag>-\S+)",
        "Unknown flag",
        "The engine does not know the flag {flag}.",
        "Correct the model's options or extra arguments; see docs/engines/llamacpp.md",
    ),
    _rule(
        r"error: (?P<flag>--\S+) cannot be honoured by the built-in engine(?:: (?P<why>.*))?",
        "Option not possible here",
        "The built-in engine cannot do {flag}.",
        "Take the option away, or install llama-server and name it in the setting llama_server_command",
    ),
    _rule(
        r'error while handling (?:argument|environment variable) "(?P<flag>[^"]+)": (?P<why>.*)',
        "Bad value",
        "The engine refuses the value of {flag}: {why}",
        "Correct the model's option of that name: ostler show MODEL",
    ),
    _rule(
        r"couldn't bind HTTP server socket, hostname: (?P<host>\S+), port: (?P<port>\d+)",
        "Port in use",
        "The engine could not listen on {host}:{port}; something else does.",
        "Start the model again: another port is chosen",
    ),
    _rule(
        r"error while loading shared libraries: (?P<library>[^:\s]+)",
        "Library missing",
        "The engine's program needs the library {library}, which is not installed.",
        "Install it, set LD_LIBRARY_PATH in the model's env, or use the built-in engine",
    ),
    _rule(
        r"failed to load multimodal model, '(?P<file>[^']*)'|Failed to load CLIP model from (?P<clip>\S+)",
        "Projector not usable",
        "The projector file (mmproj) does not load or does not belong to this model.",
        "Name the right file in the option mmproj, or set mmproj_auto to false to go without",
    ),
    _rule(
        r"failed to load lora adapter '(?P<file>[^']*)'",
        "Adapter not usable",
        "The LoRA adapter {file} does not load; it may be made for another model.",
        "Correct or remove the option lora",
    ),
    _rule(
        r"failed to load draft model|failed to create draft context",
        "Drafting model not usable",
        "The model for speculative decoding does not load.",
        "Correct or remove the option draft_model",
    ),
    _rule(
        r"failed to open GGUF file '(?P<file>[^']*)' \(No such file or directory\)",
        "File missing",
        "The file {file} is not there; of a model in several parts every part must be.",
        "Put it back or pull the model again: ostler pull",
    ),
    _rule(
        r"failed to load GGUF split from (?P<file>\S+)|illegal split|invalid split (?:file|count)",
        "Part missing",
        "The model consists of several files, and one of them is missing or broken.",
        "Pull the model again: ostler pull",
    ),
    _rule(
        r"failed to open GGUF file '(?P<file>[^']*)' \((?P<why>[^)]*)\)",
        "File cannot be read",
        "The file {file} cannot be read: {why}.",
        "Check who owns it and its permissions: it must be readable by the user that runs Ostler",
    ),
    _rule(
        r"invalid magic characters",
        "Not a GGUF file",
        "The file is not a GGUF file.",
        "Look at it with: ostler inspect PATH",
    ),
    _rule(
        r"data is not within the file bounds|corrupted or incomplete|unexpected end of file"
        r"|failed to read (?:tensor|key-value|magic)",
        "File broken",
        "The model file is cut off or damaged.",
        "Pull the model again: ostler pull",
    ),
    _rule(
        r"unknown model architecture: '(?P<architecture>[^']*)'",
        "Architecture not supported",
        "This engine does not know the architecture {architecture}.",
        "A newer llama.cpp may: name it in the setting llama_server_command, or update Ostler",
    ),
    _rule(
        r"unknown pre-tokenizer type: '(?P<kind>[^']*)'|unknown tokenizer: '(?P<tokenizer>[^']*)'",
        "Tokenizer not supported",
        "This engine does not know the model's tokenizer.",
        "A newer llama.cpp may: name it in the setting llama_server_command, or update Ostler",
    ),
    _rule(
        r"(?:key not found in model|missing tensor|wrong number of tensors)[:\s]*(?P<what>.*)",
        "File does not fit the engine",
        "The file lacks something that the engine expects: {what}",
        "It may be made for another version of llama.cpp, or be a part of a model; try another file of it",
    ),
    _rule(
        r"quantized V cache requires flash_attn|V cache quantization requires flash_attn",
        "Quantized cache without flash attention",
        "A quantized kv_cache_type_v works with flash attention only.",
        "Set flash_attention to on, or kv_cache_type_v to f16",
    ),
    _rule(
        r"supplied chat template is not supported",
        "Chat template not usable",
        "The engine cannot use the chat template given in the options.",
        "Correct or remove chat_template, and keep jinja on",
    ),
    _rule(
        r"failed to allocate buffer for kv cache|failed to allocate (?:memory for )?kv cache"
        r"|failed to initialize the context: failed to allocate",
        "Context too large",
        "There is not enough memory for the KV cache of a context this long.",
        SMALLER,
    ),
    _rule(
        r"cudaMalloc failed: out of memory|out of device memory|ErrorOutOfDeviceMemory|hipErrorOutOfMemory"
        r"|unable to allocate (?P<device>CUDA|ROCm|Vulkan|Metal|SYCL)\d* buffer",
        "Out of GPU memory",
        "The model does not fit into the GPU's free memory.",
        SMALLER,
    ),
    _rule(
        r"failed to allocate (?:CPU )?buffer|unable to allocate (?P<device>\S+) buffer|std::bad_alloc"
        r"|cannot allocate memory|failed to allocate compute",
        "Out of memory",
        "There is not enough memory for this model.",
        SMALLER,
    ),
    _rule(
        r"no space left on device",
        "Disk full",
        "The engine could not write: the disk is full.",
        "Free some space, or take away options that write files (slot_save_path, log_file)",
    ),
    _rule(
        r"permission denied",
        "Not permitted",
        "The engine was not allowed to open a file.",
        "Check the permissions of the files that the options name",
    ),
    _rule(
        r"error loading model: (?P<why>.*)|failed to load model, '(?P<file>[^']*)'",
        "Model does not load",
        "The engine could not load the model.",
        "Look at its file with: ostler inspect PATH, and at the log: ostler logs MODEL",
    ),
)


def diagnose(
    log_tail: Sequence[str], exit_code: int | None = None, *, oom_killed: bool = False
) -> Diagnosis | None:
    """The first rule that fits; None where nothing is known.

    `exit_code` is negative for a signal (-9), or 128 plus it as a container tells.
    """
    if oom_killed:
        return _out_of_memory()
    for rule in RULES:
        for line in reversed(log_tail):
            if match := rule.pattern.search(line):
                facts = {name: (value or "").strip() for name, value in match.groupdict().items()}
                return Diagnosis(
                    rule.title, rule.reason.format(**facts).rstrip(": "), rule.hint, line.strip()
                )
    return _by_exit_code(exit_code)


def _by_exit_code(exit_code: int | None) -> Diagnosis | None:
    number = -exit_code if exit_code is not None and exit_code < 0 else (exit_code or 0) - 128
    if number == signal.SIGKILL:
        return _out_of_memory(certain=False)
    if number == signal.SIGILL:
        return Diagnosis(
            "Processor not supported",
            "The engine's program uses instructions that this processor does not have.",
            "Use a llama-server built for this machine: the setting llama_server_command",
        )
    if number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS):
        return Diagnosis(
            "Engine crashed",
            f"The engine crashed ({signal.Signals(number).name}).",
            "Look at its log: ostler logs MODEL; another version of llama.cpp may do better",
        )
    return None


def _out_of_memory(*, certain: bool = True) -> Diagnosis:
    if certain:
        return Diagnosis(
            "Killed: out of memory", "The system killed the engine because memory ran out.", SMALLER
        )
    return Diagnosis(
        "Killed from outside",
        "A person, another program, or the system for want of memory killed the engine (SIGKILL).",
        f"The system's log (dmesg) says whether memory ran out. If so: {SMALLER[:1].lower()}{SMALLER[1:]}",
    )
