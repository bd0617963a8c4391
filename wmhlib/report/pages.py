"""Executed notebooks and a study's results as HTML pages that need only a browser.

Input: an executed notebook, or the tables, figures and findings of a study. Output: one file per page that includes its
styles, pictures and plotly.js. A page requests nothing from the network; the browser enforces this, because the page's
content security policy allows no address. Text from data is escaped or cleaned, so a subject's name cannot become
markup. The layout is in `templates/`.
"""

import base64
import json
import re
from collections.abc import Sequence
from pathlib import Path

import bleach
import jinja2
import latex2mathml.converter
import nbformat
import plotly.graph_objects as go
from bs4 import BeautifulSoup
from markupsafe import Markup
from nbconvert.filters import ansi2html
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from plotly.offline import get_plotlyjs
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from wmhlib.report.viewers import MIME
from wmhlib.running.files import PathLike, replacing

PLOTLY = "application/vnd.plotly.v1+json"
PICTURES = ("image/png", "image/jpeg", "image/svg+xml")
WIDGET = "application/vnd.jupyter.widget-view+json"
PROGRESS_BAR = re.compile(r"\d%\||\d\w+ \[\d+:\d\d|━━")
NOTEBOOK = re.compile(r"^\d\w*\.ipynb$")
NUMBER = re.compile(r"[-+−]?\d[\d.,]*([eE][-+]?\d+)?\s*%?(\s*[±(\[].*)?|nan|NaN|<NA>|—|–|-?inf|")
LABELS = {"parameters": "Parameters", "injected-parameters": "Parameters of this run"}
"""What a folded code cell is called, by its tag."""

JOINED = "Parameters and code"
"""What cells that fold as one are called if their names differ."""

DETAILS = "details"
"""The tag of a markdown cell whose section is folded on the page: down to the next heading of its level or a higher one."""

KEPT_TAGS = set(
    "a b blockquote br caption code col colgroup dd del div dl dt em figcaption figure h1 h2 h3 h4 h5 h6 "
    "hr i img kbd li ol p pre s small span strong sub sup table tbody td tfoot th thead tr ul".split()
)
MATH_TAGS = set(
    "math mrow mi mo mn ms mtext mspace msub msup msubsup mfrac msqrt mroot munder mover munderover mstyle mpadded "
    "mtable mtr mtd mphantom".split()
)
KEPT_ATTRIBUTES = {"alt", "class", "colspan", "rowspan", "scope", "start", "title"}

