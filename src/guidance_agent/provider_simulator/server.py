"""The simulator as a server in this process."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from aiohttp import web

from guidance_agent.provider_simulator import (
    SIMULATOR_HEADER,
    SIMULATOR_VERSION,
    answer_routes,
    control_routes,
    embedding_routes,
)
from guidance_agent.provider_simulator.answers.topics import topics
from guidance_agent.provider_simulator.batches import (
    anthropic_routes,
    file_routes,
    inspection_routes,
    openai_routes,
)
from guidance_agent.provider_simulator.batches.engine import BatchEngine
from guidance_agent.provider_simulator.batches.limits import BatchLimits
from guidance_agent.provider_simulator.cache import PromptCaches
from guidance_agent.provider_simulator.clock import Clock, SystemClock
from guidance_agent.provider_simulator.composer import Composer
from guidance_agent.provider_simulator.faults import FaultQueue
from guidance_agent.provider_simulator.limits import RateLimits
from guidance_agent.provider_simulator.pacing import Pacer
from guidance_agent.provider_simulator.request_log import RequestLog
from guidance_agent.provider_simulator.settings import SimulatorSettings
from guidance_agent.provider_simulator.state import STATE, SimulatorState

__all__ = ["ProviderSimulator"]

_BODY_LIMIT = 64 * 1024 * 1024


async def _label(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers[SIMULATOR_HEADER] = SIMULATOR_VERSION


class ProviderSimulator:
    """A provider on the loopback address, for as long as the `async with` block lasts.

    Anthropic's routes stand under `/v1/messages`, OpenAI's under `/v1/chat/completions`, `/v1/embeddings`, `/v1/files`
    and `/v1/batches`, the control plane under `/_simulator/`.
    """

    def __init__(self, settings: SimulatorSettings | None = None, *, clock: Clock | None = None) -> None:
        self.settings = settings or SimulatorSettings()
        self.clock: Clock = clock or SystemClock()
        composer = Composer(self.settings)
        faults = FaultQueue(self.settings.seed)
        self._state = SimulatorState(
            settings=self.settings,
            clock=self.clock,
            caches=PromptCaches(self.settings),
            limits=RateLimits(self.settings),
            composer=composer,
            pacer=Pacer(self.clock),
            log=RequestLog(self.settings.log_limit),
            faults=faults,
            batches=BatchEngine(self.settings, self.clock, composer, faults),
            batch_limits=BatchLimits(self.settings),
        )
        self._runner: web.AppRunner | None = None
        self._saver: asyncio.Task[None] | None = None
        self._port: int | None = None

    @property
    def base_url(self) -> str:
        """Address of the running simulator without a path, such as `http://127.0.0.1:40001`."""
        if self._port is None:
            raise RuntimeError("the simulator has no address yet; enter `async with ProviderSimulator(...)` first")
        return f"http://{self.settings.host}:{self._port}"

    @property
    def requests(self) -> RequestLog:
        return self._state.log

    @property
    def faults(self) -> FaultQueue:
        return self._state.faults

    @property
    def cache(self) -> PromptCaches:
        return self._state.caches

    async def __aenter__(self) -> Self:
        # Read from disk before the first request, away from the event loop.
        await asyncio.to_thread(topics)
        app = web.Application(client_max_size=_BODY_LIMIT)
        app[STATE] = self._state
        app.on_response_prepare.append(_label)
        for table in (
            answer_routes.routes,
            embedding_routes.routes,
            file_routes.routes,
            openai_routes.routes,
            anthropic_routes.routes,
            control_routes.routes,
            inspection_routes.routes,
        ):
            app.router.add_routes(table)
        # A handler is cancelled when its client leaves: that is how the log learns of it within milliseconds.
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, self.settings.host, self.settings.port, backlog=1_024)
        try:
            await site.start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        self._port = runner.addresses[0][1]
        self._state.base_url = self.base_url
        path = self.settings.state_path
        if path is not None:
            await self._state.caches.load(path, self.clock.now())
            self._saver = asyncio.create_task(self._state.caches.keep_saved(path, self.clock))
            await self._state.batches.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._state.closing = True
        self._state.pacer.stop()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        await self._state.batches.aclose()
        if self._saver is not None and self.settings.state_path is not None:
            self._saver.cancel()
            await asyncio.gather(self._saver, return_exceptions=True)
            self._saver = None
            await self._state.caches.save(self.settings.state_path, self.clock.now())
