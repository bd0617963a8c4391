import nibabel
import numpy as np
import pytest
from conftest import SHARED, naming
from scipy import ndimage

from wmhlib.evaluation import appearance
from wmhlib.intake.scans import read_pair
from wmhlib.running import parameters


def scan(volume, voxel_mm=(1.0, 1.0, 3.0)) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image(volume.astype(np.float32), np.diag([*voxel_mm, 1.0]))


@pytest.fixture
def brain() -> np.ndarray:
    """A disc of brightness 1 in darkness, on slices of 96 x 96."""
    x, y = np.ogrid[-48:48, -48:48]
    return np.repeat((x**2 + y**2 < 35**2)[:, :, None], 20, axis=2).astype(np.float32)


def test_white_noise_has_its_variance_per_area_at_every_frequency():
    noise = np.random.default_rng(0).normal(5, 0.5, (96, 80, 20))
    power = appearance.power_spectrum(scan(noise, (0.9, 1.2, 3)))
    resolved = appearance.FREQUENCIES < 0.5 / 1.2 - 0.02
    expected = 0.1**2 * 0.9 * 1.2
    assert power[resolved][2:] == pytest.approx(expected, rel=0.25)
    assert np.isnan(power[appearance.FREQUENCIES > 0.5 / 1.2]).all()


def test_a_wave_beyond_the_last_frequency_is_in_no_bin():
    wave = 1 + 0.1 * np.sin(2 * np.pi * 1.0 * 0.4 * np.arange(100))
    power = appearance.power_spectrum(scan(np.broadcast_to(wave[:, None, None], (100, 90, 12)), (0.4, 0.4, 3)))
    assert np.nanmax(power[15:]) < 1e-6


@pytest.mark.parametrize("sd_mm", [1.5, 3.0])
def test_a_border_is_as_wide_as_the_blur_makes_it(brain, sd_mm):
    """Half of a blurred step rises by 1 / (sd √2π) a mm."""
    soft = ndimage.gaussian_filter(brain, (sd_mm / 1.5, sd_mm, 0))
    width = appearance.edge_width_mm(scan(soft, (1.5, 1, 3)))
    assert width == pytest.approx(sd_mm * np.sqrt(2 * np.pi), rel=0.1)


def test_the_contrast_of_lesions_is_that_to_the_tissue_around_them(brain):
    lesion = np.zeros(brain.shape, np.uint8)
    lesion[40:50, 40:50, 8:12] = 1
    lesion[60:63, 60:63, 15] = 1
    brain[lesion == 1] = 1.4
    brain[50:53, 40:50] = 0  # fluid next to a lesion does not count
    assert appearance.lesion_contrast(scan(brain), lesion) == pytest.approx(1.4)
    assert np.isnan(appearance.lesion_contrast(scan(brain), 2 * lesion))  # other pathology is no lesion


@pytest.mark.skipif(not (SHARED / "real").is_dir(), reason="no real scans next to the project")
def test_real_scans_have_the_appearance_that_notebook_01_names():
    for flair in (SHARED / "real/test").glob("*/*/pre/FLAIR.nii.gz"):
        image, mask = read_pair(flair, flair.parents[1] / "wmh.nii.gz")
        assert 2.4 < appearance.edge_width_mm(image) < 6
        assert 1.28 < appearance.lesion_contrast(image, np.asarray(mask.dataobj)) < 1.37


@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_a_folder_to_compare_with_that_is_none_is_named(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(parameters.Refused, match=naming(tmp_path / name)):
        parameters.check(config="config/demo.yaml", data="", beside=str(tmp_path / name))
