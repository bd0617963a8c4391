"""Exported pages are complete, escaped and folded, and request nothing from the network, also in a browser."""

import os
import re
import shutil
import subprocess
import sys

import nbformat
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from bs4 import BeautifulSoup
from conftest import open_browser
from nbformat import v4

from wmhlib.report import site
from wmhlib.report.pages import clean, export_page, markdown, plain, write_index
from wmhlib.report.pictures import png_uri
from wmhlib.running.files import ROOT
from wmhlib.study import open_study

HOSTILE = "<script>alert(1)</script>"
PAGES = [("index.html", "Overview"), ("04_train.html", "Train"), ("05_evaluate.html", f"Evaluate {HOSTILE}")]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="


def figure(title: str = "Dice a subject") -> go.Figure:
    return go.Figure([go.Scatter(x=[1, 2, 3], y=[0.4, 0.7, 0.6])], layout={"title": {"text": title}})


def shown(data: dict):
    return v4.new_output("display_data", data)


def notebook(path, with_figure: bool = True):
    """A small executed notebook with one output of every kind."""
    table = pd.DataFrame({"subject": ["a", HOSTILE], "dice": [0.5, 0.75], "text": ["one", "2"]})
    pictures = f"![a dot](data:image/png;base64,{PIXEL}) ![far](https://a.org/x.png)"
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "VBox()"}
    cells = [
        v4.new_markdown_cell("# 05 Evaluate\n\nA question.\n\n## Setting up"),
        v4.new_code_cell("study = 'demo'", metadata={"tags": ["parameters"]}),
        v4.new_code_cell("study = 'other'", metadata={"tags": ["injected-parameters"]}),
        v4.new_markdown_cell(f"## Results\n\n{pictures}"),
        v4.new_code_cell(
            "print('<b>')  # prints",
            outputs=[
                v4.new_output("stream", name="stdout", text=f"plain words {HOSTILE}\n 40%|██ | 2"),
                v4.new_output("stream", name="stdout", text="/5 [00:01<00:01, 8.1it/s]\n"),
                v4.new_output("stream", name="stderr", text="a warning nobody needs"),
                shown({"text/html": table.to_html(), "text/plain": "table"}),
                shown({"image/png": PIXEL, "text/plain": "picture"}),
                shown(widget),
            ],
        ),
        v4.new_markdown_cell("### Results\n\nA heading twice."),
    ]
    if with_figure:
        drawn = {"application/vnd.plotly.v1+json": figure(f"Dice {HOSTILE}").to_plotly_json()}
        cells.append(v4.new_code_cell("draw()", outputs=[shown(drawn), shown(drawn)]))
    nbformat.write(v4.new_notebook(cells=cells), path)
    return path


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    target = folder / "05_evaluate.html"
    export_page(notebook(folder / "05.ipynb"), target, f"Evaluate {HOSTILE}", PAGES, f"Random {HOSTILE}")
    return target


@pytest.fixture(scope="module")
def soup(page):
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def assert_asks_for_nothing(soup):
    """No resource is outside the page, and the content security policy allows none."""
    sources = [element["src"] for element in soup.select("[src]")]
    assert all(source.startswith("data:image/") for source in sources), sources
    assert not soup.select("link, iframe, object, embed, base")
    styles = " ".join(style.get_text() for style in soup("style"))
    assert "@import" not in styles and "url(" not in styles
    policy = soup.find("meta", attrs={"http-equiv": "Content-Security-Policy"})["content"]
    assert "default-src 'none'" in policy and "http" not in policy


def test_page_is_whole_and_asks_for_nothing(page, soup):
    assert_asks_for_nothing(soup)
    text = page.read_text(encoding="utf-8")
    assert len(re.findall(r"plotly\.js v\d", text)) == 1
    assert not re.search("requirejs|require.min.js|mathjax.js|mermaid.min", text, re.IGNORECASE)
    assert page.stat().st_size < 6e6
    assert len(soup.select("figure.plot")) == 2
    assert not list(page.parent.glob(".unfinished*"))


