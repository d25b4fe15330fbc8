"""A process that streams many turns at once to its standard output, until it is killed or they are done.

Arguments: the simulator's address, the data folder, the model, the number of turns, and a name for its customers. Each
line is JSON: the turn's id with each piece of text as soon as it has been handed out, or with the turn's end.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from guidance_agent import AdvisorAgent, Runtime, Settings, TextDelta


def tell(**values: object) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


async def stream(advisor: AdvisorAgent, customer_id: str) -> None:
    customer = {"customer_id": customer_id, "presenting_question": "Can I take it all?"}
    async with advisor.consult(customer, use_reasoning=False) as turn:
        async for event in turn:
            if isinstance(event, TextDelta):
                tell(turn=turn.turn_id, text=event.text)
    tell(turn=turn.turn_id, end=turn.state)


async def main(base_url: str, data_dir: str, model: str, number: str, name: str) -> None:
    provider = {"base_url": base_url, "api_key": "key-of-the-test"}
    settings = Settings.load(
        data_dir=Path(data_dir), background=False, model=model, providers={model.partition("/")[0]: provider}
    )
    async with (
        Runtime(settings, environ={}) as runtime,
        AdvisorAgent(runtime=runtime) as advisor,
        asyncio.TaskGroup() as group,
    ):
        for index in range(int(number)):
            group.create_task(stream(advisor, f"{name}-{index}"))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
