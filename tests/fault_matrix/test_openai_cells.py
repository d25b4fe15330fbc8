"""Whatever fails at a provider with the OpenAI format, the call ends as promised, on every transport."""

from __future__ import annotations

import pytest

from tests.fault_matrix.catalogue import Cell, cells
from tests.fault_matrix.expected import expected
from tests.fault_matrix.runner import observe


@pytest.mark.parametrize("cell", list(cells(wire="openai")), ids=str)
async def test_what_becomes_of_a_call(cell: Cell) -> None:
    observation = await observe(cell)
    assert observation.broken_rules == ()
    assert observation.outcome == expected(cell)
