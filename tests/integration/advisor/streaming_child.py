"""A process that streams answers to its standard output until it is killed.

Arguments: the simulator's address, the data folder, the wire format. Each line is JSON: the turn's id, then each piece
of text as soon as it has been handed out.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from guidance_agent import AdvisorAgent, Runtime, Settings, TextDelta, TurnStarted


def tell(**values: str) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


async def main(base_url: str, data_dir: str, model: str) -> None:
    provider = {"base_url": base_url, "api_key": "key-of-the-test"}
    settings = Settings.load(
        data_dir=Path(data_dir), background=False, model=model, providers={model.partition("/")[0]: provider}
    )
    customer = {"customer_id": "janet", "presenting_question": "Can I take it all?"}
    async with Runtime(settings, environ={}) as runtime, AdvisorAgent(runtime=runtime) as advisor:
        async with advisor.consult(customer, use_reasoning=False) as turn:
            async for event in turn:
                if isinstance(event, TurnStarted):
                    tell(turn=event.turn_id)
                elif isinstance(event, TextDelta):
                    tell(text=event.text)
        tell(end=turn.state)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
