"""A scan in, a mask in the scan's own space out.

The scan is preprocessed as for training, the generator gives each axial slice a probability, the probabilities are
resampled to the scan's own grid (`wmhlib.slices.volume_of`) and only there cut at 0.5 (paper 3.2.3 scores masks on the scan's grid). The
soft labels 0.1 and 0.9 are symmetric about 0.5, so the threshold is the same for every loss.
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
"""A voxel of this probability or more is WMH."""

Flair = str | Path | nibabel.Nifti1Image


BUNDLED = Path(__file__).parent / "network" / "model.keras"
"""The network that comes with the project; `README.md` beside it is its model card."""


def load_generator(path: PathLike = BUNDLED) -> keras.Model:
    """A trained generator, loaded in Keras's safe mode (no code from the file is run); without a path, `BUNDLED`.

    Raises
    ------
    FileNotFoundError
        There is no model; the message names it and says what to run.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"No trained model at {path}: check the path; notebook 04_train writes the model of a loss and seed."
        )
    return keras.saving.load_model(path, compile=False, safe_mode=True)


class Prepared(NamedTuple):
    """A scan brought to a network's slices: the scan, the canonical FLAIR in 0-1, the part seen and its slices."""

    scan: nibabel.Nifti1Image
    flair: nibabel.Nifti1Image
    box: Box
    slices: np.ndarray


def prepared(model: keras.Model, flair: Flair) -> Prepared:
    """A scan as the model's input says that slices must be: its size, and by its name the part of the slice and its brightness
    (`wmhlib.slices.Preparation`, D-021). Warns (`wmhlib.intake.scans.BrightnessWarning`) where the network divides by a
    maximum that is out of proportion. Errors as in `probability`."""
    scan = open_scan(flair) if isinstance(flair, str | Path) else nibabel.funcs.squeeze_image(flair)
    preparation = Preparation.named(model.inputs[0].name)
    image = read_flair(flair, preparation.intensity)
    if preparation.intensity == "maximum":
        check_proportion(scan.get_filename() or "The scan given", image)
    box = box_of(image, preparation.view)
    return Prepared(
        scan, image, box, axial_slices(cut_out(image.get_fdata(dtype=np.float32), box), model.input_shape[1])
    )


def probability(
    model: keras.Model, flair: Flair | Prepared, batch_size: int = 8, mirrored: bool = False
) -> nibabel.Nifti1Image:
    """Probability of WMH at every voxel of a scan: float32, on the scan's own grid and affine.

    Outside the part that the network sees the probability is 0, and so it is where a network that diverged gives no number.
    With `mirrored`, the network sees every slice with left and right exchanged, and its answer is exchanged back: a network
    that is sure of a scan gives nearly the same. `flair` may be `prepared` already.

    Raises
    ------
    ValueError
        The scan cannot be read, is not 3D, or holds no image (see `wmhlib.intake.scans.read_flair`); the
        model's input has the name of no preparation.
    """
    scan, _, box, grey = flair if isinstance(flair, Prepared) else prepared(model, flair)
    seen = grey[:, ::-1] if mirrored else grey
    batches = (seen[start : start + batch_size] for start in range(0, len(seen), batch_size))
    slices = np.concatenate([model.predict_on_batch(network_input(batch))[..., 0] for batch in batches])
    slices = np.nan_to_num(slices[:, ::-1] if mirrored else slices)
    return nibabel.Nifti1Image(volume_of(slices, scan, box), scan.affine)


def two_looks(model: keras.Model, flair: Flair | Prepared) -> tuple[nibabel.Nifti1Image, list[np.ndarray]]:
    """The mean of what a network says of a scan and of its mirror image, as `probability` gives each; and both."""
    seen = flair if isinstance(flair, Prepared) else prepared(model, flair)
    looks = [np.asarray(probability(model, seen, mirrored=mirrored).dataobj) for mirrored in (False, True)]
    return nibabel.Nifti1Image(np.clip(np.mean(looks, axis=0, dtype=np.float32), 0, 1), seen.scan.affine), looks


def mask_of(likely: nibabel.Nifti1Image, threshold: float = THRESHOLD) -> nibabel.Nifti1Image:
    """The mask of a scan's probabilities: uint8, 1 at the threshold and above."""
    return automatic(nibabel.Nifti1Image((np.asarray(likely.dataobj) >= threshold).astype(np.uint8), likely.affine))


def segment(model: keras.Model, flair: Flair) -> nibabel.Nifti1Image:
    """The mask of a scan: uint8 0/1 on the scan's own grid and affine.

    Parameters
    ----------
    model
        A generator, as `load_generator` gives it.
    flair
        A path, as text or `Path`, or an image. Errors as in `probability`.
    """
    return mask_of(probability(model, flair))
