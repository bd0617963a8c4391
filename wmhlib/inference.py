"""A scan in, a mask in the scan's own space out.

The scan is preprocessed as for training, the generator gives each axial slice a probability, the probabilities are
resampled to the scan's own grid and only there cut at one half (paper 3.2.3 scores masks on the scan's grid). The
soft labels 0.1 and 0.9 lie evenly about one half, so the cut is the same for every loss.
"""

from pathlib import Path

import keras
import nibabel
import numpy as np
import pandas as pd

from wmhlib.scans import open_scan, read_scan
from wmhlib.slices import axial_slices, box_of, cut_out, network_input, read_flair, volume_of
from wmhlib.study import replacing

THRESHOLD = 0.5


def load_generator(path: Path) -> keras.Model:
    """A trained generator, loaded in Keras's safe mode (no code from the file is run).

    Raises
    ------
    FileNotFoundError
        Not trained yet; the message says what to run.
    """
    if not path.is_file():
        raise FileNotFoundError(f"No trained model at {path}: run notebook 04_train for that loss and seed first.")
    return keras.saving.load_model(path, compile=False, safe_mode=True)


def probability(
    model: keras.Model, flair: str | Path | nibabel.Nifti1Image, batch_size: int = 8
) -> nibabel.Nifti1Image:
    """Probability of WMH at every voxel of a scan: float32, on the scan's own grid and affine.

    The model's input says what the slices must be: its size, and by its name the part of the slice (D-021); outside that
    part the probability is 0, and so it is where a network that diverged gives no number.
    """
    scan = open_scan(flair) if isinstance(flair, str | Path) else flair
    image = read_flair(flair)
    box = box_of(image, model.inputs[0].name)
    grey = axial_slices(cut_out(image.get_fdata(dtype=np.float32), box), model.input_shape[1])
    slices = [
        model.predict_on_batch(network_input(grey[start : start + batch_size]))[..., 0]
        for start in range(0, len(grey), batch_size)
    ]
    return nibabel.Nifti1Image(volume_of(np.nan_to_num(np.concatenate(slices)), scan, box), scan.affine)


def segment(model: keras.Model, flair: str | Path | nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    """The WMH of a scan: uint8 0/1 on the scan's own grid and affine.

    Raises
    ------
    ValueError
        The scan cannot be read, is not 3D, or holds no image (see `wmhlib.slices.read_flair`).
    """
    return mask_of(probability(model, flair))


def mask_of(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    """The mask of a scan's probabilities: uint8, 1 at one half and above."""
    return nibabel.Nifti1Image((np.asarray(image.dataobj) >= THRESHOLD).astype(np.uint8), image.affine)


def save_image(image: nibabel.Nifti1Image, path: Path) -> None:
    """Write a NIfTI file, all or nothing."""
    with replacing(path) as temporary:
        nibabel.save(image, temporary)


def threshold_mask(flair: str | Path, level: float) -> nibabel.Nifti1Image:
    """The simplest segmenter there is: every voxel brighter than `level` of the volume's maximum. uint8 0/1."""
    scan = read_scan(flair)
    volume = np.asarray(scan.dataobj, dtype=np.float32)
    return nibabel.Nifti1Image((volume > level * volume.max()).astype(np.uint8), scan.affine)


def tune_threshold(cohort: pd.DataFrame, levels: int = 100) -> tuple[float, float]:
    """The one level whose mean Dice over the subjects of `cohort` is highest, and that mean Dice.

    Meant for training subjects: the row `global_threshold` of every table, the floor a network has to beat.
    """
    edges = np.linspace(0, 1, levels + 1)
    scores = np.zeros(levels)
    for subject in cohort.itertuples():
        volume = np.asarray(read_scan(subject.flair).dataobj, dtype=np.float32)
        lesion = np.rint(np.asarray(read_scan(subject.reference).dataobj)) == 1
        above = np.histogram(volume / volume.max(), edges)[0][::-1].cumsum()[::-1]
        found = np.histogram(volume[lesion] / volume.max(), edges)[0][::-1].cumsum()[::-1]
        scores += 2 * found / (above + lesion.sum()) / len(cohort)
    best = int(scores.argmax())
    return float(edges[best]), float(scores[best])
