"""Segment a scan on its own grid.

Input: a scan. Output: its mask. The scan is preprocessed as for training, the generator predicts probabilities for each
axial slice, and these are resampled to the scan's grid (`wmhlib.slices.volume_of`) before the threshold 0.5 is applied
(paper 3.2.3 scores masks on the scan's grid). The soft labels 0.1 and 0.9 are symmetric about 0.5, so the threshold is
the same for all losses.
"""

from pathlib import Path
from typing import NamedTuple

import keras
import nibabel
import numpy as np

from wmhlib.generator import network_input
from wmhlib.intake.nifti import automatic, open_scan
from wmhlib.intake.scans import check_proportion, read_flair
from wmhlib.running.files import PathLike
from wmhlib.slices import Box, Preparation, axial_slices, box_of, cut_out, volume_of

THRESHOLD = 0.5
"""Voxels with at least this probability are WMH."""

Flair = str | Path | nibabel.Nifti1Image


BUNDLED = Path(__file__).parent / "network" / "model.keras"
"""The network bundled with the project; `README.md` in its folder is its model card."""


def load_generator(path: PathLike = BUNDLED) -> keras.Model:
    """A trained generator, loaded in Keras's safe mode, which runs no code from the file; by default, `BUNDLED`.

    Raises
    ------
    FileNotFoundError
        The model does not exist; the message names it and says what to run.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"No trained model found at {path}: check the path, or train the loss and seed with notebook 04_train."
        )
    return keras.saving.load_model(path, compile=False, safe_mode=True)


class Prepared(NamedTuple):
    """A scan prepared for a network: the scan, the canonical FLAIR in 0-1, the part used and its slices."""

    scan: nibabel.Nifti1Image
    flair: nibabel.Nifti1Image
    box: Box
    slices: np.ndarray
    preparation: Preparation


def prepared(model: keras.Model, flair: Flair) -> Prepared:
    """A scan prepared for a model. The model's input layer defines the slice size and, by its name, the preparation.

    Preparations are those of `wmhlib.slices.Preparation` (D-021). For networks that divide by the maximum, it warns
    (`wmhlib.intake.scans.BrightnessWarning`) if the maximum is disproportionate. Errors as in `probability`.
    """
    scan = open_scan(flair) if isinstance(flair, str | Path) else nibabel.funcs.squeeze_image(flair)
    preparation = Preparation.named(model.inputs[0].name)
    image = read_flair(flair, preparation.intensity)
    if preparation.intensity == "maximum":
        check_proportion(scan.get_filename() or "The scan given", image)
    box = box_of(image, preparation.view)
    slices = axial_slices(cut_out(image.get_fdata(dtype=np.float32), box), model.input_shape[1])
    return Prepared(scan, image, box, slices, preparation)


def recut(seen: Prepared, model: keras.Model) -> Prepared:
    """A prepared scan for another model: its volume is read again only if their intensities differ."""
    preparation, size = Preparation.named(model.inputs[0].name), model.input_shape[1]
    if preparation.intensity != seen.preparation.intensity:
        return prepared(model, seen.scan)
    if preparation == seen.preparation and seen.slices.shape[1] == size:
        return seen
    box = box_of(seen.flair, preparation.view)
    slices = axial_slices(cut_out(seen.flair.get_fdata(dtype=np.float32), box), size)
    return seen._replace(box=box, slices=slices, preparation=preparation)


def predicted(
    model: keras.Model,
    seen: Prepared,
    mirrored: bool = False,
    rows: np.ndarray | None = None,
    batch_size: int = 8,
) -> np.ndarray:
    """The probabilities of a model for the slices of a scan prepared for it: (slices, size, size).

    With `mirrored`, the input has left and right exchanged, and the output is exchanged back; for a suitable scan, both
    give similar results. Slices that are 0 everywhere or not in the boolean `rows` get 0, and so do NaNs of a diverged
    network.
    """
    grey = seen.slices[:, ::-1] if mirrored else seen.slices
    slices, wanted = np.zeros_like(grey), np.flatnonzero(grey.any(axis=(1, 2)) & (True if rows is None else rows))
    for start in range(0, len(wanted), batch_size):
        batch = wanted[start : start + batch_size]
        images = network_input(grey[np.resize(batch, batch_size)])  # full batches: another size would compile again
        slices[batch] = model.predict_on_batch(images)[: len(batch), ..., 0]
    return np.nan_to_num(slices[:, ::-1] if mirrored else slices)


def probability(
    model: keras.Model, flair: Flair | Prepared, mirrored: bool = False, rows: np.ndarray | None = None
) -> nibabel.Nifti1Image:
    """Probability of WMH at every voxel of a scan: float32, on the scan's own grid and affine.

    It is 0 outside the part that is the network's input. `flair` may be the output of `prepared`; `mirrored` and `rows` as
    in `predicted`.

    Raises
    ------
    ValueError
        The scan cannot be read, is not 3D or has no valid image (see `wmhlib.intake.scans.read_flair`), or the name of
        the model's input layer is not that of a preparation.
    """
    seen = flair if isinstance(flair, Prepared) else prepared(model, flair)
    return nibabel.Nifti1Image(volume_of(predicted(model, seen, mirrored, rows), seen.scan, seen.box), seen.scan.affine)


def two_looks(
    model: keras.Model, flair: Flair | Prepared, inside: np.ndarray
) -> tuple[nibabel.Nifti1Image, list[np.ndarray]]:
    """The mean probability over a scan and its mirror image, and the two probabilities as arrays; see `probability`.

    All are 0 outside the boolean mask `inside`, which is on the scan's own grid.
    """
    seen = flair if isinstance(flair, Prepared) else prepared(model, flair)
    affine = seen.scan.affine
    upright = nibabel.as_closest_canonical(nibabel.Nifti1Image(inside.astype(np.uint8), affine))
    rows = np.asarray(np.any(upright.dataobj, axis=(0, 1)))
    looks = [inside * np.asarray(probability(model, seen, mirrored, rows).dataobj) for mirrored in (False, True)]
    return nibabel.Nifti1Image(np.clip(np.mean(looks, axis=0, dtype=np.float32), 0, 1), affine), looks


def mask_of(likely: nibabel.Nifti1Image, threshold: float = THRESHOLD) -> nibabel.Nifti1Image:
    """The mask of probabilities: uint8, 1 for values of at least `threshold`."""
    return automatic(nibabel.Nifti1Image((np.asarray(likely.dataobj) >= threshold).astype(np.uint8), likely.affine))


def segment(model: keras.Model, flair: Flair) -> nibabel.Nifti1Image:
    """The mask of a scan: uint8 0/1 on the scan's own grid and affine.

    Parameters
    ----------
    model
        A generator, such as from `load_generator`.
    flair
        A path (text or `Path`) or an image. Errors as in `probability`.
    """
    return mask_of(probability(model, flair))
