"""LiteLLM takes the simulator for the real thing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from guidance_agent.provider_simulator import ProviderSimulator, ProviderSimulatorProcess
from tests.integration.simulator.batching import jsonl, lines
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


def test_litellm_completes_a_batch(process: ProviderSimulatorProcess, tmp_path: Path) -> None:
    # In a process of its own: LiteLLM keeps its clients, and so their sockets, for as long as the process lives.
    (tmp_path / "in.jsonl").write_bytes(jsonl(lines(3)))
    program = """
import json, sys, time
import litellm

route = {"custom_llm_provider": "openai", "api_base": sys.argv[1] + "/v1", "api_key": "key-litellm"}
with open(sys.argv[2], "rb") as rows:
    file = litellm.create_file(file=rows, purpose="batch", **route)
batch = litellm.create_batch(
    completion_window="24h",
    endpoint="/v1/chat/completions",
    input_file_id=file.id,
    metadata={"job": "night-1"},
    **route,
)
while batch.status not in ("completed", "failed", "expired"):
    time.sleep(0.02)
    batch = litellm.retrieve_batch(batch_id=batch.id, **route)
rows = litellm.file_content(file_id=batch.output_file_id, **route).text.splitlines()
found = litellm.list_batches(limit=5, **route).data
print(json.dumps([sorted(json.loads(row)["custom_id"] for row in rows), [each.metadata for each in found]]))
"""
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, process.base_url, str(tmp_path / "in.jsonl")],
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [["item-0", "item-1", "item-2"], [{"job": "night-1"}]]
