"""The example's page in a real browser: an answer grows, survives a reload, and can be stopped."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Page, async_playwright, expect

from guidance_agent.provider_simulator import Script
from tests.integration.advisor.wiring import author_requests, author_says, closed_by_client, endless
from tests.integration.examples.conftest import Backend

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium"),
]


@pytest_asyncio.fixture
async def page(backend: Backend) -> AsyncIterator[Page]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = await browser.new_page()
        opened.set_default_timeout(20_000)
        errors: list[str] = []
        opened.on("pageerror", lambda error: errors.append(str(error)))
        await opened.goto(backend.url)
        yield opened
        await browser.close()
        assert errors == []


async def ask(page: Page, question: str) -> None:
    await page.fill("#text", question)
    await page.click("#send")


async def test_an_answer_survives_a_reload_in_its_middle(backend: Backend, page: Page) -> None:
    author_says(backend.simulator, "anthropic", Script(chunks=200, interval_ms=20))
    await ask(page, "What is drawdown?")
    await page.wait_for_function("document.querySelector('.answer')?.textContent.length > 60")
    await page.reload()
    await expect(page.locator(".question")).to_have_text("What is drawdown?")
    await page.wait_for_selector(".answer[data-ended]", timeout=30_000)
    record = author_requests(backend.simulator, "anthropic")[0]
    shown = await page.inner_text(".answer")
    whole = await page.evaluate(
        """async (id) => {
            const text = await (await fetch(`/turns/${id}`)).text();
            const pieces = text.split("\\n").filter((line) => line.startsWith("data: ") && line.includes('"text"'));
            return pieces.map((line) => JSON.parse(line.slice(6)).text).join("");
        }""",
        await page.evaluate("JSON.parse(sessionStorage.getItem('turns'))[0].id"),
    )
    assert shown.strip() == whole.strip() != ""
    assert record.client_closed_at is None
    assert len(author_requests(backend.simulator, "anthropic")) == 1


async def test_the_stop_button_ends_the_answer_at_the_provider(backend: Backend, page: Page) -> None:
    endless(backend.simulator, "anthropic")
    await ask(page, "What is drawdown?")
    await page.wait_for_function("document.querySelector('.answer')?.textContent.length > 20")
    await page.click("#stop")
    await page.wait_for_selector(".answer[data-ended]")
    await closed_by_client(author_requests(backend.simulator, "anthropic")[0], within=0.5)
    await expect(page.locator("#send")).to_be_enabled()
