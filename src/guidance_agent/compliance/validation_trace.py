"""A judgement as a span: what was judged, what the verdict was, and what was corrected because of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from guidance_agent.tracing import attributes as names
from guidance_agent.tracing.span import Span

if TYPE_CHECKING:
    from guidance_agent.compliance.verdict import Verdict
    from guidance_agent.core.verdicts import NewCorrection
    from guidance_agent.tracing.tracer import Tracing

__all__ = ["note_verdict", "trace_corrections", "validation"]


@contextlib.contextmanager
def validation(tracing: Tracing, text: str, *, purpose: str) -> Iterator[Span]:
    """Have a span around the judging of a text, below the current one; what the judge asks of models is below it."""
    with tracing.work("validation", "EVALUATOR") as span:
        span.set({names.INPUT_VALUE: text, names.INPUT_MIME_TYPE: names.TEXT, names.VERDICT_PURPOSE: purpose})
        yield span


def note_verdict(span: Span, verdict: Verdict, *, reused: bool = False) -> None:
    """Say on a span what the verdict was; `reused` is whether it was given before."""
    if not span.is_recording:
        return
    failed = list(dict.fromkeys(result.check for result in verdict.failures))
    if verdict.unreadable is not None:
        said = "unreadable"
    else:
        said = "passed" if verdict.passed else f"failed: {', '.join(failed)}"
    span.set(
        {
            names.OUTPUT_VALUE: said,
            names.OUTPUT_MIME_TYPE: names.TEXT,
            names.VERDICT_PASSED: verdict.passed,
            names.VERDICT_NEEDS_REVIEW: verdict.needs_review,
            names.VERDICT_CONFIDENCE: verdict.confidence,
            names.VERDICT_FAILED: failed or None,
            names.VERDICT_UNREADABLE: verdict.unreadable,
            names.VERDICT_JUDGE: verdict.judge_model,
            names.VERDICT_POLICY: verdict.policy_version,
            names.VERDICT_REUSED: reused,
            names.COST_USD: verdict.cost_usd,
            names.SIMULATED: verdict.simulated,
        }
    )


def trace_corrections(tracing: Tracing, corrections: Sequence[NewCorrection]) -> None:
    """Make a span of each correction, below the current one."""
    for correction in corrections:
        span = tracing.span("correction", "GUARDRAIL")
        span.set(
            {
                names.CORRECTION_START: correction.start,
                names.CORRECTION_END: correction.end,
                names.OUTPUT_VALUE: correction.replacement,
                names.OUTPUT_MIME_TYPE: names.TEXT,
                names.CORRECTION_REASON: correction.reason,
            }
        )
        span.end(outcome="completed")