templates = jinja2.Environment(
    loader=jinja2.PackageLoader("wmhlib.report", "templates"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)


def export_page(
    notebook: PathLike,
    page: PathLike,
    title: str,
    pages: list[tuple[str, str]],
    banner: str | None = None,
    about: str = "",
) -> None:
    """Write an executed notebook as one self-contained HTML file.

    Parameters
    ----------
    notebook, page
        The .ipynb to read, and the .html to write. If the export fails, an earlier page is kept.
    title
        Title of the browser tab, and the heading if the notebook has none.
    pages
        (file name, title) of every page of the study in reading order, for the navigation.
    banner
        A warning at the top, for example that random features were used.
    about
        The scans and trainings behind the page, shown above the text.

    A link to a notebook, `05_evaluate.ipynb`, leads to its page. If the study has no such page, its words have no link.
    """
    source, _ = CoalesceStreamsPreprocessor().preprocess(nbformat.read(notebook, as_version=4), {})
    headings: list[tuple[int, str, str]] = []
    cells = []
    for cell in source.cells:
        if cell.cell_type == "markdown":
            text = markdown(cell.source, Path(notebook).parent, cell.get("attachments"))
            known = len(headings)
            html = with_headings(between_pages(text, pages), headings)
            level = headings[known][0] if len(headings) > known else None
            folds = level is not None and DETAILS in cell.metadata.get("tags", [])
            cells.append({"kind": "prose", "html": html, "level": level, "folds": folds})
        elif cell.cell_type == "code" and cell.source.strip():
            label = next((LABELS[tag] for tag in cell.metadata.get("tags", []) if tag in LABELS), "Code")
            code = Markup(highlight(cell.source, PythonLexer(), HtmlFormatter(nowrap=True)))
            section = headings[-1][2] if headings else title
            outputs = [rendered for output in cell.outputs if (rendered := render(output, section))]
            lines = cell.source.strip().count("\n") + 1
            cells.append({"kind": "code", "label": label, "code": code, "lines": lines, "outputs": outputs})
    kinds = {output["kind"] for cell in cells for output in cell.get("outputs", ())}
    content = {"title": title, "pages": pages, "banner": banner, "about": about, "headings": headings}
    content |= {"sections": sections(joined(cells))}
    write("page.html.j2", page, "figure" in kinds, viewers="viewer" in kinds, **content)


def write_index(
    page: PathLike,
    title: str,
    question: str,
    findings: list[str],
    tables: dict[str, str],
    figures: list[go.Figure],
    cards: list[tuple[str, list[tuple[str, str]], str]],
    provenance: dict,
    banner: str | None,
    caption: str,
    about: str = "",
    scans: str = "",
    headline: str = "",
    answers: dict[str, str] | None = None,
    looks: dict | None = None,
    board: dict | None = None,
    verdicts: Sequence[str] = (),
    cannot_say: Sequence[str] = (),
) -> None:
    """Write a study's front page: the answer, pictures, scoreboard and one figure, then the supporting results.

    Parameters
    ----------
    findings
        All findings, shown folded.
    tables, caption
        The parts of Table 1 by their titles, as HTML written by pandas with `escape=True`, and the plain text on both.
    figures
        The first is shown below the scoreboard, the others below Table 1.
    cards
        (title, (file name, text) of each link, one-line summary) of the pages.
    provenance
        How the results were made; nested dicts become nested lists.
    about, scans, headline, answers, verdicts, cannot_say
        Sentences of `wmhlib.report.answer`.
    looks
        `pictures`, (title, data URI) of one scan with the mask of each loss, and their `caption`.
    board
        Output of `wmhlib.report.scoreboard.scoreboard`.
    """
    content = {"title": title, "question": question, "findings": findings, "cards": cards, "banner": banner}
    content |= {
        "about": about,
        "scans": scans,
        "headline": headline,
        "answers": answers,
        "looks": looks,
        "board": board,
    }
    content |= {"verdicts": verdicts, "cannot_say": cannot_say}
    content |= {
        "tables": {part: clean(html) for part, html in tables.items()},
        "caption": caption,
        "provenance": provenance,
    }
    pictures = [drawing(json.loads(figure.to_json()), title) for figure in figures]
    write("index.html.j2", page, bool(pictures), viewers=False, pictures=pictures, **content)


def write(template: str, page: PathLike, figures: bool, **content) -> None:
    """Fill a template and replace the file in one step, so that a reader never sees a partial page."""
    page = Path(page)
    plotlyjs = Markup(get_plotlyjs()) if figures else None
    text = templates.get_template(template).render(file=page.name, plotlyjs=plotlyjs, **content)
    with replacing(page) as temporary:
        temporary.write_text(text, encoding="utf-8")


def clean(html: str) -> Markup:
    """Markup reduced to harmless tags, with scrollable tables and aligned numbers."""
    soup = BeautifulSoup(html, "html.parser")
    for element in soup(["script", "style", "template", "noscript"]):
        element.decompose()
    protocols = {"http", "https", "mailto", "data"}
    kept = bleach.clean(str(soup), tags=KEPT_TAGS, attributes=harmless, protocols=protocols, strip=True)
    soup = BeautifulSoup(kept, "html.parser")
    for picture in soup("img"):
        if not picture.get("src"):  # an address outside the page
            picture.replace_with(picture.get("alt", ""))
    for table in soup("table"):
        join_header(table)
        align_numbers(table)
        table.wrap(soup.new_tag("div", attrs={"class": "table wide", "tabindex": "0"}))
    return Markup(str(soup))


def harmless(tag: str, attribute: str, value: str) -> bool:
    """Whether an attribute is kept: event handlers, styles and addresses that the page would fetch are removed."""
    if attribute == "src":
        return tag == "img" and value.startswith("data:image/")
    if attribute == "href":
        return tag == "a" and not value.strip().lower().startswith("data:")
    return attribute in KEPT_ATTRIBUTES


def _of_formulas(tag: str, attribute: str, value: str) -> bool:
    """Whether an attribute of MathML is kept: only words and lengths are."""
    return bool(re.fullmatch(r"[\w .%-]*", value)) and not attribute.startswith("on") or attribute == "xmlns"


def join_header(table) -> None:
    """Move the index names, which pandas writes as a header row of their own, into the empty cells above them."""
    rows = [row.find_all("th") for row in table.select("thead tr")]
    if len(rows) < 2 or len(rows[-1]) != len(rows[-2]):
        return
    pairs = [pair for pair in zip(rows[-2], rows[-1], strict=True) if pair[1].get_text().strip()]
    if not any(upper.get_text().strip() for upper, _ in pairs):
        for upper, lower in pairs:
            upper.string = lower.get_text()
        rows[-1][0].parent.decompose()


def align_numbers(table) -> None:
    """Mark columns that hold only numbers. Columns are counted from the right, since the number of row headers
    varies."""
    body = [row.find_all("td")[::-1] for row in table.select("tbody tr")]
    rows = [row.find_all(["th", "td"])[::-1] for row in table.select("tr")]
    for number in range(max((len(cells) for cells in body), default=0)):
        column = [cells[number].get_text().strip() for cells in body if len(cells) > number]
        if any(column) and all(NUMBER.fullmatch(text) for text in column):
            for cells in rows:
                if len(cells) > number and not cells[number].get("colspan"):
                    cells[number]["class"] = [*cells[number].get("class", []), "number"]


def markdown(text: str, folder: PathLike = "", attachments: dict | None = None) -> Markup:
    """Markdown as HTML: raw HTML is shown as text, pictures in the notebook's folder are embedded, formulas become
    MathML."""
    pictures = {"embed_images": True, "path": str(Path(folder)), "attachments": attachments or {}}
    renderer = _Renderer(escape=True, exclude_anchor_links=True, **pictures)
    html = clean(MarkdownWithMath(renderer=renderer).render(text))
    for place, formula in renderer.formulas.items():
        html = html.replace(place, formula)
    return html


class _Renderer(IPythonRenderer):
    """Replace each formula by a placeholder and keep it as MathML, which browsers draw without a script."""

    def __init__(self, **keywords):
        super().__init__(**keywords)
        self.formulas: dict[str, Markup] = {}

    def block_math(self, body: str) -> str:
        return self._keep(body, "block")

    def inline_math(self, body: str) -> str:
        return self._keep(body, "inline")

    def _keep(self, tex: str, display: str) -> str:
        place = f"\N{OBJECT REPLACEMENT CHARACTER}{len(self.formulas)}\N{OBJECT REPLACEMENT CHARACTER}"
        formula = latex2mathml.converter.convert(tex, display=display)  # which passes markup inside \\text through
        self.formulas[place] = Markup(bleach.clean(formula, tags=MATH_TAGS, attributes=_of_formulas, strip=True))
        return place


def with_headings(text: Markup, headings: list[tuple[int, str, str]]) -> Markup:
    """Give every heading a unique id, and append (level, id, text) of each to `headings`."""
    soup = BeautifulSoup(text, "html.parser")
    for heading in soup(["h1", "h2", "h3", "h4"]):
        name = heading.get_text().strip()
        heading["id"] = f"{len(headings) + 1}-" + re.sub(r"\W+", "-", name.lower()).strip("-")
        headings.append((int(heading.name[1]), heading["id"], name))
    return Markup(str(soup))


def between_pages(text: Markup, pages: Sequence[tuple[str, str]]) -> Markup:
    """Links to notebooks as links to their pages, (file name, title) each; of a notebook run many times, its first
    page."""
    soup = BeautifulSoup(text, "html.parser")
    for link in soup("a", href=NOTEBOOK):
        name = link["href"].removesuffix(".ipynb")
        page = next((file for file, _ in pages if re.match(re.escape(name) + r"[-.]", file)), None)
        if page:
            link["href"] = page
        else:
            link.unwrap()
    return Markup(str(soup))


def joined(cells: list[dict]) -> list[dict]:
    """Cells with each code cell that has no output joined to a code cell that follows directly, so that they fold as one."""
    runs: list[dict] = []
    for cell in cells:
        before = runs[-1] if runs else {}
        if cell["kind"] == before.get("kind") == "code" and not before["outputs"]:
            label = before["label"] if before["label"] == cell["label"] else JOINED
            code = Markup("{}\n{}").format(before["code"], cell["code"])
            runs[-1] = cell | {"label": label, "code": code, "lines": before["lines"] + cell["lines"]}
        else:
            runs.append(cell)
    return runs


def sections(cells: list[dict]) -> list[dict]:
    """Cells in runs for the template: `heading`, the summary of a folded run (empty where the run is open), and `cells`."""
    runs: list[dict] = [{"heading": "", "level": 0, "cells": []}]
    for cell in cells:
        level = cell.get("level")
        if cell.get("folds"):
            soup = BeautifulSoup(cell["html"], "html.parser")
            heading = Markup(str(soup.find(re.compile("h[1-4]")).extract()))
            runs.append({"heading": heading, "level": level, "cells": []})
            cell = cell | {"html": Markup(str(soup))}
        elif runs[-1]["heading"] and level is not None and level <= runs[-1]["level"]:
            runs.append({"heading": "", "level": 0, "cells": []})
        runs[-1]["cells"].append(cell)
    return [run for run in runs if run["heading"] or run["cells"]]


def drawing(figure: dict, section: str) -> dict:
    """A plotly figure for the template: its JSON, the height to reserve, and a label for screen readers."""
    layout = figure.get("layout", {})
    heading = (layout.get("title") or {}).get("text") or f"Figure in section {section}"
    label = BeautifulSoup(heading, "html.parser").get_text()
    parts = {key: figure[key] for key in ("data", "layout", "frames") if key in figure}
    return {"kind": "figure", "json": parts, "label": label, "height": layout.get("height", 450)}


def plain(text: str) -> dict | None:
    """Printed text without progress bars."""
    kept = "\n".join(line for line in text.splitlines() if not PROGRESS_BAR.search(line)).strip("\n")
    return {"kind": "text", "html": Markup(ansi2html(kept))} if kept.strip() else None


def render(output, section: str) -> dict | None:
    """One output for the template in its richest format; None if there is nothing to show."""
    if output.output_type == "stream":
        return plain(output.text) if output.name == "stdout" else None
    if output.output_type == "error":
        return {"kind": "error", "html": Markup(ansi2html("\n".join(output.traceback)))}
    data = output.data
    if MIME in data:
        return {"kind": "viewer", "json": data[MIME]}
    if PLOTLY in data:
        return drawing(data[PLOTLY], section)
    if "text/html" in data:
        html = clean(data["text/html"])
        return {"kind": "html", "html": html} if html.striptags() or "<img" in html else None
    for kind in PICTURES:
        if kind in data:
            text = "".join(data[kind])  # notebooks keep SVG as text, other pictures as base64
            encoded = base64.b64encode(text.encode()).decode() if "svg" in kind else text.replace("\n", "")
            alt = output.metadata.get(kind, {}).get("alt") or f"Picture in section {section}"
            return {"kind": "picture", "source": f"data:{kind};base64,{encoded}", "alt": alt}
    if "text/markdown" in data:
        return {"kind": "html", "html": markdown(data["text/markdown"])}
    shown = plain(data.get("text/plain", ""))
    return {"kind": "widget"} if shown and WIDGET in data else shown
