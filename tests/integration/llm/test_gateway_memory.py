"""Long answers pass through without staying."""

from __future__ import annotations

from collections.abc import Callable

import psutil

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
