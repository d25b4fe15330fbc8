"""Phoenix's pages in a real browser: they open, under the links that are printed, and load nothing from elsewhere."""

from __future__ import annotations

import shutil
from urllib.parse import urlsplit

import pytest
from playwright.async_api import async_playwright, expect

from guidance_agent.phoenix import LocalPhoenix

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium"),
]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_the_link_leads_to_the_project_and_only_phoenix_is_asked(phoenix: LocalPhoenix, host: str) -> None:
    address = phoenix.project_url("default").replace("127.0.0.1", host)
    asked: set[str] = set()
    refused: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = await browser.new_page()
        page.on("request", lambda request: asked.add(urlsplit(request.url).netloc))
        page.on("response", lambda answer: refused.append(answer.url) if answer.status >= 400 else None)
        await page.goto(address)
        await expect(page).to_have_title("default - Projects", timeout=60_000)
        assert "/redirects/" not in page.url
        await page.wait_for_load_state("networkidle")
        await browser.close()
    assert asked == {f"{host}:{phoenix.port}"}
    assert not refused


async def test_another_name_for_this_machine_gets_no_page(phoenix: LocalPhoenix) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--host-resolver-rules=MAP rebound.example 127.0.0.1"]
        )
        page = await browser.new_page()
        answer = await page.goto(f"http://rebound.example:{phoenix.port}/")
        assert answer is not None
        assert answer.status == 403
        await browser.close()
