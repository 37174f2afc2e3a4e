"""The page without a browser: what it holds, what it escapes, and that it is the same each time."""

from __future__ import annotations

import base64
import io
import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from report_fixtures import METHODS, confused, leaderboard, metric_row, page, settings, suite

from ltrobust.errors import UserError
from ltrobust.evaluation.reliability import findings
from ltrobust.method import Citation
from ltrobust.report.cards import bibtex, method_card, web_address
from ltrobust.report.explain import CHECKS
from ltrobust.report.groups import comparable_groups
from ltrobust.report.names import MARKED, attack_title, method_title
from ltrobust.report.page import safe_json

TITLES = {method_title(name): name for name in METHODS}
EVIL = "<img src=x onerror=alert(1)>"
ENDING = "a</script><b>&amp;"
DOCS = Path(__file__).parents[2] / "docs" / "evaluation.md"


class Reader(HTMLParser):
    """Collects tags, texts of leaderboard rows, links, ids and embedded scripts."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.links: dict[str, dict[str, str | None]] = {}
        self.rows: list[list[str]] = []
        self.scripts: list[str] = []
        self.ids: list[str] = []
        self._open: list[str] = []
        self._row: list[str] | None = None
        self._link: dict[str, str | None] | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.tags.append(tag)
        self.attributes += attrs
        self._open.append(tag)
        if "id" in known:
            self.ids.append(str(known["id"]))
        if tag == "tr":
            self._row = [] if "data-row" in known else None
        if tag in ("td", "th") and self._row is not None:
            self._row.append("")
        if tag == "script":
            self.scripts.append("")
        if tag == "a":
            self._link = known

    def handle_endtag(self, tag: str) -> None:
        if tag == "tr" and self._row is not None:
            self.rows.append([" ".join(cell.split()) for cell in self._row])
            self._row = None
        if tag == "a":
            self._link = None
        self._open.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            self.scripts[-1] += data
        elif self._row:
            self._row[-1] += data
        if self._link is not None and data.strip():
            self.links[" ".join(data.split())] = self._link


def made(frames: tuple[Any, Any, Any], comparisons: Any = None, **values: Any) -> str:
    metrics, per_class, histories = frames
    settings = {"title": "a suite", "downloads": ["metrics.csv"]} | values
    return page(metrics, per_class, histories, comparisons, **settings)


def embedded(reader: Reader) -> dict[str, Any]:
    found = [text for text in reader.scripts if text.startswith('{"figures"')]
    assert len(found) == 1
    return json.loads(found[0])


@pytest.fixture(scope="module")
def html() -> str:
    return made(suite())


@pytest.fixture(scope="module")
def reader(html: str) -> Reader:
    return Reader(html)


def test_equal_frames_give_equal_text(html):
    assert made(suite()) == html


def test_nothing_is_fetched(html, reader):
    fetching = [
        value
        for name, value in reader.attributes
        if name in ("src", "srcset", "poster", "data", "action") and value
    ]
    assert fetching == []
    assert "link" in reader.tags  # the icon, which is a data: link
    hrefs = [value for name, value in reader.attributes if name == "href"]
    papers = [value for value in hrefs if value.startswith("http")]
    assert papers
    assert all("arxiv.org" in value for value in papers)
    css = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in css
    assert "@import" not in css


def test_only_the_pages_own_scripts_may_run(html, reader):
    (policy,) = [v for n, v in reader.attributes if n == "content" and "default-src" in str(v)]
    assert "default-src 'none'" in policy
    assert policy.count("'sha256-") == 3  # theme, charts, page
    assert "unsafe-inline' script" not in policy
    assert "script-src 'unsafe" not in policy
    assert not [name for name, _ in reader.attributes if name.startswith("on")]


def test_every_method_has_its_row_with_n_and_seeds():
    frames = suite(seeds=(0, 1, 4))
    reader = Reader(made(frames))
    assert {row[1].lstrip("●■▲◆▼✚✖") for row in reader.rows} == set(TITLES)
    (n,) = set(frames[0]["n"])
    assert all(row[2] == f"{n:,}" for row in reader.rows)
    assert all(row[3] == "3(0, 1, 4)" for row in reader.rows)


def test_ranks_and_order_are_the_leaderboards(reader):
    board = leaderboard(suite()[0])
    assert [row[0] for row in reader.rows] == [str(rank) for rank in board["rank"]]
    names = [row[1].lstrip("●■▲◆▼✚✖") for row in reader.rows]
    assert names == [method_title(name) for name in board["method"]]


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2, 3, 4)])
def test_every_number_of_the_leaderboard_stands_in_the_frames(seeds):
    frames = suite(seeds=seeds, attacks=("clean", "pgd20", "autoattack"))
    (setting,) = settings(*frames)
    allowed = set()
    for cell in setting.estimates.values():
        for value in (cell.value, cell.std, cell.low, cell.high):
            allowed.add(f"{100 * value:.2f}")
    html = made(frames)
    reader = Reader(html)
    shown = [number for row in reader.rows for number in re.findall(r"\d+\.\d\d", " ".join(row))]
    assert len(shown) >= 8 * len(METHODS)
    assert set(shown) <= allowed
    board = leaderboard(frames[0]).set_index("method")
    for row in reader.rows:
        mean = board.loc[TITLES[row[1].lstrip("●■▲◆▼✚✖")], "autoattack_balanced_accuracy_mean"]
        assert row[9].startswith(f"{100 * mean:.2f}")


def test_charts_draw_the_averages_of_the_frames(reader):
    (setting,) = settings(*suite())
    figures = embedded(reader)["figures"]
    points = {trace["name"]: trace for trace in figures["s0-balance-0"]["data"]}
    assert set(points) == set(TITLES)
    for name, trace in points.items():
        for axis, attack in (("x", "clean"), ("y", "autoattack")):
            cell = setting.estimate(TITLES[name], attack, "balanced_accuracy")
            assert trace[axis] == [round(100 * cell.value, 4)]
            reach = [round(100 * (cell.high - cell.value), 4)]
            assert trace[f"error_{axis}"]["array"] == pytest.approx(reach)
    bars = {trace["name"]: trace for trace in figures["s0-attacks-0"]["data"]}
    for name, trace in bars.items():
        expected = [
            round(100 * setting.estimate(TITLES[name], attack, "balanced_accuracy").value, 4)
            for attack in setting.attacks
            if attack != "clean"
        ]
        assert trace["y"] == expected


def test_charts_carry_no_look_of_their_own(reader):
    data = embedded(reader)
    used = set(re.findall(r'"colour": "(#[0-9A-Fa-f]{6})"', json.dumps(data["figures"])))
    assert used <= set(data["themes"]["dark"]["colours"])


def test_names_cannot_inject():
    metrics, per_class, histories = suite(methods=(EVIL, ENDING, "%{x} $a$", "b"))
    per_class["class_name"] = per_class["class_name"].replace({"bird": EVIL, "cat": ENDING})
    for frame in (metrics, per_class):
        frame["dataset"] = f"folder:{EVIL}"
    html = made((metrics, per_class, histories), title=EVIL + ENDING)
    assert EVIL not in html
    reader = Reader(html)
    assert "img" not in reader.tags
    assert "b" not in reader.tags
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    assert len(reader.scripts) == 4
    names = {row[1].lstrip("●■▲◆▼✚✖") for row in reader.rows}
    assert names == {EVIL, ENDING, "%{x} $a$", "b"}
    texts = json.dumps(embedded(reader)["figures"])
    assert EVIL in texts  # charts write it as text
    assert len(reader.ids) == len(set(reader.ids))


def test_embedded_json_cannot_end_its_element():
    value = {"a": "</script><!--<script>&"}
    text = safe_json(value)
    assert not set(text) & set("<>&")
    assert json.loads(text) == value


def test_downloads_are_relative_links_and_embedded():
    frames = suite()
    links = Reader(made(frames))
    assert links.links["metrics.csv"]["href"] == "metrics.csv"
    link = links.links["leaderboard.csv, embedded copy"]
    assert link["download"] == "leaderboard.csv"
    text = base64.b64decode(str(link["href"]).partition("base64,")[2]).decode()
    pd.testing.assert_frame_equal(
        pd.read_csv(io.StringIO(text)),
        pd.read_csv(io.StringIO(leaderboard(frames[0]).to_csv(index=False))),
    )


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_any_number_of_classes(classes):
    reader = Reader(made(suite(classes=classes, methods=("pgd-at", "b"))))
    figures = embedded(reader)["figures"]
    bars, *lines = figures["s0-classes-0"]["data"]
    assert len(bars["y"]) == classes
    assert [len(line["y"]) for line in lines] == [classes, classes]


@pytest.mark.parametrize("methods", [1, 20])
def test_any_number_of_methods(methods):
    names = tuple(f"method-{place:02}" for place in range(methods))
    reader = Reader(made(suite(methods=names, classes=2, epochs=3)))
    assert len(reader.rows) == methods
    assert reader.tags.count("dialog") == methods


@pytest.mark.parametrize("attacks", [("clean",), ("pgd20",), ("clean", "cw20"), ("autoattack",)])
def test_missing_attacks(attacks):
    reader = Reader(made(suite(attacks=attacks, methods=("pgd-at", "b"))))
    assert len(reader.rows) == 2
    assert ("s0-attacks-0" in embedded(reader)["figures"]) == (attacks != ("clean",))


def test_a_score_that_a_seed_lacks_is_a_gap():
    metrics, per_class, histories = suite(methods=("a", "b"), seeds=(0, 1))
    lost = (metrics["method"] == "a") & (metrics["seed"] == 1) & (metrics["attack"] == "pgd20")
    reader = Reader(made((metrics[~lost], per_class, histories)))
    (row,) = [row for row in reader.rows if row[1].endswith("a")]
    assert row[6:8] == ["–"] * 2
    assert "–" not in [*row[4:6], *row[8:12]]


def test_metrics_alone_are_enough():
    metrics = suite()[0]
    reader = Reader(page(metrics, title="t"))
    assert len(reader.rows) == len(METHODS)
    charts = {name.split("-")[1] for name in embedded(reader)["figures"]}
    assert charts == {"balance", "attacks"}


def test_no_rows_are_one_clear_error():
    with pytest.raises(UserError, match="nothing to report"):
        page(suite()[0].iloc[:0], title="t")


def test_what_may_not_be_compared_stands_apart():
    one, two = suite(methods=("a", "b")), suite(methods=("a", "b", "c"), arch="wrn-34-10")
    frames = (pd.concat([one[0], two[0]]), pd.concat([one[1], two[1]]), one[2] | two[2])
    html = made(frames)
    reader = Reader(html)
    assert [row[0] for row in reader.rows] == ["1", "2", "1", "2", "3"]
    sections = [v for n, v in reader.attributes if n == "data-arch"]
    assert sorted(sections) == ["resnet18", "wrn-34-10"]
    facets = [v for n, v in reader.attributes if n == "data-facet"]
    assert facets == ["arch"]  # the others have no choice
    slugs = [group.slug for group in comparable_groups(frames[0])]
    assert all(html.count(f">{slug}</option>") == 1 for slug in slugs)
    assert len(reader.ids) == len(set(reader.ids))


def test_within_noise_is_marked_and_explained():
    frames = suite(methods=("a", "b"))
    (group,) = comparable_groups(frames[0])
    best, other = leaderboard(frames[0])["method"]
    comparison = {"setting": group.slug, "attack": "autoattack", "eps": 8 / 255}
    comparison |= {"group": "balanced", "best": best, "other": other, "basis": "paired images"}
    near = pd.DataFrame([{**comparison, "verdict": "within noise"}])
    html = made(frames, near)
    rows = {row[1][1:]: row for row in Reader(html).rows}
    assert "~" in rows[other][9]
    assert "~" not in " ".join(rows[best])
    assert "within noise of the best (95%, paired over the same images)" in html
    far = pd.DataFrame([{**comparison, "verdict": "A better"}])
    assert not [cell for row in Reader(made(frames, far)).rows for cell in row if "~" in cell]


def test_flagged_checks_are_marked_and_explained():
    metrics, per_class, histories = suite(methods=("a", "b"))
    metrics["reliability"] = [
        "tiny-logits;new-check" if m == "a" else "" for m in metrics["method"]
    ]
    html = made((metrics, per_class, histories))
    names = {row[1][1:] for row in Reader(html).rows}
    assert names == {"a", "b"}
    signed = {row[1][1:]: sum("†" in cell for cell in row[2:]) for row in Reader(html).rows}
    assert signed["b"] == 0
    assert signed["a"] > 0
    assert CHECKS["tiny-logits"].remedy in html
    assert "does not know the check" in html
    bars = embedded(Reader(html))["figures"]["s0-attacks-0"]["data"]
    assert {trace["name"]: set(trace["text"]) for trace in bars} == {"a": {"†"}, "b": {""}}
    assert CHECKS["tiny-logits"].remedy not in made(suite(methods=("a", "b")))


def test_every_check_is_explained_and_has_its_heading_in_the_docs():
    assert list(CHECKS) == [finding.check for finding in findings(None, [])]
    headings = re.findall(r"^### (.+)$", DOCS.read_text("utf-8"), flags=re.MULTILINE)
    assert set(CHECKS) <= set(headings)


def test_provenance_of_every_row_is_told(html):
    metrics = suite()[0]
    for column in ("run_id", "split_sha256", "git_commit", "torch", "attack_library"):
        for value in metrics[column].unique():
            assert str(value) in html
    assert "norm Linf, seed 0" in html
    untold = metrics.assign(git_commit="", device="")
    assert "not recorded" in made((untold, *suite()[1:]))


@pytest.mark.parametrize(
    ("dataset", "told"),
    [
        ("svhn-lt", "NIPS workshop 2011. Licence: for non-commercial use only."),
        ("cifar10-lt", "Published checksum: labels of all images"),
        ("folder:photos@0123abcd", ""),
        ("somebodys", ""),
    ],
)
def test_terms_of_the_data_are_told_where_they_are_known(dataset, told):
    text = made(suite(methods=("pgd-at",), attacks=("clean",), dataset=dataset))
    assert told in text
    assert ("Licence:" in text) == bool(told)


def test_registered_methods_have_a_card_and_others_say_so():
    card = method_card("at-bsl")
    assert card is not None
    html = made(suite(methods=("at-bsl", "mine")))
    for text in (card.url, "@inproceedings{yue2024revisiting,", "AT-BSL @ 23f433e"):
        assert text in html
    assert html.count("No recipe or citation") == 1
    assert method_card("mine") is None


def test_a_foreign_file_named_like_a_method_has_no_card():
    assert "yue2024" not in made(suite(methods=("at-bsl",), recipe="external"))


def test_cost_is_drawn_where_it_was_measured():
    metrics, per_class, histories = suite(methods=("a", "b"))
    assert "s0-cost-0" not in embedded(Reader(made((metrics, per_class, histories))))["figures"]
    metrics["train_seconds"] = 90.0
    metrics.loc[metrics["method"] == "b", "train_seconds"] = float("nan")
    figures = embedded(Reader(made((metrics, per_class, histories))))["figures"]
    (trace,) = figures["s0-cost-0"]["data"]
    assert (trace["name"], trace["x"]) == ("a", [90])


def test_a_run_tells_wall_and_processor_time_of_its_training():
    metrics, per_class, histories = suite(methods=("a",))
    metrics["train_seconds"], metrics["train_cpu_seconds"] = 90.0, 75.0
    text = made((metrics, per_class, histories))
    assert "<dt>Training time</dt><dd>1 min 30 s</dd>" in text
    assert "<dt>CPU time of the training</dt><dd>1 min 15 s</dd>" in text


def test_several_eps_and_attacks_have_readable_titles():
    assert [attack_title(name) for name in ("clean", "pgd20", "cw20", "autoattack", "fgsm")] == [
        "Clean",
        "PGD-20",
        "CW-20",
        "AutoAttack",
        "FGSM",
    ]
    assert attack_title("pgd20@16/255") == "pgd20@16/255"
    assert attack_title("20") == "20"


def test_one_row_frame():
    reader = Reader(made((pd.DataFrame([metric_row()]), pd.DataFrame(), {})))
    assert len(reader.rows) == 1


def test_bibtex_of_a_conference_paper():
    entry = bibtex(
        Citation("X. Yue, N. Mou", "Revisiting Adversarial Training", "CVPR", 2024, "https://a/b")
    )
    assert entry == (
        "@inproceedings{yue2024revisiting,\n"
        "  title = {{Revisiting Adversarial Training}},\n"
        "  author = {X. Yue and N. Mou},\n"
        "  booktitle = {CVPR},\n"
        "  year = {2024},\n"
        "  url = {https://a/b},\n"
        "}"
    )


@pytest.mark.parametrize(
    ("venue", "start", "field"),
    [
        ("arXiv", "@misc{", "howpublished = {arXiv}"),
        ("IEEE Transactions on X", "@article{", "journal = {IEEE Transactions on X}"),
        ("NeurIPS", "@inproceedings{", "booktitle = {NeurIPS}"),
    ],
)
def test_bibtex_kind_follows_the_venue(venue, start, field):
    entry = bibtex(Citation("A. B", "T", venue, 2020))
    assert entry.startswith(start)
    assert field in entry
    assert "url" not in entry


def test_bibtex_of_odd_fields_stays_one_entry():
    odd = Citation("É. Müller-Łoś et al.", "}, 50% of $x_1$ & {more", "A, B}", 2021, "http://x/}{y")
    entry = bibtex(odd)
    assert re.match(r"@inproceedings\{[a-z0-9]+,\n", entry)
    assert "author = {É. Müller-Łoś and others}" in entry
    assert r"title = {{\textbraceright{}, 50\% of \$x\_1\$ \& \textbraceleft{}more}}" in entry
    depths = list(itertools.accumulate({"{": 1, "}": -1}.get(sign, 0) for sign in entry))
    assert min(depths[:-1]) >= 0  # BibTeX counts braces behind a backslash too
    assert [place for place, depth in enumerate(depths) if depth == 0][-1] == len(entry) - 1
    assert 0 not in depths[entry.index("{") : -1]
    assert bibtex(Citation("", "", "", 2020)).startswith("@inproceedings{unknown2020,")


def test_only_web_addresses_become_links():
    assert web_address("https://arxiv.org/abs/1") == "https://arxiv.org/abs/1"
    for text in ("javascript:alert(1)", "data:text/html,x", " https://a b", "file:///etc"):
        assert web_address(text) == ""


def test_the_page_is_small(html):
    assert len(html) < 400_000
    metrics, classes, histories = suite(MARKED, attacks=("clean", "autoattack"), epochs=100)
    metrics, classes, confusion = confused(metrics, classes)
    assert len(made((metrics, classes, histories), confusion=confusion)) < 1_000_000


def test_notes_are_written_in_the_fields_names(html):
    assert "CIFAR-10-LT, imbalance ratio 50" in html
    assert "Ranked by balanced accuracy under AutoAttack" in html
