"""The embedded simulator takes a provider's place, and nothing else of its settings."""

from __future__ import annotations

from pathlib import Path

from guidance_agent import Runtime, Settings


async def test_a_providers_retry_settings_hold_while_it_is_simulated(tmp_path: Path) -> None:
    settings = Settings.load(
        data_dir=tmp_path / "data",
        simulator="instant",
        background=False,
        providers={"anthropic": {"retry": {"max_attempts": 7}, "context_window": {"claude-sonnet-5-5": 9_000}}},
    )
    async with Runtime(settings, environ={}) as runtime:
        assert runtime.simulated
        own = runtime.settings.providers["anthropic"]
        assert runtime.simulator is not None
        assert own.base_url == runtime.simulator.base_url
        assert runtime.gateway.retry_settings("anthropic", "guidance").max_attempts == 7
        assert own.context_window == {"claude-sonnet-5-5": 9_000}
