"""The real clock: aware times, British dates, and identifiers that sort by the time they were made."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
import time_machine

from guidance_agent.core.clock import SystemClock


@pytest.mark.parametrize(
    ("moment", "today"),
    [
        (datetime(2026, 4, 5, 22, 59, tzinfo=UTC), date(2026, 4, 5)),
        (datetime(2026, 4, 5, 23, 1, tzinfo=UTC), date(2026, 4, 6)),
        (datetime(2026, 11, 21, 23, 59, tzinfo=UTC), date(2026, 11, 21)),
        (datetime(2026, 12, 31, 23, 59, tzinfo=UTC), date(2026, 12, 31)),
    ],
)
def test_the_day_turns_at_midnight_in_the_united_kingdom(moment: datetime, today: date) -> None:
    with time_machine.travel(moment, tick=False):
        assert SystemClock().today() == today


def test_the_time_is_aware_and_in_utc() -> None:
    assert SystemClock().now().utcoffset() == timedelta(0)


def test_ids_are_unique_fit_their_column_and_sort_by_time() -> None:
    clock = SystemClock()
    made = []
    for year in (2026, 2027, 2090):
        with time_machine.travel(datetime(year, 1, 1, tzinfo=UTC), tick=False):
            made.append([clock.new_id("turn") for _ in range(100)])
    ids = [made_id for group in made for made_id in group]
    assert len(set(ids)) == 300
    assert max(made[0]) < min(made[1]) < max(made[1]) < min(made[2])
    assert all(made_id.startswith("turn_") and len(made_id) <= 64 for made_id in ids)
