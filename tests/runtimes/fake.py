"""A runtime inside the test, whose races and faults can be held still.

Its engines are `StandIn` servers on real loopback ports, so health probes are real. `World` is what
outlives a server: give it to a second `FakeRuntime` and that one finds the engines of the first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from ostler.core.launch import HOST_SLOT, PORT_SLOT, Handle, LaunchSpec
from ostler.runtimes.base import (
    Discovered,
    LaunchFailed,
    Observed,
    RuntimeAway,
    RuntimeCheck,
    StopFailed,
    Tell,
)
from ostler.runtimes.logfile import LineCutter
from tests.runtimes.stand_in import StandIn, parse


class Gate:
    """A place to wait at. Open by default; `asked` is set as soon as somebody arrives."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self.asked = asyncio.Event()

    def hold(self) -> None:
        self._open.clear()
        self.asked.clear()

    def release(self) -> None:
        self._open.set()

    async def enter(self) -> None:
        self.asked.set()
        await self._open.wait()


@dataclass
class FakeEngine:
    spec: LaunchSpec
    instance_id: int
    secrets: dict[str, str]
    pid: int
    handle: Handle | None = None
    server: StandIn | None = None
    log: bytearray = field(default_factory=bytearray)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    exit_code: int | None = None
    oom_killed: bool = False
    is_forgotten: bool = False
    port_taken: bool = False
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


class World:
    """The engines that exist, whoever looks after them."""

    def __init__(self) -> None:
        self.engines: list[FakeEngine] = []

    @property
    def alive(self) -> list[FakeEngine]:
        return [engine for engine in self.engines if not engine.ended.is_set()]

    def engine(self, model_name: str) -> FakeEngine:
        """The newest engine of this model."""
        return next(e for e in reversed(self.engines) if e.spec.model_name == model_name)

    async def close(self) -> None:
        for engine in self.alive:
            await end(engine, -9)


async def end(engine: FakeEngine, code: int | None, *, oom_killed: bool = False) -> None:
    """Let an engine end now; with code None nobody will know how."""
    if engine.ended.is_set():
        return
    engine.exit_code, engine.oom_killed = code, oom_killed
    for task in engine.tasks - {asyncio.current_task()}:
        task.cancel()
    if engine.server and engine.server.server:
        engine.server.server.close()
    engine.ended.set()


