"""The page in a real browser: opened from disk, without a network, by mouse and by keyboard.

Needs the package playwright and a Chromium: /usr/bin/chromium, or what LTROBUST_CHROMIUM names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from report_fixtures import METHODS, leaderboard, suite
from report_fixtures import page as make_page

playwright = pytest.importorskip(
    "playwright.sync_api", reason="needs playwright: pip install 'ltrobust[dev]'"
)
CHROMIUM = Path(os.environ.get("LTROBUST_CHROMIUM", "/usr/bin/chromium"))
if not CHROMIUM.is_file():
    pytest.skip(
        f"needs a Chromium at {CHROMIUM}; install one or name it in LTROBUST_CHROMIUM",
        allow_module_level=True,
    )

playwright.expect.set_options(timeout=60_000)

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
EVIL = "<img src=x onerror=alert(1)>"
LABELS = (*METHODS, EVIL)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of two settings, one of them with a method named like an attack on it."""
    one, two = suite(methods=LABELS), suite(methods=METHODS[:2], arch="wrn-34-10")
    metrics = pd.concat([one[0], two[0]])
    metrics["reliability"] = ["tiny-logits" if m == "robal-r" else "" for m in metrics["method"]]
    metrics["train_seconds"] = 100.0
    classes = pd.concat([one[1], two[1]])
    classes["class_name"] = classes["class_name"].replace({"bird": EVIL})
    path = tmp_path_factory.mktemp("page") / "index.html"
    html = make_page(
        metrics, classes, one[2] | two[2], title=f"A suite {EVIL}", downloads=["metrics.csv"]
    )
    path.write_text(html, "utf-8")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield chromium
        chromium.close()


class Watched:
    """A page in the browser that remembers what went wrong."""

    def __init__(self, browser: Any, file: Path, **settings: Any) -> None:
        self.problems: list[str] = []
        self.context = browser.new_context(offline=True, **settings)
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)  # machines may be busy
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.problems.append(f"error {error}"))
        self.page.on("dialog", lambda dialog: self.problems.append(f"dialog {dialog.message}"))
        self.page.on("request", self._request)
        self.page.on("requestfailed", lambda r: self.problems.append(f"failed {r.url[:80]}"))
        self.url = file.as_uri()
        self.page.goto(self.url)

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"{message.type}: {message.text}")

    def _request(self, request: Any) -> None:
        local = request.url.partition("#")[0] == self.url
        if not local and not request.url.startswith(("data:", "blob:")):
            self.problems.append(f"request {request.url}")

    def column(self, place: int, table: int = 0) -> list[str]:
        """Texts of one column of a leaderboard, as sorting sees them, top to bottom."""
        return (
            self.page.locator(".board")
            .nth(table)
            .locator("tbody tr")
            .evaluate_all(
                "(rows, place) => rows.filter((row) => !row.hidden)"
                ".map((row) => row.cells[place].dataset.sort)",
                place,
            )
        )

    def chart(self, name: str) -> Any:
        """The first setting's chart of that name, drawn."""
        card = self.page.locator(f'[data-chart="{name}"]').first
        card.scroll_into_view_if_needed()
        card.locator(".main-svg").first.wait_for()
        return card


@pytest.fixture
def opened(browser: Any, file: Path) -> Iterator[Any]:
    """Opens the page with the given browser settings; in the end nothing may have gone wrong."""
    watched: list[Watched] = []

    def open_page(**settings: Any) -> Watched:
        watched.append(Watched(browser, file, **settings))
        return watched[-1]

    yield open_page
    for each in watched:
        each.context.close()
        assert each.problems == []


def test_headings_sort_by_mouse(opened):
    page = opened()
    head = page.page.locator(".board").first.locator("thead tr").nth(1).locator("th").first
    before = page.column(4)
    assert head.get_attribute("aria-sort") is None
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    down = [float(text) for text in page.column(4)]
    assert down == sorted(down, reverse=True)
    assert [float(text) for text in before] != down
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert [float(text) for text in page.column(4)] == sorted(down)
    assert page.page.locator(".board").first.locator("th[aria-sort]").count() == 1
    assert "Sorted by" in page.page.locator("#status").inner_text()


