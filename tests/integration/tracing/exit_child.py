"""Answers one question, says when it has, and ends: by closing what it opened, or in the middle of everything."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from guidance_agent import AdvisorAgent, CustomerProfile, Runtime, Settings


async def main(data_dir: str, how: str) -> None:
    settings = Settings.load(data_dir=Path(data_dir), simulator="instant", background=False)
    runtime = Runtime(settings)
    await runtime.__aenter__()
    advisor = AdvisorAgent(runtime=runtime)
    await advisor.__aenter__()
    customer = CustomerProfile(customer_id="janet-56", first_name="Janet", presenting_question="Can I retire?")
    async for _ in advisor.provide_guidance_stream(customer, use_reasoning=False):
        pass
    await advisor.__aexit__()
    for _ in range(300):
        # More than leaves in one batch.
        runtime.tracing.span("more", "CHAIN", attributes={"input.value": "x" * 10_000}).end()
    sys.stdout.write(f"{time.time()}\n")
    sys.stdout.flush()
    if how == "closes":
        await runtime.__aexit__(None, None, None)
    elif how == "raises":
        raise SystemExit(0)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
