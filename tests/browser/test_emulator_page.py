"""The emulator's page as a person meets it: a real Chromium, real clicks and keys, a real emulator."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient

from sbrpc.emulator import Emulator
from sbrpc.topology import CorrelationFilter, Queue, Rule, Subscription, Topic

selenium = pytest.importorskip("selenium", reason="selenium is not installed, so the page is not tested")
from selenium import webdriver  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

pytestmark = [
    pytest.mark.applications,
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None,
        reason="chromium and chromedriver are not installed (apt-get install chromium chromium-driver), "
        "so the emulator's page is not tested",
    ),
]

# Only against hanging for ever; nothing is measured with it.
HANGS = 20
Found = TypeVar("Found")

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1440,1200",
)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


class Page:
    """What a person sees and does. Selenium blocks, so each step runs in a thread beside the emulator."""

    def __init__(self, driver: webdriver.Chrome, emulator: Emulator) -> None:
        self.driver = driver
        self.emulator = emulator

    async def do(self, step: Callable[[], Found]) -> Found:
        return await asyncio.to_thread(step)

    async def open(self, fragment: str = "") -> None:
        # From another page first, so that a fragment alone does not keep the old one.
        await self.do(lambda: self.driver.get("about:blank"))
        await self.do(lambda: self.driver.get(f"{self.emulator.http_url}/{fragment}"))
        await self.until(lambda: self.text("#live-text") == "Live", "the page comes alive")

    def text(self, selector: str) -> str:
        found = self.driver.execute_script(
            "const e = document.querySelector(arguments[0]); return e ? e.innerText : ''", selector
        )
        return str(found).strip()

    async def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait until something is true of the page."""

        def wait() -> Any:
            return WebDriverWait(self.driver, HANGS, 0.05).until(lambda _: condition(), what)

        return await self.do(wait)

    async def see(self, selector: str, text: str) -> None:
        await self.until(lambda: text in self.text(selector), f"'{text}' in {selector}")

    async def click(self, selector: str) -> None:
        await self.until(lambda: self.driver.find_element(By.CSS_SELECTOR, selector).is_displayed(), selector)
        await self.do(lambda: self.driver.find_element(By.CSS_SELECTOR, selector).click())

    async def press(self, *keys: str) -> None:
        actions = webdriver.ActionChains(self.driver)
        for key in keys:
            actions.send_keys(key)
        await self.do(actions.perform)

    async def focused(self) -> str:
        script = "return document.activeElement.id || document.activeElement.textContent.trim()"
        return str(await self.do(lambda: self.driver.execute_script(script)))

    def row(self, name: str) -> list[str]:
        """The numbers in an entity's row."""
        script = """
            const row = [...document.querySelectorAll('#entities tbody tr')]
              .find(row => row.querySelector('a')?.textContent === arguments[0]);
            return row ? [...row.querySelectorAll('td')].map(cell => cell.textContent) : []"""
        return list(self.driver.execute_script(script, name))


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    queues = [Queue("movies", max_delivery_count=1), Queue("replies", requires_session=True), Queue("quiet")]
    rules = (Rule("created", CorrelationFilter(subject="movie.created")),)
    topics = [Topic("events", (Subscription("handler", rules=rules),))]
    async with Emulator(queues=queues, topics=topics, http_port=0) as emulator:
        yield emulator


