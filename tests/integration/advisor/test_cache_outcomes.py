"""What a turn's caller learns of the prompt cache, and what may and may not move the prompt's start."""

from __future__ import annotations

import pytest

from guidance_agent import AdvisorAgent, AdvisorProfile, Completed, CustomerProfile, Runtime

History = list[dict[str, str]]


async def outcome(advisor: AdvisorAgent, customer: CustomerProfile, history: History, question: str) -> str:
    """Ask within the consultation that `history` holds, add the turn to it, and return the label of the answer."""
    history.append({"role": "customer", "content": question})
    async with advisor.consult(customer, history) as turn:
        (done,) = [event async for event in turn if isinstance(event, Completed)]
    history.append({"role": "advisor", "content": done.text})
    return done.cache_outcome


async def test_the_first_turn_writes_and_the_next_ones_read(wired: AdvisorAgent, janet: CustomerProfile) -> None:
    history: History = []
    labels = [await outcome(wired, janet, history, f"What is drawdown, part {number}?") for number in range(3)]
    assert labels == ["first_write", "hit", "hit"]


async def test_a_profile_that_changes_leaves_the_start_of_the_prompt(
    wired: AdvisorAgent, janet: CustomerProfile
) -> None:
    history: History = []
    await outcome(wired, janet, history, "What is drawdown?")
    older = janet.model_copy(update={"age": 57, "goals": "retire early"})
    assert await outcome(wired, older, history, "Is it taxed?") == "hit"


@pytest.mark.moves_prefix("the service changes what it is called or what it requires")
@pytest.mark.parametrize(
    ("profile", "part"),
    [
        (AdvisorProfile(name="Another guide"), "conduct"),
        (AdvisorProfile(service_name="Another service"), "conduct"),
        (AdvisorProfile(house_rules=("Always name the Pension Wise number.",)), "requirements"),
    ],
    ids=["name", "service_name", "house_rules"],
)
async def test_a_changed_part_is_named(
    wired: AdvisorAgent, wired_runtime: Runtime, janet: CustomerProfile, profile: AdvisorProfile, part: str
) -> None:
    history: History = []
    await outcome(wired, janet, history, "What is drawdown?")
    async with AdvisorAgent(profile, runtime=wired_runtime) as changed:
        assert await outcome(changed, janet, history, "Is it taxed?") == f"part_changed:{part}"
        assert await outcome(changed, janet, history, "And if I wait?") == "hit"
