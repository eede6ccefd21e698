"""A real browser, and the page as a writer uses it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.server.serving import Process

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

BEGINNING = (
    "　春の朝、私は古い停車場の待合室に坐っていた。外には細い雨が降っている。\n　隣の老人が、"
)
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="package")  # its event loop runs in this thread: later tests want none
def browser() -> Iterator[Browser]:
    """Chromium, without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    path = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if path is None:
        pytest.skip("needs chromium: apt-get install chromium")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=path, args=[*_ARGUMENTS])
        yield chromium
        chromium.close()


# What a failed test says: the text, the branch, what has the focus, what the page tells.
_WHERE = """[document.querySelector("#editor").value, document.querySelector("#tree").innerText,
  document.activeElement.outerHTML.slice(0, 200), document.querySelector("#notice").innerText]"""


class Desk:
    """The page in a tab, and what a writer does with it.

    Args:
        page: The tab.
        url: Of the server.
    """

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.editor = page.locator("#editor")
        self.tokens = page.locator("#reading .t")
        self.visible_tokens = page.locator("#reading .t:visible")  # not line breaks nor marks
        self.alternatives = page.locator("#branches[open] li")
        self.notice = page.locator("#notice span")

    @property
    def text(self) -> str:
        """The manuscript."""
        return self.editor.input_value()

    def open(self) -> None:
        """Load the page, until it knows the model."""
        self.page.goto(self.url)
        self.page.wait_for_selector("#context[max]", state="attached")

    def set(self, name: str, value: int) -> None:
        """Change one of the numbers in the settings."""
        self.page.click("#open-settings")
        self.page.get_by_role("spinbutton", name=name).fill(str(value))
        self.page.keyboard.press("Escape")

    def write(self, text: str = BEGINNING, length: int = 12) -> str:
        """Begin a work and let the model go on; what it wrote."""
        self.set("長さ", length)
        self.editor.focus()
        self.page.keyboard.insert_text(text)
        with self.page.expect_request("**/v1/completions"):
            self.page.keyboard.press("Control+Enter")
        self.wait()
        assert self.text.startswith(text)
        return self.text[len(text) :]

    def wait(self) -> None:
        """Until nothing is being written."""
        self.until("!document.querySelector('#continue').hidden")

    def until(self, expression: str) -> None:
        """Until an expression is true. The page forbids `eval`, which `wait_for_function` uses."""
        deadline = time.monotonic() + 20
        while not self.page.evaluate(expression):
            assert time.monotonic() < deadline, (expression, *self.page.evaluate(_WHERE))
            self.page.wait_for_timeout(20)

    def wait_for_tokens(self, at_least: int) -> Locator:
        """Until so many tokens can be seen."""
        self.tokens.nth(at_least - 1).wait_for(state="attached")
        return self.tokens

    def stored(self) -> dict[str, Any]:
        """The work as this browser keeps it."""
        self.page.wait_for_timeout(500)
        found: dict[str, Any] = self.page.evaluate(
            "JSON.parse(localStorage['neox-ja:work:' + JSON.parse(localStorage['neox-ja:open'])])"
        )
        return found


@pytest.fixture
def new_desk(browser: Browser, process: Process) -> Iterator[Callable[..., Desk]]:
    """Opens the page in a browser that knows nothing yet. Errors of its scripts fail the test."""
    errors: list[str] = []
    contexts = []

    def make(**options: Any) -> Desk:
        context = browser.new_context(**{"viewport": {"width": 1000, "height": 700}} | options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        desk = Desk(page, process.address)
        desk.open()
        return desk

    yield make
    for context in contexts:
        context.close()
    assert errors == []


@pytest.fixture
def desk(new_desk: Callable[..., Desk]) -> Desk:
    """The page on a desktop."""
    return new_desk()
