"""Answers one request of a batch: by the code that answers it interactively, at half its price."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from guidance_agent.provider_simulator.accounting import CacheUse
from guidance_agent.provider_simulator.adapters import ANTHROPIC, OPENAI, Adapter, make_id
from guidance_agent.provider_simulator.batches.prefixes import PrefixTable
from guidance_agent.provider_simulator.batches.records import Batch, Item, Outcome
from guidance_agent.provider_simulator.cache import account
from guidance_agent.provider_simulator.composer import Composer
from guidance_agent.provider_simulator.draws import draw
from guidance_agent.provider_simulator.faults import ITEM_FAULTS, Fault, FaultQueue, altered_answer, fault_error, seeded
from guidance_agent.provider_simulator.prices import BATCH_SHARE, list_price
from guidance_agent.provider_simulator.prompt import Prompt
from guidance_agent.provider_simulator.read_embeddings import read_embeddings
from guidance_agent.provider_simulator.scripts import script_of_model_name
from guidance_agent.provider_simulator.settings import SimulatorSettings
from guidance_agent.provider_simulator.wire_errors import ProviderError, error_body, standard_error

__all__ = ["ItemAnswer", "ItemAnswers", "unanswered_row"]

_MISREAD = (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError)
"""What reading a body raises whose fields have other types than expected: one item's fault, not the batch's."""

_ERRORS = {
    "expired": ("batch_expired", "This request could not be executed before the completion window expired."),
    "cancelled": ("batch_cancelled", "This request could not be executed because the batch was cancelled."),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemAnswer:
    """What became of an item. `outcome` is None for one that is put off for ever, `row` empty for one that is lost."""

    outcome: Outcome | None
    row: bytes = b""
    use: CacheUse | None = None
    output: int = 0
    reasoning: int = 0
    usd: float | None = None

    @property
    def batch_usd(self) -> float | None:
        return None if self.usd is None else self.usd * BATCH_SHARE


def _row(value: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        # Half of a surrogate pair can be written in JSON and nowhere else.
        return json.dumps(value).encode() + b"\n"


def unanswered_row(batch: Batch, custom_id: str, outcome: Outcome, rng: random.Random) -> bytes:
    """The row of an item that was not reached: `expired` or `cancelled`."""
    if batch.wire == "anthropic":
        return _row({"custom_id": custom_id, "result": {"type": "canceled" if outcome == "cancelled" else outcome}})
    code, message = _ERRORS[outcome]
    error = {"code": code, "message": message}
    return _row({"id": _row_id(rng), "custom_id": custom_id, "response": None, "error": error})


def _line(batch: Batch, item: Item) -> str:
    """An item as it stood in its batch."""
    if batch.wire == "openai":
        return item.request
    return f'{{"custom_id":"{item.custom_id}","params":{item.request}}}'


def _row_id(rng: random.Random) -> str:
    return f"batch_req_{rng.getrandbits(128):032x}"


def _fail_if_doomed(batch: Batch) -> None:
    """Fail every item of a batch that is to fail as a whole."""
    if batch.doomed is not None:
        error = standard_error("anthropic", 500)
        error.message = batch.doomed or error.message
        raise error


class ItemAnswers:
    """Answers items, with the same words, prices and cache rules for all batches."""

    def __init__(self, settings: SimulatorSettings, composer: Composer, faults: FaultQueue) -> None:
        self._settings = settings
        self._composer = composer
        self._faults = faults

    def answer(self, connection: sqlite3.Connection, batch: Batch, item: Item) -> ItemAnswer:
        """Answer one item at the moment at which its wave begins."""
        adapter = ANTHROPIC if batch.wire == "anthropic" else OPENAI
        request = json.loads(item.request)
        body: dict[str, Any] = request if batch.wire == "anthropic" else request["body"]
        model = str(body.get("model", ""))
        fault = self._faults.take(
            model=model,
            path=batch.endpoint,
            operation=f"{batch.wire}.batches.item",
            body=_line(batch, item),
            among=ITEM_FAULTS,
            key=item.custom_id,
        )
        if fault is not None and fault.kind == "expire":
            return ItemAnswer(outcome=None)
        rng = seeded(self._settings.seed, "batch", batch.id, item.custom_id)
        try:
            if fault is not None and fault.kind in ("status", "error_event"):
                raise fault_error(fault, batch.wire)
            _fail_if_doomed(batch)
            if batch.endpoint == "/v1/embeddings":
                answer = self._embedded(item, body, rng)
            else:
                answer = self._asked(connection, batch, item, body, adapter, fault, rng)
        except ProviderError as error:
            return ItemAnswer(outcome="failed", row=_failed_row(batch, item, error, rng))
        except _MISREAD as error:
            refusal = ProviderError(400, "invalid_request_error", f"Input does not match the expected shape: {error}")
            return ItemAnswer(outcome="failed", row=_failed_row(batch, item, refusal, rng))
        if fault is not None and fault.kind == "lose":
            return ItemAnswer(
                outcome="lost", use=answer.use, output=answer.output, reasoning=answer.reasoning, usd=answer.usd
            )
        return answer

    def _embedded(self, item: Item, body: Mapping[str, Any], rng: random.Random) -> ItemAnswer:
        job = read_embeddings(body, self._settings)
        use = CacheUse(uncached=job.tokens)
        row = _answered_row("openai", item.custom_id, job.body(), rng)
        return ItemAnswer(outcome="completed", row=row, use=use, usd=list_price(job.model.name, use, 0))

    def _asked(
        self,
        connection: sqlite3.Connection,
        batch: Batch,
        item: Item,
        body: Mapping[str, Any],
        adapter: Adapter,
        fault: Fault | None,
        rng: random.Random,
    ) -> ItemAnswer:
        if batch.wire == "anthropic":
            _refuse_interactive_fields(body)
        prompt = adapter.read(body, self._settings)
        moment = batch.wave_start(item.wave)
        use = self._account(connection, batch, item, prompt, moment)
        script = fault.script if fault is not None else None
        answer = self._composer.reply(
            prompt, script or script_of_model_name(prompt.model.name), chunk_tokens=adapter.chunk_tokens
        )
        if fault is not None:
            answer = altered_answer(fault, answer)
        whole = adapter.body(prompt, answer, use, now=moment, rng=rng)
        if batch.wire == "anthropic":
            whole["usage"]["service_tier"] = "batch"
        return ItemAnswer(
            outcome="completed",
            row=_answered_row(batch.wire, item.custom_id, whole, rng),
            use=use,
            output=answer.output_tokens,
            reasoning=answer.reasoning_tokens,
            usd=list_price(prompt.model.name, use, answer.output_tokens),
        )

    def _account(
        self, connection: sqlite3.Connection, batch: Batch, item: Item, prompt: Prompt, moment: float
    ) -> CacheUse:
        settings = self._settings
        if batch.wire == "openai" and not settings.openai_batch_caching:
            return CacheUse(uncached=prompt.input_tokens)
        table = PrefixTable(connection, f"{batch.number}:{item.wave}")
        rate = settings.batch_cache_miss_rate if batch.wire == "anthropic" else settings.openai_miss_rate
        use, writes = account(
            prompt,
            table,
            workspace=batch.workspace,
            now=moment,
            miss=rate > 0 and draw(settings.seed, "batch miss", item.custom_id) < rate,
            idle_ttl=settings.openai_idle_ttl,
        )
        for key, ttl in writes:
            table.write(key, ttl=ttl, now=moment)
        return use


def _refuse_interactive_fields(body: Mapping[str, Any]) -> None:
    if body.get("stream"):
        raise ProviderError(400, "invalid_request_error", '"stream=True" is not supported in the Message Batches API')
    if body.get("max_tokens") == 0:
        raise ProviderError(400, "invalid_request_error", "max_tokens: must be greater than or equal to 1")
    if body.get("speed") not in (None, "standard"):
        raise ProviderError(400, "invalid_request_error", "speed: is not supported in the Message Batches API")


def _answered_row(wire: str, custom_id: str, body: dict[str, Any], rng: random.Random) -> bytes:
    if wire == "anthropic":
        return _row({"custom_id": custom_id, "result": {"type": "succeeded", "message": body}})
    response = {"status_code": 200, "request_id": f"{rng.getrandbits(128):032x}", "body": body}
    return _row({"id": _row_id(rng), "custom_id": custom_id, "response": response, "error": None})


def _failed_row(batch: Batch, item: Item, error: ProviderError, rng: random.Random) -> bytes:
    if batch.wire == "anthropic":
        told = {"type": "error", "error": {"type": error.kind, "message": error.message}, "request_id": None}
        return _row({"custom_id": item.custom_id, "result": {"type": "errored", "error": told}})
    response = {
        "status_code": error.status,
        "request_id": make_id("req_", 24, rng),
        "body": error_body("openai", error, ""),
    }
    return _row({"id": _row_id(rng), "custom_id": item.custom_id, "response": response, "error": None})
