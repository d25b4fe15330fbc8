"""What a turn tells its trace, where nothing is traced."""

from __future__ import annotations

from guidance_agent.advisor.turn_trace import TurnTrace
from guidance_agent.tracing.span import NO_SPAN
from guidance_agent.tracing.tracer import NO_TRACING


def test_leaving_a_turn_that_is_not_traced_says_nothing_of_later_calls() -> None:
    trace = TurnTrace(NO_TRACING)
    assert trace.root is NO_SPAN
    trace.caller_left(cancelled=False)
    assert NO_SPAN.left is False
