"""Long answers pass through without staying."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psutil
import pytest

from guidance_agent.errors import MalformedResponseError
from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.llm.messages import ModelRequest
from guidance_agent.provider_simulator import ProviderSimulatorProcess

Ask = Callable[..., ModelRequest]
OpenGateway = Callable[..., ModelGateway]


async def test_an_answer_of_ten_megabytes_grows_the_process_by_less_than_five(
    open_gateway: OpenGateway, model: str, ask: Ask
) -> None:
    provider = model.partition("/")[0]
    process = psutil.Process()
    with ProviderSimulatorProcess(["--any-model", "--instant", "--no-bodies"]) as simulator:
        gateway = open_gateway(simulator.base_url)
        async for _ in gateway.stream(ask(f"{provider}/script-bytes-100000", max_tokens=128_000)):
            pass
        before = peak = process.memory_info().rss
        stream = gateway.stream(ask(f"{provider}/script-bytes-10485760", max_tokens=128_000))
        sampled = 0
        async for _ in stream:
            if stream.text_length - sampled > 262_144:
                sampled = stream.text_length
                peak = max(peak, process.memory_info().rss)
        assert stream.text_length == 10_485_760
    assert (peak - before) / 1e6 < 5


async def test_a_line_that_never_ends_is_an_error_and_not_a_full_memory(
    open_gateway: OpenGateway, byte_server: Any, model: str, ask: Ask
) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\ndata: "
    byte_server.serve(head, *([b"x" * 1_048_576] * 40))
    with pytest.raises(MalformedResponseError, match="endless"):
        await open_gateway(byte_server.base_url).stream(ask(model)).read()
