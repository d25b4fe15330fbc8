"""Where breakpoints go, whatever the prompt looks like."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidance_agent.llm.messages import Message, ModelRequest, ToolSpec
from guidance_agent.llm.providers.anthropic import ANTHROPIC
from guidance_agent.llm.providers.base import CachePlan, Profile
from guidance_agent.llm.providers.compatible import COMPATIBLE
from guidance_agent.llm.providers.gemini import GEMINI
from guidance_agent.llm.providers.ollama import OLLAMA
from guidance_agent.llm.providers.openai import OPENAI
from guidance_agent.llm.providers.registry import profile_for

CLAUDE = "anthropic/claude-sonnet-5-5"
GPT_BREAKPOINTS = "openai/gpt-6-luna"
GPT_PREFIX = "openai/gpt-5.4-mini"


def words(count: int, word: str = "pension") -> str:
    return " ".join([word] * count)


def consultation(model: str, turns: int, *, conduct: int = 700, requirements: int = 1500) -> ModelRequest:
    """A four-part prompt before the answer of turn `turns + 1`."""
    history = [
        message
        for turn in range(turns)
        for message in (Message("user", f"question {turn} {words(20)}"), Message("assistant", words(150)))
    ]
    if history:
        history[-1] = replace(history[-1], part="conversation")
    return ModelRequest(
        model=model,
        messages=(
            Message("system", words(conduct, "conduct"), part="conduct"),
            Message("system", words(requirements, "rule"), part="requirements"),
            Message("system", words(120, "customer"), part="customer"),
            *history,
            Message("user", f"facts and question {turns} {words(600)}"),
        ),
    )


def marks(plan: CachePlan) -> list[tuple[int, str]]:
    return [(point.index, point.ttl) for point in plan.breakpoints]


def test_claude_marks_the_stable_parts_for_an_hour_and_the_conversation_for_five_minutes() -> None:
    plan = ANTHROPIC.cache_plan(consultation(CLAUDE, 2))
    assert marks(plan) == [(0, "1h"), (1, "1h"), (2, "1h"), (6, "5m")]
    assert [(part.name, part.cached) for part in plan.parts] == [
        ("conduct", True),
        ("requirements", True),
        ("customer", True),
        ("conversation", True),
    ]


def test_a_part_below_the_minimum_is_merged_with_the_next_and_says_so() -> None:
    plan = ANTHROPIC.cache_plan(consultation("anthropic/claude-haiku-4-5", 1, requirements=4000))
    assert marks(plan) == [(1, "1h"), (2, "1h"), (4, "5m")]
    conduct = plan.parts[0]
    assert not conduct.cached
    assert "below the model's minimum of 4096" in conduct.note


def test_a_prompt_too_short_for_the_model_has_no_breakpoints() -> None:
    plan = ANTHROPIC.cache_plan(consultation("anthropic/claude-haiku-4-5", 1))
    assert plan.breakpoints == ()
    assert all(part.note for part in plan.parts)


def test_near_the_minimum_a_part_is_marked_and_not_promised() -> None:
    request = consultation("anthropic/claude-sonnet-5-5", 0, conduct=440)
    plan = ANTHROPIC.cache_plan(request)
    assert 0.9 * 512 < plan.parts[0].tokens < 1.1 * 512
    assert plan.breakpoints[0].index == 0
    assert not plan.parts[0].cached
    assert "too near the minimum of 512" in plan.parts[0].note


def test_an_unlisted_claude_model_is_marked_and_its_plan_says_that_the_minimum_is_unknown() -> None:
    plan = ANTHROPIC.cache_plan(consultation("anthropic/claude-of-the-future", 1))
    assert len(plan.breakpoints) == 4
    assert {part.cached for part in plan.parts} == {False}
    assert {part.note for part in plan.parts} == {"the model's minimum cacheable length is not known"}


def test_an_override_of_the_minimum_changes_the_plan() -> None:
    profile = ANTHROPIC.with_overrides({"claude-sonnet-5-5": 2048}, {"claude-sonnet-5-5": 100_000})
    plan = profile.cache_plan(consultation(CLAUDE, 0))
    assert marks(plan) == [(1, "1h"), (2, "1h")]
    assert profile.traits("claude-sonnet-5-5").context_window == 100_000


def test_exact_matching_models_mark_where_the_conversation_ended_a_turn_ago() -> None:
    plan = OPENAI.cache_plan(consultation(GPT_BREAKPOINTS, 3, conduct=1500))
    assert marks(plan) == [(1, "30m"), (2, "30m"), (6, "30m"), (8, "30m")]
    assert "at most 4 breakpoints" in plan.parts[0].note


@pytest.mark.parametrize(
    ("profile", "model"),
    [
        (ANTHROPIC, CLAUDE),
        (OPENAI, GPT_BREAKPOINTS),
        (OPENAI, GPT_PREFIX),
        (GEMINI, "gemini/gemini-2.5-pro"),
        (OLLAMA, "ollama/llama3.2"),
        (COMPATIBLE["mistral"], "mistral/large"),
    ],
)
def test_switched_off_caching_sends_neither_breakpoints_nor_key(profile: Profile, model: str) -> None:
    plan = profile.cache_plan(replace(consultation(model, 2), use_cache=False))
    assert (plan.breakpoints, plan.cache_key, plan.enabled) == ((), None, False)


@pytest.mark.parametrize(
    ("profile", "model"),
    [(OPENAI, GPT_PREFIX), (GEMINI, "gemini/gemini-2.5-pro"), (OLLAMA, "ollama/llama3.2")],
)
def test_models_that_cache_by_themselves_get_no_breakpoints(profile: Profile, model: str) -> None:
    plan = profile.cache_plan(consultation(model, 2))
    assert (plan.caching, plan.breakpoints) == ("prefix", ())


def test_without_a_known_minimum_nothing_is_promised() -> None:
    plan = COMPATIBLE["mistral"].cache_plan(consultation("mistral/nobody-knows", 1))
    assert plan.parts and not any(part.cached for part in plan.parts)


@pytest.mark.parametrize(
    ("model", "minimum"), [("gemini-2.5-pro", 2048), ("gemini-2.5-flash", 2048), ("gemini-3.5-flash-lite", 4096)]
)
def test_gemini_promises_what_its_minimum_allows_and_sends_nothing(model: str, minimum: int) -> None:
    plan = GEMINI.cache_plan(consultation(f"gemini/{model}", 0, conduct=minimum // 2, requirements=minimum))
    assert (plan.caching, plan.breakpoints, plan.cache_key, plan.minimum_tokens) == ("prefix", (), None, minimum)
    assert [part.cached for part in plan.parts] == [False, True, True]
    assert f"below the model's minimum of {minimum}" in plan.parts[0].note


def test_a_gemini_model_that_does_not_cache_says_so() -> None:
    plan = GEMINI.cache_plan(consultation("gemini/gemma-4-31b-it", 1))
    assert plan.caching == "none"
    assert {part.note for part in plan.parts} == {"this model does not cache"}


def test_ollama_keeps_any_length_as_long_as_the_model_is_loaded_and_reports_nothing() -> None:
    plan = OLLAMA.cache_plan(consultation("ollama/llama3.2", 1, conduct=5))
    assert all(part.cached for part in plan.parts)
    assert (plan.caching, plan.cache_key, plan.reported, plan.life) == ("prefix", None, False, 300.0)
    kept_longer = replace(OLLAMA, keep_alive=3_600.0).cache_plan(consultation("ollama/llama3.2", 1))
    assert kept_longer.life == 3_600.0


@pytest.mark.parametrize("model", ["ollama/llama3.2", "hosted_vllm/llama", "gemini/gemini-2.5-pro", "mistral/large"])
def test_a_turn_only_adds_to_the_prefix_of_the_one_before(model: str) -> None:
    profile = profile_for(model.partition("/")[0])
    plans = [profile.cache_plan(consultation(model, turns)) for turns in range(4)]
    for before, after in itertools.pairwise(plans):
        assert after.prefixes[: len(before.prefixes)] == before.prefixes
        assert len(after.prefixes) == len(before.prefixes) + 2


@pytest.mark.parametrize("model", [GPT_BREAKPOINTS, GPT_PREFIX])
def test_the_turns_of_a_consultation_share_a_key_and_consultations_share_few(model: str) -> None:
    turns = {OPENAI.cache_plan(replace(consultation(model, n), cache_key="c-1")).cache_key for n in range(4)}
    assert len(turns) == 1
    keys = {OPENAI.cache_plan(replace(consultation(model, 0), cache_key=f"c-{n}")).cache_key for n in range(200)}
    assert len(keys) == 4
    assert all(key is not None and len(key) <= 64 for key in keys)


def test_the_number_of_keys_follows_the_settings() -> None:
    profile = OPENAI.with_overrides({}, {}, 9)
    requests = [replace(consultation(GPT_PREFIX, 0), cache_key=f"c-{n}") for n in range(300)]
    assert len({profile.cache_plan(request).cache_key for request in requests}) == 9
    assert len({OPENAI.with_overrides({}, {}).cache_plan(request).cache_key for request in requests}) == 4


def test_without_a_consultation_id_the_customer_chooses_the_shard() -> None:
    keys = {OPENAI.cache_plan(consultation(GPT_BREAKPOINTS, n)).cache_key for n in range(4)}
    assert len(keys) == 1


def test_another_version_of_the_shared_parts_has_another_key() -> None:
    first = OPENAI.cache_plan(consultation(GPT_BREAKPOINTS, 0)).cache_key
    second = OPENAI.cache_plan(consultation(GPT_BREAKPOINTS, 0, requirements=1501)).cache_key
    assert first != second


def test_tools_and_schema_come_first_and_move_every_fingerprint() -> None:
    request = consultation(CLAUDE, 1)
    tool = ToolSpec("lookup", "Looks a figure up.", {"type": "object"})
    plain = ANTHROPIC.cache_plan(request)
    with_tool = ANTHROPIC.cache_plan(replace(request, tools=(tool,)))
    with_schema = ANTHROPIC.cache_plan(replace(request, response_schema={"type": "object"}))
    assert [part.name for part in with_tool.parts][:2] == ["tools", "conduct"]
    assert [part.name for part in with_schema.parts][:2] == ["schema", "conduct"]
    fingerprints = [{part.fingerprint for part in plan.parts} for plan in (plain, with_tool, with_schema)]
    assert len(set.union(*fingerprints)) == sum(map(len, fingerprints))
    assert marks(with_tool) == marks(plain)


roles = st.sampled_from(["user", "assistant"])
contents = st.text(max_size=40) | st.integers(100, 3000).map(words)
part_names = st.none() | st.sampled_from(["conduct", "requirements", "customer", "conversation", "extra", "more"])
messages = st.lists(st.builds(Message, roles, contents, part_names), min_size=1, max_size=14).map(tuple)
models = st.sampled_from([(ANTHROPIC, CLAUDE), (ANTHROPIC, "anthropic/claude-x"), (OPENAI, GPT_BREAKPOINTS)])


@given(messages, models)
def test_any_plan_has_at_most_four_breakpoints_in_order_and_never_on_the_last_message(
    prompt: tuple[Message, ...], chosen: tuple[Profile, str]
) -> None:
    profile, model = chosen
    plan = profile.cache_plan(ModelRequest(model=model, messages=prompt))
    indexes = [point.index for point in plan.breakpoints]
    assert len(indexes) <= 4
    assert indexes == sorted(set(indexes))
    assert len(prompt) - 1 not in indexes
    assert all(prompt[index].content for index in indexes)
    lives = [point.ttl for point in plan.breakpoints]
    assert "5m" not in lives or "1h" not in lives[lives.index("5m") :]
    marked = set(indexes)
    assert all(part.index in marked for part in plan.parts if part.cached)
    assert all(part.cached or part.note for part in plan.parts)


@given(messages, st.data())
def test_fingerprints_are_equal_for_equal_prompts_and_differ_after_any_changed_character(
    prompt: tuple[Message, ...], data: st.DataObject
) -> None:
    request = ModelRequest(model=CLAUDE, messages=prompt)
    before = ANTHROPIC.cache_plan(request)
    again = ANTHROPIC.cache_plan(ModelRequest(model=CLAUDE, messages=tuple(replace(m) for m in prompt)))
    assert again == before
    place = data.draw(st.integers(0, len(prompt) - 1))
    position = data.draw(st.integers(0, len(prompt[place].content)))
    content = prompt[place].content[:position] + "£" + prompt[place].content[position:]
    changed = ANTHROPIC.cache_plan(
        replace(request, messages=(*prompt[:place], replace(prompt[place], content=content), *prompt[place + 1 :]))
    )
    for old, new in zip(before.parts, changed.parts, strict=True):
        assert (old.fingerprint == new.fingerprint) == (old.index < place)


@given(st.lists(st.text(max_size=20), min_size=2, max_size=4))
def test_moving_text_between_messages_changes_the_fingerprint(texts: list[str]) -> None:
    def last_fingerprint(parts: list[str]) -> str:
        prompt = (*(Message("user", text) for text in parts), Message("user", "end", part="end"))
        return ANTHROPIC.cache_plan(ModelRequest(model=CLAUDE, messages=prompt)).parts[-1].fingerprint

    joined = ["".join(texts)] + [""] * (len(texts) - 1)
    assert (last_fingerprint(texts) == last_fingerprint(joined)) == (texts == joined)


@given(st.integers(0, 8), st.sampled_from([(ANTHROPIC, CLAUDE), (OPENAI, GPT_BREAKPOINTS)]))
def test_the_longest_entry_of_a_turn_is_within_reach_of_the_next(turns: int, chosen: tuple[Profile, str]) -> None:
    profile, model = chosen
    now = profile.cache_plan(consultation(model, turns))
    later = profile.cache_plan(consultation(model, turns + 1))
    written = now.breakpoints[-1].index
    assert later.prefixes[: len(now.prefixes)] == now.prefixes
    assert later.look_back is not None
    assert any(written <= point.index <= written + later.look_back for point in later.breakpoints)
    assert later.breakpoints[-1].index > written
    stable = {part.fingerprint for part in now.parts if part.name != "conversation"}
    assert stable <= {part.fingerprint for part in later.parts}
