"""The Phoenix server that the tests of this folder share, and the time that its start may take."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.phoenix_server import MINUTES, phoenix, phoenix_environment

__all__ = ["phoenix", "phoenix_environment"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(MINUTES * 60))
