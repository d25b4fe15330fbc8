"""The Phoenix server that the tests of this folder share, and the time that its start may take."""

from __future__ import annotations

from pathlib import Path

import pytest

from guidance_agent.phoenix import LocalPhoenix
from tests.integration.phoenix.story import Story, tell
from tests.phoenix_server import MINUTES, phoenix, phoenix_environment

__all__ = ["phoenix", "phoenix_environment", "story"]


@pytest.fixture(scope="session")
def story(phoenix: LocalPhoenix, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """A consultation that the server has all of; in the project `PROJECT` of its module."""
    return tell(phoenix.endpoint, tmp_path_factory.mktemp("story"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(MINUTES * 60))
