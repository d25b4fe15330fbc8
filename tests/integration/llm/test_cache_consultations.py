"""Whole consultations read what the published rules let them read: the small edition of `benchmarks/caching.py`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.caching import REGIMES, Regime, allowed, hold_consultations, invented_customers, saving, shares
from guidance_agent.provider_simulator import ProviderSimulatorProcess

CUSTOMERS, TURNS = 3, 3


@pytest.fixture(scope="module")
def provider() -> Iterator[ProviderSimulatorProcess]:
    with ProviderSimulatorProcess(["--instant", "--seed", "7", "--manual-clock"]) as running:
        yield running


@pytest.mark.parametrize("regime", REGIMES, ids=lambda regime: regime.name)
async def test_consultations_read_what_the_rules_allow_and_pay_less(
    provider: ProviderSimulatorProcess, regime: Regime
) -> None:
    customers = invented_customers(CUSTOMERS)
    cached = await hold_consultations(provider, regime, customers, TURNS, cached=True)
    assert len(cached.log) == 2 * CUSTOMERS * TURNS
    assert all(2_000 <= sum(call.parts[:2]) <= 4_000 for call in cached.log)
    read = [call.read for call in cached.log]
    assert read == allowed(cached) == allowed(cached, best_breakpoints=True)
    assert shares(cached).of_allowed == 100.0
    later = cached.log[2 * CUSTOMERS :]
    step = 128 if regime.name == "OpenAI, automatic" else 1
    assert all(call.read > sum(call.parts) - step for call in later)
    assert cached.figures.hits >= len(later)

    plain = await hold_consultations(provider, regime, customers, TURNS, cached=False)
    assert all(call.read == call.written == 0 for call in plain.log)
    assert saving(cached, plain) >= 30.0


def test_no_two_invented_customers_share_a_profile() -> None:
    profiles = [str(customer.prompt_values()) for customer in invented_customers(50)]
    assert len(set(profiles)) == 50
