"""The bounds of a schema that the Messages API refuses are refused here, in its words."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.simulator.conftest import Client

RATING = {"type": "integer", "minimum": 1, "maximum": 10}


def with_schema(of_rating: Any) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {"rating": of_rating},
        "required": ["rating"],
        "additionalProperties": False,
    }
    return {"output_config": {"format": {"type": "json_schema", "schema": schema}}}


@pytest.mark.parametrize(
    ("of_rating", "words"),
    [
        (RATING, "For 'integer' type, properties maximum, minimum are not supported"),
        ({"type": "number", "multipleOf": 5}, "For 'number' type, property 'multipleOf' is not supported"),
        ({"type": ["string", "null"], "maxLength": 9}, "For 'string' type, property 'maxLength' is not supported"),
        ({"type": "array", "maxItems": 2, "items": {}}, "For 'array' type, property 'maxItems' is not supported"),
        (
            {"type": "array", "minItems": 2, "items": {}},
            "For 'array' type, 'minItems' values other than 0 or 1 are not supported",
        ),
        ({"anyOf": [{"type": "null"}, RATING]}, "For 'integer' type, properties maximum, minimum are not supported"),
        (
            {"type": "array", "items": {"type": "object", "properties": {"minimum": RATING}}},
            "For 'integer' type, properties maximum, minimum are not supported",
        ),
    ],
)
async def test_bounds_are_refused_as_the_provider_refuses_them(client: Client, of_rating: Any, words: str) -> None:
    reply = await client.anthropic(**with_schema(of_rating))
    assert reply.status == 400
    assert reply.json["type"] == "error"
    assert reply.json["error"] == {
        "type": "invalid_request_error",
        "message": f"output_config.format.schema: {words}",
    }


@pytest.mark.parametrize(
    "of_rating",
    [
        {"type": "integer", "description": "at least 1, at most 10"},
        {"type": "array", "minItems": 1, "items": {"type": "string"}},
        {"type": "object", "properties": {"maximum": {"type": "integer"}}, "required": ["maximum"]},
    ],
)
async def test_schemas_without_them_are_answered(client: Client, of_rating: Any) -> None:
    reply = await client.anthropic(**with_schema(of_rating))
    assert reply.status == 200
    assert set(reply.json) > {"content"}


async def test_the_other_provider_takes_bounds(client: Client) -> None:
    schema = with_schema(RATING)["output_config"]["format"]["schema"]
    wanted = {"type": "json_schema", "json_schema": {"name": "rating", "strict": True, "schema": schema}}
    assert (await client.openai(response_format=wanted)).status == 200
