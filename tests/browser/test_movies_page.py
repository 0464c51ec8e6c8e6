"""The movies' page as a person meets it: a real Chromium in front of all processes of the example."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.browser.test_emulator_page import CONTRASTS
from tests.examples.movies_site import EXAMPLES, Site, caller, create, eventually, listed, serving

selenium = pytest.importorskip("selenium", reason="selenium is not installed, so the page is not tested")
from selenium import webdriver  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

pytestmark = [
    pytest.mark.applications,
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None,
        reason="chromium and chromedriver are not installed (apt-get install chromium chromium-driver), "
        "so the movies' page is not tested",
    ),
]

# Without what a browser does besides showing pages.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with serving() as site:
        yield site


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


class Page:
    """What a person sees and does."""

    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self.driver, self.url = driver, url
        driver.get(url)
        self.until(lambda: "Loading" not in self.text("#count"))

    def until(self, holds: Callable[[], Any]) -> Any:
        return eventually(holds)

    def text(self, selector: str) -> str:
        script = "return document.querySelector(arguments[0])?.innerText ?? ''"
        return str(self.driver.execute_script(script, selector))

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def write(self, selector: str, text: str) -> None:
        self.find(selector).clear()
        self.find(selector).send_keys(text)

    def open(self, title: str) -> None:
        self.until(lambda: title in self.text("#films") and not self.find("#editor").is_displayed())
        self.driver.find_element("xpath", f"//td/button[text()='{title}']").click()
        self.until(lambda: self.find("#editor").is_displayed())


@pytest.fixture
def page(driver: webdriver.Chrome, site: Site) -> Page:
    driver.get_log("browser")
    return Page(driver, site.url)


# First of all, as others leave films behind.
@pytest.fixture
def catalogue(site: Site) -> Iterator[Site]:
    """The site with the first films of the catalogue, and nothing else."""
    with caller(site) as http:
        rows = json.loads((EXAMPLES / "movies" / "data" / "movies.json").read_text(encoding="utf-8"))
        # Some rows of the file are wrong on purpose, as tests/examples/test_catalogue.py shows.
        films = [row for row in rows if isinstance(row["title"], str) and row["director"] and row["genre"]]
        created = [create(http, **film) for film in films[:25]]
        yield site
        for movie in created:
            http.delete(f"/movies/{movie['id']}").raise_for_status()
        eventually(lambda: listed(http) == [])


@pytest.mark.parametrize(("scheme", "picture"), [("light", "movies.png"), ("dark", "movies-dark.png")])
def test_it_can_be_read_in_light_and_dark(
    driver: webdriver.Chrome, catalogue: Site, scheme: str, picture: str
) -> None:
    """Text stands out from its ground. SBRPC_WRITE_IMAGES=1 makes the pictures in docs/images anew."""
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    size = {"width": 1100, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        page = Page(driver, catalogue.url)
        page.until(lambda: "of 25 films" in page.text("#count"))
        assert driver.execute_script(CONTRASTS) == []
        if os.environ.get("SBRPC_WRITE_IMAGES"):
            driver.save_screenshot(str(Path(__file__).parents[2] / "docs" / "images" / picture))
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_film_is_created_found_changed_and_deleted(page: Page) -> None:
    """By keyboard alone for the first part, with markup as a title shown as text; the browser complains of
    nothing, and the page says how the request travelled."""
    page.find("body").send_keys("n")
    page.until(lambda: page.find("#editor").is_displayed())
    page.driver.switch_to.active_element.send_keys("<b>Crash</b>", Keys.ENTER)
    page.until(lambda: "<b>Crash</b>" in page.text("#films"))
    page.until(lambda: "POST movies" in page.text("#journey"))
    page.until(lambda: "The read model had it" in page.text("#journey"))
    page.write("#search", "nothing like it")
    page.until(lambda: "No film fits" in page.text("#count"))
    page.write("#search", "crash")
    page.open("<b>Crash</b>")
    page.write("[name=title]", "Crash again")
    page.find("#save").click()
    page.open("Crash again")
    page.find("#delete").click()
    page.find("#delete").click()
    page.until(lambda: "No film fits" in page.text("#count"))
    assert [entry for entry in page.driver.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_what_others_do_is_seen_and_a_conflict_can_be_settled(page: Page) -> None:
    """A film made elsewhere appears by itself; one changed elsewhere meanwhile is not overwritten unasked."""
    with httpx.Client(base_url=page.url, timeout=60, verify=False) as http:
        movie = http.post("/movies", json={"title": "Shared"}).json()
        page.open("Shared")
        page.write("[name=title]", "Mine")
        http.put(f"/movies/{movie['id']}", json=movie | {"title": "Theirs"}).raise_for_status()
        page.find("#save").click()
        page.until(lambda: 'it is "Theirs", version 2' in page.text("#wrong"))
        page.until(lambda: page.find("#mine").is_displayed())
        page.find("#mine").click()
        page.until(lambda: "Mine" in page.text("#films"))
        assert http.get(f"/movies/{movie['id']}").json()["title"] == "Mine"


def test_a_second_tab_sees_what_the_first_one_does(page: Page) -> None:
    """At once, from the stream: creation, change and deletion. The first one says that it deleted."""
    driver, first = page.driver, page.driver.current_window_handle
    driver.switch_to.new_window("window")
    second = driver.current_window_handle
    try:
        other = Page(driver, page.url)
        other.until(lambda: other.text("#live") == "Live")
        driver.switch_to.window(first)
        page.until(lambda: page.text("#live") == "Live")
        page.find("#new").click()
        page.write("[name=title]", "Seen by both")
        page.find("#save").click()
        page.until(lambda: "Seen by both" in page.text("#films"))
        driver.switch_to.window(second)
        other.until(lambda: "Seen by both" in other.text("#films"))
        driver.switch_to.window(first)
        page.open("Seen by both")
        page.find("#delete").click()
        page.find("#delete").click()
        page.until(lambda: "“Seen by both” was deleted." in page.text("#news[role=status]"))
        driver.switch_to.window(second)
        other.until(lambda: "Seen by both" not in other.text("#films"))
    finally:
        driver.switch_to.window(second)
        driver.close()
        driver.switch_to.window(first)


def test_the_stream_comes_back_with_the_api(page: Page, site: Site) -> None:
    """While the API is away the page says so; then it is live again, and what came meanwhile is there."""
    page.until(lambda: page.text("#live") == "Live")
    site.role("api", other_than=site.kill("api"))
    page.until(lambda: page.text("#live") != "Live")
    page.until(lambda: page.text("#live") == "Live")
    with httpx.Client(base_url=page.url, timeout=60, verify=False) as http:
        http.post("/movies", json={"title": "After the break"}).raise_for_status()
    page.until(lambda: "After the break" in page.text("#films"))


def test_films_are_filtered(page: Page) -> None:
    """By genre, rating and year, each offered or said; clearing brings all back."""
    with httpx.Client(base_url=page.url, timeout=60, verify=False) as http:
        for title, genre, rating, year in (("One", "Noir", "R", 1944), ("Two", "Noir", "PG", 1950)):
            film = {"title": title, "genre": genre, "rating": rating, "released": f"{year}-01-01"}
            http.post("/movies", json=film).raise_for_status()
    page.until(lambda: "One" in page.text("#films") and "Two" in page.text("#films"))
    offered = "return [...document.querySelectorAll('#genres option')].map(option => option.value)"
    assert "Noir" in page.driver.execute_script(offered)
    page.write("#genre", "Noir" + Keys.ENTER)
    page.until(lambda: "of 2 films" in page.text("#count"))
    page.write("#rating", "PG" + Keys.ENTER)
    page.until(lambda: "of 1 films" in page.text("#count") and "Two" in page.text("#films"))
    page.write("#year", "1944" + Keys.ENTER)
    page.until(lambda: "No film fits" in page.text("#count"))
    page.find("#clear").click()
    page.until(lambda: "One" in page.text("#films") and not page.find("#clear").is_displayed())


def test_the_choice_of_light_or_dark_is_remembered(page: Page) -> None:
    """The other one than before, still so after a reload, said to screen readers, and readable."""
    before = page.find("#theme").get_attribute("aria-pressed")
    ground = "return getComputedStyle(document.body).backgroundColor"
    colour = page.driver.execute_script(ground)
    try:
        page.find("#theme").click()
        again = Page(page.driver, page.url)
        assert again.find("#theme").get_attribute("aria-pressed") != before
        assert page.driver.execute_script(ground) != colour
        assert page.driver.execute_script(CONTRASTS) == []
    finally:
        page.driver.execute_script("localStorage.clear()")


def test_a_service_that_does_not_answer_is_said_and_the_change_can_be_made_again(
    page: Page, site: Site
) -> None:
    """What was typed stays; once the service answers again, saving works."""
    service = site.role("service")
    page.find("#new").click()
    page.write("[name=title]", "Patience")
    os.kill(service, signal.SIGSTOP)
    try:
        page.find("#save").click()
        page.until(lambda: "does not answer at the moment" in page.text("#wrong"))
    finally:
        os.kill(service, signal.SIGCONT)
    page.find("#save").click()
    page.until(lambda: "Patience" in page.text("#films"))


def test_it_fits_on_a_phone(page: Page) -> None:
    """At 360 pixels nothing sticks out."""
    size = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        script = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.driver.execute_script(script) <= 0
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
