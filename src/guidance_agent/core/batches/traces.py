"""What batches look like in traces: a job, the steps of its batches below it, and each item in a trace of its own.

A job goes on for a day and in several processes, and a span leaves only when it has ended. So the job's first span ends
when its requests are written; the records keep its place, and everything after it is put below it from whatever process
does it. The last span, `batch.done`, is as long as the whole job was.

Items are many. Of a batch with more than `BatchOptions.item_spans` of them about so many are shown, chosen by their
ids, and besides these the first failures; none while the exporter's queue has no room. `guidance.batch.items_shown`
says how many were. Their spans are made in a thread, after what they tell of is committed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from guidance_agent.core.batches.accounts import ids_of
from guidance_agent.core.batches.answers import KnownItem
from guidance_agent.core.batches.states import BatchHandle, BatchStatus, Parts
from guidance_agent.core.schema import batch_items, batch_jobs
from guidance_agent.llm.call_trace import call_attributes
from guidance_agent.llm.messages import ModelCall
from guidance_agent.tracing import attributes as names
from guidance_agent.tracing.span import Attributes, Outcome, Span, Value, read_traceparent
from guidance_agent.tracing.tracer import NEW_TRACE, Parent, Tracing

if TYPE_CHECKING:
    from guidance_agent.core.batches.leases import BatchLease
    from guidance_agent.core.batches.preparing import JobPlan
    from guidance_agent.core.batches.submitting import Job

__all__ = [
    "ItemSpans",
    "Preparing",
    "preparing",
    "step_span",
    "trace_done",
    "trace_online",
    "trace_step",
    "trace_unanswered",
]

_FAILURES = 100
"""So many failures of a batch are shown, whether their ids were chosen or not."""

_WITHOUT_ROW = ("no_result", "batch_gone", "batch_refused", "not_submitted")
"""Types of errors that are said of items in bulk."""

_CHOICES = 16**8
_OUTCOMES: Mapping[str, Outcome] = {"succeeded": "completed", "canceled": "cancelled"}


class Preparing:
    """The first span of a job, and what the job is, with its place in traces."""

    def __init__(self, span: Span, plan: JobPlan) -> None:
        self.plan = plan
        self.span = span
        self.is_ours = False

    async def prepared(self, parts: Parts, handle: BatchHandle) -> None:
        """Note that the job is in the records; it may have been there before, and has its span then."""
        if not self.span.is_recording:
            return
        query = sa.select(batch_jobs.c.traceparent).where(batch_jobs.c.id == self.plan.key)
        kept = await parts.database.run(lambda connection: connection.execute(query).scalar_one())
        self.is_ours = kept == self.plan.traceparent
        self.span.set({names.BATCH_ITEMS: handle.items, names.BATCH_BATCHES: handle.batches})


@contextlib.contextmanager
def preparing(tracing: Tracing, plan: JobPlan) -> Iterator[Preparing]:
    """Have the first span of a job around its preparation; of one that was there before nothing is left."""
    span = tracing.span("batch.job", "CHAIN", parent=read_traceparent(plan.traceparent))
    if span.is_recording:
        plan = replace(plan, traceparent=span.traceparent)
        span.set({names.BATCH_JOB: plan.key, names.BATCH_KIND: plan.kind})
    traced = Preparing(span, plan)
    outcome: Outcome = "cancelled"
    try:
        yield traced
        outcome = "completed"
    except Exception as error:
        outcome = "failed"
        span.fail(error)
        raise
    finally:
        if traced.is_ours or outcome != "completed":
            span.end(outcome=outcome)


def step_span(state: str, *, cancels: bool, online: bool) -> str:
    """Return the name of what is done with a batch in a state."""
    if cancels:
        return "batch.cancel"
    if online:
        return "batch.online"
    return {
        "prepared": "batch.submit",
        "submitting": "batch.find",
        "submitted": "batch.wait",
        "ended": "batch.collect",
    }.get(state, "batch.apply")


def trace_step(tracing: Tracing, lease: BatchLease, job: Job, name: str, before: str, began: datetime) -> None:
    """Leave the span of a step that has brought its batch on, or failed; of one that found nothing to do none."""
    row = lease.row
    if not tracing.is_on or (row["state"] == before and lease.failure is None):
        return
    if name == "batch.wait" and lease.failure is None and row["submitted_at"] is not None:
        began = row["submitted_at"]
    parent: Parent = read_traceparent(job.traceparent) or NEW_TRACE
    span = tracing.span(name, "CHAIN", parent=parent, start=began)
    span.set(
        {
            names.BATCH_JOB: job.id,
            names.BATCH_KIND: job.kind,
            names.BATCH_ID: lease.id,
            names.BATCH_PROVIDER_ID: row["provider_batch_id"],
            names.BATCH_ROUND: row["round"],
            names.BATCH_ROUTE: row["route"],
            names.BATCH_STATE: row["state"],
            names.BATCH_REASON: row["reason"],
            names.BATCH_ITEMS: row["items"],
            names.LLM_MODEL_NAME: row["model"].partition("/")[2],
            names.LLM_PROVIDER: row["provider"],
        }
    )
    if row["state"] in ("collected", "applied"):
        span.set(
            {
                names.BATCH_OUTCOMES: _counted(row["counts"]) or None,
                names.COST_USD: row["cost_usd"],
                names.COST_INTERACTIVE: row["interactive_usd"],
                names.SIMULATED: row["simulated"],
            }
        )
    if name == "batch.collect":
        span.set({names.BATCH_ITEMS_SHOWN: lease.items_shown})
    if lease.failure is not None:
        span.fail(lease.failure)
    span.end(outcome="completed" if lease.failure is None else "failed")


def trace_done(tracing: Tracing, status: BatchStatus, traceparent: str | None) -> None:
    """Leave the span of a whole job that has ended."""
    parent: Parent = read_traceparent(traceparent) or NEW_TRACE
    span = tracing.span("batch.done", "CHAIN", parent=parent, start=status.created_at)
    span.set(
        {
            names.BATCH_JOB: status.job_key,
            names.BATCH_KIND: status.kind,
            names.BATCH_BATCHES: len(status.batches),
            names.BATCH_ITEMS: status.items,
            names.BATCH_OUTCOMES: _counted(status.outcomes),
            names.COST_USD: status.cost_usd,
            names.COST_INTERACTIVE: status.interactive_usd,
        }
    )
    span.end(outcome="completed")


def _counted(outcomes: Mapping[str, int] | None) -> list[str]:
    return [f"{count} {outcome}" for outcome, count in sorted((outcomes or {}).items())]


class ItemSpans:
    """The spans of a batch's items, while its results are read."""

    def __init__(self, parts: Parts, lease: BatchLease, job: Job) -> None:
        self._tracing = parts.tracing
        self._lease = lease
        self._job = job
        self._since: datetime = lease.row["submitted_at"] or parts.clock.now()
        most, items = parts.options.item_spans, max(1, int(lease.row["items"]))
        self._share = most / items
        self._failures = min(_FAILURES, most)

    @property
    def is_on(self) -> bool:
        return self._tracing.is_on

    def show(
        self,
        items: Mapping[str, KnownItem],
        values: Mapping[str, Mapping[str, Any]],
        calls: Mapping[str, ModelCall],
    ) -> None:
        """Leave a span of each item that is shown.

        Args:
            items: By the ids that the provider knows them by.
            values: What was written of them, by their own ids.
            calls: What the provider did, where it did anything.
        """
        for name, item in items.items():
            if self._tracing.has_room and self._is_shown(item, values[item.id]["outcome"]):
                self._show(item, values[item.id], calls.get(name))
                self._lease.items_shown += 1

    def _is_shown(self, item: KnownItem, outcome: str) -> bool:
        if int(item.id[:8], 16) < self._share * _CHOICES:
            return True
        if outcome == "succeeded" or not self._failures:
            return False
        self._failures -= 1
        return True

    def _show(self, item: KnownItem, values: Mapping[str, Any], call: ModelCall | None) -> None:
        link = read_traceparent(self._job.traceparent)
        span = self._tracing.span("batch.item", "LLM", parent=NEW_TRACE, link=link, start=self._since)
        if not span.is_recording:
            return
        span.set(_of_item(self._tracing, self._lease, self._job, item.custom_id, item.metadata))
        if call is not None:
            span.set(call_attributes(call))
        result = values["result"] or {}
        answer: dict[str, Value] = {
            names.BATCH_ITEM_OUTCOME: values["outcome"],
            names.BATCH_REASON: values["error"],
            names.COST_INTERACTIVE: values["interactive_usd"],
        }
        if "text" in result:
            answer |= {
                names.output_message(0, names.MESSAGE_ROLE): "assistant",
                names.output_message(0, names.MESSAGE_CONTENT): result["text"],
                names.OUTPUT_VALUE: result["text"],
                names.OUTPUT_MIME_TYPE: names.TEXT,
                names.OUTPUT_CHARACTERS: len(result["text"]),
                names.MODEL_REASONING: result["reasoning"] or None,
            }
        span.set(answer)
        span.end(outcome=_OUTCOMES.get(values["outcome"], "failed"))


