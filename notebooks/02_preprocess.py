# %% [markdown]
# # 2 · From a scan to what the network sees
#
# The paper's recipe (section 3.2.1) in five steps: divide the volume by its maximum; take the axial slices; resample
# each to a square with scikit-image's `resize`; repeat the grey value to three channels; preprocess these as VGG19
# expects. The same input serves every loss. This notebook shows each step on one slice, then writes the slices of all
# training and validation subjects to memory-mapped arrays. Holdout and external scans are *not* prepared here: they
# are segmented as whole scans, as a new patient's would be.

# %% tags=["parameters"]
config = "config/demo.yaml"  # the study; paths are relative to the project's folder
data = ""  # another folder in the challenge's layout; empty: the one the study names

# %%
from wmhlib.running import parameters

parameters.check(config=config, data=data)

# %%
import numpy as np
import pandas as pd
import plotly.express as px

from wmhlib import batches, cohort, slices
from wmhlib.generator import IMAGENET_MEANS, network_input
from wmhlib.intake.scans import read_pair
from wmhlib.report.pictures import outlined, picture_row
from wmhlib.running.files import write_table
from wmhlib.study import open_study

study = open_study(config, data)
size, preparation = study.config.preprocessing.size_px, study.preparations[0]
subjects = cohort.load_cohort(study)
prepared = subjects[subjects.split.isin(["training", "validation"])]
print(f"{len(prepared)} subjects to prepare, slices of {size} × {size} pixels")

# %% [markdown]
# ## One slice, step by step
#
# The slice with the most lesion of the first training subject: all of it, as in the paper, or the rectangle around the
# head alone, as the configuration's `view` says. Squeezing it to a square changes its proportions; the prediction is
# stretched back to the scan's grid before it is scored. Its brightness is divided by the volume's maximum, as in the paper,
# or by its tissue's, as `intensity` says: a few bright voxels, or fat around the brain, set the maximum but not the tissue.

# %%
first = prepared.iloc[0]
flair, reference = read_pair(first.flair, first.reference, preparation.intensity)
lesion = np.asarray(reference.dataobj, dtype=bool)
k = int(lesion.sum(axis=(0, 1)).argmax())
volume = flair.get_fdata(dtype=np.float32)
box = slices.box_of(flair, preparation.view)
square = slices.axial_slices(slices.cut_out(volume[..., [k]], box), size)[0]
square_lesion = slices.axial_slices(slices.cut_out(lesion[..., [k]], box), size)[0]
picture_row(
    {
        f"on the scan's grid, {volume.shape[0]} × {volume.shape[1]}": outlined(volume[..., k], {}),
        f"resampled, {size} × {size}": outlined(square, {}),
        "with the reference": outlined(square, {"reference": square_lesion}),
    }
)

# %%
ready = network_input(square)
assert ready.shape == (size, size, 3)
assert np.allclose(ready[..., 0] - ready[..., 2], 123.68 - 103.939), "three channels differ only by ImageNet's means"
pd.DataFrame({"in": [square.min(), square.max()], "to VGG19": [ready.min(), ready.max()]}, ["lowest", "highest"]).round(
    2
)

# %% [markdown]
# ## Labels, hard and soft
#
# The paper trains towards 0.1 and 0.9 instead of 0 and 1, so that the sigmoid need not saturate. For overlap losses
# that has a price (notebook 3), so each loss names its own labels in the configuration.

# %%
pd.Series({name: batches.label_values(np.array([False, True]), name).tolist() for name in ("hard", "soft")})

# %% [markdown]
# ## What does the detour cost?
#
# A reference brought to the network's slices and back to the scan is what a network that repeats its reference slices would
# give. Its Dice with the reference is the **ceiling** to read results beside, at this slice size. First by eye, for the subject with the
# lowest ceiling of each centre: what the detour loses is painted blue, what it adds is red.

