"""Embeddings"""

from __future__ import annotations

import json
from typing import Any

import pytest

from guidance_agent.errors import GuidanceAgentError, MalformedResponseError, RateLimitedError
from guidance_agent.llm.gateway import Embeddings
from tests.conformance.byte_server import head
from tests.conformance.observing import within
from tests.conformance.serving import Served
from tests.conformance.subjects import SUBJECTS

MODEL = "openai/text-embedding-3-small"
ROWS = [{"object": "embedding", "index": 1, "embedding": [0.5, 1]}]
ROWS.append({"object": "embedding", "index": 0, "embedding": [0.25, 0]})

pytestmark = pytest.mark.parametrize(
    "subject", [subject for subject in SUBJECTS if subject.wire == "openai"], ids=str, indirect=True
)


async def embedded(served: Served, status: int, answer: dict[str, Any]) -> Embeddings:
    body = json.dumps(answer).encode()
    served.server.serve_only(head(status, "application/json", content_length=len(body)) + body, "keep")
    gateway = await served.gateway()
    return await within(gateway.embed(MODEL, ["first", "second"], dimensions=2))


def answer(rows: list[dict[str, Any]], **usage: object) -> dict[str, Any]:
    return {"object": "list", "model": "text-embedding-3-small", "data": rows, "usage": usage}


async def test_vectors_come_in_the_order_of_the_texts(served: Served) -> None:
    found = await embedded(served, 200, answer(ROWS, prompt_tokens=4, total_tokens=4))
    assert [list(vector) for vector in found.vectors] == [[0.25, 0.0], [0.5, 1.0]]
    assert found.call.usage is not None
    assert (found.call.usage.input_tokens, found.call.usage.estimated) == (4, False)
    assert served.server.body()["input"] == ["first", "second"]
    assert (served.server.body()["dimensions"], served.server.body()["encoding_format"]) == (2, "float")
    assert [call.operation for call in served.door.calls] == ["embedding"]


@pytest.mark.parametrize(
    "rows",
    [[], ROWS[:1], [ROWS[0], ROWS[0]], [*ROWS, {**ROWS[0], "index": 2}], [ROWS[0], {"index": 0, "embedding": ["x"]}]],
    ids=["none", "one missing", "one twice", "one too many", "no numbers"],
)
async def test_vectors_that_do_not_match_the_texts_are_malformed(rows: list[dict[str, Any]], served: Served) -> None:
    with pytest.raises(MalformedResponseError):
        await embedded(served, 200, answer(rows, prompt_tokens=4, total_tokens=4))


async def test_a_refused_call_for_vectors_is_a_typed_error(served: Served) -> None:
    with pytest.raises(RateLimitedError) as caught:
        await embedded(served, 429, served.wire.error("rate_limit_exceeded", "Slow down."))
    failure: GuidanceAgentError = caught.value
    assert "Slow down." in str(failure)
    assert [call.outcome for call in served.door.calls] == ["error:RateLimitedError"]
