"""What the handlers of one simulator share."""

from __future__ import annotations

from dataclasses import dataclass, field

from aiohttp import web

from guidance_agent.provider_simulator.batches.engine import BatchEngine
from guidance_agent.provider_simulator.batches.limits import BatchLimits
from guidance_agent.provider_simulator.cache import PromptCaches
from guidance_agent.provider_simulator.clock import Clock
from guidance_agent.provider_simulator.composer import Composer
from guidance_agent.provider_simulator.faults import FaultQueue
from guidance_agent.provider_simulator.ledger import Ledger
from guidance_agent.provider_simulator.limits import RateLimits
from guidance_agent.provider_simulator.pacing import Pacer
from guidance_agent.provider_simulator.request_log import RequestLog, RequestRecord
from guidance_agent.provider_simulator.settings import SimulatorSettings

__all__ = ["STATE", "SimulatorState"]


@dataclass(slots=True, kw_only=True)
class SimulatorState:
    """Parts of a running simulator; `closing` tells a client that left from a server that stops."""

    settings: SimulatorSettings
    clock: Clock
    caches: PromptCaches
    limits: RateLimits
    composer: Composer
    pacer: Pacer
    log: RequestLog
    faults: FaultQueue
    batches: BatchEngine
    batch_limits: BatchLimits
    base_url: str = ""
    ledger: Ledger = field(default_factory=Ledger)
    closing: bool = False

    def open_record(self, request: web.Request) -> RequestRecord:
        return self.log.open(
            method=request.method,
            path=request.path_qs,
            headers=request.headers,
            received_at=self.clock.now(),
        )


STATE: web.AppKey[SimulatorState] = web.AppKey("state", SimulatorState)
