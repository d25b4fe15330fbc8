"""What a run of reflection costs, in short: thirty failures, by the accounting of the simulator."""

from __future__ import annotations

import contextlib
import http.client
import json
from typing import Any
from urllib.parse import urlsplit

import pytest

from benchmarks.failed_answers import said
from benchmarks.reflection import LEAST_READ, LEAST_SAVED, reflect_in_batches
from guidance_agent import Runtime
from guidance_agent.provider_simulator import ProviderSimulator


@pytest.mark.only_on("sqlite")
async def test_a_run_saves_half_and_primed_batches_read_their_static_prefix(
    runtime: Runtime, simulator: ProviderSimulator, wire: str
) -> None:
    def control(method: str, path: str) -> Any:
        connection = http.client.HTTPConnection(urlsplit(simulator.base_url).netloc, timeout=5)
        with contextlib.closing(connection):
            connection.request(method, f"/_simulator/{path}")
            return json.loads(connection.getresponse().read() or b"null")

    simulator.faults.add(*said(30))
    found = await reflect_in_batches(runtime, control, 30)
    assert [each.requests for each in found.rounds] == [30, 30, 30, 30]
    assert found.total.saved >= LEAST_SAVED
    if wire == "anthropic":
        assert found.total.prefix > 4 * 30 * 1_500
        assert found.total.read_share >= LEAST_READ
