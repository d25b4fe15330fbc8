"""Which delivered turns a run audits."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from guidance_agent import Runtime, Settings
from guidance_agent.compliance.audit import KIND, AuditPlan, AuditRounds
from guidance_agent.compliance.audit_subjects import in_sample
from guidance_agent.core.schema import audit_turns
from guidance_agent.errors import ConfigurationError, InputError, UnknownAuditError
from guidance_agent.settings import AuditSettings
from tests.integration.advisor.auditing import BEGAN, add_turn


@pytest.fixture
def rounds(runtime: Runtime) -> AuditRounds:
    return AuditRounds(runtime.database, runtime.clock, runtime.validator)


async def test_a_run_audits_what_its_plan_says(runtime: Runtime, rounds: AuditRounds) -> None:
    names = [f"t{number:02}" for number in range(40)]
    for number, name in enumerate(names):
        await add_turn(runtime, name, days=number)
    week = AuditPlan(
        since=BEGAN + timedelta(days=7), until=BEGAN + timedelta(days=14), limit=3, model="openai/gpt-6-sol"
    )
    run = await rounds.open_run(week)
    assert run is not None
    assert run.model == "openai/gpt-6-sol"
    assert await audited(runtime, run.id) == names[7:10]
    sample = await rounds.open_run(AuditPlan(share=0.4))
    assert sample is not None
    chosen = await audited(runtime, sample.id)
    assert chosen == [name for name in names if in_sample(name, 0.4) and name not in names[7:10]]
    assert 5 < len(chosen) < 25
    rest = await rounds.open_run(AuditPlan())
    assert rest is not None
    assert len(await audited(runtime, rest.id)) == 40 - 3 - len(chosen)


async def audited(runtime: Runtime, run_id: str) -> list[str]:
    query = sa.select(audit_turns.c.turn_id).where(audit_turns.c.run_id == run_id).order_by(audit_turns.c.turn_id)
    return [row.turn_id for row in await runtime.database.run(lambda connection: list(connection.execute(query)))]


def test_a_larger_sample_holds_the_smaller_one() -> None:
    names = [f"turn_{number}" for number in range(500)]
    small, large = ({name for name in names if in_sample(name, share)} for share in (0.1, 0.3))
    assert small < large
    assert not any(in_sample(name, 0.0) for name in names)
    assert all(in_sample(name, 1.0) for name in names)


async def test_what_a_simulator_wrote_is_audited_only_where_nothing_else_is_there(
    runtime: Runtime, rounds: AuditRounds
) -> None:
    await add_turn(runtime, "invented", simulated=True)
    first = await rounds.open_run(AuditPlan(limit=1))
    assert first is not None
    assert first.simulated
    await add_turn(runtime, "second", simulated=True)
    await add_turn(runtime, "real")
    simulated_judge = AuditRounds(runtime.database, runtime.clock, runtime.validator, simulated=True)
    assert await simulated_judge.open_new(limit=10) == 0
    run = await rounds.open_run(AuditPlan())
    assert run is not None
    assert await audited(runtime, run.id) == ["real"]


@pytest.mark.parametrize("plan", [{"share": 1.5}, {"share": -0.1}, {"limit": 0}, {"since": BEGAN.replace(tzinfo=None)}])
def test_a_plan_that_says_nothing_sensible_is_refused(plan: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        AuditPlan(**plan)


async def test_an_unknown_run_is_told(rounds: AuditRounds) -> None:
    with pytest.raises(UnknownAuditError, match="audit_x"):
        await rounds.subjects.run("audit_x")


def test_the_kind_of_its_batches_is_known_by_its_name(rounds: AuditRounds) -> None:
    assert [kind.name for kind in rounds.kinds] == [KIND] == [rounds.name]


async def test_the_settings_say_how_large_a_part_a_nightly_job_audits_and_by_whom(settings: Settings) -> None:
    wanted = AuditSettings(share=0.4, model="anthropic/claude-haiku-5-5")
    async with Runtime(settings.model_copy(update={"audit": wanted})) as runtime:
        names = [await add_turn(runtime, f"t{number:02}", simulated=True) for number in range(20)]
        rounds = runtime.audit_rounds()
        assert await rounds.open_new(limit=100) == sum(in_sample(name, 0.4) for name in names)
        assert [run.model for run in await rounds.subjects.runs()] == ["anthropic/claude-haiku-5-5"]
    with pytest.raises(ConfigurationError):
        async with Runtime(settings.model_copy(update={"audit": AuditSettings(model="nobody/knows-it")})):
            pytest.fail("a judge that nobody knows was accepted")


async def test_a_nightly_job_takes_no_more_than_it_is_told(runtime: Runtime, rounds: AuditRounds) -> None:
    names = [await add_turn(runtime, f"t{number}", simulated=True, days=-number) for number in range(5)]
    opened = [await rounds.open_new(limit=2) for _ in range(4)]
    assert opened == [2, 2, 1, 0]
    first = (await rounds.subjects.runs())[-1]
    assert await audited(runtime, first.id) == sorted(names[3:])