def test_strings_from_data_are_text(page, soup):
    assert HOSTILE not in page.read_text(encoding="utf-8")
    assert HOSTILE in soup.title.get_text() and HOSTILE in soup.select_one(".banner").get_text()
    assert HOSTILE in soup.select_one(".bar nav").get_text()
    assert HOSTILE in soup.select_one("table").get_text()
    assert soup.select_one("figure.plot")["aria-label"].startswith("Dice")


def test_code_is_folded(soup):
    folds = soup.select("details.code")
    labels = [fold.summary.get_text() for fold in folds]
    assert labels[0].startswith("Parameters and code") and labels[1].startswith("Code"), (
        "cells without output fold as one"
    )
    assert len(labels) == 3
    assert not any(fold.has_attr("open") for fold in folds)
    assert "print('<b>')  # prints" in folds[1].get_text()
    assert soup.select_one("button#code-switch").get_text() == "Show all code"


def test_outputs_hold_what_a_reader_needs(soup):
    main = soup.select_one("main").get_text()
    assert f"plain words {HOSTILE}" in main and "nobody needs" not in main and "it/s" not in main
    assert "open the notebook in JupyterLab" in main and "VBox" not in main
    assert [image["alt"] for image in soup("img")] == ["a dot", "Picture in section Results"]
    assert "far" in main  # a picture elsewhere becomes its words
    assert [cell.get_text() for cell in soup.select("td.number")] == ["0.50", "0.75"]
    assert soup.select_one("th.number").get_text() == "dice"
    assert soup.select_one("div.table > table")


def test_navigation_and_contents(soup):
    assert [link["href"] for link in soup.select(".bar a")] == [file for file, _ in PAGES]
    assert soup.select_one(".bar a[aria-current=page]")["href"] == "05_evaluate.html"
    assert [link["href"] for link in soup.select(".turn a")] == ["04_train.html"]
    links = soup.select(".contents a")
    assert [link.get_text() for link in links] == ["Setting up", "Results", "Results"]
    assert len({link["href"] for link in links}) == 3
    assert all(soup.find(id=link["href"][1:]) for link in links)
    assert [heading.get_text() for heading in soup("h1")] == ["05 Evaluate"]


@pytest.fixture(scope="module")
def folded(tmp_path_factory):
    """A page whose details are folded: a heading of level 3 with two cells, another, then an open heading of level 2."""
    target, fold = tmp_path_factory.mktemp("folded") / "05_evaluate.html", {"tags": ["details"]}
    links = "[4](04_train.ipynb), [5](05_evaluate.ipynb), [7](07_segment_scan.ipynb), [far](https://a.org/05_evaluate.ipynb)"
    cells = [
        v4.new_markdown_cell(f"# 5 Evaluate\n\n{links}\n\n## Details"),
        v4.new_markdown_cell("### First\n\nIts text.", metadata=fold),
        v4.new_code_cell("1", outputs=[shown({"text/plain": "an output"})]),
        v4.new_markdown_cell("More of it."),
        v4.new_markdown_cell("### Second", metadata=fold),
        v4.new_markdown_cell("## Learnt\n\nThe end."),
    ]
    nbformat.write(v4.new_notebook(cells=cells), target.with_suffix(".ipynb"))
    pages = [("04_train-dice-seed-1.html", "Train"), ("04_train-dice-seed-2.html", "Train"), ("05_evaluate.html", "5")]
    export_page(target.with_suffix(".ipynb"), target, "Evaluate", pages)
    return BeautifulSoup(target.read_text(encoding="utf-8"), "html.parser")


def test_a_cell_with_the_tag_details_folds_its_section(folded):
    first, second = folded.select("details.section")
    assert [part.summary.h3.get_text() for part in (first, second)] == ["First", "Second"]
    assert all(text in first.get_text() for text in ("Its text.", "an output", "More of it."))
    assert not first.has_attr("open") and len(folded("h3")) == 2, "a heading is the summary, not repeated"
    assert not folded.find("h2", string="Learnt").find_parent("details") and "The end." not in second.get_text()
    assert [link.get_text() for link in folded.select(".contents a")] == ["Details", "First", "Second", "Learnt"]


