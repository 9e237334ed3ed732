"""How an engine's end is read from its log: rules as data, and those that hold for every engine.

The first rule whose pattern is found wins, so the particular stands before the general. Groups of
the pattern may be named in `reason` and `hint`.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from ostler.engines.base import Cause, Diagnosis, Severity


@dataclass(frozen=True, slots=True)
class Rule:
    """One known end: the line that tells it, and what to say. `cause` is the kind of thing to look at.

    `more` is what else may help, after the hint.
    """

    pattern: re.Pattern[str]
    cause: Cause
    title: str
    reason: str
    hint: str
    more: tuple[str, ...] = ()
    severity: Severity = "error"


def rule(
    pattern: str,
    cause: Cause,
    title: str,
    reason: str,
    hint: str,
    *more: str,
    severity: Severity = "error",
) -> Rule:
    """A rule; its pattern ignores case."""
    return Rule(re.compile(pattern, re.IGNORECASE), cause, title, reason, hint, more, severity)


@dataclass(frozen=True, slots=True)
class Rules:
    """What is known of one engine's ends.

    `noise` are lines that never tell an end (warnings, for example). `smaller` says how a model is made
    to need less memory, `other_build` what to do about a program that does not suit this machine. `notes`
    are no ends: warnings of a running engine.
    """

    rules: tuple[Rule, ...]
    smaller: str
    other_build: str
    noise: re.Pattern[str] | None = None
    notes: tuple[Rule, ...] = ()

    def notes_on(self, log_tail: Sequence[str]) -> list[Diagnosis]:
        """What the log of a running engine says that a person may wonder about."""
        return [found for known in self.notes if (found := _first(known, log_tail))]

    def diagnose(
        self, log_tail: Sequence[str], exit_code: int | None = None, *, oom_killed: bool = False
    ) -> Diagnosis | None:
        """The first rule that fits; None where nothing is known.

        `exit_code` is negative for a signal (-9), or 128 plus it as a container tells.
        """
        if oom_killed:
            return Diagnosis(
                "Killed: out of memory",
                "The system killed the engine because memory ran out.",
                self.smaller,
                cause="memory",
            )
        lines = [line for line in log_tail if self.noise is None or not self.noise.search(line)]
        found = next((told for known in self.rules if (told := _first(known, lines))), None)
        return found or self._by_exit_code(exit_code)

    def _by_exit_code(self, exit_code: int | None) -> Diagnosis | None:
        number = -exit_code if exit_code is not None and exit_code < 0 else (exit_code or 0) - 128
        if number == signal.SIGKILL:
            return Diagnosis(
                "Killed from outside",
                "A person, another program, or the system for want of memory killed the engine (SIGKILL).",
                "The system's log (dmesg) says whether memory ran out. If so: "
                f"{self.smaller[:1].lower()}{self.smaller[1:]}",
                cause="memory",
            )
        if number == signal.SIGILL:
            return Diagnosis(
                "Processor not supported",
                "The engine's program uses instructions that this processor does not have.",
                self.other_build,
                cause="system",
            )
        if number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS):
            return Diagnosis(
                "Engine crashed",
                f"The engine crashed ({signal.Signals(number).name}).",
                "Look at its log: ostler logs MODEL; another version of the engine may do better",
                cause="engine",
            )
        return None


def _first(known: Rule, lines: Sequence[str]) -> Diagnosis | None:
    """What the rule says of the last line that it knows."""
    for line in reversed(lines):
        if match := known.pattern.search(line):
            return _told(known, match, line)
    return None


def _told(known: Rule, match: re.Match[str], line: str) -> Diagnosis:
    facts = {name: (value or "").strip() for name, value in match.groupdict().items()}
    return Diagnosis(
        known.title,
        known.reason.format(**facts).rstrip(": "),
        known.hint.format(**facts),
        line.strip()[:500],
        cause=known.cause,
        severity=known.severity,
        fixes=(known.hint.format(**facts), *(fix.format(**facts) for fix in known.more)),
    )


HOST = (
    rule(
        r"nvidia-container-cli: requirement error: unsatisfied condition: (?P<what>[^\s,]+)",
        "system",
        "GPU driver too old",
        "The container image needs a newer NVIDIA driver ({what}).",
        "Update the driver of the host, or name an older image in the model's engine image",
        "nvidia-smi shows the driver and the newest CUDA that it knows",
    ),
    rule(
        r"nvidia-container-cli: (?P<why>.*)|could not select device driver .*gpu",
        "system",
        "No GPU for containers",
        "Docker cannot give a GPU to the container: {why}",
        "Install the NVIDIA Container Toolkit and check: docker run --gpus all IMAGE nvidia-smi",
    ),
    rule(
        r"CUDA driver version is insufficient|NVIDIA driver on your system is too old(?: \(found version"
        r" (?P<found>\d+)\))?"
        r"|unsupported toolchain",
        "system",
        "GPU driver too old",
        "The engine was built for a newer CUDA than this host's NVIDIA driver knows.",
        "Update the driver (nvidia-smi shows its version), or use a build for an older CUDA",
    ),
    rule(
        r"no kernel image is available for execution on the device",
        "system",
        "GPU not supported",
        "The engine's program was built without code for this GPU.",
        "Use a build that knows the GPU: an older one for an old GPU, a newer one for a new GPU",
    ),
    rule(
        r"(?P<library>lib[\w.+-]+\.so[\w.]*): cannot open shared object file"
        r"|error while loading shared libraries: (?P<other>[^:\s]+)",
        "system",
        "Library missing",
        "The engine's program needs the library {library}{other}, which is not installed.",
        "Install it, or set LD_LIBRARY_PATH in the model's env",
    ),
    rule(
        r"GatedRepoError|gated repo|401 Client Error|403 Client Error|Access to model \S+ is restricted"
        r"|failed with status code: 40[13]|GET failed \(40[13]\)",
        "model",
        "Access to the repo is restricted",
        "The Hugging Face hub did not give the file: the repo is gated or private, or there is none.",
        "Accept its terms on its page, set the setting hf_token, and fetch it: ostler pull ORG/REPO",
        "Check the name of the repo",
    ),
    rule(
        r"no space left on device|disk quota exceeded",
        "system",
        "Disk full",
        "The engine could not write: the disk (or /dev/shm) is full.",
        "Free some space (df -h shows where), or take away options that write files",
        "In a container /dev/shm may be too small: set a larger shm_size",
    ),
    rule(
        r"address already in use|EADDRINUSE",
        "system",
        "Port in use",
        "The engine could not listen on its port; something else does.",
        "Start the model again: another port is chosen",
        "See who listens: ss -ltnp",
    ),
    rule(
        r"permission denied(?:: '?(?P<file>[^']+)'?)?",
        "system",
        "Not permitted",
        "The engine was not allowed to open {file}",
        "Check that the user who runs Ostler may read the model's files and those that the options name",
    ),
)
"""What is wrong with the machine rather than with the model: the words are those of the system, of CUDA,
of Docker and of the hub's library, so every engine prints them."""
