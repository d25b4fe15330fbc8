"""Phoenix is away while a question is answered and judged: what it missed arrives when it is back."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from guidance_agent import AdvisorAgent, Runtime, Settings
from guidance_agent.phoenix import LocalPhoenix
from tests.integration.phoenix.reading import Reader
from tests.integration.phoenix.story import delivered, tell_turn
from tests.relay import Relay

PROJECT = "away"


def told_log(caplog: pytest.LogCaptureFixture, beginning: str) -> int:
    """Return how often the log was told something that begins like this."""
    return sum(record.getMessage().startswith(beginning) for record in caplog.records)


async def test_what_phoenix_missed_arrives_when_it_is_back(
    phoenix: LocalPhoenix, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="guidance_agent")
    settings = Settings.load(data_dir=tmp_path, simulator="instant", tracing="on")
    async with Relay(phoenix.port) as relay:
        environ = {"PHOENIX_COLLECTOR_ENDPOINT": relay.url, "PHOENIX_PROJECT_NAME": PROJECT}
        async with Runtime(settings, environ=environ) as runtime, AdvisorAgent(runtime=runtime) as advisor:
            told = await tell_turn(runtime, advisor, "chat-away", "Can I take my pension at 55?")
            assert (told.state, told.passed) == ("completed", True)
            assert runtime.annotations is not None
            assert (await runtime.annotations.drain()).waiting == 1
            async with asyncio.timeout(60):
                while not told_log(caplog, "Traces cannot be delivered"):  # noqa: ASYNC110 - a log wakes nobody
                    await asyncio.sleep(0.05)
            await relay.open()
            await delivered(runtime)
    reader = Reader(phoenix, PROJECT)
    spans = await asyncio.to_thread(reader.trace, told.trace_id, "turn", "guidance", "validation", "judge")
    assert {span["status_code"] for span in spans} == {"OK"}
    (annotation,) = await asyncio.to_thread(reader.annotations, told.answer_span_id)
    assert (annotation["name"], annotation["result"]["label"]) == ("compliance", "passed")
    assert told_log(caplog, "Traces cannot be delivered") == told_log(caplog, "Traces are delivered again") == 1
    assert told_log(caplog, "Verdicts on answers cannot be delivered") == 1
