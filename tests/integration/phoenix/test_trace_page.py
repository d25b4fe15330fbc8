"""The page of a trace in a real browser: the tree of the turn, and the verdict beside the answer."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Page, async_playwright, expect

from guidance_agent.phoenix import LocalPhoenix
from tests.integration.phoenix.reading import Reader
from tests.integration.phoenix.story import PROJECT, Story

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium"),
]


@pytest_asyncio.fixture
async def page() -> AsyncIterator[Page]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = await browser.new_page(viewport={"width": 1_400, "height": 1_000})
        opened.set_default_timeout(60_000)
        yield opened
        await browser.close()


async def test_the_page_of_a_trace_shows_the_turn_and_its_verdict(
    phoenix: LocalPhoenix, story: Story, page: Page
) -> None:
    reader = Reader(phoenix, PROJECT)
    told = story.breach
    names = ("turn", "retrieval", "reasoning", "guidance", "gate.withheld", "validation", "judge")
    reader.trace(told.trace_id, *names)
    project = reader.graph_trace(told.trace_id)["projectId"]
    await page.goto(f"{phoenix.endpoint}/projects/{project}/traces/{told.trace_id}")
    drawer = page.get_by_label("Detail drawer")
    for name in (*names, "compliance"):
        await expect(drawer.get_by_text(name, exact=True).first).to_be_visible(timeout=60_000)
    await expect(drawer).to_contain_text("$")
    await expect(drawer).not_to_contain_text("Morwenna")


async def test_the_link_to_a_trace_leads_to_its_page(phoenix: LocalPhoenix, story: Story, page: Page) -> None:
    await page.goto(phoenix.trace_url(story.second.trace_id))
    await expect(page.get_by_label("Detail drawer")).to_contain_text(story.second.trace_id, timeout=60_000)
    assert page.url.partition("?")[0].endswith(f"/traces/{story.second.trace_id}")