def test_headings_sort_by_keyboard(opened):
    page = opened()
    head = page.page.locator(".board").first.locator("th.method").first
    head.locator("button").focus()
    page.page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert page.column(1) == sorted(page.column(1))
    page.page.keyboard.press("Space")
    assert head.get_attribute("aria-sort") == "descending"
    assert page.column(1) == sorted(page.column(1), reverse=True)
    page.page.keyboard.press("Tab")  # on to the next heading, not out of reach
    inside = page.page.evaluate("document.activeElement.closest('th') !== null")
    assert inside


def test_filters_hide_rows_and_settings(opened):
    page = opened()
    sections = page.page.locator("[data-section]")
    assert sections.count() == 2
    page.page.get_by_label("Method", exact=True).fill("TAET")
    assert page.column(1) == ["taet"]
    assert page.page.locator(".none").nth(1).is_visible()  # the second setting has no such row
    assert "1 of 8 rows" in page.page.locator("#status").inner_text()
    page.page.get_by_role("button", name="Clear").click()
    playwright.expect(page.page.locator("#status")).to_have_text(re.compile("^8 of"))
    page.page.get_by_label("Architecture").select_option("wrn-34-10")
    assert [sections.nth(place).is_visible() for place in (0, 1)] == [False, True]
    page.page.get_by_label("Setting").select_option(index=1)
    assert page.page.locator("#nothing").is_visible()


def test_charts_show_values_under_the_pointer(opened):
    page = opened()
    card = page.chart("balance")
    point = card.locator(".scatterlayer .point").first
    point.hover(force=True)
    label = card.locator(".hoverlayer .hovertext")
    label.wait_for()
    text = label.first.text_content()
    assert "test images" in text
    assert "95% interval" in text
    assert card.locator(".scatterlayer .trace").count() == len(LABELS)
    for name in ("classes", "attacks", "training", "cost"):
        traces = page.chart(name).locator(".scatterlayer .trace, .barlayer .trace")
        assert traces.count() >= len(LABELS)


def test_views_and_methods_of_a_chart_can_be_chosen(opened):
    page = opened()
    card = page.chart("balance")
    first = card.locator(".ytitle").text_content()
    card.get_by_text("Tail classes").click()
    playwright.expect(card.locator(".ytitle")).to_contain_text("tail")
    assert "tail" not in first
    page.page.locator(".legend input").first.uncheck()
    assert card.locator(".scatterlayer .trace").count() == len(LABELS) - 1
    page.page.get_by_role("button", name="All").first.click()
    assert card.locator(".scatterlayer .trace").count() == len(LABELS)


def test_a_method_opens_closes_and_can_be_linked(opened, file):
    page = opened()
    button = page.page.get_by_role("button", name="at-bsl").first
    button.focus()
    page.page.keyboard.press("Enter")
    dialog = page.page.get_by_role("dialog")
    assert dialog.locator("h2").inner_text().endswith("AT-BSL")
    for text in ("Yue et al. 2024", "23f433e", "Split SHA-256", "@inproceedings{yue2024revisiting"):
        assert text in dialog.inner_text()
    dialog.locator(".chart .main-svg").first.wait_for()
    assert page.page.evaluate("location.hash") == "#method-at-bsl"
    page.page.keyboard.press("Escape")
    assert page.page.locator("dialog[open]").count() == 0
    assert page.page.evaluate("document.activeElement.dataset.open") == "method-at-bsl"
    page.page.goto(f"{file.as_uri()}#method-taet")
    page.page.locator("dialog[open]#method-taet").wait_for()


def test_a_flagged_method_says_what_to_do(opened):
    page = opened()
    page.page.get_by_role("button", name="robal-r").first.click()
    assert "Judge the model by AutoAttack or CW." in page.page.get_by_role("dialog").inner_text()


def test_bibtex_is_copied(opened):
    page = opened(permissions=["clipboard-read", "clipboard-write"])
    page.page.get_by_role("button", name="taet").first.click()
    dialog = page.page.get_by_role("dialog")
    dialog.get_by_role("button", name="Copy BibTeX").click()
    # no wait_for_function: the page's policy forbids it to evaluate strings
    playwright.expect(dialog.locator(".bibtex .status")).to_have_text("Copied.")
    text = dialog.locator(".bibtex pre").text_content()
    assert page.page.evaluate("navigator.clipboard.readText()") == text