async def trace_unanswered(parts: Parts, lease: BatchLease, job: Job) -> None:
    """Leave spans of the first items of a batch that ended without a row of results about them."""
    if not parts.tracing.is_on:
        return
    table = batch_items.c
    query = (
        sa.select(table.id, table.custom_id, table["metadata"], table.outcome, table.error)
        .where(table.batch_id == lease.id, table.error_type.in_(_WITHOUT_ROW))
        .order_by(table.position)
        .limit(_FAILURES)
    )
    rows = await parts.database.run(lambda connection: connection.execute(query).all())
    items = {row.id: KnownItem(row.id, row.custom_id, lease.row["model"], False, 0.0, row.metadata) for row in rows}
    nothing = {"result": None, "interactive_usd": None}
    values = {row.id: {**nothing, "outcome": row.outcome, "error": row.error} for row in rows}
    await asyncio.to_thread(ItemSpans(parts, lease, job).show, items, values, {})


@contextlib.contextmanager
def trace_online(parts: Parts, lease: BatchLease, job: Job, item: Mapping[str, Any]) -> Iterator[Span]:
    """Have a span in a trace of its own around the asking of one item online; the gateway's is below it."""
    tracing = parts.tracing
    link = read_traceparent(job.traceparent)
    span = tracing.span("batch.item.online", "CHAIN", parent=NEW_TRACE, link=link)
    if span.is_recording:
        span.set(_of_item(tracing, lease, job, item["custom_id"], item["metadata"]))
    outcome: Outcome = "cancelled"
    try:
        with tracing.current(span):
            yield span
        outcome = "completed"
    except Exception as error:
        outcome = "failed"
        span.fail(error)
        raise
    finally:
        span.end(outcome=outcome)


def _of_item(
    tracing: Tracing, lease: BatchLease, job: Job, custom_id: str, metadata: Mapping[str, str] | None
) -> Attributes:
    ids = ids_of(metadata)
    consultation_id = ids.get("consultation_id")
    customer_id = (metadata or {}).get("customer_id")
    return {
        **{names.metadata(name): value for name, value in ids.items()},
        names.SESSION_ID: consultation_id,
        names.GEN_AI_CONVERSATION_ID: consultation_id,
        names.USER_ID: tracing.user_id(customer_id) if customer_id else None,
        names.BATCH_JOB: job.id,
        names.BATCH_KIND: job.kind,
        names.BATCH_ID: lease.id,
        names.BATCH_ROUND: lease.row["round"],
        names.BATCH_ROUTE: lease.row["route"],
        names.BATCH_ITEM: custom_id,
    }
