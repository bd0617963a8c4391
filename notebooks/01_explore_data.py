# %% [markdown]
# # 1 · Scans, lesions and splits
#
# White matter hyperintensities (WMH) are bright lesions that ageing and small-vessel disease leave on a FLAIR scan. They
# are **few and small**: a fraction of a percent of the volume.
#
# **Question.** Which scans are there, how much lesion do they hold, and which subjects train, choose the epoch, and stay
# unseen until the final score (paper, section 3.1)?
#
# **Before.** Nothing. Synthetic scans are made on the first run; for real ones, `data` names their folder. **Time.** Half
# a minute, and a second per scan, on two cores; making synthetic scans takes several seconds each.

# %% tags=["parameters"]
config = "config/demo.yaml"  # the study; paths are relative to the project's folder
data = ""  # another folder in the challenge's layout; empty: the one the study names
beside = ""  # a folder of other scans to compare with, such as real ones next to synthetic; empty: none

# %%
from wmhlib.running import parameters

parameters.check(config=config, data=data, beside=beside)

# %%
from functools import partial

import nibabel
import numpy as np
import pandas as pd
from IPython.display import Markdown

from wmhlib import cohort, metrics
from wmhlib.evaluation import appearance
from wmhlib.evaluation.lesions import lesion_records
from wmhlib.intake import download
from wmhlib.intake.nifti import open_scan
from wmhlib.intake.scans import read_flair, read_pair
from wmhlib.report import captions, summaries, training_figures, viewers
from wmhlib.running.files import find, write_table
from wmhlib.study import open_study

study = open_study(config, data)

# %% [markdown] tags=["details"]
# ## Public scans
#
# Public data sets that the study asks for (`data.download`) are downloaded once. Every file is checked against its listed
# SHA-1. A study that asks for none, or has them already, contacts no server.

# %%
download.fetch_for(study)

# %% [markdown]
# ## Subjects and splits
#
# **Training** subjects train the network, **validation** subjects choose the epoch, **holdout** subjects are unseen scans of the
# training centres, and **external** subjects are unseen scans of other centres. *Unseen* means holdout and external.
#
# Subjects are drawn at random, evenly from every centre, so each centre is in training and in the holdout. All scans of
# one subject are in one split. Scans below `test/`, or external in `participants.tsv`, are **external**: no network sees
# them before its final score. Check this list: it says who is in which split and why, and what was left out.

# %%
subjects = cohort.load_cohort(study)
write_table(study.tables / "cohort.csv", subjects.drop(columns=["flair", "reference"]))
print(cohort.account(subjects))
pd.crosstab(subjects.centre, subjects.split)

# %% [markdown]
# ## One scan of each centre
#
# The subject with the median lesion load of each centre comes first; with a kernel, every subject can be chosen. Click a
# plane to move the cross, then scroll with the wheel or the arrow keys. The reference is outlined.
#
# A lesion is a 26-connected component of label 1. Label 2, other pathology, is ignored in scoring and is background in
# training. *Positive class density* is the paper's measure of imbalance: lesion voxels in per cent of the volume.

# %%
rows = []
for row in subjects.itertuples():
    lesions = lesion_records(metrics.MaskPair(row.reference, row.reference))
    load = {"lesions": len(lesions), "volume_ml": lesions.volume_mm3.sum() / 1000}
    load["median_lesion_mm3"] = lesions.volume_mm3.median()
    load["positive_class_density_pct"] = metrics.positive_class_density(row.reference)
    rows.append({"centre": row.centre, "subject": row.subject, "split": row.split} | load)
loads = pd.DataFrame(rows)
write_table(study.tables / "lesion_loads.csv", loads)
assert loads.positive_class_density_pct.max() < 5, "WMH fill less than 5 % of any volume; is label 1 the lesion?"

# %%
from_median = loads.groupby("centre").volume_ml.rank(pct=True).sub(0.5).abs()
order = loads.loc[from_median.sort_values().index]
first = order.groupby("centre").head(1)
rows = subjects.set_index("subject", drop=False)
packed = {
    f"{row.subject}, {row.centre}": partial(viewers.pack_subject, rows.loc[row.subject], {})
    for row in pd.concat([first, order.drop(first.index)]).itertuples()
}
viewers.SliceViewer(packed, exported=len(first))

# %% [markdown]
# ## Lesion loads
#
# Medians per centre, then one point per subject.

# %%
if note := captions.without_lesions(loads):
    print(note)
heads = {
    "lesions": "lesions",
    "volume_ml": "lesion volume (ml)",
    "median_lesion_mm3": "median lesion (mm³)",
    "positive_class_density_pct": "positive class density (%)",
}
loads.groupby("centre")[list(heads)].median().round(3).rename(columns=heads)

# %%
training_figures.density_histogram(loads)

# %% [markdown]
# ## Grids differ between centres
#
# Centres differ in voxel size, matrix and storage. The network sees every axial slice at one size in pixels, so a pixel
# has another length in each centre. The network must learn to cope with that.

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
# ## Brightness differs between centres
#
# Each volume is divided by its own maximum here, as in the paper; a study may use another scaling (`preprocessing.intensity`,
# notebook [2](02_preprocess.ipynb)). Where the histograms of centres differ, no single threshold suits them all. Notebook
# [5](05_evaluate.ipynb) scores such a threshold next to the losses.

# %%
edges = np.linspace(0, 1, 81)
histograms = {}
for centre, scans in subjects.groupby("centre"):
    volumes = [read_flair(path).get_fdata(dtype=np.float32) for path in scans.flair[:3]]
    counts = sum(np.histogram(volume[volume > 0], edges)[0] for volume in volumes)
    histograms[centre] = ((edges[1:] + edges[:-1]) / 2, counts / counts.sum())
training_figures.intensity_histograms(histograms)

# %% [markdown]
# ## Sharpness and contrast, next to other scans
#
# A network trained on synthetic scans works on real ones only as far as the two look alike. The table has, per centre, the
# width of the border between brain and fluid and the brightness of lesions relative to the tissue around them. The figure
# has the power of the slices by spatial frequency, which falls with the resolution and ends in the noise. `beside` names
# a folder of scans to compare with. D-051 has the values of ten real scans.

# %%
measured = subjects.groupby("centre").head(3)
if beside:
    others = cohort.read_folder(find(beside, "folder of scans")).groupby("centre").head(3)
    measured = pd.concat([measured, others.assign(centre=others.centre + ", compared")])
rows, spectra = [], {}
for row in measured.itertuples():
    flair, reference = read_pair(row.flair, row.reference)
    spectra.setdefault(row.centre, []).append(appearance.power_spectrum(flair))
    contrast = appearance.lesion_contrast(flair, np.asarray(reference.dataobj))
    rows.append({"centre": row.centre, "border (mm)": appearance.edge_width_mm(flair), "lesion contrast": contrast})
medians = {centre: np.median(scans, axis=0) for centre, scans in spectra.items()}
training_figures.power_spectra(appearance.FREQUENCIES, medians)

# %%
pd.DataFrame(rows).groupby("centre").median().round(2)

# %% [markdown]
# ## What was learnt

# %%
Markdown(summaries.cohort(loads))

# %% [markdown]
# Next: [2 · From a scan to the network's input](02_preprocess.ipynb).