def test_bibtex_is_selected_where_nothing_can_copy(opened):
    page = opened()
    page.page.evaluate("""() => {
        Object.defineProperty(navigator, "clipboard", { value: undefined });
        document.execCommand = () => false;
    }""")
    page.page.get_by_role("button", name="taet").first.click()
    dialog = page.page.get_by_role("dialog")
    dialog.get_by_role("button", name="Copy BibTeX").click()
    assert "Selected: press Ctrl+C" in dialog.locator(".bibtex .status").inner_text()
    selected = page.page.evaluate("getSelection().toString()")
    assert selected.split() == dialog.locator(".bibtex pre").text_content().split()


def test_theme_follows_the_system_and_the_choice_is_remembered(opened):
    page = opened(color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.page.evaluate(ground)
    card = page.chart("balance")
    ink = "(e) => getComputedStyle(e).fill"
    dark_ink = card.locator(".xtitle").evaluate(ink)
    toggle = page.page.get_by_role("button", name="Dark theme")
    assert toggle.get_attribute("aria-pressed") == "true"
    toggle.click()
    assert toggle.get_attribute("aria-pressed") == "false"
    assert page.page.evaluate(ground) != dark
    page.chart("balance")
    assert card.locator(".xtitle").evaluate(ink) != dark_ink
    page.page.reload()
    assert page.page.evaluate("document.documentElement.dataset.theme") == "light"


def test_a_narrow_phone_never_scrolls_sideways(opened):
    page = opened(viewport={"width": 320, "height": 640}, has_touch=True, is_mobile=True)
    for name in ("balance", "classes", "attacks"):
        page.chart(name)
    width = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    scroll, client = page.page.evaluate(width)
    assert client == 320
    assert scroll == 320
    box = page.page.locator(".scroll").first
    inner, outer = box.evaluate("(e) => [e.scrollWidth, e.clientWidth]")
    assert inner > outer  # the table scrolls in its box
    page.page.get_by_role("button", name="at-bsl").first.tap()
    dialog = page.page.get_by_role("dialog")
    assert dialog.evaluate("(e) => e.querySelector('.body').scrollWidth <= e.clientWidth")
    assert page.page.evaluate(width) == [320, 320]


def test_keyboard_reaches_the_table_first_and_focus_is_seen(opened):
    page = opened()
    page.page.keyboard.press("Tab")
    assert page.page.evaluate("document.activeElement.className") == "skip"
    page.page.keyboard.press("Enter")
    assert page.page.evaluate("document.activeElement.id") == "main"
    page.page.keyboard.press("Tab")
    outline = page.page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    assert outline == "3px"
    unnamed = page.page.evaluate("""() => [...document.querySelectorAll("button, input, select")]
        .filter((e) => !(e.getAttribute("aria-label") || e.textContent.trim() ||
            (e.labels && [...e.labels].some((l) => l.textContent.trim())))).length""")
    assert unnamed == 0


def test_names_are_shown_as_they_are(opened):
    page = opened()
    assert page.page.locator("img").count() == 0
    assert EVIL in page.page.locator("h1").inner_text()
    assert EVIL in page.page.locator(".board").first.inner_text()
    assert EVIL in page.chart("classes").locator(".xtick").nth(2).text_content() or "…" in (
        page.chart("classes").locator(".xtick").nth(2).text_content()
    )
    page.chart("balance").locator(".scatterlayer .point").first.hover(force=True)
    assert page.page.locator("img").count() == 0


def test_the_embedded_csv_downloads(opened, file):
    page = opened()
    with page.page.expect_download() as started:
        page.page.get_by_role("link", name="leaderboard.csv").click()
    download = started.value
    assert download.suggested_filename == "leaderboard.csv"
    columns = list(leaderboard(suite()[0]).columns)
    assert Path(download.path()).read_text("utf-8").startswith(",".join(columns[:5]))


def test_without_javascript_the_leaderboard_can_be_read(browser, file):
    context = browser.new_context(offline=True, java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())
    assert page.locator(".board tbody tr").count() == len(LABELS) + 2
    assert "need JavaScript" in page.locator("noscript, .warning").first.inner_text()
    context.close()