def test_links_between_notebooks_lead_to_their_pages(folded):
    links = {link.get_text(): link["href"] for link in folded.select(".prose a")}
    assert links["4"] == "04_train-dice-seed-1.html" and links["5"] == "05_evaluate.html"
    assert "7" not in links and "7" in folded.main.get_text(), "a notebook without a page is named, not linked"
    assert links["far"] == "https://a.org/05_evaluate.ipynb"


def test_no_figure_no_plotly(tmp_path):
    export_page(notebook(tmp_path / "a.ipynb", with_figure=False), tmp_path / "a.html", "A", [])
    assert (tmp_path / "a.html").stat().st_size < 40_000


def test_a_failed_export_leaves_the_old_page(tmp_path):
    (tmp_path / "a.html").write_text("old")
    (tmp_path / "a.ipynb").write_text("{ not json")
    with pytest.raises(nbformat.reader.NotJSONError):
        export_page(tmp_path / "a.ipynb", tmp_path / "a.html", "A", [])
    assert (tmp_path / "a.html").read_text() == "old"


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ('<b onclick="x()">bold</b>', "<b>bold</b>"),
        ('<a href="javascript:x()">a</a>', "<a>a</a>"),
        ('<a href="data:text/html,x">a</a>', "<a>a</a>"),
        ('<img src="http://a.org/x.png" alt="words">', "words"),
        ("<style>@import 'x'</style><script>x()</script>text", "text"),
        ('<iframe src="http://a.org"></iframe>', ""),
    ],
)
def test_clean(html, expected):
    assert clean(html) == expected


def test_index_names_stand_beside_column_names():
    table = pd.DataFrame({"dice": [0.5, 0.6]}, index=pd.Index(["dice", "siamese"], name="loss"))
    header = BeautifulSoup(clean(table.to_html()), "html.parser").select("thead tr")
    assert [[cell.get_text() for cell in row("th")] for row in header] == [["loss", "dice"]]


@pytest.mark.parametrize("bar", ["9it [00:01, 8it/s]", "a: 100%|██| 3/3 [00:01<00:00]", "3/3 ━━━━ 1s"])
def test_progress_bars_are_dropped(bar):
    assert plain(bar) is None
    assert plain(f"before\n{bar}\r{bar}\nafter 100%")["html"] == "before\nafter 100%"


def test_formulas_become_mathml_and_what_is_in_them_no_markup():
    html = markdown(r"If $y<x$, $$\sum_l x_l$$ and $\text{<script>alert(1)</script>}$; <b>bold</b>.")
    soup = BeautifulSoup(html, "html.parser")
    assert [formula["display"] for formula in soup("math")] == ["inline", "block", "inline"]
    assert not soup("script") and not soup("b") and "$" not in soup.get_text() and "∑" in soup.get_text()


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    target = tmp_path_factory.mktemp("index") / "index.html"
    table = pd.DataFrame({"loss": ["dice", HOSTILE], "Dice": ["0.61 ± 0.10", "0.70 ± 0.09"]})
    write_index(
        target,
        title=f"A study {HOSTILE}",
        question=f"Does it {HOSTILE}?",
        findings=["It holds.", f"It does not {HOSTILE}."],
        tables={f"Part {HOSTILE}": table.to_html(index=False, escape=True)},
        figures=[figure(), figure("Found")],
        cards=[("Evaluate", [("05_evaluate.html", "Evaluate")], f"What it shows {HOSTILE}")],
        provenance={"seeds": [0, 1], "versions": {"keras": "3.15", "odd": HOSTILE}, "device": None},
        banner=None,
        caption=f"Mean ± SD {HOSTILE}",
        about=f"Scans of {HOSTILE}",
        scans=f"scans {HOSTILE}",
        headline=f"Use {HOSTILE}.",
        answers={f"Sure {HOSTILE}?": f"No {HOSTILE}"},
        looks={
            "pictures": [(HOSTILE, png_uri(np.zeros((4, 4), np.uint8)))],
            "caption": f"Scan {HOSTILE}",
            "key": [(HOSTILE, "#000000")],
        },
        board={
            "rates": "1 and 2",
            "significant": f"Marked {HOSTILE}",
            "note": f"Means {HOSTILE}",
            "measures": [f"{HOSTILE}: anything"],
            "columns": [("Threshold", "Dice", True)],
            "groups": [(f"Threshold {HOSTILE}", 1)],
            "scales": ["0.5 to 0.7"],
            "rows": [
                {
                    "label": HOSTILE,
                    "colour": "#0072b2",
                    "cells": [{"text": "0.6", "differs": "better", "at": 50, "low": 0, "high": 100}],
                },
                {
                    "label": "other",
                    "colour": "#56b4e9",
                    "cells": [{"text": "—", "differs": "", "at": None, "low": None, "high": None}],
                },
            ],
        },
        verdicts=[f"Overlap {HOSTILE}"],
        cannot_say=[f"Anything {HOSTILE}"],
    )
    return target


