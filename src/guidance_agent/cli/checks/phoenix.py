"""Check of the local Phoenix server: is it installed, and does it run."""

from __future__ import annotations

from pathlib import Path

from guidance_agent.cli.checks.result import Check, ok, warn

__all__ = ["check_phoenix"]


def check_phoenix(data_folder: Path) -> Check:
    """Say whether traces can be looked at on this machine. Nothing needs Phoenix, so that it is missing is no fault."""
    from guidance_agent.phoenix.environment import Environment
    from guidance_agent.phoenix.local import local_phoenix

    running = local_phoenix(data_folder)
    if running is not None:
        return ok("Phoenix", f"{running.version} is running on {running.endpoint} (process {running.pid})")
    environment = Environment.of(data_folder)
    state, version = environment.state(), environment.pinned.version
    if state.ready:
        return ok("Phoenix", f"{version} is installed and not running; `guidance-agent phoenix` starts it")
    if state.other_version is not None:
        return warn(
            "Phoenix",
            f"{version} is needed; what is installed ({state.other_version}) is of another list or another Python.",
            "Run `guidance-agent phoenix install`.",
        )
    return ok("Phoenix", "not installed; `guidance-agent phoenix install` lets you look at traces on this machine")
