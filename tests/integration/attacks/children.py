"""Starting processes that stream, and reading what they showed."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from guidance_agent.provider_simulator import ProviderSimulator
from tests.integration.advisor.wiring import AUTHOR

ROOT = Path(__file__).parents[3]


@dataclass
class Child:
    """A streaming process, what it has shown by turn, and which turns it has told the end of."""

    process: asyncio.subprocess.Process
    shown: dict[str, str] = field(default_factory=lambda: defaultdict(str))
    pieces: int = 0
    ended: dict[str, str] = field(default_factory=dict)

    async def read(self, until_pieces: int | None = None) -> None:
        """Read up to the given number of pieces, or to the end of the output."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            if not line.endswith(b"\n"):
                # What was cut off in the middle of a line was not shown as a whole.
                break
            values = json.loads(line)
            self.shown[values["turn"]] += values.get("text", "")
            self.pieces += "text" in values
            if "end" in values:
                self.ended[values["turn"]] = values["end"]
            if self.pieces == until_pieces:
                return

    async def stderr(self) -> str:
        assert self.process.stderr is not None
        return (await self.process.stderr.read()).decode()


async def start_child(
    simulator: ProviderSimulator, wire: str, data_dir: Path, *, turns: int, name: str = "customer"
) -> Child:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.attacks.many_turns_child",
        simulator.base_url,
        str(data_dir),
        AUTHOR[wire],
        str(turns),
        name,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        limit=2**24,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return Child(process)
