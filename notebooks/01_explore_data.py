# %% [markdown]
# # 1 · What is in the data?
#
# White matter hyperintensities (WMH) are the bright spots that ageing and small-vessel disease leave on a FLAIR scan.
# They are **few and small**: a fraction of a percent of the volume. A network that calls everything healthy is right
# almost everywhere. This notebook looks at the scans, counts the lesions, and decides which subjects train, which
# choose the epoch, and which are kept for the final score (paper, section 3.1).
#
# The synthetic cohort is made on the first run; with real scans, `data` names their folder.

# %% tags=["parameters"]
config = "config/demo.yaml"  # the study; paths are relative to the project's folder
data = ""  # another folder in the challenge's layout; empty: the one the study names
beside = ""  # a folder of other scans to hold these against, such as real ones beside synthetic; empty: none

# %%
from wmhlib.running import parameters

parameters.check(config=config, data=data, beside=beside)

# %%
from functools import partial

import nibabel
import numpy as np
import pandas as pd

from wmhlib import cohort, metrics
from wmhlib.evaluation import appearance
from wmhlib.evaluation.lesions import lesion_records
from wmhlib.intake import download
from wmhlib.intake.nifti import open_scan
from wmhlib.intake.scans import read_flair, read_pair
from wmhlib.report import captions, training_figures, viewers
from wmhlib.running.files import find, write_table
from wmhlib.study import open_study

study = open_study(config, data)

# %% [markdown]
# ## The scans, where they are public
#
# Public data sets that the study asks for (`data.download`) are fetched once, every file checked against its listed
# SHA-1. A study that asks for none, or has them already, asks no server.

# %%
download.fetch_for(study)

# %% [markdown]
# ## The subjects and their split
#
# Subjects are drawn at random, evenly from every centre, so that no centre is missing from training or from the
# holdout; all scans of one subject go together. Whatever lies below `test/`, or `participants.tsv` calls external, is
# **external**: scans no network sees before its final score. Check this list: who is in which split and why, and what
# was left out of the cohort.

# %%
subjects = cohort.load_cohort(study)
write_table(study.tables / "cohort.csv", subjects.drop(columns=["flair", "reference"]))
print(cohort.account(subjects))
pd.crosstab(subjects.centre, subjects.split)

# %% [markdown]
# ## Grids differ between centres
#
# Centres differ in voxel size, matrix and storage. The network sees every axial slice at one size, so a pixel does not
# mean the same length everywhere: one of the things it must learn to bear.

# %%
headers = [(row.centre, open_scan(row.flair)) for row in subjects.itertuples()]
pd.DataFrame(
    {
        "centre": [centre for centre, _ in headers],
        "matrix": [" × ".join(map(str, image.shape)) for _, image in headers],
        "voxel (mm)": [" × ".join(f"{side:.2f}" for side in image.header.get_zooms()) for _, image in headers],
        "axes": ["".join(nibabel.aff2axcodes(image.affine)) for _, image in headers],
        "stored as": [str(image.get_data_dtype()) for _, image in headers],
    }
).value_counts().rename("subjects").reset_index().sort_values("centre", ignore_index=True)

# %% [markdown]
# ## How much lesion, in how many pieces?
#
# A lesion is a 26-connected piece of label 1. Label 2, other pathology, is ignored in scoring and is background in
# training. *Positive class density* is the paper's measure of imbalance: lesion voxels in per cent of the volume.

# %%
rows = []
for row in subjects.itertuples():
    lesions = lesion_records(metrics.MaskPair(row.reference, row.reference))
    rows.append(
        {
            "centre": row.centre,
            "subject": row.subject,
            "split": row.split,
            "lesions": len(lesions),
            "volume_ml": lesions.volume_mm3.sum() / 1000,
            "median_lesion_mm3": lesions.volume_mm3.median(),
            "positive_class_density_pct": metrics.positive_class_density(row.reference),
        }
    )
loads = pd.DataFrame(rows)
write_table(study.tables / "lesion_loads.csv", loads)
if note := captions.without_lesions(loads):
    print(note)
loads.groupby("centre")[["lesions", "volume_ml", "median_lesion_mm3", "positive_class_density_pct"]].median().round(3)

# %%
assert loads.positive_class_density_pct.max() < 5, "WMH fill less than 5 % of any volume; is label 1 the lesion?"
training_figures.density_histogram(loads)

# %% [markdown]
# ## Brightness does not travel
#
# Each volume is divided by its own maximum, as in the paper. The centres' histograms still do not lie on each other,
# so a threshold chosen at one centre is wrong at the next. That is why a network is needed at all.

# %%
edges = np.linspace(0, 1, 81)
histograms = {}
for centre, some in subjects.groupby("centre"):
    volumes = [read_flair(path).get_fdata(dtype=np.float32) for path in some.flair[:3]]
    counts = sum(np.histogram(volume[volume > 0], edges)[0] for volume in volumes)
    histograms[centre] = ((edges[1:] + edges[:-1]) / 2, counts / counts.sum())
training_figures.intensity_histograms(histograms)

# %% [markdown]
# ## Do they look like a scanner's?
#
# A network carries over from synthetic scans to real ones as far as they look alike to it. Each line below is a centre: how
# wide the border of brain and fluid is, how bright lesions are against the tissue around them, and the power of the slices
# by spatial frequency, which falls with the resolution and ends in the noise. `beside` names a folder of other scans, such
# as real ones, to hold these against. Ten real scans of four centres have borders of 2.5 to 5.7 mm, and lesions 1.29 to
# 1.36 times as bright as the tissue around them (D-051).

# %%
shown = subjects.groupby("centre").head(3)
if beside:
    others = cohort.read_folder(find(beside, "folder of scans")).groupby("centre").head(3)
    shown = pd.concat([shown, others.assign(centre=others.centre + ", beside")])
rows, spectra = [], {}
for row in shown.itertuples():
    flair, reference = read_pair(row.flair, row.reference)
    spectra.setdefault(row.centre, []).append(appearance.power_spectrum(flair))
    contrast = appearance.lesion_contrast(flair, np.asarray(reference.dataobj))
    rows.append({"centre": row.centre, "border (mm)": appearance.edge_width_mm(flair), "lesion contrast": contrast})
training_figures.power_spectra(appearance.FREQUENCIES, {centre: np.median(some, 0) for centre, some in spectra.items()})

# %%
pd.DataFrame(rows).groupby("centre").median().round(2)

# %% [markdown]
# ## Look into a scan of each centre
#
# The subject with the middle lesion load of each centre comes first; with a kernel, every subject can be chosen. Click a
# plane to move the cross, then scroll with the wheel or the arrow keys. The reference is outlined.

# %%
order = loads.assign(rank=loads.groupby("centre").volume_ml.rank(pct=True).sub(0.5).abs()).sort_values("rank")
first = order.groupby("centre").head(1)
rows = subjects.set_index("subject", drop=False)
viewers.SliceViewer(
    {
        f"{row.subject}, {row.centre}": partial(viewers.pack_subject, rows.loc[row.subject], {})
        for row in pd.concat([first, order.drop(first.index)]).itertuples()
    },
    exported=len(first),
)
