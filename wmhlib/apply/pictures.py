"""A picture of each scan to judge its mask by: the slices with most lesion, outlined, and below them the probability.

The grey window is the same for every scan: tissue at its usual level (`wmhlib.intake.scans.TISSUE_GREY`), white at twice that.
"""

import io
from collections.abc import Iterator

import nibabel
import numpy as np
import pandas as pd
from PIL import Image, ImageDraw
from skimage.transform import resize

from wmhlib.apply.results import RESULTS
from wmhlib.intake.scans import TISSUE_GREY
from wmhlib.report.pictures import from_the_feet, outlined, rgb
from wmhlib.slices import box_of, cut_out

HEAD_PX = 44
"""Height of the lines of text above the slices."""


def quality_picture(
    flair: nibabel.Nifti1Image, mask: np.ndarray, likely: np.ndarray, title: str, remark: str = ""
) -> Image.Image:
    """The three axial slices with most of a mask, or three evenly spaced ones where it is empty, cut to the head.

    `flair` is as `read_flair` gives it by `tissue`; `mask` (boolean) and `likely` (0 to 1) are of its shape. Slices are seen
    from the feet, with square pixels fine enough that no voxel of the mask is lost.
    """
    box, area = box_of(flair, "head"), mask.sum(axis=(0, 1))
    volume, mask, likely = (cut_out(each, box) for each in (np.asarray(flair.dataobj), mask, likely))
    count = min(3, len(area))
    evenly = np.linspace(0, len(area) - 1, count + 2)[1:-1].round().astype(int)
    chosen = np.sort(np.argsort(-area, kind="stable")[:count]) if area.any() else evenly
    extent = np.array(volume.shape[:2]) * nibabel.affines.voxel_sizes(flair.affine)[:2]
    shape = np.maximum(np.round(extent / extent.max() * max(384, *volume.shape[:2])), 1).astype(int)
    rows: tuple[list, list] = [], []
    for k in chosen:
        grey = resize(np.minimum(volume[..., k] / (2 * TISSUE_GREY), 1), shape, order=1)
        rows[0].append(outlined(grey, {"siamese": resize(mask[..., k], shape, order=0)}, int(shape.max())))
        rows[1].append(_tinted(grey, resize(likely[..., k].astype(np.float32), shape, order=1)))
    slices = np.concatenate([np.concatenate(row, axis=1) for row in rows])
    picture = Image.fromarray(np.pad(slices, ((HEAD_PX, 0), (0, 0), (0, 0))))
    pen = ImageDraw.Draw(picture)
    pen.text((6, 4), f"{title}   {remark}", "white", font_size=14)
    numbers = ", ".join(str(k + 1) for k in chosen)
    pen.text((6, 24), f"axial slices {numbers} of {len(area)}, seen from the feet", "white", font_size=12)
    width, middle = shape[0], HEAD_PX + shape[1] / 2
    for column in range(count):
        pen.text((column * width + 4, middle), "R", "white", anchor="lm", font_size=14)
        pen.text(((column + 1) * width - 4, middle), "L", "white", anchor="rm", font_size=14)
    return picture


def _tinted(grey: np.ndarray, likely: np.ndarray) -> np.ndarray:
    """A slice (i, j), dimmed, with its probability as colour over it: (rows, columns, 3) uint8, seen from the feet."""
    share = np.clip(likely, 0, 1)[..., np.newaxis]
    return from_the_feet(150 * grey[..., np.newaxis] * (1 - share) + np.array(rgb("siamese")) * share)


def doubtful_first(table: pd.DataFrame, most: int) -> Iterator[tuple[str, bytes]]:
    """Name and picture, as JPEG, of the scans of a table of `segment_scans` that were segmented: doubtful masks first."""
    done = table[table.status == "done"]
    for mask in done.sort_values("warnings", key=lambda text: text == "", kind="stable")["mask"].head(most):
        path = mask.removesuffix(RESULTS["mask"]) + RESULTS["picture"]
        jpeg = io.BytesIO()
        Image.open(path).save(jpeg, "JPEG", quality=85)
        yield path.rsplit("/", 1)[-1].removesuffix(RESULTS["picture"]), jpeg.getvalue()
