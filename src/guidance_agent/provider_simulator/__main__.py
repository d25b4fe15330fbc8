"""Runs the simulator as a process of its own: `python -m guidance_agent.provider_simulator`."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from guidance_agent.provider_simulator.clock import ManualClock, SystemClock
from guidance_agent.provider_simulator.server import ProviderSimulator
from guidance_agent.provider_simulator.settings import SimulatorSettings

__all__ = ["main"]


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m guidance_agent.provider_simulator",
        description="A local provider that speaks the Anthropic and OpenAI formats. It listens on 127.0.0.1 only.",
    )
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 takes a free one (default)")
    parser.add_argument("--seed", type=int, default=0, help="everything that looks random follows from it")
    parser.add_argument("--instant", action="store_true", help="answer without any waiting")
    parser.add_argument("--chunk-mode", choices=("event", "random", "byte"), default="event")
    parser.add_argument("--chunk-interval", type=float, help="seconds between text chunks instead of the pace")
    parser.add_argument("--crlf", action="store_true", help="end lines of event streams with CR LF")
    parser.add_argument("--any-model", action="store_true", help="serve unknown model names, too")
    parser.add_argument("--state", type=Path, help="file that keeps cache entries; batches are kept beside it")
    parser.add_argument("--rpm", type=int, help="requests per minute, per key and model")
    parser.add_argument("--tpm", type=int, help="tokens per minute, per key and model")
    parser.add_argument("--batch-window", type=float, default=120.0, help="seconds that a batch's 24 hours take")
    parser.add_argument("--batch-duration", type=float, help="seconds until the last item of a batch is answered")
    parser.add_argument("--manual-clock", action="store_true", help="time moves by POST /_simulator/clock only")
    parser.add_argument("--no-bodies", action="store_true", help="keep request bodies out of the log")
    parser.add_argument("--port-file", type=Path, help="file that receives the port once the server is ready")
    return parser.parse_args(argv)


def _settings(arguments: argparse.Namespace) -> SimulatorSettings:
    return SimulatorSettings(
        port=arguments.port,
        seed=arguments.seed,
        zero_latency=arguments.instant,
        chunk_mode=arguments.chunk_mode,
        chunk_interval=arguments.chunk_interval,
        line_ending="\r\n" if arguments.crlf else "\n",
        any_model=arguments.any_model,
        state_path=arguments.state,
        requests_per_minute=arguments.rpm,
        tokens_per_minute=arguments.tpm,
        log_bodies=not arguments.no_bodies,
        batch_window=arguments.batch_window,
        batch_duration=arguments.batch_duration,
    )


def _write_port(path: Path, port: str) -> None:
    # The name appears with its content: who waits for the file never reads half of it.
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(port)
    draft.replace(path)


async def _serve(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    clock = ManualClock() if arguments.manual_clock else SystemClock()
    async with ProviderSimulator(_settings(arguments), clock=clock) as simulator:
        if arguments.port_file is not None:
            port = simulator.base_url.rsplit(":", 1)[1]
            await asyncio.to_thread(_write_port, arguments.port_file, port)
        sys.stdout.write(f"{simulator.base_url}\n")
        sys.stdout.flush()
        await stop.wait()


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; prints the address in one line when ready."""
    arguments = _arguments(argv)
    try:
        asyncio.run(_serve(arguments))
    except OSError as error:
        sys.stderr.write(f"cannot serve on port {arguments.port}: {error}; choose another --port\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
