"""What a person may type for a point in time, and which moment it means."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import typer

from guidance_agent.cli.period import first_moment, moment_after

NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-20", datetime(2026, 11, 20, tzinfo=UTC)),
        ("20261120", datetime(2026, 11, 20, tzinfo=UTC)),
        ("2026-11-20T08:15", datetime(2026, 11, 20, 8, 15, tzinfo=UTC)),
        ("2026-11-20 08:15+01:00", datetime(2026, 11, 20, 7, 15, tzinfo=UTC)),
        ("2026-11-20T08:15:00Z", datetime(2026, 11, 20, 8, 15, tzinfo=UTC)),
        ("7d", datetime(2026, 11, 14, 9, 30, tzinfo=UTC)),
        (" 90m ", datetime(2026, 11, 21, 8, 0, tzinfo=UTC)),
        ("24h", datetime(2026, 11, 20, 9, 30, tzinfo=UTC)),
    ],
)
def test_dates_moments_and_ages_are_understood(text: str, moment: datetime) -> None:
    assert first_moment(text, NOW) == moment


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-20", datetime(2026, 11, 21, tzinfo=UTC)),
        ("20261120", datetime(2026, 11, 21, tzinfo=UTC)),
        ("2026-11-20T00:00", datetime(2026, 11, 20, tzinfo=UTC)),
        ("2026-11-20T08:15", datetime(2026, 11, 20, 8, 15, tzinfo=UTC)),
        ("1h", datetime(2026, 11, 21, 8, 30, tzinfo=UTC)),
    ],
)
def test_a_period_ends_with_the_whole_day_of_a_date(text: str, moment: datetime) -> None:
    assert moment_after(text, NOW) == moment


def test_no_text_is_no_bound() -> None:
    assert first_moment(None, NOW) is None
    assert moment_after(None, NOW) is None


def test_the_last_day_that_there_is_bounds_nothing() -> None:
    assert moment_after("9999-12-31", NOW) is None


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "7w", "999999d", "-1d"])
def test_anything_else_is_refused_with_what_would_do(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="7d"):
        first_moment(text, NOW)
