"""The page in a real browser: opened from disk, without a network, by mouse and by keyboard.

Needs the package playwright and a Chromium: /usr/bin/chromium, or what LTROBUST_CHROMIUM names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from report_fixtures import EPS, METHODS, confused, leaderboard, metric_row, suite
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
    metrics, classes, confusion = confused(metrics, classes)
    classes["class_name"] = classes["class_name"].replace({"bird": EVIL})
    names = ["label_name", "pred_name"]
    confusion[names] = confusion[names].replace({"bird": EVIL})
    path = tmp_path_factory.mktemp("page") / "index.html"
    html = make_page(
        metrics,
        classes,
        one[2] | two[2],
        confusion=confusion,
        examples={metrics["run_id"].iloc[0]: examples()},
        title=f"A suite {EVIL}",
        downloads=["metrics.csv"],
    )
    path.write_text(html, "utf-8")
    return path


def examples() -> pd.DataFrame:
    """Attacked images of two classes, as a run stores them."""
    clean = np.full((3, 8, 8), 128, dtype=np.uint8)
    rows = [
        {"index": n, "label": n, "pred_clean": n, "pred_adv": 0, "attack": "autoattack"}
        | {"eps": EPS, "clean": clean, "adversarial": (clean / 255).astype(np.float32)}
        for n in range(2)
    ]
    return pd.DataFrame(rows)


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
        self.load()

    def load(self, hash: str = "") -> None:
        """Open the page anew."""
        self.page.goto("about:blank")
        self.page.goto(self.url + hash)

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"{message.type}: {message.text}")

    def _request(self, request: Any) -> None:
        local = request.url.partition("#")[0] in (self.url, "about:blank")
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
        card.locator(".plot").first.wait_for()
        return card

    def focus_ring(self) -> str:
        """How wide the outline of what has the focus is."""
        return self.page.evaluate("getComputedStyle(document.activeElement).outlineWidth")


@pytest.fixture(scope="module")
def usual(browser: Any, file: Path) -> Iterator[Watched]:
    watched = Watched(browser, file)
    yield watched
    watched.context.close()


@pytest.fixture
def opened(browser: Any, file: Path, usual: Watched) -> Iterator[Any]:
    """Opens the page, in a context of its own for the given settings; nothing may go wrong."""
    watched: list[Watched] = []

    def open_page(**settings: Any) -> Watched:
        watched.append(Watched(browser, file, **settings) if settings else usual)
        if not settings:
            usual.load()
        return watched[-1]

    yield open_page
    for each in watched:
        if each is not usual:
            each.context.close()
        problems, each.problems = each.problems, []
        assert problems == []


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
    card.locator(".point").first.hover(force=True)
    label = card.locator(".tip")
    label.wait_for()
    assert "test images" in label.text_content()
    assert "95% interval" in label.text_content()
    assert card.locator(".trace").count() == len(LABELS)
    for name in ("classes", "attacks", "training", "cost"):
        assert page.chart(name).locator(".trace").count() >= len(LABELS)


def test_views_and_methods_of_a_chart_can_be_chosen(opened):
    page = opened()
    card = page.chart("balance")
    first = card.locator(".ytitle").text_content()
    card.get_by_text("Tail classes").click()
    shown = card.locator(".chart:not([hidden])")
    playwright.expect(shown.locator(".ytitle")).to_contain_text("tail")
    assert "tail" not in first
    page.page.locator(".legend input").first.uncheck()
    assert shown.locator(".trace").count() == len(LABELS) - 1
    page.page.get_by_role("button", name="All").first.click()
    assert shown.locator(".trace").count() == len(LABELS)


def test_a_method_opens_closes_and_can_be_linked(opened):
    page = opened()
    button = page.page.get_by_role("button", name="at-bsl").first
    button.focus()
    page.page.keyboard.press("Enter")
    dialog = page.page.get_by_role("dialog")
    assert dialog.locator("h2").inner_text().endswith("AT-BSL")
    for text in ("Yue et al. 2024", "23f433e", "Split SHA-256", "@inproceedings{yue2024revisiting"):
        assert text in dialog.inner_text()
    dialog.locator(".chart .plot").first.wait_for()
    assert page.page.evaluate("location.hash") == "#method-at-bsl"
    page.page.keyboard.press("Escape")
    assert page.page.locator("dialog[open]").count() == 0
    assert page.page.evaluate("document.activeElement.dataset.open") == "method-at-bsl"
    page.load("#method-taet")
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
    assert EVIL in page.page.locator("h1").inner_text()
    assert EVIL in page.page.locator(".board").first.inner_text()
    assert "…" in page.chart("classes").locator(".xtick").nth(2).text_content()
    page.chart("balance").locator(".point").first.hover(force=True)
    assert page.page.locator("img:not([src^='data:image/webp'])").count() == 0


def test_the_detail_shows_confusions_and_attacked_images(opened):
    page = opened()
    page.page.get_by_role("button", name="pgd-at").first.click()
    dialog = page.page.get_by_role("dialog")
    assert dialog.locator(".cell").count() == 100
    dialog.locator(".cell").nth(10).hover(force=True)
    assert "airplane" in dialog.locator(".tip:not([hidden])").text_content()
    image = dialog.get_by_role("img", name="Clean image")
    assert image.evaluate("(e) => [e.naturalWidth, e.naturalHeight]") == [16, 24]
    assert "✗ airplane" in dialog.locator(".images").inner_text()


def test_the_address_holds_filters_order_and_the_two_methods(opened):
    page = opened()
    page.page.get_by_label("Method", exact=True).fill("ta")
    page.page.locator(".board").first.get_by_role("button", name="Clean: Balanced").click()
    page.page.get_by_label("Second method").first.select_option(label="TAET")
    state = page.page.evaluate("location.hash")
    assert page.column(1) == ["taet"]
    page.load(state)
    assert page.column(1) == ["taet"]
    assert page.page.locator("th[aria-sort=descending]").first.inner_text().startswith("Balanced")
    assert page.page.get_by_label("Second method").first.input_value().startswith("s0-m")
    assert "TAET, Clean" in page.page.locator(".classes").first.inner_text()
    assert page.page.evaluate("location.hash") == state
    page.page.get_by_role("button", name="Clear").click()
    playwright.expect(page.page.locator("#status")).to_have_text(re.compile("^8 of"))
    assert "text=" not in page.page.evaluate("location.hash")


def test_two_methods_stand_side_by_side_by_class(opened):
    page = opened()
    box = page.page.locator(".pair").first
    box.get_by_label("First method").select_option(label="AT-BSL")
    box.get_by_label("Second method").select_option(label="TRADES")
    rows = box.locator("tbody tr")
    assert rows.count() == 10
    name, images, *scores = rows.nth(0).locator("th, td").all_inner_texts()
    assert (name, images) == ("airplane", "5,000")
    first, second, difference = (float(text.replace("−", "-")) for text in scores[:3])
    assert difference == pytest.approx(second - first, abs=0.011)
    assert box.locator("h4").all_inner_texts() == ["AT-BSL", "TRADES"]


def test_long_tables_come_in_pages(browser, tmp_path):
    names = tuple(f"method-{place:03}" for place in range(230))
    file = tmp_path / "index.html"
    metrics = pd.DataFrame([metric_row(name, method=name) for name in names])
    file.write_text(make_page(metrics, title="long"), "utf-8")
    page = Watched(browser, file)
    rows, more = page.page.locator(".board tbody tr:visible"), page.page.locator(".more")
    assert rows.count() == 200
    assert "200 of 230 rows" in more.inner_text()
    more.get_by_role("button").click()
    assert rows.count() == 230
    assert more.is_hidden()
    page.load()
    page.page.get_by_label("Method", exact=True).fill("method-22")
    assert rows.count() == 10  # the filter sees rows of all pages
    page.page.emulate_media(media="print")
    page.page.get_by_role("button", name="Clear", include_hidden=True).evaluate("(e) => e.click()")
    playwright.expect(rows).to_have_count(230)
    page.context.close()
    assert page.problems == []


def test_print_shows_every_view_of_every_chart_and_whole_tables(opened):
    page = opened(viewport={"width": 718, "height": 1000}, color_scheme="dark")  # A4 with margins
    assert page.page.pdf().startswith(b"%PDF")
    assert page.page.locator("main .chart:not([data-drawn])").count() == 0
    page.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.page.emulate_media(media="print")
    charts = page.page.locator(".card .chart:visible")
    views = page.page.locator(".charts [data-chart] .chart")
    assert charts.count() == views.count() > 10
    assert page.page.locator("[data-chart] .chart:visible .plot").count() == views.count()
    narrow = views.evaluate_all(
        "(charts) => charts.filter((e) => e.querySelector('.plot').clientWidth < "
        "0.9 * e.closest('figure').clientWidth - 40).length"
    )
    assert narrow == 0
    assert page.page.locator(".legend label:visible").count() > 0
    assert page.page.locator(".legend input:visible").count() == 0
    assert page.page.locator("main details:not([open])").count() == 0
    assert "Tail classes" in page.page.evaluate(
        "[...document.querySelectorAll('[data-view]')].map((e) => "
        "getComputedStyle(e, '::before').content).join()"
    )
    cut = page.page.locator(".scroll:visible").evaluate_all(
        "(boxes) => boxes.filter((e) => e.scrollWidth > e.clientWidth + 1).length"
    )
    assert cut == 0
    ink = page.page.locator(".plot .xtitle").first.get_attribute("fill")
    assert ink == "#1b2130"  # dark on white, whatever the theme


def test_on_a_phone_the_method_stays_and_the_first_score_is_seen(opened):
    page = opened(viewport={"width": 320, "height": 640}, has_touch=True, is_mobile=True)
    table = page.page.locator(".scroll").first
    score = table.locator("tbody tr").first.locator(".score").first
    right = score.evaluate("(e) => e.getBoundingClientRect().right")
    assert right <= 320
    table.evaluate("(e) => { e.scrollLeft = 300; }")
    name = table.locator("tbody th").first
    assert name.evaluate("(e) => e.getBoundingClientRect().left") < 40


def test_a_chart_is_saved_as_a_file_of_its_own(opened):
    page = opened()
    with page.page.expect_download() as started:
        page.chart("balance").get_by_role("button", name="Save as SVG").click()
    assert started.value.suggested_filename == "s0-balance-0.svg"
    root = ElementTree.fromstring(Path(started.value.path()).read_text("utf-8"))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(root.findall(".//{*}path[@class='point']")) == len(LABELS)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_their_ground(opened, scheme):
    page = opened(color_scheme=scheme)
    faint = page.page.evaluate(CONTRAST)
    assert faint == []


def test_what_is_not_text_has_a_name_and_a_role(opened):
    page = opened()
    assert page.page.evaluate(NAMES) == []
    page.page.get_by_role("button", name="pgd-at").first.click()
    assert page.page.evaluate(NAMES) == []


CONTRAST = """() => {
  const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (text) => {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = text;
    pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data];
  };
  const light = (parts) => parts.slice(0, 3).map((part) => part / 255)
    .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, place) => sum + c * [0.2126, 0.7152, 0.0722][place], 0);
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = rgb(getComputedStyle(e).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255];
  };
  const told = new Set();
  document.querySelectorAll("main *, header *, footer *").forEach((e) => {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility() || e.closest("svg, .hidden, [aria-hidden]")) return;
    const [a, b] = [rgb(getComputedStyle(e).color), ground(e)].map(light).sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) told.add(`${e.className || e.tagName} ${ratio.toFixed(2)}`);
  });
  return [...told];
}"""
"""Texts whose contrast is below 4.5 to 1 (WCAG AA), by class."""
NAMES = """() => {
  const text = (e) => (e.getAttribute("aria-label") || e.textContent || "").trim();
  const byId = (e) => (e.getAttribute("aria-labelledby") || "").split(" ").filter(Boolean)
    .map((id) => document.getElementById(id)).filter(Boolean).map(text).join("");
  const named = (e) => text(e) || byId(e) || e.alt || [...(e.labels || [])].map(text).join("");
  const wanted = "a[href], button, input, select, img, dialog, section, nav, form, table, "
    + "[role]:not([role=status])";
  const unnamed = [...document.querySelectorAll(wanted)].filter((e) => !named(e));
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  const doubled = ids.filter((id, place) => ids.indexOf(id) !== place);
  const broken = [...document.querySelectorAll("[aria-labelledby]")].filter((e) => !byId(e));
  const heads = [...document.querySelectorAll("main th")].filter((e) => !e.scope);
  const headings = [...document.querySelectorAll("main :is(h1, h2, h3, h4)")];
  const levels = headings.map((e) => Number(e.tagName[1]));
  const jumps = levels.filter((level, place) => place && level > levels[place - 1] + 1);
  const boxes = [...document.querySelectorAll(".scroll")].filter((e) => e.tabIndex !== 0);
  return [...unnamed, ...doubled, ...broken, ...heads, ...jumps, ...boxes]
    .map((e) => e.outerHTML ? e.outerHTML.slice(0, 80) : String(e));
}"""
"""What has no name, names that lead nowhere, doubled ids, heads without scope, skipped levels."""


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
