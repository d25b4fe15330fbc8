"""The simulator's prices are those of the price map, and half of them in a batch."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import pytest

from guidance_agent.provider_simulator.accounting import CacheUse
from guidance_agent.provider_simulator.models import known_models
from guidance_agent.provider_simulator.prices import BATCH_SHARE, list_price
from guidance_agent.provider_simulator.settings import SimulatorSettings

MODELS = sorted(spec.name for wire in ("anthropic", "openai") for spec in known_models(wire, SimulatorSettings()))
ONLY_DOCUMENTED = {"claude-fable-5-2", "gpt-6.1-terra"}
MILLION = 1_000_000


@pytest.fixture(scope="module")
def price_map() -> dict[str, dict[str, Any]]:
    source = files("litellm").joinpath("model_prices_and_context_window_backup.json").read_text(encoding="utf-8")
    found: dict[str, dict[str, Any]] = json.loads(source)
    return found


def dollars(model: str, *, output: int = 0, **use: int) -> float:
    price = list_price(model, CacheUse(**{"uncached": 0, **use}), output)
    assert price is not None
    return price


@pytest.mark.parametrize("model", [name for name in MODELS if name not in ONLY_DOCUMENTED])
def test_prices_agree_with_the_price_map(model: str, price_map: dict[str, dict[str, Any]]) -> None:
    listed = price_map[model]
    assert dollars(model, uncached=1_000) == pytest.approx(1_000 * listed["input_cost_per_token"])
    assert dollars(model, output=1_000) == pytest.approx(1_000 * listed["output_cost_per_token"])
    for kind, name in (
        ("read", "cache_read_input_token_cost"),
        ("written_5m", "cache_creation_input_token_cost"),
        ("written_1h", "cache_creation_input_token_cost_above_1hr"),
    ):
        if listed.get(name) is not None:
            assert dollars(model, **{kind: 1_000}) == pytest.approx(1_000 * listed[name]), kind
    batch = listed.get("input_cost_per_token_batches")
    if batch is not None:
        assert dollars(model, uncached=1_000) * BATCH_SHARE == pytest.approx(1_000 * batch)


@pytest.mark.parametrize(
    ("model", "step", "suffix"), [("claude-haiku-5-5", 100_000, "100k"), ("gpt-6-sol", 272_000, "272k")]
)
def test_long_prompts_cost_more_from_the_first_token(
    model: str, step: int, suffix: str, price_map: dict[str, dict[str, Any]]
) -> None:
    listed = price_map[model]
    assert dollars(model, uncached=step) == pytest.approx(step * listed["input_cost_per_token"])
    expected = (step + 1) * listed[f"input_cost_per_token_above_{suffix}_tokens"]
    expected += 10 * listed[f"output_cost_per_token_above_{suffix}_tokens"]
    assert dollars(model, uncached=step + 1, output=10) == pytest.approx(expected)


def test_a_dated_name_costs_what_its_family_does_and_an_unknown_one_is_not_free() -> None:
    assert dollars("claude-haiku-4-5-20251001", uncached=MILLION) == dollars("claude-haiku-4-5", uncached=MILLION)
    assert list_price("claude-fable-5-2", CacheUse(uncached=5), 5) is None
    assert list_price("script-5x5", CacheUse(uncached=5), 5) is None
