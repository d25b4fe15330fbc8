"""Invented customers and a provider that says what a test dictates."""

from __future__ import annotations

import pytest

from guidance_agent import AdvisorAgent, Completed, CustomerProfile
from guidance_agent.errors import InputError
from guidance_agent.testing import (
    SimulatedCustomer,
    generate_test_customer,
    load_persona,
    personas,
    scripted_simulator,
)


def test_every_persona_is_a_customer_with_a_question_and_something_hidden() -> None:
    assert len(personas()) == 20
    for name in personas():
        customer = load_persona(name)
        assert isinstance(customer.profile, CustomerProfile)
        assert "?" in customer.present_inquiry()
        assert customer.hidden and customer.hidden not in str(customer.profile.prompt_values())


@pytest.mark.parametrize("name", ["janet", "Janet", "janet-56", " janet "])
def test_a_persona_is_found_by_name_or_id(name: str) -> None:
    assert load_persona(name).profile.first_name == "Janet"


def test_an_unknown_persona_suggests_close_ones() -> None:
    with pytest.raises(InputError, match=r"'sunitta'.*Did you mean 'sunita'"):
        load_persona("sunitta")
    with pytest.raises(InputError, match=r"'zzz'.*Choose one of janet, dev"):
        load_persona("zzz")


def test_a_seed_gives_the_same_customer() -> None:
    assert generate_test_customer(seed=5) == generate_test_customer(seed=5)


def test_customers_do_not_share_records() -> None:
    ids = {generate_test_customer(persona="dev").profile.customer_id for _ in range(50)}
    assert len(ids) == 50
    assert all(name.startswith("dev-61-") for name in ids)


def test_seeds_reach_many_personas() -> None:
    names = {generate_test_customer(seed=seed).profile.first_name for seed in range(100)}
    assert len(names) > 15


def test_the_class_is_not_taken_for_a_test() -> None:
    assert not SimulatedCustomer.__name__.startswith("Test")


async def test_the_advisor_says_exactly_the_scripted_text() -> None:
    text = "Exactly this — £38,000.\n\nNothing else."
    with scripted_simulator(text=text) as scripted:
        async with AdvisorAgent(settings=scripted.settings) as advisor:
            assert await advisor.provide_guidance(generate_test_customer(seed=1).profile) == text
            assert await advisor.provide_guidance(generate_test_customer(seed=2).profile) == text


async def test_scripted_answers_are_marked_as_simulated() -> None:
    with scripted_simulator(pieces=["One. ", "Two."]) as scripted:
        async with AdvisorAgent(settings=scripted.settings) as advisor:
            customer = generate_test_customer(seed=1).profile
            async with advisor.consult(customer, use_reasoning=False) as turn:
                last = [event async for event in turn][-1]
    assert isinstance(last, Completed)
    assert (last.text, last.simulated) == ("One. Two.", True)


def test_a_synchronous_program_can_use_it_too() -> None:
    with scripted_simulator(text="Yes.") as scripted:
        advisor = AdvisorAgent(settings=scripted.settings)
        assert advisor.provide_guidance_sync(generate_test_customer(seed=3).profile) == "Yes."


def test_its_environment_names_its_address_and_its_own_folder() -> None:
    with scripted_simulator(text="Yes.") as scripted:
        assert scripted.base_url in scripted.env.values()
        assert scripted.env["GUIDANCE_MODEL"] == scripted.settings.model
        folder = scripted.settings.data_dir
        assert scripted.env["GUIDANCE_DATA_DIR"] == str(folder) and folder.exists()
    assert not folder.exists()


@pytest.mark.parametrize("arguments", [{}, {"text": "a", "pieces": ["a"]}])
def test_the_answer_must_be_given_once(arguments: dict[str, object]) -> None:
    with pytest.raises(InputError, match="either text or pieces"), scripted_simulator(**arguments):  # type: ignore[arg-type]
        pass