@pytest.fixture
async def page(driver: webdriver.Chrome, emulator: Emulator) -> AsyncIterator[Page]:
    page = Page(driver, emulator)
    await page.open()
    yield page
    # Whatever a test did, the page made no mistake that the browser would complain of.
    complaints = [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    assert complaints == []
    await page.do(lambda: driver.get("about:blank"))


async def send(emulator: Emulator, entity: str, *messages: ServiceBusMessage, dead: int = 0) -> None:
    """Send messages, and dead-letter the first so many."""
    async with ServiceBusClient.from_connection_string(emulator.connection_string) as client:
        async with client.get_queue_sender(entity) as sender:
            await sender.send_messages(list(messages))
        if dead:
            async with client.get_queue_receiver(entity) as receiver:
                for _ in range(dead):
                    (message,) = await receiver.receive_messages(max_wait_time=5)
                    await receiver.dead_letter_message(message, "DecodeError", "id is missing")


def movie(number: int, **more: Any) -> ServiceBusMessage:
    return ServiceBusMessage(
        json.dumps({"id": number, "title": "The Third Man"}),
        subject=f"get_movie_{number}",
        application_properties={"attempt": number},
        **more,
    )


async def test_counts_follow_what_happens(page: Page) -> None:
    """Entities are listed with counts that change without anybody asking."""
    await page.until(lambda: page.row("movies") == ["0", "0", "0", "0", "0"], "an empty queue")
    await page.until(lambda: page.row("handler") == ["0", "0", "0", "0", "0"], "an empty subscription")
    await send(page.emulator, "movies", movie(1), movie(2), movie(3), dead=1)
    await page.until(lambda: page.row("movies")[:4] == ["2", "0", "0", "1"], "the new counts")
    await page.see("#namespace", "sbemulatorns")


async def test_messages_can_be_read(page: Page) -> None:
    """A chosen queue shows its messages; an opened one stays open while the page keeps up."""
    await send(page.emulator, "movies", movie(1))
    await page.do(lambda: page.driver.find_element(By.LINK_TEXT, "movies").click())
    await page.see("#detail-title", "movies")
    await page.see("#panel-list", "get_movie_1")
    await page.click("details.message summary")
    await page.see("details[open] pre", '"title": "The Third Man"')
    await page.see("details[open] dl", "attempt")
    await send(page.emulator, "movies", movie(2))
    await page.see("#panel-list", "get_movie_2")
    assert '"title"' in page.text("details[open] pre")
    assert page.driver.current_url.endswith("#movies")


async def test_dead_letters_are_replayed_after_a_question(page: Page) -> None:
    """Replay asks first; refused it does nothing, confirmed it puts the dead letter back."""
    await send(page.emulator, "movies", movie(1), dead=1)
    await page.open("#movies")
    await page.click("#tab-dead")
    await page.see("#panel-list", "DecodeError")
    await page.click("#replay")
    await page.see("#confirm-text", "all dead letters")
    assert await page.focused() == "Cancel"
    await page.press(Keys.ESCAPE)
    await page.until(lambda: not page.driver.find_element(By.ID, "confirm").is_displayed(), "no dialog")
    assert page.emulator.broker.runtime("movies").dead_letter == 1
    await page.click("details.message summary")
    await page.click("details[open] button")
    await page.see("#confirm-text", "this message")
    await page.click("#confirm-yes")
    await page.see("#notice", "1 message put back into movies")
    await page.until(lambda: page.row("movies")[:4] == ["1", "0", "0", "0"], "the message is back")
    await page.see("#panel-list", "No dead letters")


async def test_a_queue_is_purged_after_a_question(page: Page) -> None:
    """Purge says what it will do and does it once confirmed."""
    await send(page.emulator, "movies", movie(1), movie(2), movie(3), dead=1)
    await page.open("#movies")
    await page.see("#panel-list", "get_movie_3")
    await page.click("#purge")
    await page.see("#confirm-text", "messages of movies")
    await page.click("#confirm-yes")
    await page.see("#notice", "2 messages deleted")
    await page.until(lambda: page.row("movies")[:4] == ["0", "0", "0", "1"], "only the dead letter is left")
    await page.see("#panel-list", "No messages")
    assert page.driver.find_element(By.ID, "purge").is_enabled() is False


async def test_sessions_and_rules(page: Page) -> None:
    """Sessions are shown with their locks and states, rules with what they let through."""
    async with ServiceBusClient.from_connection_string(page.emulator.connection_string) as client:
        async with client.get_queue_sender("replies") as sender:
            await sender.send_messages(ServiceBusMessage("r", session_id="client-7"))
        async with client.get_queue_receiver("replies", session_id="client-7") as receiver:
            await receiver.session.set_state(b"half")
            await page.open("#replies")
            await page.click("#tab-sessions")
            await page.see("#panel-list", "client-7")
            await page.see("#panel-list", "locked for")
            await page.see("#panel-list", "4 B")
            await page.see("#connections", "receives from replies, session client-7")
        await page.until(lambda: "free" in page.text("#panel-list"), "the session is free")
    await page.open("#" + "events%2FSubscriptions%2Fhandler")
    await page.click("#tab-rules")
    await page.see("#panel-list", "subject = 'movie.created'")


async def test_traffic_and_connections(page: Page) -> None:
    """What happens and who is connected can be watched, and a connection can be cut after a question."""
    async with (
        ServiceBusClient.from_connection_string(page.emulator.connection_string) as client,
        client.get_queue_sender("movies") as sender,
    ):
        await sender.send_messages(movie(1, message_id="watched"))
        await page.see("#traffic", "watched")
        await page.see("#connections", "sends to movies")
        await page.click("#connections button")
        await page.click("#confirm-yes")
        await page.see("#no-connections", "Nobody is connected")
        await page.see("#traffic", "disconnected")


async def test_everything_by_keyboard(page: Page) -> None:
    """Without a mouse: skip to the entities, choose one, change the tab, purge."""
    await send(page.emulator, "movies", movie(1), dead=1)
    await page.until(lambda: page.row("movies")[3:4] == ["1"], "the dead letter is counted")
    await page.press(Keys.TAB)
    assert await page.focused() == "Skip to the entities"
    await page.press(Keys.ENTER)
    await page.press(Keys.TAB, Keys.ENTER)
    await page.see("#detail-title", "movies")
    await page.do(lambda: page.driver.find_element(By.ID, "tab-messages").send_keys(Keys.ARROW_RIGHT))
    await page.see("#panel-list", "DecodeError")
    assert (await page.focused()).startswith("tab-dead")
    # While the page keeps up, focus stays where it is.
    await page.until(
        lambda: "2 s ago" in page.text("#panel-list") or "3 s ago" in page.text("#panel-list"), "time"
    )
    assert (await page.focused()).startswith("tab-dead")
    await page.press(Keys.TAB, Keys.TAB, Keys.ENTER)
    await page.see("#confirm-title", "Purge dead letters?")
    await page.press(Keys.TAB, Keys.ENTER)
    await page.see("#notice", "1 message deleted")


async def test_filter_and_pause(page: Page) -> None:
    """The list can be narrowed by name, and the page can be told to stand still."""
    await page.do(lambda: page.driver.find_element(By.ID, "filter").send_keys("qui"))
    await page.until(lambda: page.row("movies") == [] and page.row("quiet") != [], "only quiet")
    await page.do(lambda: page.driver.find_element(By.ID, "filter").clear())
    await page.click("#live")
    await page.see("#live-text", "Paused")
    await send(page.emulator, "quiet", movie(1))
    assert page.row("quiet") in ([], ["0", "0", "0", "0", "0"])
    await page.click("#live")
    await page.until(lambda: page.row("quiet")[:1] == ["1"], "it catches up")


async def test_clock_and_faults(page: Page) -> None:
    """The clock is advanced by a button, and faults in force are announced."""
    await page.click("#advance button")
    await page.see("#ahead", "1 min")
    assert page.emulator.clock.ahead > 59
    with page.emulator.faults.refuse():
        await page.see("#faults-summary", "1 fault in force: refuse")
    await page.until(lambda: page.text("#faults-summary") == "", "no fault")


async def test_the_emulator_goes_away_and_comes_back(page: Page) -> None:
    """When the emulator stops the page says so, and goes on by itself when it runs again."""
    port = page.emulator.http_port
    await page.emulator.stop()
    await page.see("#live-text", "Not connected")
    async with Emulator(queues=["second"], http_port=port):
        await page.see("#entities", "second")
        await page.see("#live-text", "Live")
    # Requests that failed meanwhile are what the browser is expected to complain of.
    page.driver.get_log("browser")


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_fits_and_can_be_read(page: Page, scheme: str, width: int, tmp_path: Path) -> None:
    """On a phone and on a desk, in light and dark, nothing sticks out and text stands out from its ground."""
    await send(page.emulator, "movies", movie(1), movie(2), dead=1)
    driver = page.driver
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    size = {"width": width, "height": 1200, "deviceScaleFactor": 1, "mobile": width < 500}
    await page.do(lambda: driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media))
    await page.do(lambda: driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size))
    try:
        await page.open("#movies")
        await page.click("#tab-dead")
        await page.see("#panel-list", "DecodeError")
        overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert await page.do(lambda: driver.execute_script(overflow)) <= 0
        assert await page.do(lambda: driver.execute_script(CONTRASTS)) == []
    finally:
        await page.do(lambda: driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {}))
        await page.do(lambda: driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []}))


