"""`guidance-agent simulator`: a local provider in the foreground."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guidance_agent.cli.exit_codes import ExitCode
from guidance_agent.cli.margin import Margin
from guidance_agent.cli.output import write_output
from guidance_agent.errors import InputError

if TYPE_CHECKING:
    from guidance_agent.provider_simulator import SimulatorSettings

__all__ = ["EXAMPLES", "simulator"]

EXAMPLES = (
    "guidance-agent simulator",
    "guidance-agent simulator --port 0 --instant --json",
    "guidance-agent simulator --requests-per-minute 20",
)


def simulator(
    port: Annotated[
        int, typer.Option("--port", min=0, max=65_535, help="Port on 127.0.0.1; 0 takes a free one.")
    ] = 8100,
    instant: Annotated[bool, typer.Option("--instant", help="Answer without any waiting.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Everything that looks random follows from it.")] = 7,
    state: Annotated[
        Path | None,
        typer.Option("--state", metavar="FILE", help="File that keeps caches and batches for the next start."),
    ] = None,
    batch_window: Annotated[
        float, typer.Option("--batch-window", min=1, help="Seconds that the 24 hours of a batch take.")
    ] = 120.0,
    requests_per_minute: Annotated[
        int | None, typer.Option("--requests-per-minute", min=1, help="Rate limit per key and model.")
    ] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option("--tokens-per-minute", min=1, help="Rate limit per key and model.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write the addresses as one JSON line.")] = False,
) -> ExitCode:
    """Run a local, simulated provider.

    It speaks the Anthropic and OpenAI formats on 127.0.0.1. Ctrl-C stops it.

    Its answers are simulated: composed from what a prompt holds, without a language model.
    """
    import asyncio

    from guidance_agent.provider_simulator import SimulatorSettings

    settings = SimulatorSettings(
        port=port,
        seed=seed,
        zero_latency=instant,
        state_path=state,
        batch_window=batch_window,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
    )
    asyncio.run(_serve(settings, as_json=as_json))
    return ExitCode.DONE


async def _serve(settings: SimulatorSettings, *, as_json: bool) -> None:
    import asyncio
    import signal

    from guidance_agent.provider_simulator import ProviderSimulator

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    server = ProviderSimulator(settings)
    try:
        await server.__aenter__()
    except OSError as error:
        raise InputError(
            f"The simulator cannot listen on port {settings.port}: {error.strerror}. Choose another --port, or 0 for a "
            "free one."
        ) from error
    try:
        _announce(server.base_url, as_json=as_json)
        await stop.wait()
    finally:
        await server.__aexit__(None, None, None)


def _announce(base_url: str, *, as_json: bool) -> None:
    if as_json:
        write_output(json.dumps({"anthropic": base_url, "openai": f"{base_url}/v1", "simulated": True}) + "\n")
        return
    Margin(notes=True).note("A simulated provider: no language model. Ctrl-C stops it. To use it elsewhere:")
    write_output(
        f"export ANTHROPIC_BASE_URL={base_url} ANTHROPIC_API_KEY=simulator\n"
        f"export OPENAI_BASE_URL={base_url}/v1 OPENAI_API_KEY=simulator\n"
    )
