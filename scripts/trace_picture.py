"""Make docs/phoenix-trace.png: a turn that the simulator answered, as Phoenix shows its trace.

The simulator is told to break a rule in the middle of its answer, so that the gate has something to withhold. Needs
the development tools, Chromium, and Phoenix in the data folder (`guidance-agent phoenix install`); another folder is
named by GUIDANCE_DATA_DIR. The server has a database of its own, which is thrown away.

python scripts/trace_picture.py [FILE]
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from importlib import resources
from pathlib import Path

from phoenix.client import Client
from playwright.async_api import Page, async_playwright

from guidance_agent import AdvisorAgent, GuidanceAgentError, Runtime, Settings, TurnStarted
from guidance_agent.phoenix import LocalPhoenix
from guidance_agent.phoenix.environment import Environment
from guidance_agent.phoenix.launch import PhoenixServer
from guidance_agent.phoenix.ports import choose_ports
from guidance_agent.provider_simulator import Fault, Script
from guidance_agent.testing import load_persona
from guidance_agent.tracing.setup import DEFAULT_PROJECT

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "phoenix-trace.png"
WIDTH, HEIGHT = 1_400, 1_220
WITHIN = 120.0
JUDGED = "compliance"


def main(arguments: list[str]) -> int:
    target = Path(arguments[0]) if arguments else PICTURE
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        sys.stderr.write("Chromium is not installed. Install it, such as with: apt-get install chromium\n")
        return 1
    try:
        environment = Environment.of(Settings.load().data_dir.absolute())
        with (
            tempfile.TemporaryDirectory(prefix="guidance-picture-") as folder,
            PhoenixServer(Path(folder), choose_ports(0, 0), environment=environment, tell=_tell) as server,
        ):
            asyncio.run(_make(server.local, Path(folder), chromium, target))
    except (GuidanceAgentError, TimeoutError) as error:
        sys.stderr.write(f"No picture was made: {error or 'the trace did not appear in time'}\n")
        return 1
    _tell(f"{target}: {target.stat().st_size / 1_000:.0f} kB")
    return 0


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")


async def _make(phoenix: LocalPhoenix, folder: Path, chromium: str, target: Path) -> None:
    span_id = await _answer(phoenix, folder)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = await browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.set_default_timeout(WITHIN * 1_000)
        await page.goto(phoenix.span_url(span_id))
        await _arrange(page)
        target.parent.mkdir(parents=True, exist_ok=True)
        await page.screenshot(path=target)
        await browser.close()


async def _answer(phoenix: LocalPhoenix, folder: Path) -> str:
    """Have a question answered and judged, and return the id of the answer's span once Phoenix has all of it."""
    settings = Settings.load(
        data_dir=folder, database_url=None, tracing="on", background=True, trace={"endpoint": phoenix.endpoint}
    )
    customer = load_persona("janet").profile
    # Without the variables of this process no provider has a key, and nobody but the simulator answers.
    async with Runtime(settings, environ={}) as runtime, AdvisorAgent(runtime=runtime) as advisor:
        if runtime.simulator is None:
            raise GuidanceAgentError("GUIDANCE_MODEL or a provider is set, and only simulated answers are shown.")
        breach = resources.files("guidance_agent.cli") / "demonstrations" / "breach.txt"
        script = Script(text=breach.read_text(encoding="utf-8").strip())
        model = runtime.model.partition("/")[2]
        runtime.simulator.faults.add(Fault(kind="script", times=1, model=model, script=script))
        async with asyncio.timeout(WITHIN), advisor.consult(customer) as turn:
            async for event in turn:
                if isinstance(event, TurnStarted):
                    _tell(f"turn {event.turn_id}")
        return await _annotated_span(phoenix, turn.turn_id)


async def _annotated_span(phoenix: LocalPhoenix, turn_id: str) -> str:
    client = Client(base_url=phoenix.endpoint)

    def look() -> str | None:
        projects = [project["name"] for project in client.projects.list()]
        if DEFAULT_PROJECT not in projects:
            return None
        found = client.spans.get_spans(
            project_identifier=DEFAULT_PROJECT, name="guidance", attributes={"guidance.turn_id": turn_id}
        )
        annotations = (
            client.spans.get_span_annotations(spans=found, project_identifier=DEFAULT_PROJECT) if found else []
        )
        judged = [annotation["span_id"] for annotation in annotations if annotation["name"] == JUDGED]
        return judged[0] if judged else None

    async with asyncio.timeout(WITHIN):
        while (span_id := await asyncio.to_thread(look)) is None:  # noqa: ASYNC110 - Phoenix tells nobody what it has
            await asyncio.sleep(0.2)
    return span_id


async def _arrange(page: Page) -> None:
    """Show the tree with the verdict, and of the answer's span what this package says."""
    await page.get_by_role("button", name="Collapse side navigation").click()
    await page.get_by_role("tab", name="Attributes").click()
    await page.get_by_role("button", name="Search JSON keys and values").click()
    await page.get_by_role("searchbox", name="Search JSON keys and values").fill("guidance.")
    for name in ("gate.withheld", "validation", JUDGED):
        await page.get_by_text(name, exact=True).first.wait_for()
    await page.wait_for_load_state("networkidle")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