class FakeRuntime:
    """See the module. `starts` and `stops` are the names of models in the order of the acts.

    `memory_bytes` is what each of its engines holds.
    """

    def __init__(self, world: World | None = None, name: str = "process") -> None:
        self.name = name
        self.world = world or World()
        self.starts: list[str] = []
        self.stops: list[str] = []
        self.start_gate = Gate()
        self.stop_gate = Gate()
        self.load_gate = Gate()
        self.launch_error: LaunchFailed | None = None
        self.stop_error: StopFailed | None = None
        self.memory_bytes = 1_000_000
        self.next_exits: list[tuple[int, tuple[str, ...], bool]] = []
        self._ports_to_take = 0
        self.trouble: str | None = None
        self.lack: str | None = None
        self.pull_gate = Gate()

    def go_away(self) -> None:
        """From now on it does not answer, as a daemon that is stopped; its engines live."""
        self.trouble = "the runtime does not answer"

    def come_back(self) -> None:
        """It answers again."""
        self.trouble = None

    def _answer(self) -> None:
        if self.trouble is not None:
            raise RuntimeAway(self.trouble, retry_after_s=1.0)

    async def lacks(self, spec: LaunchSpec) -> str | None:
        return self.lack

    async def provide(self, spec: LaunchSpec, tell: Tell) -> None:
        self._answer()
        if self.lack is not None:
            await tell(f"pulling {self.lack}")
            await self.pull_gate.enter()
            self.lack = None

    async def close(self) -> None:
        """Nothing to close."""

    def exit_while_loading(self, code: int, *lines: str, oom_killed: bool = False, times: int = 1) -> None:
        """The next engines print these lines and end with this code before they are ready."""
        self.next_exits += [(code, lines, oom_killed)] * times

    def take_next_ports(self, count: int) -> None:
        """The next engines find their port taken, and end."""
        self._ports_to_take = count

    async def exit(self, model_name: str, code: int | None = 1, *, oom_killed: bool = False) -> None:
        """The engine of this model ends now."""
        await end(self.world.engine(model_name), code, oom_killed=oom_killed)

    async def launch(self, spec: LaunchSpec, *, instance_id: int, secrets: Mapping[str, str]) -> Handle:
        self._answer()
        self.starts.append(spec.model_name)
        await self.start_gate.enter()
        if self.launch_error is not None:
            raise self.launch_error
        if spec.command and spec.command[0].startswith("/no/such"):
            raise LaunchFailed("there is no such program", hint="Look for it.")
        pid = 100_000 + len(self.world.engines)
        engine = FakeEngine(spec, instance_id, dict(secrets), pid)
        self.world.engines.append(engine)
        slots = {HOST_SLOT: "127.0.0.1", PORT_SLOT: "0"}
        manners = parse([slots.get(part, part) for part in (*spec.command, *spec.args)])

        def leave(code: int) -> None:
            task = asyncio.get_running_loop().create_task(end(engine, code))
            engine.tasks.add(task)
            raise ConnectionResetError

        engine.server = StandIn(manners, {**spec.env, **secrets}, engine.log.extend, leave)
        port = await engine.server.listen()
        engine.handle = Handle(self.name, f"http://127.0.0.1:{port}", {"instance_id": instance_id})
        engine.tasks.add(asyncio.create_task(self._load(engine)))
        return engine.handle

    async def _load(self, engine: FakeEngine) -> None:
        assert engine.server is not None
        engine.server.talk()
        if self._ports_to_take:
            self._ports_to_take -= 1
            engine.port_taken = True
            await end(engine, 1)
            return
        code = engine.server.manners.exit_code
        if self.next_exits:
            code, lines, oom_killed = self.next_exits.pop(0)
            engine.log.extend("".join(f"{line}\n" for line in lines).encode())
            await end(engine, code, oom_killed=oom_killed)
        elif code is not None:
            await end(engine, code)
        else:
            await self.load_gate.enter()
            await engine.server.load()

    async def inspect(self, handle: Handle) -> Observed:
        self._answer()
        engine = self._find(handle)
        if engine is None:
            return Observed("gone")
        if not engine.ended.is_set():
            return Observed(
                "alive", pid=engine.pid, memory_bytes=self.memory_bytes, port_taken=engine.port_taken
            )
        if engine.exit_code is None:
            return Observed("gone", pid=engine.pid)
        return Observed("exited", engine.exit_code, engine.oom_killed, engine.pid, None, engine.port_taken)

    async def wait_exit(self, handle: Handle) -> Observed:
        engine = self._find(handle)
        if engine is not None:
            await engine.ended.wait()
        while self.trouble is not None:
            await asyncio.sleep(0.01)
        return await self.inspect(handle)

    async def stop(self, handle: Handle, *, grace_s: float) -> None:
        self._answer()
        engine = self._find(handle)
        if engine is None or engine.is_forgotten:
            return
        if not engine.ended.is_set():
            self.stops.append(engine.spec.model_name)
            await self.stop_gate.enter()
            if self.stop_error is not None:
                raise self.stop_error
            if engine.server is not None and not engine.server.manners.ignore_term:
                engine.log.extend(b"bye\n")
            await end(engine, 0)
        engine.is_forgotten = True

    async def logs(self, handle: Handle, *, tail_lines: int | None, follow: bool) -> AsyncIterator[str]:
        engine = next((e for e in reversed(self.world.engines) if e.handle == handle), None)
        if engine is None:
            return
        cutter, offset = LineCutter(), 0
        if tail_lines is not None:
            kept = engine.log.splitlines(keepends=True)[-tail_lines:] if tail_lines else []
            offset = len(engine.log) - sum(map(len, kept))
        while True:
            is_over = not follow or engine.ended.is_set()
            data, offset = bytes(engine.log[offset:]), len(engine.log)
            for line in cutter.feed(data):
                yield line
            if is_over:
                break
            await asyncio.sleep(0.01)
        for line in cutter.finish():
            yield line

    async def discover(self) -> list[Discovered]:
        self._answer()
        return [
            Discovered(e.handle, e.spec.model_id, e.instance_id, e.spec.digest())
            for e in self.world.engines
            if e.handle is not None and not e.is_forgotten
        ]

    async def check(self) -> RuntimeCheck:
        return RuntimeCheck(True)

    async def tidy(self) -> None:
        """Nothing to do."""

    def _find(self, handle: Handle) -> FakeEngine | None:
        for engine in reversed(self.world.engines):
            if engine.handle == handle:
                return None if engine.is_forgotten else engine
        return None