# %%
ceilings = slices.ceilings(subjects, size, preparation)
assert ceilings.dice.dropna().between(0, 1).all()
write_table(study.tables / "ceilings.csv", ceilings)
lowest = subjects.loc[ceilings.dropna().groupby("centre").dice.idxmin()]
for row in lowest.itertuples():
    flair, reference = read_pair(row.flair, row.reference, preparation.intensity)
    before = np.asarray(reference.dataobj, dtype=bool)
    back = slices.round_trip(flair, reference, size, preparation.view)
    k = int(before.sum(axis=(0, 1)).argmax())
    there = slices.axial_slices(slices.cut_out(before[..., [k]], slices.box_of(flair, preparation.view)), size)[0]
    head = slices.box_of(flair, "head")
    grey, before, back = (slices.cut_out(one[..., k], head) for one in (flair.get_fdata(), before, back))
    picture_row(
        {
            f"{row.centre}, {row.subject}: original": outlined(grey, {"reference": before}),
            f"on the network's {size} × {size}": outlined(there.astype(np.float32), {}),
            "back on the scan": outlined(grey, {"found": back}),
            "lost and added": outlined(grey, {"missed": before & ~back, "false": back & ~before}),
        }
    ).show()

# %% [markdown]
# The unseen centres are in the table too: no network is trained on them here, and their ceiling is what their results
# must be read beside. Notebook 5 repeats it next to Table 1.

# %%
ceilings.groupby(["split", "centre"], sort=False).dice.agg(["size", "min", "mean", "max"]).round(3)

# %% [markdown]
# ## Write every slice
#
# One subject at a time, into arrays on disk that training reads a batch at a time: memory does not grow with the
# cohort. A study that compares views (`whole`, `head`, `pad`) or intensities (`maximum`, `tissue`) writes one set of arrays
# for each. A warning names every scan whose maximum is out of proportion to its tissue.

# %%
for each in study.preparations:
    slices.write_slices(prepared, study.slices / each.name, size, each)
images, references, index = slices.open_slices(study.slices / preparation.name)
assert images.dtype == np.float32 and images.shape == references.shape
assert 0 <= images[:100].min() and images.max() <= 1
table = index.groupby("split").agg(
    subjects=("subject", "nunique"),
    slices=("slice", "size"),
    with_lesion=("lesion_density_pct", lambda density: int((density > 0).sum())),
    mean_density_pct=("lesion_density_pct", "mean"),
)
table.round(3)

# %% [markdown]
# ## Augmentation
#
# In training each slice is rotated by a random angle (paper: up to 30 degrees). An augmentation is a small function of
# `(image, reference, random)`; `wmhlib/augmentations.py` has a few more. Batch *n* is a pure function of the seed and *n*:
# every loss of one seed sees the same slices, augmented alike.

# %%
chosen = batches.chosen_augmentations(study.config.augmentation)
rows = index.index[index.lesion_density_pct > index.lesion_density_pct.quantile(0.9)].to_numpy()
stream = batches.TrainingBatches(images, references, rows, "hard", 4, chosen, seed=1)
again = batches.TrainingBatches(images, references, rows, "hard", 4, chosen, seed=1)
image, label = stream[0]
assert np.array_equal(image, again[0][0]), "same seed, same batch"
grey = (image[..., 0] + IMAGENET_MEANS[0]) / 255
picture_row(
    {
        f"slice {number + 1}": outlined(grey[number], {"reference": label[number, ..., 0] > 0.5})
        for number in range(len(grey))
    }
)

# %% [markdown]
# ## How imbalanced is a slice?
#
# Most slices hold no lesion at all, and where there is some it is rarely more than one or two per cent.

# %%
figure = px.histogram(index[index.lesion_density_pct > 0], x="lesion_density_pct", color="centre", nbins=60)
figure.update_layout(xaxis_title="lesion pixels in the slice (%)", yaxis_title="slices with lesion", height=360)
figure
