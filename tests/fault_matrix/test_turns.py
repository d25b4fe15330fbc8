"""Whatever fails at a provider, the turn that it belongs to ends as promised and is on record as it was shown."""

from __future__ import annotations

import pytest

from tests.fault_matrix.advisor_path import PathCell, observe_turns, path_cells
from tests.fault_matrix.expected_turns import expected_turn


@pytest.mark.parametrize("cell", list(path_cells()), ids=str)
async def test_what_becomes_of_a_turn(cell: PathCell) -> None:
    observation = await observe_turns(cell)
    assert observation.broken_rules == ()
    assert observation.outcome == expected_turn(cell)
