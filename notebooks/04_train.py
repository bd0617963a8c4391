# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 4 · Train one loss
#
# One network, one loss, one seed (paper 3.2.2: Adam, batches of 8, learning rate 0.001). Every loss of a seed starts
# from the same weights and sees the same slices at the same angles, so only the loss and its labels differ (and, in a variant, what its entry says). The epoch with
# the highest Dice on the validation subjects is kept, by the same yardstick for every loss (the last epoch, where a study
# has no validation subjects). A training that was cut off goes on from its last whole epoch, one that is done
# is not repeated. At the end the network segments the scans it has never seen.

# %% tags=["parameters"]
config = "config/demo.yaml"  # the study; paths are relative to the project's folder
data = ""  # another folder in the challenge's layout; empty: the one the study names
loss = "siamese"  # an entry below `losses` of the configuration
seed = 1

# %%
import json

import numpy as np
import pandas as pd
from IPython.display import Markdown, display
from tqdm import tqdm

from wmhlib import (
    checkpoints,
    cohort,
    evaluation,
    figures,
    froc,
    inference,
    metrics,
    segmentation,
    slices,
    statistics,
    training,
)
from wmhlib.scans import save_image
from wmhlib.study import open_study, write_json

study = open_study(config, data)
subjects = cohort.load_cohort(study)
recipe = study.recipe(loss)
images, references, index = slices.open_slices(study.slices / recipe["view"])
print(f"{statistics.LOSSES[loss]}, seed {seed}")
shown = {"loss": recipe["kind"], **recipe["loss"], "labels": recipe["labels"], "view": recipe["view"]}
if shown.get("weights") == "imagenet" and study.discriminator.is_file():
    shown["weights"] = evaluation.vgg19_origin(study)["weights"]  # random where there was no network
pd.Series({**shown, **recipe["training"], **recipe["generator"]}, name="value").to_frame()

# %% [markdown]
# ## Train
#
# The curve grows with every epoch; a larger dot marks the epoch that is kept.

# %%
curve = display(Markdown("*The curve appears after the first epoch.*"), display_id=True)
history = training.train(study, loss, seed, watch=lambda so_far: curve.update(figures.training_curves({loss: so_far})))
history.round(4)

# %%
record = json.loads((study.model(loss, seed) / "training.json").read_text(encoding="utf-8"))
kept = history[history.kept].iloc[-1]
assert kept.epoch == record["kept_epoch"]
assert history.validation_dice.isna().all() or kept.validation_dice == history.validation_dice.max()
print(
    f"Epoch {kept.epoch} of {len(history)} is kept: validation Dice {kept.validation_dice:.3f}; "
    f"{record['seconds']:.0f} s for {record['training_slices']} slices on {', '.join(record['devices'])}."
)

# %% [markdown]
# What the training scans were like is kept beside the model: notebook 7 warns of scans that are unlike them.

# %%
seen = segmentation.training_range(subjects[(subjects.split == "training") & (subjects.centre != recipe["without"])])
write_json(study.model(loss, seed) / "training_range.json", seen)
print(segmentation.about_range(seen))

# %% [markdown]
# ## What has it learnt?
#
# Slices of the validation subjects (of the training subjects, where there is no validation), most lesion first:
# reference left, prediction right.

# %%
generator = inference.load_generator(study.model(loss, seed) / "model.keras")
checked = index[index.split == ("validation" if (index.split == "validation").any() else "training")]
chosen = checked.sort_values("lesion_density_pct", ascending=False).groupby("subject").head(1).index[:3]
drawn = np.asarray(generator(slices.network_input(images[chosen]), training=False))[..., 0]
pictures = {}
for number, row in enumerate(chosen):
    name = index.subject[row]
    pictures[f"reference, {name}"] = figures.outlined(images[row], {"reference": references[row] > 0})
    pictures[f"prediction, {name}"] = figures.outlined(images[row], {loss: drawn[number] > inference.THRESHOLD})
figures.picture_row(pictures)

# %% [markdown]
# ## Segment the unseen scans
#
# Probabilities are brought back to each scan's own grid and cut at one half there. Notebook 5 scores the masks. What other
# cuts would find, and mark falsely, is kept beside the model.

# %%
unseen, points = subjects[subjects.split.isin(["holdout", "external"])], []
for row in tqdm(unseen.itertuples(), "segment", len(unseen), unit="scan"):
    likely = inference.probability(generator, row.flair)
    save_image(inference.mask_of(likely), study.mask(loss, seed, row.subject))
    points.append(metrics.operating_points(row.reference, likely))
froc.write_points(study, loss, seed, unseen, points)
checkpoints.finish(study.model(loss, seed))
print(f"{len(unseen)} masks written")
