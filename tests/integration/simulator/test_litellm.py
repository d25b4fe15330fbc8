"""LiteLLM takes the simulator for the real thing."""

from __future__ import annotations

import os
import warnings
from typing import Any

import pytest

from guidance_agent.provider_simulator import ProviderSimulator
from tests.integration.simulator.conftest import Client


@pytest.fixture(scope="module")
def litellm() -> Any:
    # All of these have to stand before the import: it reads the environment and may call out to the network.
    os.environ.update(
        LITELLM_LOCAL_MODEL_COST_MAP="True",
        LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS="True",
        LITELLM_MODE="PRODUCTION",
        LITELLM_LOG="ERROR",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import litellm as module
    return module


@pytest.mark.filterwarnings("ignore::DeprecationWarning:litellm", "ignore::UserWarning:pydantic")
@pytest.mark.parametrize(("model", "path"), [("anthropic/claude-sonnet-5-5", ""), ("openai/gpt-6-sol", "/v1")])
async def test_litellm_reads_text_and_usage_of_a_stream(
    litellm: Any, client: Client, simulator: ProviderSimulator, model: str, path: str
) -> None:
    response = await litellm.acompletion(
        model=model,
        api_base=simulator.base_url + path,
        api_key="key-1",
        max_tokens=600,
        stream=True,
        stream_options={"include_usage": True},
        messages=[{"role": "user", "content": "Can I take my pension as a lump sum?"}],
        max_retries=0,
    )
    text, usage = "", None
    async for chunk in response:
        text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        usage = getattr(chunk, "usage", None) or usage
    own = (await (client.anthropic() if path == "" else client.openai())).text
    assert text == own
    assert usage is not None
    assert usage.completion_tokens > 200