def test_index_reads_like_a_front_page(index):
    text = index.read_text(encoding="utf-8")
    soup = BeautifulSoup(text, "html.parser")
    assert_asks_for_nothing(soup)
    assert HOSTILE not in text
    assert soup.h1.get_text() == f"A study {HOSTILE}"
    lists = [[item.get_text() for item in one("li")] for one in soup.select(".findings")]
    assert lists == [[f"Overlap {HOSTILE}"], ["It holds.", f"It does not {HOSTILE}."], [f"Anything {HOSTILE}"]]
    assert soup.select(".findings")[1].find_parent("details"), "every finding is folded"
    assert (
        soup.select_one(".headline").get_text() == f"Use {HOSTILE}." and HOSTILE in soup.select_one(".about").get_text()
    )
    answers = soup.select_one(".answers")
    assert (answers.dt.get_text(), answers.dd.get_text()) == (f"Sure {HOSTILE}?", f"No {HOSTILE}")
    board = soup.select_one(".board")
    assert [cell.get_text().strip() for cell in board("td")] == ["0.6 better", "—", "0.5 to 0.7"] and len(
        board.select(".whisker")
    ) == 1
    assert soup.select_one(".looks img")["alt"] == HOSTILE
    assert len(soup.select("td.number")) == 2
    assert soup.select_one(".entries a")["href"] == "05_evaluate.html"
    names = [entry.get_text() for entry in soup.select("footer dt")]
    assert names == ["seeds", "versions", "keras", "odd", "device"]
    assert soup.select_one("footer dd").get_text() == "0, 1"
    assert not soup.select(".banner")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
@pytest.mark.parametrize("kind", ["page", "index"])
def test_figures_are_drawn_with_the_network_off(kind, request):
    with open_browser(offline=True) as (page, troubles):
        page.set_viewport_size({"width": 1200, "height": 4000})
        page.goto(request.getfixturevalue(kind).as_uri())
        plots = page.locator("figure.plot.drawn .js-plotly-plot")
        plots.nth(1).locator("svg.main-svg .scatterlayer .trace path").first.wait_for(state="attached", timeout=60_000)
        lines = [plot.locator("svg.main-svg .scatterlayer .trace path").count() for plot in plots.all()]
        assert len(lines) == 2 and all(lines) and not troubles, (lines, troubles)


@pytest.mark.slow
def test_a_report_is_written_without_a_training_backend():
    """Pages follow from tables: loading TensorFlow would take seconds and print its start-up lines."""
    code = "import sys, wmhlib.report.site; sys.exit('tensorflow' in sys.modules)"
    environment = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("seeds", [[1], [1, 2]])
def test_all_trainings_share_one_card(seeds):
    study = open_study(ROOT / "config" / "demo.yaml").changed(seeds=seeds, losses={"siamese_minmax": None})
    entries = {heading: links for heading, links, _ in site.cards(study)}
    assert list(entries)[3] == "Training" and len(entries) == 5, "no page of the min-max game"
    assert len(entries["Training"]) == len(study.trainings)
    assert entries["Training"][0] == ("04_train-dice-seed-1.html", "Dice" if len(seeds) == 1 else "Dice, seed 1")
    files = [file for links in entries.values() for file, _ in links]
    assert files == [f"{name}.html" for name, *_ in site.page_list(study)]
