"""One request for an answer, from the socket and back: the same story for both wires."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from guidance_agent.provider_simulator.accounting import CacheUse
from guidance_agent.provider_simulator.adapters import Adapter
from guidance_agent.provider_simulator.admission import read_json, require_key
from guidance_agent.provider_simulator.answer import Answer
from guidance_agent.provider_simulator.clock import sleep_until
from guidance_agent.provider_simulator.delivery import Delivery, drop_request, require_transport
from guidance_agent.provider_simulator.faults import Fault, altered_answer, break_frames, fault_error, seeded
from guidance_agent.provider_simulator.frames import with_line_ending
from guidance_agent.provider_simulator.models import Wire
from guidance_agent.provider_simulator.pacing import Pace
from guidance_agent.provider_simulator.prompt import Prompt
from guidance_agent.provider_simulator.request_log import RequestRecord
from guidance_agent.provider_simulator.scripts import Script, script_of_model_name
from guidance_agent.provider_simulator.state import SimulatorState
from guidance_agent.provider_simulator.wire_errors import ProviderError, error_body

__all__ = ["Exchange", "fault_before_answer"]

SCRIPT_HEADER = "x-simulator-script"
_EAGER_PIECES = 5_000


async def fault_before_answer(
    state: SimulatorState, record: RequestRecord, request: web.Request, fault: Fault, wire: Wire
) -> web.StreamResponse | None:
    """What a fault does before anything is sent; None when the answer goes its way."""
    record.fault = fault.kind
    match fault.kind:
        case "status":
            raise fault_error(fault, wire)
        case "slow_headers":
            seconds = float("inf") if fault.seconds is None else fault.seconds
            await sleep_until(state.clock, record.received_at + seconds)
        case "accept_then_drop":
            record.dropped = True
            await drop_request(request, abrupt=fault.abrupt)
        case "redirect":
            record.status = 307
            return web.Response(status=307, headers={"location": fault.location})
        case "wrong_content_type":
            record.status = 200
            return web.Response(text="<html><body>Sign in</body></html>", content_type="text/html")
    return None


class Exchange:
    """One request for an answer."""

    def __init__(self, state: SimulatorState, adapter: Adapter, request: web.Request) -> None:
        self._state = state
        self._adapter = adapter
        self._request = request
        self._record = state.open_record(request)
        self._arrived = self._record.received_at
        self._rng = seeded(state.settings.seed, "exchange", self._record.number)
        self._record.request_id = adapter.request_id(self._rng)
        self._record.operation = adapter.operation

    async def serve(self) -> web.StreamResponse:
        """Answer the request, and note it when the client leaves before the end."""
        try:
            response = await self._answer()
        except ProviderError as error:
            response = self._failed(error)
        except (asyncio.CancelledError, ConnectionError):
            if not self._state.closing:
                self._record.client_left(self._state.clock.now())
            raise
        finally:
            self._record.ended_at = self._state.clock.now()
        return response

    async def _answer(self) -> web.StreamResponse:
        key = require_key(self._adapter.wire, self._request.headers)
        body = await read_json(self._request, self._adapter.wire)
        self._note(body)
        fault = self._state.faults.take(
            model=self._record.model,
            path=self._request.path,
            operation=self._record.operation,
            body=json.dumps(body, ensure_ascii=False),
        )
        if fault is not None:
            early = await fault_before_answer(self._state, self._record, self._request, fault, self._adapter.wire)
            if early is not None:
                return early
        prompt = self._adapter.read(body, self._state.settings)
        lease = self._state.caches.begin(prompt, workspace=key, now=self._arrived)
        self._state.limits.admit(prompt, lease.use, workspace=key, now=self._arrived)
        script = self._script(fault)
        answer = self._state.composer.reply(prompt, script, chunk_tokens=self._adapter.chunk_tokens)
        if fault is not None:
            answer = altered_answer(fault, answer)
        self._record.usage = self._adapter.usage(prompt, answer, lease.use)
        self._state.ledger.add(prompt.model.name, lease.use, answer.output_tokens)
        pace = self._pace(prompt, lease.use, script)
        headers = self._headers(prompt, key)
        if prompt.stream:
            return await self._stream(prompt, answer, lease.use, pace, headers, fault, lease.commit)
        return await self._whole(prompt, answer, lease.use, pace, headers, fault, lease.commit)

    def _note(self, body: dict[str, Any]) -> None:
        record = self._record
        if self._state.settings.log_bodies:
            record.body = body
        record.model = str(body.get("model", ""))
        record.stream = bool(body.get("stream", False))
        if record.stream:
            record.operation += ".stream"

    def _script(self, fault: Fault | None) -> Script | None:
        if fault is not None and fault.script is not None:
            return fault.script
        raw = self._request.headers.get(SCRIPT_HEADER)
        if raw is None:
            return script_of_model_name(self._record.model)
        try:
            return Script.model_validate_json(raw)
        except ValidationError as error:
            raise ProviderError(400, "invalid_request_error", f"{SCRIPT_HEADER}: {error}") from error

    def _pace(self, prompt: Prompt, use: CacheUse, script: Script | None) -> Pace:
        settings = self._state.settings
        if settings.zero_latency:
            pace = Pace(0.0, None, settings.chunk_interval)
        else:
            profile = settings.latency[prompt.model.pace]
            uncached = use.uncached + use.written
            first = profile.time_to_first_token(uncached=uncached, cached=use.read)
            pace = Pace(first, profile.tokens_per_second, settings.chunk_interval)
        if script is not None:
            first = pace.first if script.first_ms is None else script.first_ms / 1_000
            interval = pace.interval if script.interval_ms is None else script.interval_ms / 1_000
            pace = Pace(first, pace.tokens_per_second, interval)
        return pace

    def _headers(self, prompt: Prompt, key: str) -> dict[str, str]:
        headers = self._state.limits.headers(prompt.model, workspace=key, now=self._state.clock.now())
        headers[self._adapter.request_id_header] = self._record.request_id
        if self._adapter.wire == "anthropic":
            headers["anthropic-organization-id"] = "00000000-0000-4000-8000-000000000000"
            if self._rng.random() < self._state.settings.retry_after_on_success_rate:
                headers["retry-after"] = str(self._rng.randint(1, 60))
        else:
            elapsed = (self._state.clock.now() - self._arrived) * 1_000
            headers["openai-processing-ms"] = str(max(1, round(elapsed)))
            headers["openai-version"] = "2020-10-01"
        return headers

    def _failed(self, error: ProviderError) -> web.Response:
        self._record.status = error.status
        body = error_body(self._adapter.wire, error, self._record.request_id)
        headers = {**error.headers, self._adapter.request_id_header: self._record.request_id}
        self._record.finished = True
        return web.json_response(body, status=error.status, headers=headers)

    async def _stream(
        self,
        prompt: Prompt,
        answer: Answer,
        use: CacheUse,
        pace: Pace,
        headers: dict[str, str],
        fault: Fault | None,
        on_begin: Any,
    ) -> web.StreamResponse:
        settings = self._state.settings
        frames = self._adapter.frames(
            prompt,
            answer,
            use,
            pace,
            now=self._arrived,
            rng=self._rng,
            extra_ping_rate=settings.extra_ping_rate,
        )
        listed = frames if len(answer.pieces) > _EAGER_PIECES and fault is None else list(frames)
        if fault is not None:
            listed = self._broken(fault, list(listed), prompt, use)
        response = web.StreamResponse(
            headers={"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache", **headers}
        )
        response.enable_chunked_encoding()
        # The status line comes with the first event, as it does from a provider that is still reading the prompt.
        await sleep_until(self._state.clock, self._arrived + pace.first)
        self._record.status = 200
        transport = require_transport(self._request)
        await response.prepare(self._request)
        delivery = Delivery(
            transport=transport,
            frames=with_line_ending(listed, settings.line_ending),
            started=self._arrived,
            record=self._record,
            chunk_mode=settings.chunk_mode,
            rng=self._rng,
            on_begin=on_begin,
        )
        await delivery.run(self._state.pacer)
        if delivery.connection_lost:
            self._record.client_left(self._state.clock.now())
            return response
        with contextlib.suppress(ConnectionError):
            await response.write_eof()
        self._record.finished = fault is None or fault.kind != "truncate"
        return response

    def _broken(self, fault: Fault, frames: list[Any], prompt: Prompt, use: CacheUse) -> list[Any]:
        error = self._adapter.stream_error(fault_error(fault, self._adapter.wire), self._record.request_id)
        return break_frames(fault, frames, error, self._adapter.other_start(prompt, use, self._rng))

    async def _whole(
        self,
        prompt: Prompt,
        answer: Answer,
        use: CacheUse,
        pace: Pace,
        headers: dict[str, str],
        fault: Fault | None,
        on_begin: Any,
    ) -> web.StreamResponse:
        clock = self._state.clock
        await sleep_until(clock, self._arrived + pace.first)
        on_begin(clock.now())
        duration = sum(pace.step_for(piece) for piece in answer.pieces[1:]) if pace != Pace() else 0.0
        await sleep_until(clock, self._arrived + pace.first + duration)
        body = self._adapter.body(prompt, answer, use, now=self._arrived, rng=self._rng)
        data = json.dumps(body, ensure_ascii=False).encode()
        if fault is not None:
            data = await self._broken_body(fault, data, headers)
        self._record.status = 200
        self._record.first_byte_at = clock.now()
        self._record.bytes_sent = len(data)
        self._record.finished = True
        return web.Response(body=data, content_type="application/json", headers=headers)

    async def _broken_body(self, fault: Fault, data: bytes, headers: dict[str, str]) -> bytes:
        match fault.kind:
            case "error_event":
                raise fault_error(fault, self._adapter.wire)
            case "garbage":
                return b"<html>502 Bad Gateway</html>"
            case "truncate":
                return data[: len(data) // 2]
            case "stall":
                seconds = float("inf") if fault.seconds is None else fault.seconds
                await sleep_until(self._state.clock, self._state.clock.now() + seconds)
            case "drop":
                await self._half(data, headers)
                await sleep_until(self._state.clock, self._state.clock.now() + fault.pause)
                self._record.dropped = True
                await drop_request(self._request, abrupt=fault.abrupt)
        return data

    async def _half(self, data: bytes, headers: dict[str, str]) -> None:
        """Send the head of a whole answer and the first half of its body."""
        length = {"content-type": "application/json", "content-length": str(len(data))}
        response = web.StreamResponse(headers={**headers, **length})
        self._record.status = 200
        await response.prepare(self._request)
        self._record.first_byte_at = self._state.clock.now()
        await response.write(data[: len(data) // 2])
        self._record.bytes_sent = len(data) // 2