async def test_everything_has_a_name(page: Page) -> None:
    """Each control and region has a name that assistive technology can read."""
    await send(page.emulator, "movies", movie(1))
    await page.open("#movies")
    await page.see("#panel-list", "get_movie_1")
    tree = await page.do(lambda: page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {}))
    named = {"button", "link", "textbox", "searchbox", "combobox", "tab", "region", "tablist", "tabpanel"}
    nameless = [
        node["role"]["value"]
        for node in tree["nodes"]
        if not node.get("ignored")
        and node["role"]["value"] in named
        and not node.get("name", {}).get("value")
    ]
    assert nameless == []


# Text whose contrast to its ground is lower than WCAG's AA asks for; faint zeros are decoration.
CONTRASTS = """
const clear = 'rgba(0, 0, 0, 0)', exempt = '.zero, :disabled, script, style, .visually-hidden, .skip';
const parse = text => (text.match(/[0-9.]+/g) || []).slice(0, 3).map(Number);
const linear = c => (c /= 255) <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
const share = [.2126, .7152, .0722];
const light = colour => parse(colour).map(linear).reduce((sum, c, i) => sum + c * share[i], 0);
const ground = element => {
  while (element && getComputedStyle(element).backgroundColor === clear) element = element.parentElement;
  return element ? getComputedStyle(element).backgroundColor : 'rgb(255, 255, 255)';
};
const bad = [];
for (const element of document.querySelectorAll('body *')) {
  const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
  if (!own || !element.checkVisibility() || element.closest(exempt)) continue;
  const sides = [light(getComputedStyle(element).color), light(ground(element))].sort((x, y) => y - x);
  const contrast = (sides[0] + .05) / (sides[1] + .05);
  if (contrast < 4.5) bad.push(`${element.textContent.trim().slice(0, 40)}: ${contrast.toFixed(2)}`);
}
return bad;
"""
