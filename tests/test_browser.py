"""Exported viewers in a real browser with the network off: every control used, pictures compared by their pixels."""

import shutil

import nbformat
import numpy as np
import pandas as pd
import pytest
from conftest import open_browser, small_scan, write_subject
from nbformat import v4

from wmhlib.evaluation.lesions import lesion_records
from wmhlib.intake.challenge import read_challenge
from wmhlib.intake.grids import canonical
from wmhlib.metrics import MaskPair
from wmhlib.report import pages, viewers

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed"),
]

AXIAL = ".viewer-plane.axial canvas"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """A page with a slice viewer of two subjects and a lesion explorer; Dice misses everything, Siamese nothing."""
    folder = tmp_path_factory.mktemp("browser")
    random = np.random.default_rng(0)
    for name, shape in (("7", (40, 44, 12)), ("<b>8", (36, 60, 12))):
        write_subject(folder / "data" / "test" / "C" / name, *small_scan(random, shape))
    subjects, rows, scans = read_challenge(folder / "data"), [], []
    for row in subjects.itertuples():
        flair, reference = (canonical(path) for path in (row.flair, row.reference))
        mask = np.asarray(reference.dataobj)
        masks = {"reference": mask, "dice": 0 * mask, "siamese": mask}
        title = f"subject {row.subject}"
        scans.append(viewers.pack_scan(np.asarray(flair.dataobj), flair.affine, masks, title) | {"title": title})
        for loss in ("dice", "siamese"):
            records = lesion_records(MaskPair(row.reference, row.reference)).assign(loss=loss, seed=1, split="external")
            records["found"] = loss == "siamese"
            rows.append(records.assign(centre="C", subject=row.subject))
    where = subjects.set_index("subject").reference
    lesions = viewers.pack_lesions(pd.concat(rows), subjects, lambda _, name: where[name], ["dice", "siamese"], seed=1)
    packed = [{"kind": "slices", "scans": scans}, {"kind": "lesions", "lesions": lesions}]
    cells = [
        v4.new_code_cell("1", outputs=[v4.new_output("display_data", {viewers.MIME: one, "text/plain": ""})])
        for one in packed
    ]
    nbformat.write(v4.new_notebook(cells=cells), folder / "n.ipynb")
    pages.export_page(folder / "n.ipynb", folder / "n.html", "Viewers", [])
    return folder / "n.html"


@pytest.fixture
def page(page_file):
    """The page, open; whatever it asked of the network or complained about fails the test at its end."""
    with open_browser(offline=True) as (page, troubles):
        page.goto(page_file.as_uri())
        page.wait_for_selector(".viewer[data-ready]")
        page.wait_for_selector(".explorer[data-shown]")
        yield page
        assert not troubles, troubles


def picture(page, selector: str = AXIAL) -> bytes:
    return page.locator(selector).first.screenshot()


def changes(page, act, selector: str = AXIAL) -> bool:
    """Whether an act changes the picture."""
    before = picture(page, selector)
    act()
    page.wait_for_timeout(50)
    return picture(page, selector) != before


def proportion(page) -> float:
    box = page.locator(AXIAL).bounding_box()
    return box["height"] / box["width"]


def test_viewers_are_drawn_for_printing(page_file):
    with open_browser(offline=True) as (page, troubles):
        page.set_viewport_size({"width": 1200, "height": 10})
        page.goto(page_file.as_uri())
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        page.wait_for_selector(".explorer[data-shown]", state="attached")
        assert page.locator(".viewer[data-ready]").count() == 1 and not troubles


