# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 5 · Which loss, how sure, on which lesions?
#
# Every mask is scored on its scan's own grid by the five figures of the WMH Challenge (paper 3.2.3) and compared with
# the reference's lesion load. The tables are computed here once; every figure and sentence of the report reads them.

# %% tags=["parameters"]
config = "config/demo.yaml"  # the study; paths are relative to the project's folder
data = ""  # another folder in the challenge's layout; empty: the one the study names

# %%
import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from wmhlib import cohort, evaluation, figures, slices, statistics, viewers
from wmhlib.study import open_study, replacing

study = open_study(config, data)
subjects = cohort.load_cohort(study)
unseen = subjects[subjects.split.isin(["holdout", "external"])]

# %% [markdown]
# ## The floor: one threshold for everything
#
# The simplest segmenter marks whatever is brighter than one level. The level is tuned on the training subjects; a
# network that is not better than this has learnt nothing.

# %%
level, tuned = evaluation.write_threshold_masks(study, subjects)
print(f"level {level:.2f} of the volume's maximum; mean Dice on the training subjects {tuned:.2f}")

# %% [markdown]
# ## Score every mask

# %%
per_subject = evaluation.score(study, unseen)
with replacing(study.tables / "per_subject.csv") as temporary:
    per_subject.to_csv(temporary, index=False)
assert per_subject.dice.between(0, 1).all()
assert not per_subject.duplicated(["loss", "seed", "subject"]).any()
per_subject.groupby(["loss", "split"]).subject.nunique().unstack()

# %% [markdown]
# ## Table 1
#
# Mean ± SD over subjects, with the 95 % bootstrap interval of the mean in brackets (from three subjects on). Below each
# data set stand the paper's own figures for the data set in the same role; they were measured on other scans and are
# there for orientation. A distance is undefined where a mask is empty; such cases are counted and left out of the mean.

# %%
table = statistics.table1(per_subject)
with replacing(study.tables / "table1.csv") as temporary:
    table.to_csv(temporary, index=False)
display(Markdown(evaluation.caption(study, per_subject)))
statistics.readable(table)

# %% [markdown]
# ## What holds

# %%
Markdown("\n".join(f"- {sentence}" for sentence in statistics.findings(per_subject)))

# %% [markdown]
# ## Every subject, every loss

# %%
names = [loss for loss in statistics.LOSSES if loss in study.config["losses"]]
seed = study.config["seeds"][0]
trained = per_subject[per_subject.loss.isin(names)]
for split in unseen.split.unique():
    figures.metric_panels(trained, split).update_layout(title=f"{split} subjects").show()

# %% [markdown]
# ## Figure 4: samples
#
# For each data set the subject whose mean Dice over the losses is the middle one, and the worst. The slice is the one
# with the largest reference area.

# %%
samples = []
for split, some in trained.groupby("split", sort=False):
    order = some.groupby("subject").dice.mean().sort_values().index
    for which, name in {"middle": order[len(order) // 2], "worst": order[0]}.items():
        samples.append(evaluation.sample(study, subjects, name, names, seed) | {"title": f"{split}, {which}: {name}"})
figures.prediction_samples(samples)

# %% [markdown]
# ## Figure 5: does the volume come out right, however small the load?
#
# Absolute volume difference by the reference's positive class density. 100 % means that nothing was found, or twice as
# much as there is.

# %%
for split in unseen.split.unique():
    figures.volume_difference_by_density(per_subject, split).update_layout(title=f"{split} subjects").show()

# %% [markdown]
# ## All trainings side by side

# %%
histories = {loss: pd.read_csv(study.model(loss, seed) / "history.csv") for loss in names}
figures.training_curves(histories)

# %% [markdown]
# ## Look into one scan
#
# The middle external subject (else holdout), every loss. *errors* shows what was found, missed and falsely marked.

# %%
split = "external" if (trained.split == "external").any() else "holdout"
order = trained[trained.split == split].groupby("subject").dice.mean().sort_values().index
row = subjects.set_index("subject").loc[order[len(order) // 2]]
flair, reference = slices.read_flair(row.flair), np.asarray(slices.read_reference(row.reference).dataobj)
masks = {"reference": reference} | {
    name: np.asarray(slices.canonical(study.mask(name, seed, row.name)).dataobj) for name in names
}
viewers.slice_viewer(
    flair.get_fdata(dtype=np.float32),
    flair.header.get_zooms(),
    masks,
    figures.COLOURS,
    f"{row.centre}, subject {row.name}",
    slices=np.flatnonzero(sum(mask.any(axis=(0, 1)) for mask in masks.values())),
    max_pixels=192,
)
