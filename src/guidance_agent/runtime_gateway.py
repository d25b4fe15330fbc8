"""A gateway alone, for those who want models and no records: `get_model`, and batches that are given no gateway.

Without a key or an address of any provider the provider simulator answers, as it does for a whole runtime.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from pydantic import SecretStr

from guidance_agent.llm.opening import OpenedGateway
from guidance_agent.settings import ProviderSettings, Settings

__all__ = ["open_gateway_alone"]


@asynccontextmanager
async def open_gateway_alone(settings: Settings | None = None) -> AsyncIterator[OpenedGateway]:
    """Open a gateway by the settings, and the simulator before it where nothing is set up.

    Args:
        settings: None loads them from file and environment.

    Raises:
        ConfigurationError: settings, models or keys cannot work.
    """
    from guidance_agent.llm.endpoints import default_models
    from guidance_agent.llm.gateway import ModelGateway

    settings = settings or Settings.load()
    chosen = default_models(settings, os.environ)
    async with AsyncExitStack() as stack:
        if not chosen.configured:
            from guidance_agent.provider_simulator import ProviderSimulator, SimulatorSettings

            seed = settings.simulator_seed
            instant = settings.simulator == "instant"
            options = SimulatorSettings.instant(seed=seed) if instant else SimulatorSettings(seed=seed)
            simulator = await stack.enter_async_context(ProviderSimulator(options))
            provider = chosen.author.partition("/")[0]
            own = settings.providers.get(provider, ProviderSettings())
            address = {"base_url": simulator.base_url, "api_key": SecretStr("simulator"), "headers": {}}
            providers = {**settings.providers, provider: own.model_copy(update=address)}
            settings = settings.model_copy(update={"providers": providers})
        gateway = await stack.enter_async_context(ModelGateway(settings))
        yield OpenedGateway(gateway, chosen.author)