def test_every_control_of_the_slice_viewer_changes_the_picture(page):
    def slide(title, value):
        slider = page.locator(f'.viewer input[title="{title}"]').first
        return lambda: slider.evaluate("(e, v) => { e.value = v; e.dispatchEvent(new Event('input')); }", value)

    choose = page.select_option
    assert changes(page, lambda: choose('.viewer select[title="whose mask"]', "siamese"))
    for style in ("filled", "outline", "none", "errors"):
        assert changes(page, lambda style=style: choose('.viewer select[title="how masks are drawn"]', style)), style
    for title, value in (
        ("opacity of filled masks", 100),
        ("darkest grey value", 90),
        ("brightest grey value", 120),
        ("axial slice", 2),
    ):
        assert changes(page, slide(title, value)), title
    assert changes(page, slide("axial slice", 4)) and changes(
        page, lambda: page.locator(".viewer-bar input").nth(1).click()
    )
    for name in ("coronal", "sagittal"):
        selector = f".viewer-plane.{name} canvas"
        assert changes(page, slide(f"{name} slice", 8), selector), name
    assert proportion(page) == pytest.approx(40 / 38, rel=0.02)  # a head of 36 x 38 voxels, with a voxel of margin
    assert changes(page, lambda: choose('.viewer select[title="subject"]', "subject <b>8"))
    assert page.get_attribute(".viewer", "data-ready") == "subject <b>8"
    assert proportion(page) == pytest.approx(56 / 34, rel=0.02), "the second scan keeps its own proportions"


def test_keys_and_wheel_scroll_once_the_picture_is_clicked(page):
    caption = page.locator(".viewer-plane.axial label span")
    page.click(AXIAL)
    before = caption.inner_text()
    page.keyboard.press("ArrowUp")
    above = caption.inner_text()
    page.hover(AXIAL)
    page.mouse.wheel(0, 100)
    page.wait_for_timeout(100)
    assert above != before and caption.inner_text() == before


def test_the_cursor_reads_millimetres_and_masks(page):
    scan = page.locator(AXIAL)
    box = scan.bounding_box()
    page.mouse.move(box["x"] + 1, box["y"] + 1)
    corner = page.inner_text(".viewer-readout")
    page.mouse.move(box["x"] + box["width"] - 1, box["y"] + 1)
    other = page.inner_text(".viewer-readout")
    right, left = (float(text.split()[1]) for text in (corner, other))
    assert right > left, "the patient's right, where x is larger, is left in the picture"
    assert "no mask" in corner


def test_a_slice_is_drawn_at_once_and_nothing_piles_up(page):
    page.click(AXIAL)
    measured = page.evaluate(
        """async () => {
          const slider = document.querySelector('.viewer input[title="axial slice"]'), times = [];
          const used = () => { window.gc && window.gc(); return performance.memory.usedJSHeapSize; };
          const run = async (count) => { for (let n = 0; n < count; n++) {
            const start = performance.now();
            slider.value = n % 10;
            slider.dispatchEvent(new Event('input'));
            await new Promise(requestAnimationFrame);
            times.push(performance.now() - start);
          } };
          await run(50);
          const before = used();
          await run(500);
          return { grown: used() - before, nodes: document.querySelectorAll('*').length,
                   median: times.sort((a, b) => a - b)[Math.floor(times.length / 2)] };
        }"""
    )
    assert measured["median"] < 100, measured
    assert measured["grown"] < 5e6, measured


def test_lesions_are_filtered_sorted_and_shown(page):
    rows = page.locator(".explorer-table tbody tr")
    assert rows.count() == 2
    assert changes(page, lambda: rows.nth(1).click(), ".explorer-pictures")
    page.select_option('select[title="missed by"]', "1")
    assert rows.count() == 0 and "No lesion" in page.inner_text(".explorer-caption")
    page.select_option('select[title="missed by"]', "0")
    page.select_option('select[title="detected by"]', "1")
    assert rows.count() == 2
    page.click(".explorer-table th button >> nth=0")
    first = rows.nth(0).inner_text()
    page.click(".explorer-table th button >> nth=0")
    assert rows.nth(0).inner_text() != first and "<b>8" in rows.nth(1).inner_text() + first
    page.fill('input[title="smallest volume"]', "1e6")
    assert rows.count() == 0
    page.fill('input[title="smallest volume"]', "")
    page.fill('input[title="largest volume"]', "1e6")
    page.select_option('.explorer select[title="centre"]', "C")
    page.select_option('.explorer select[title="split"]', "external")
    assert rows.count() == 2 and page.locator(".explorer-pictures canvas").count() == 3
