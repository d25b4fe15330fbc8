"""What calls cost, worked out by hand from the published prices."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from guidance_agent.errors import ConfigurationError
from guidance_agent.llm.messages import Usage
from guidance_agent.llm.price_map import PriceMap, bundled_price_map
from guidance_agent.llm.pricing import PriceTable

TABLE = PriceTable.load()
MILLION = 1_000_000


def usd(model: str, usage: Usage, *, batch: bool = False) -> float:
    cost = TABLE.cost(model, usage, batch=batch)
    assert cost is not None
    return cost.usd


def test_sonnet_5_5_with_reads_and_both_writes() -> None:
    usage = Usage(
        input_tokens=1_000,
        cache_read_tokens=20_000,
        cache_write_5m_tokens=400,
        cache_write_1h_tokens=3_000,
        output_tokens=500,
    )
    # 1,000 x 2 + 20,000 x 0.10 + 400 x 2.50 + 3,000 x 4 + 500 x 10, per million
    assert usd("anthropic/claude-sonnet-5-5", usage) == pytest.approx(0.022)
    # A batch is half of every column, the 1 h write included.
    assert usd("anthropic/claude-sonnet-5-5", usage, batch=True) == pytest.approx(0.011)


def test_haiku_5_5_at_and_above_its_tier() -> None:
    at = Usage(input_tokens=10_000, cache_read_tokens=80_000, cache_write_1h_tokens=10_000, output_tokens=1_000)
    # 10,000 x 0.10 + 80,000 x 0.01 + 10,000 x 0.20 + 1,000 x 0.50
    assert usd("anthropic/claude-haiku-5-5", at) == pytest.approx(0.0043)
    above = Usage(
        input_tokens=10_001,
        cache_read_tokens=80_000,
        cache_write_1h_tokens=8_000,
        cache_write_5m_tokens=2_000,
        output_tokens=1_000,
    )
    # 10,001 x 0.50 + 80,000 x 0.05 + 8,000 x 1 + 2,000 x 0.625 + 1,000 x 2.50: every token at the higher price
    assert usd("anthropic/claude-haiku-5-5", above) == pytest.approx(0.0207505)
    assert usd("anthropic/claude-haiku-5-5", above, batch=True) == pytest.approx(0.0207505 / 2)


def test_opus_4_8_and_fable_5_1_have_their_own_read_prices() -> None:
    usage = Usage(cache_read_tokens=MILLION)
    assert usd("anthropic/claude-opus-4-8", usage) == pytest.approx(0.50)
    assert usd("anthropic/claude-opus-5-5", usage) == pytest.approx(0.20)
    assert usd("anthropic/claude-fable-5-1", usage) == pytest.approx(0.25)


def test_haiku_4_5() -> None:
    usage = Usage(input_tokens=2_000, cache_read_tokens=10_000, cache_write_5m_tokens=1_000, output_tokens=300)
    # 2,000 x 1 + 10,000 x 0.10 + 1,000 x 1.25 + 300 x 5
    assert usd("anthropic/claude-haiku-4-5", usage) == pytest.approx(0.00575)


def test_gpt_6_sol_with_written_tokens_and_above_its_tier() -> None:
    usage = Usage(input_tokens=2_000, cache_read_tokens=10_000, cache_write_5m_tokens=1_000, output_tokens=400)
    # 2,000 x 2 + 10,000 x 0.20 + 1,000 x 2.50 + 400 x 10
    assert usd("openai/gpt-6-sol", usage) == pytest.approx(0.0125)
    assert usd("openai/gpt-6-sol", usage, batch=True) == pytest.approx(0.00625)
    large = Usage(input_tokens=200_000, cache_read_tokens=70_000, cache_write_5m_tokens=2_001, output_tokens=1_000)
    # above 272,000: 200,000 x 4 + 70,000 x 0.40 + 2,001 x 5 + 1,000 x 15
    assert usd("openai/gpt-6-sol", large) == pytest.approx(0.853005)


def test_gpt_5_5_writes_for_free_and_has_a_tier() -> None:
    usage = Usage(input_tokens=2_000, cache_read_tokens=10_000, output_tokens=400)
    # 2,000 x 5 + 10,000 x 0.50 + 400 x 30
    assert usd("openai/gpt-5.5", usage) == pytest.approx(0.027)
    large = Usage(input_tokens=272_001, output_tokens=1_000)
    # 272,001 x 10 + 1,000 x 45
    assert usd("openai/gpt-5.5", large) == pytest.approx(2.76501)


def test_the_small_gpt_models_have_no_tier() -> None:
    assert usd("openai/gpt-5.4-mini", Usage(input_tokens=300_000)) == pytest.approx(0.225)


def test_cached_input_of_gpt_4o_is_not_discounted_further_in_a_batch() -> None:
    usage = Usage(input_tokens=1_000, cache_read_tokens=9_000, output_tokens=100)
    # 1,000 x 2.50 + 9,000 x 1.25 + 100 x 10
    assert usd("openai/gpt-4o", usage) == pytest.approx(0.01475)
    # The map has no batch price for reads of this family: 10,000 x 1.25 + 100 x 5
    assert usd("openai/gpt-4o", usage, batch=True) == pytest.approx(0.013)


def test_gemini_2_5_reads_cost_the_full_rate_in_a_batch() -> None:
    usage = Usage(input_tokens=1_000, cache_read_tokens=9_000, output_tokens=100)
    # 1,000 x 0.30 + 9,000 x 0.03 + 100 x 2.50, and half of input and output only
    assert usd("gemini/gemini-2.5-flash", usage) == pytest.approx(0.00082)
    assert usd("gemini/gemini-2.5-flash", usage, batch=True) == pytest.approx(0.000545)


def test_gemini_3_1_pro_above_200k() -> None:
    # 200,001 x 4 + 1,000 x 18
    cost = usd("gemini/gemini-3.1-pro-preview", Usage(input_tokens=200_001, output_tokens=1_000))
    assert cost == pytest.approx(0.818004)


def test_an_embedding_has_a_price() -> None:
    assert usd("openai/text-embedding-3-small", Usage(input_tokens=MILLION)) == pytest.approx(0.02)


@pytest.mark.parametrize("model", ["gpt-6-sol", "openai/gpt-6-sol", "claude-sonnet-5-5-20260901"])
def test_bare_and_dated_names_are_priced(model: str) -> None:
    prices = TABLE.prices(model)
    assert prices is not None
    assert prices.input == pytest.approx(2e-6)


@pytest.mark.parametrize(
    "model",
    [
        "openai/gpt-nobody-knows",
        "anthropic/gpt-6-sol",
        "hosted_vllm/gpt-6-sol",
        "ollama/llama3",
        "claude-sonnet-5-5-turbo",
        "sample_spec",
        "",
    ],
)
def test_an_unknown_price_is_none_and_never_zero(model: str) -> None:
    assert TABLE.prices(model) is None
    assert TABLE.cost(model, Usage(input_tokens=10)) is None


def test_a_batch_without_a_batch_price_is_unpriced() -> None:
    assert TABLE.prices("groq/openai/gpt-oss-20b") is not None
    assert TABLE.prices("groq/openai/gpt-oss-20b", batch=True) is None


def synthetic(tmp_path: Path, record: dict[str, object]) -> PriceTable:
    path = tmp_path / "model_prices_and_context_window_backup.json"
    path.write_text(json.dumps({"house/m": {"litellm_provider": "house"} | record}))
    return PriceTable(PriceMap(tmp_path, "0"), {}, "")


def test_a_column_without_a_tier_of_its_own_rises_like_the_input_price(tmp_path: Path) -> None:
    table = synthetic(
        tmp_path,
        {
            "input_cost_per_token": 1e-6,
            "input_cost_per_token_above_200k_tokens": 3e-6,
            "output_cost_per_token": 5e-6,
            "output_cost_per_token_above_200k_tokens": 7e-6,
            "cache_read_input_token_cost": 0.1e-6,
            "input_cost_per_token_batches": 0.5e-6,
            "output_cost_per_token_batches": 2e-6,
        },
    )
    prices = table.prices("house/m", total_input_tokens=200_001)
    assert prices is not None
    assert (prices.input, prices.output, prices.cache_read) == pytest.approx((3e-6, 7e-6, 0.3e-6))
    assert prices.source.endswith("above 200k input tokens; derived: cache read of the tier")
    batch = table.prices("house/m", total_input_tokens=200_001, batch=True)
    assert batch is not None
    assert (batch.input, batch.output) == pytest.approx((1.5e-6, 2.8e-6))
    assert batch.cache_read is None


@pytest.mark.parametrize("columns", [{"input_cost_per_token": 1e-6}, {"input_cost_per_token": "1e-6"}, {}])
def test_a_record_without_both_prices_is_unpriced(tmp_path: Path, columns: dict[str, object]) -> None:
    assert synthetic(tmp_path, columns).prices("house/m") is None


def test_a_record_of_zeros_is_unpriced(tmp_path: Path) -> None:
    table = synthetic(tmp_path, {"input_cost_per_token": 0.0, "output_cost_per_token": 0.0})
    assert table.prices("house/m") is None


def test_the_source_names_the_map_and_what_was_derived() -> None:
    prices = TABLE.prices("anthropic/claude-sonnet-5-5", batch=True)
    assert prices is not None
    version = bundled_price_map().version
    assert prices.source == (
        f"claude-sonnet-5-5 in the price map of LiteLLM {version}, batch; derived: half of the 1 h cache write"
    )


def test_the_cost_of_an_estimated_usage_is_estimated() -> None:
    cost = TABLE.cost("openai/gpt-6-sol", Usage(input_tokens=10, estimated=True))
    assert cost is not None
    assert cost.estimated


def price_file(tmp_path: Path, text: str, name: str = "prices.toml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_price_file_wins_over_the_map_for_the_models_it_names(tmp_path: Path) -> None:
    path = price_file(
        tmp_path,
        """
        ["anthropic/claude-sonnet-5-5"]
        input = 1.5
        output = 8
        cache_read = 0.1
        cache_write_1h = 3
        batch_factor = 0.4
        """,
    )
    table = PriceTable.load(path)
    usage = Usage(input_tokens=1_000, cache_read_tokens=1_000, cache_write_5m_tokens=1_000, cache_write_1h_tokens=1_000)
    # 1.50 + 0.10 + 1.50 (no price for 5 m writes: the input price) + 3, per thousand million
    cost = table.cost("anthropic/claude-sonnet-5-5", usage)
    assert cost is not None
    assert cost.usd == pytest.approx(0.0061)
    assert cost.prices.source == str(path)
    batch = table.cost("anthropic/claude-sonnet-5-5", usage, batch=True)
    assert batch is not None
    assert batch.usd == pytest.approx(0.00244)
    assert table.prices("openai/gpt-6-sol") == TABLE.prices("openai/gpt-6-sol")


def test_a_price_file_may_be_json_name_bare_models_and_state_zero(tmp_path: Path) -> None:
    path = price_file(tmp_path, json.dumps({"llama3.2": {"input": 0, "output": 0}}), "prices.json")
    cost = PriceTable.load(path).cost("ollama/llama3.2", Usage(input_tokens=10))
    assert cost is not None
    assert cost.usd == 0.0
    assert PriceTable.load(path).prices("ollama/llama3.2", batch=True) is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("not toml [", "cannot be read"),
        ('["m"]\ninput = 1', "m.output"),
        ('["m"]\ninput = -1\noutput = 1', "m.input"),
        ('["m"]\ninput = 1\noutput = nan', "m.output"),
        ('["m"]\ninput = 1\noutput = 1\ncached = 1', "m.cached"),
        ('["m"]\ninput = 1\noutput = 1\nbatch_factor = 0', "m.batch_factor"),
        ("m = 1", "m"),
    ],
)
def test_a_wrong_price_file_is_refused_with_the_entry_that_is_wrong(tmp_path: Path, text: str, fault: str) -> None:
    path = price_file(tmp_path, text)
    with pytest.raises(ConfigurationError, match=fault) as raised:
        PriceTable.load(path)
    assert str(path) in str(raised.value)


def test_a_missing_price_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        PriceTable.load(tmp_path / "none.toml")


@pytest.mark.parametrize("content", [None, "[]", '{"a": {', "{'a': 1}"])
def test_without_a_readable_map_there_are_no_prices_and_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "model_prices_and_context_window_backup.json").write_text(content)
    table = PriceTable(PriceMap(tmp_path, "0"), {}, "")
    with caplog.at_level(logging.WARNING):
        assert table.prices("openai/gpt-6-sol") is None
        assert table.prices("openai/gpt-6-luna") is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_the_map_is_read_member_by_member_as_json_would_read_it() -> None:
    price_map = bundled_price_map()
    assert price_map._folder is not None
    whole = json.loads((price_map._folder / "model_prices_and_context_window_backup.json").read_text())
    del whole["sample_spec"]
    assert set(price_map.names()) == set(whole)
    assert all(price_map.record(name) == whole[name] for name in list(whole)[::7])


def test_prices_come_without_importing_litellm() -> None:
    program = (
        "import sys\n"
        "from guidance_agent.llm.pricing import PriceTable\n"
        "from guidance_agent.llm.endpoints import resolve\n"
        "assert PriceTable.load().prices('openai/gpt-6-sol') is not None\n"
        "print('litellm' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


async def test_ready_reads_the_map_off_the_event_loop() -> None:
    price_map = PriceMap(bundled_price_map()._folder, "again")
    table = PriceTable(price_map, {}, "")
    assert not price_map.is_warm
    await table.ready()
    assert price_map.is_warm
    assert table.prices("openai/gpt-6-sol") is not None
