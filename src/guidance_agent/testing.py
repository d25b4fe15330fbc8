"""For tests of your own backend: invented customers, and a local provider that says exactly what you dictate.

customer = generate_test_customer(seed=1)
with scripted_simulator(text="You can take it from 55.") as scripted:
    async with AdvisorAgent(settings=scripted.settings) as advisor:
        assert await advisor.provide_guidance(customer.profile) == "You can take it from 55."
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import random
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guidance_agent.core.types import CustomerProfile
from guidance_agent.errors import ConfigurationError, InputError

if TYPE_CHECKING:
    from guidance_agent.provider_simulator import ProviderSimulator, SimulatorSettings
    from guidance_agent.settings import Settings

__all__ = [
    "ScriptedSimulator",
    "SimulatedCustomer",
    "generate_test_customer",
    "load_persona",
    "personas",
    "scripted_simulator",
]


@dataclass(frozen=True, slots=True)
class SimulatedCustomer:
    """An invented customer. `hidden` is what good guidance would find out by asking; it is never in a prompt."""

    profile: CustomerProfile
    hidden: str

    def present_inquiry(self) -> str:
        """Return the question that the customer brings."""
        return self.profile.presenting_question or ""


def personas() -> tuple[str, ...]:
    """Return the names of the invented customers."""
    return tuple(_personas())


def load_persona(name: str) -> SimulatedCustomer:
    """Return the invented customer called `name`, such as `janet` or `janet-56`.

    Raises:
        InputError: when there is none of that name; the message names close ones.
    """
    wanted = name.strip().lower()
    for known, customer in _personas().items():
        if wanted in (known, customer.profile.customer_id):
            return customer
    close = difflib.get_close_matches(wanted, personas(), n=2, cutoff=0.6)
    hint = f"Did you mean {' or '.join(map(repr, close))}?" if close else f"Choose one of {', '.join(personas())}."
    raise InputError(f"There is no persona {name!r}. {hint}")


def generate_test_customer(seed: int | None = None, persona: str | None = None) -> SimulatedCustomer:
    """Return an invented customer under a customer id of their own, so that no two share records.

    Args:
        seed: The same seed gives the same customer; None gives another one each time.
        persona: Who it is; None chooses by the seed.

    Raises:
        InputError: when there is no persona of that name.
    """
    chance = random.Random(seed)  # noqa: S311 - a choice of test data, not a secret
    chosen = load_persona(persona if persona is not None else chance.choice(personas()))
    customer_id = f"{chosen.profile.customer_id}-{chance.getrandbits(48):012x}"
    return SimulatedCustomer(chosen.profile.model_copy(update={"customer_id": customer_id}), chosen.hidden)


@dataclass(frozen=True, slots=True)
class ScriptedSimulator:
    """A running simulator with a dictated answer.

    Attributes:
        settings: Settings for an advisor in this process, with a data folder of their own.
        env: The same as environment variables, for another process.
        base_url: Address of the simulator.
        simulator: The simulator itself: its request log and its faults.
    """

    settings: Settings
    env: Mapping[str, str]
    base_url: str
    simulator: ProviderSimulator


@contextlib.contextmanager
def scripted_simulator(
    text: str | None = None,
    *,
    pieces: Sequence[str] | None = None,
    interval_ms: float | None = None,
    data_dir: Path | None = None,
    **overrides: Any,
) -> Iterator[ScriptedSimulator]:
    """Run a local provider whose author model answers every question with the same text.

    Works in synchronous and asynchronous tests: the simulator has a thread and an event loop of its own. The private
    notes before an answer come from the fast model and are composed as usual.

    Args:
        text: The answer, cut into chunks as a provider would.
        pieces: The answer, one chunk per piece; instead of `text`.
        interval_ms: Milliseconds between chunks; None sends all at once.
        data_dir: Where records are kept; None is a temporary folder that is removed at the end.
        overrides: Further settings.

    Raises:
        InputError: when neither or both of `text` and `pieces` are given.
    """
    if (text is None) == (pieces is None):
        raise InputError("scripted_simulator needs the answer once. Pass either text or pieces.")
    from guidance_agent.provider_simulator import Fault, Script, SimulatorSettings

    script = Script(
        text=text, pieces=None if pieces is None else tuple(pieces), first_ms=interval_ms, interval_ms=interval_ms
    )
    with contextlib.ExitStack() as stack:
        folder = data_dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="guidance-agent-")))
        options = SimulatorSettings() if interval_ms is not None else SimulatorSettings.instant()
        simulator = stack.enter_context(_simulator_in_thread(options))
        scripted = _scripted(simulator, folder, overrides)
        author = str(scripted.settings.model).partition("/")[2]
        simulator.faults.add(Fault(kind="script", times=None, model=author, script=script))
        yield scripted


def _scripted(simulator: ProviderSimulator, folder: Path, overrides: Mapping[str, Any]) -> ScriptedSimulator:
    from guidance_agent.llm.endpoints import default_models
    from guidance_agent.llm.providers.registry import profile_for
    from guidance_agent.settings import Settings

    models = default_models(Settings.load(model=None, reasoning_model=None, providers={}), {})
    profile = profile_for(models.author.partition("/")[0])
    local = {"base_url": simulator.base_url, "api_key": "simulator"}
    given = {"model": models.author, "reasoning_model": models.reasoning, "data_dir": folder, **overrides}
    env = {
        profile.base_url_variables[0]: simulator.base_url,
        profile.key_variables[0]: "simulator",
        **{f"GUIDANCE_{name.upper()}": str(value) for name, value in given.items()},
    }
    # What the user has set up for other calls must not lead a test to a real provider.
    alone = {"fallbacks": (), "embedding_model": None, **given}
    settings = Settings.load(providers={profile.name: local}, **alone)
    return ScriptedSimulator(settings, env, simulator.base_url, simulator)


@contextlib.contextmanager
def _simulator_in_thread(options: SimulatorSettings) -> Iterator[ProviderSimulator]:
    from guidance_agent.provider_simulator import ProviderSimulator

    ready: list[ProviderSimulator] = []
    failures: list[BaseException] = []
    started, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        async with ProviderSimulator(options) as simulator:
            ready.append(simulator)
            started.set()
            await asyncio.to_thread(stop.wait)

    def main() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            failures.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=main, name="scripted-simulator")
    thread.start()
    try:
        started.wait()
        if not ready:
            raise ConfigurationError(f"The scripted simulator did not start: {failures[0]!r}.") from failures[0]
        yield ready[0]
    finally:
        stop.set()
        thread.join()
    if failures:
        raise failures[0]


@lru_cache(maxsize=1)
def _personas() -> dict[str, SimulatedCustomer]:
    import yaml

    text = files("guidance_agent").joinpath("testing_data/personas.yaml").read_text(encoding="utf-8")
    found = {}
    for values in yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # noqa: S506 - both are safe
        hidden = " ".join(values.pop("hidden"))
        profile = CustomerProfile.parse(values, source=f"persona {values['customer_id']!r}")
        found[profile.customer_id.rpartition("-")[0]] = SimulatedCustomer(profile, hidden)
    return found
