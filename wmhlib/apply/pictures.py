"""A picture per scan for visual quality control: the slices with most lesion, outlined, and the probability below.

The grey window is the same for every scan: white is twice the usual level of tissue
(`wmhlib.intake.scans.TISSUE_GREY`).
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
    """The three axial slices with the largest mask area, cropped to the head; evenly spaced slices for an empty mask.

    `flair` is the output of `read_flair` with intensity `tissue`; `mask` (boolean) and `likely` (0 to 1) have its
    shape. Slices are seen from the feet, with square pixels fine enough to show every voxel of the mask.
    """
    box, area = box_of(flair, "head"), mask.sum(axis=(0, 1))
    volume, mask, likely = (cut_out(array, box) for array in (np.asarray(flair.dataobj), mask, likely))
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
    """A dimmed slice (i, j) with the probability as a colour overlay: (rows, columns, 3) uint8, seen from the feet."""
    opacity = np.clip(likely, 0, 1)[..., np.newaxis]
    return from_the_feet(150 * grey[..., np.newaxis] * (1 - opacity) + np.array(rgb("siamese")) * opacity)


def doubtful_first(table: pd.DataFrame, most: int) -> Iterator[tuple[str, bytes]]:
    """Name and JPEG picture of at most `most` segmented scans from a table of `segment_scans`, doubtful masks first."""
    done = table[table.status == "done"]
    for mask in done.sort_values("warnings", key=lambda text: text == "", kind="stable")["mask"].head(most):
        path = mask.removesuffix(RESULTS["mask"]) + RESULTS["picture"]
        jpeg = io.BytesIO()
        Image.open(path).save(jpeg, "JPEG", quality=85)
        yield path.rsplit("/", 1)[-1].removesuffix(RESULTS["picture"]), jpeg.getvalue()
