# %% [markdown]
# # 2 · From a scan to the network's input
#
# **Question.** What does the network see of a scan, and how much accuracy do resampled slices cost?
#
# **Before.** Notebook [1](01_explore_data.ipynb). **Time.** Half a minute, and half a second per scan, on two cores.
#
# The paper's recipe (section 3.2.1) has five steps: divide the volume by its maximum, take the axial slices, resample each
# to a square with scikit-image's `resize`, repeat the grey value in three channels, and preprocess these as VGG19 expects.
# The input is the same for every loss. This notebook shows each step on one slice, then writes the slices of all training
# and validation subjects to disk. Holdout and external scans are *not* prepared here: they are segmented as whole scans,
# as a new patient's would be.

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
from IPython.display import Markdown

from wmhlib import batches, cohort, slices
from wmhlib.generator import IMAGENET_MEANS, network_input
from wmhlib.intake.scans import read_pair
from wmhlib.report import summaries
from wmhlib.report.pictures import augmented_row, outlined, picture_row, round_trip_row
from wmhlib.running.files import write_table
from wmhlib.study import open_study

study = open_study(config, data)
size, preparation = study.config.preprocessing.size_px, study.preparations[0]
subjects = cohort.load_cohort(study)
prepared = subjects[subjects.split.isin(["training", "validation"])]
print(
    f"{len(prepared)} subjects to prepare, slices of {size} × {size} pixels; view: {preparation.view}, brightness divided by: "
    f"{preparation.intensity}"
)

# %% [markdown]
# ## One slice, step by step
#
# The slice with the most lesion of the first training subject. `view` says what of it is used: all of it, as in the paper,
# or the rectangle around the head. Resampling to a square changes its proportions; the prediction is resampled back to the
# scan's grid before it is scored. `intensity` says what the brightness is divided by: the volume's maximum, as in the
# paper, or the level of its tissue. A few bright voxels, or fat around the brain, change the maximum but not the tissue.

# %%
first = prepared.iloc[0]
flair, reference = read_pair(first.flair, first.reference, preparation.intensity)
volume, lesion = flair.get_fdata(dtype=np.float32), np.asarray(reference.dataobj, dtype=bool)
k = int(lesion.sum(axis=(0, 1)).argmax())
box = slices.box_of(flair, preparation.view)
square, square_lesion = (
    slices.axial_slices(slices.cut_out(values[..., [k]], box), size)[0] for values in (volume, lesion)
)

# %%
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
ends = {"slice": [square.min(), square.max()], "network's input": [ready.min(), ready.max()]}
pd.DataFrame(ends, ["lowest", "highest"]).round(2)

# %% [markdown]
# ## Augmentations
#
# **Change this:** the first line of the next cell. Try `{"rotation_deg": 90}`, `{"zoom_pct": 50}`, `{"flip_probability":
# 1}`, `{"gamma_pct": 100}`, `{"blur_px": 3}`, `{"noise_pct": 20}` or `{"bias_field_pct": 80}`.
#
# **See that:** the outline of the reference moves with the image in the first three, and stays in the others, where only the
# grey values change.

# %%
try_this = {"rotation_deg": 30}  # change this line
augmented_row(square, square_lesion, batches.chosen_augmentations(try_this))

# %% [markdown]
# ## The ceiling set by resampling
#
# A network that repeats its reference slices without an error still does not reach a Dice of 1, since its slices are
# resampled. The Dice that it would reach is the **ceiling** of this slice size. (Smooth probabilities can score
# slightly higher, D-014.) The pictures show the subject with the lowest ceiling per centre: violet is lost, red is added.

# %%
ceilings = slices.ceilings(subjects, size, preparation)
assert ceilings.dice.dropna().between(0, 1).all()
write_table(study.tables / "ceilings.csv", ceilings)
for row in subjects.loc[ceilings.dropna().groupby("centre").dice.idxmin()].itertuples():
    round_trip_row(row, size, preparation).show()

# %% [markdown]
# The table has the unseen centres too. No network is trained on them; notebook [5](05_evaluate.ipynb) shows their ceilings
# next to Table 1.

# %%
slices.ceilings_by_centre(ceilings)

# %% [markdown]
# ## Slices on disk
#
# One subject at a time is written to arrays that training reads one batch at a time, so memory does not grow with the
# cohort. A study that compares views (`whole`, `head`, `pad`) or intensities (`maximum`, `tissue`) has one set of
# arrays per combination. A warning names every scan whose maximum is out of proportion to its tissue.

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
# ## Most slices hold no lesion
#
# The figure shows the others.

# %%
figure = px.histogram(index[index.lesion_density_pct > 0], x="lesion_density_pct", color="centre", nbins=60)
figure.update_layout(xaxis_title="lesion pixels in the slice (%)", yaxis_title="slices with lesion", height=360)
figure

# %% [markdown]
# ## Labels, hard and soft
#
# The paper trains towards 0.1 and 0.9 instead of 0 and 1, so that the sigmoid need not saturate. For overlap losses this
# has a cost (notebook [3](03_build_networks.ipynb)), so the configuration gives the labels per loss.

# %%
pd.Series({name: batches.label_values(np.array([False, True]), name).tolist() for name in ("hard", "soft")})

# %% [markdown]
# ## Training slices, augmented
#
# Four of the training slices with most lesion, augmented as in training: each slice is rotated by a random angle (paper: up
# to 30 degrees), and changed by whatever other augmentations the configuration names. A batch in training is drawn from all
# training slices with tissue, with or without lesions (D-010). Batch *n* depends on the seed and *n* alone, so every loss of
# one seed sees the same slices with the same changes.

# %%
augmentations = batches.chosen_augmentations(study.config.augmentation)
training = index[index.split == "training"]
rows = training.index[training.lesion_density_pct > training.lesion_density_pct.quantile(0.9)].to_numpy()
stream, again = (batches.TrainingBatches(images, references, rows, "hard", 4, augmentations, seed=1) for _ in range(2))
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
# ## What was learnt

# %%
Markdown(summaries.preparation(ceilings, index, size))

# %% [markdown]
# Next: [3 · The two networks and the losses](03_build_networks.ipynb).
