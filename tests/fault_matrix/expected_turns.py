"""The expected end of a turn whose model fails: it follows from the end of the call, with one exception.

An answer without a word for the customer is no answer: where the provider says that it is complete or was cut off, the
turn fails all the same. A refusal without words is the provider's own end, and completes.
"""

from __future__ import annotations

from guidance_agent.errors import MalformedResponseError
from tests.conformance.subjects import SUBJECTS
from tests.fault_matrix.advisor_path import PathCell, PathOutcome
from tests.fault_matrix.catalogue import Cell
from tests.fault_matrix.expected import expected

__all__ = ["expected_turn"]


def expected_turn(cell: PathCell) -> PathOutcome:
    """Return what a cell of the whole path promises."""
    subject = next(each for each in SUBJECTS if each.transport == "native" and each.wire == cell.wire)
    call = expected(Cell(cell.case, cell.position, subject))
    wordless = call.shown == "nothing" and call.finish in ("stop", "length")
    error = MalformedResponseError.__name__ if wordless else call.error
    failed = error is not None
    return PathOutcome(
        last_event="Failed" if failed else "Completed",
        error=error,
        finish=None if failed else call.finish,
        state="failed" if failed else "completed",
        shown=call.shown,
        judgement=None if call.shown == "nothing" else "pending",
        once="Completed" if call.once.startswith("answered") or not failed else "Failed",
        record=call.record,
    )
