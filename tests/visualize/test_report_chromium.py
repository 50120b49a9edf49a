"""The report in a real browser: Chromium, headless, from file://."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from report_runs import (
    holdout_record,
    make_run,
    step_record,
    write_metrics,
    write_picture,
    write_result,
)

from maekit.visualize.report.page import render

pytest.importorskip("selenium")
from selenium import webdriver
from selenium.webdriver import ActionChains
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM = os.environ.get("MAEKIT_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no Chromium with its chromedriver is installed"
)
SWITCHES = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--force-device-scale-factor=1",
)  # fmt: skip
PATIENCE = 120  # seconds, for a busy machine
LONG = 10_000
OPEN_ALL = "document.querySelectorAll('details').forEach(each => { each.open = true; })"

Browser = webdriver.Chrome
Open = Callable[..., Browser]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests: starting it costs more than they do."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for switch in SWITCHES:
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # With the driver's path given, Selenium looks for none on the network.
    with webdriver.Chrome(options=options, service=Service(str(DRIVER))) as driver:
        yield driver


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    """``show(run, …)`` opens the report of runs; nothing may be complained about until the end."""

    def opened(*runs: Path, width: int = 1280, scheme: str = "light") -> Browser:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        page = tmp_path / "page.html"
        page.write_bytes(render(runs)[0])
        browser.get(page.as_uri())
        if browser.find_elements(By.CLASS_NAME, "plot"):
            WebDriverWait(browser, PATIENCE).until(drawn)
        return browser

    yield opened
    assert browser.get_log("browser") == []
    fetched = browser.execute_script(
        "return performance.getEntriesByType('resource').map(entry => entry.name)"
    )
    assert [name for name in fetched if not name.startswith(("file:", "data:"))] == []


def drawn(browser: Browser) -> float | None:
    """Milliseconds from navigation until the curves stood, or None."""
    found: float | None = browser.execute_script(
        "return performance.getEntriesByName('charts-drawn')[0]?.startTime"
    )
    return found


def shown_steps(browser: Browser) -> list[str]:
    """Return the step of each picture that can be seen."""
    images = browser.find_elements(By.CSS_SELECTOR, ".reconstruction img")
    return [str(image.get_dom_attribute("data-step")) for image in images if image.is_displayed()]


def values(browser: Browser, chart: int = 0) -> list[str]:
    """Return what stands beside the lines of a chart."""
    found = browser.find_elements(By.CSS_SELECTOR, f'[data-chart="{chart}"] .value')
    return [each.text for each in found]


def sideways(browser: Browser) -> int:
    """Pixels by which the page is wider than its window."""
    root = "document.documentElement"
    return int(browser.execute_script(f"return {root}.scrollWidth - {root}.clientWidth"))


def test_the_slider_changes_the_picture_by_keyboard_and_mouse(show: Open, tmp_path: Path) -> None:
    browser = show(make_run(tmp_path / "run"))
    slider = browser.find_element(By.ID, "slider")
    assert shown_steps(browser) == ["40"]
    slider.send_keys(Keys.ARROW_LEFT)
    assert shown_steps(browser) == ["30"]
    assert slider.get_dom_attribute("aria-valuetext") == "step 30"
    slider.send_keys(Keys.HOME)
    assert shown_steps(browser) == ["0"]
    middle_right = int(slider.size["width"] * 0.25)
    ActionChains(browser).move_to_element_with_offset(slider, middle_right, 0).click().perform()
    assert shown_steps(browser) == ["30"]
    assert browser.find_element(By.ID, "picture-step").text == "30"
    loaded = "return [...document.images].every(image => image.complete && image.naturalWidth)"
    assert browser.execute_script(loaded)


def test_the_pictures_play_and_stop(show: Open, tmp_path: Path) -> None:
    browser = show(make_run(tmp_path / "run"))
    button = browser.find_element(By.ID, "play")
    button.send_keys(Keys.ENTER)
    WebDriverWait(browser, PATIENCE).until(lambda _: shown_steps(browser) == ["20"])
    assert button.text == "Stop"
    button.click()
    assert button.text == "Play"


def test_runs_side_by_side_share_the_slider(show: Open, tmp_path: Path) -> None:
    one, two = make_run(tmp_path / "one"), make_run(tmp_path / "two", every=40)
    browser = show(one, two)
    assert len(browser.find_elements(By.CSS_SELECTOR, '[data-chart="0"] .legend li')) == 4
    browser.find_element(By.ID, "slider").send_keys(Keys.ARROW_LEFT)
    assert shown_steps(browser) == ["30", "0"]  # each its newest picture until there


def test_a_chart_tells_values_to_pointer_and_keyboard(show: Open, tmp_path: Path) -> None:
    browser = show(make_run(tmp_path / "run"))
    plot = browser.find_element(By.CSS_SELECTOR, '[data-chart="0"] .plot')
    last = values(browser)
    assert last == ["0.425", "0.02244"]
    plot.send_keys(Keys.HOME, Keys.ARROW_RIGHT)
    assert values(browser) == ["0.9", "0.12 at 0"]
    spoken = browser.find_element(By.CSS_SELECTOR, '[data-chart="0"] .spoken')
    assert spoken.get_property("textContent") == "step 2: training 0.9, held out 0.12 at 0"
    plot.send_keys(Keys.ESCAPE)
    assert values(browser) == last
    ActionChains(browser).move_to_element_with_offset(plot, -200, 0).perform()
    assert values(browser) != last
    assert "at" not in values(browser, chart=2)[0]  # the other charts follow
    ActionChains(browser).move_to_element(browser.find_element(By.TAG_NAME, "h1")).perform()
    assert values(browser) == last


def test_log_scale_and_smoothing_redraw(show: Open, tmp_path: Path) -> None:
    browser = show(make_run(tmp_path / "run"))

    def line() -> str:
        found = browser.find_elements(By.CSS_SELECTOR, '[data-chart="0"] path.line')
        return str(found[-1].get_dom_attribute("d"))

    seen = {line()}
    browser.find_element(By.CSS_SELECTOR, '[data-chart="0"] .log').send_keys(Keys.SPACE)
    seen.add(line())
    browser.find_element(By.ID, "smooth").send_keys(Keys.SPACE)
    seen.add(line())
    assert len(seen) == 3
    assert len(browser.find_elements(By.CSS_SELECTOR, '[data-chart="0"] path.faint')) == 1
    rates = browser.find_elements(By.CSS_SELECTOR, ".chart .log")
    for each in rates:
        each.click()  # also where values are zero


def test_each_chart_has_its_data_as_a_table(show: Open, tmp_path: Path) -> None:
    browser = show(make_run(tmp_path / "run"))
    for chart in browser.find_elements(By.CLASS_NAME, "chart"):
        chart.find_element(By.TAG_NAME, "summary").send_keys(Keys.ENTER)
        rows = chart.find_elements(By.CSS_SELECTOR, "tbody tr")
        assert rows[-1].is_displayed()
        assert rows[-1].find_element(By.TAG_NAME, "th").text == "40"


def test_every_control_has_a_name(show: Open, tmp_path: Path) -> None:
    browser = show(make_run(tmp_path / "one"), make_run(tmp_path / "two"))
    browser.execute_script(OPEN_ALL)
    controls = browser.find_elements(
        By.CSS_SELECTOR, "input, button, summary, a[href], [role=region], [role=img]"
    )
    assert len(controls) > 20
    assert [
        each.get_attribute("outerHTML")[:80] for each in controls if not each.accessible_name
    ] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(show: Open, tmp_path: Path, scheme: str) -> None:
    browser = show(make_run(tmp_path / "run"), scheme=scheme)
    style = "return getComputedStyle(document.body)"
    paper, ink = (
        browser.execute_script(f"{style}.{name}") for name in ("backgroundColor", "color")
    )
    brightness = [sum(map(int, color[4:-1].split(", "))) for color in (paper, ink)]
    assert max(brightness) > 600
    assert min(brightness) < 150
    assert (brightness[0] > brightness[1]) == (scheme == "light")


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_no_page_scrolls_sideways(show: Open, tmp_path: Path, width: int) -> None:
    runs = [make_run(tmp_path / "one"), make_run(tmp_path / "with_a_rather_long_name" / "two")]
    for step in (0, 40):
        write_picture(runs[0], step, size=(1400, 300))
    long = {"file": "/data/" + "long" * 60 + ".png", "reason": "r", "set": "data.train", "step": 1}
    (runs[0] / "bad_files.jsonl").write_text(json.dumps(long))
    write_result(runs[1], exit=1, steps=40, error="x" * 300)
    for place, run in enumerate(runs):
        record = {"row": 0, "id": f"/{'long' * 60}{place}/0.png", "label": 0, "scores": [0.7, 0.3]}
        (run / "predictions.jsonl").write_text(json.dumps(record))
    for shown in (runs, runs[:1]):
        browser = show(*shown, width=width)
        browser.execute_script(OPEN_ALL)
        assert sideways(browser) == 0


def broken_runs(tmp_path: Path) -> dict[str, Path]:
    """Write runs of which something is missing or lost."""
    runs = {name: make_run(tmp_path / name) for name in ("killed", "crashed", "lost", "bare")}
    (runs["killed"] / "result.json").unlink()
    with (runs["killed"] / "metrics.jsonl").open("a") as file:
        file.write('{"step": 41, "lo')
    write_result(runs["crashed"], exit=5, steps=40, error="out of memory")
    lost: dict[str, Any] = {"loss": None, "grad_norm": None}
    write_metrics(runs["lost"], [step_record(step, 9, **lost) for step in range(1, 10)])
    shutil.rmtree(runs["bare"] / "pictures")
    runs["empty"] = tmp_path / "empty"
    runs["empty"].mkdir()
    shutil.copy(runs["lost"] / "recipe.yaml", runs["empty"])
    return runs


def test_whatever_state_a_run_is_in_its_report_opens(show: Open, tmp_path: Path) -> None:
    runs = broken_runs(tmp_path)
    for name, run in runs.items():
        browser = show(run)
        assert browser.find_element(By.CLASS_NAME, "verdict").is_displayed(), name
    assert browser.find_elements(By.CLASS_NAME, "plot") == []
    browser = show(runs["lost"])
    assert "No finite value." in browser.find_element(By.CSS_SELECTOR, '[data-chart="0"]').text
    show(*runs.values())


@pytest.mark.slow
def test_ten_thousand_steps_are_small_and_quick(show: Open, tmp_path: Path) -> None:
    """Against a page of twenty steps, so that a slow machine is slow at both."""
    short, long = (make_run(tmp_path / name, steps=20, pictures=False) for name in ("s", "l"))
    records = [step_record(step, LONG) for step in range(1, LONG + 1)]
    records += [holdout_record(step, 0.02) for step in range(0, LONG + 1, 100)]
    write_metrics(long, sorted(records, key=lambda record: record["step"]))
    assert len(render([long])[0]) < 3_000_000

    def milliseconds(run: Path) -> float:
        times = []
        for _ in range(3):
            browser = show(run)
            plot = browser.find_element(By.CLASS_NAME, "plot")
            moved = browser.execute_script(
                """const before = performance.now();
                for (let count = 0; count < 10; count += 1) {
                  arguments[0].dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowLeft"}));
                }
                return performance.now() - before;""",
                plot,
            )
            times.append(float(drawn(browser) or 0) + moved)
        return min(times)

    assert milliseconds(long) < 5 * milliseconds(short)
