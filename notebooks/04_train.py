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
# from the same weights and sees the same slices, augmented alike, so only the loss and its labels differ (and, in a variant,
# what its entry says). The epoch with the highest Dice on the validation subjects is kept, by the same rule for every loss (the last epoch, where a study
# has no validation subjects). An interrupted training resumes from its last whole epoch, a finished one
# is not repeated. At the end the network segments the scans it has never seen.

# %% tags=["parameters"]
config = "config/demo.yaml"  # the study; paths are relative to the project's folder
data = ""  # another folder in the challenge's layout; empty: the one the study names
loss = "siamese"  # an entry below `losses` of the configuration
seed = 1
your_own = False  # True: also train the loss that is defined in the last section, and compare it with the others

# %%
from wmhlib.running import parameters

parameters.check(config=config, data=data, loss=loss, seed=seed, your_own=your_own)

# %%
import inspect
import json

import keras
import numpy as np
import pandas as pd
from IPython.display import Code, Markdown, display
from keras import ops

from wmhlib import augmentations, cohort, inference, losses, slices, training
from wmhlib.apply import suitability
from wmhlib.evaluation import records, scoring
from wmhlib.evaluation.names import SPLITS, title
from wmhlib.generator import network_input
from wmhlib.report import figures, training_figures
from wmhlib.report.pictures import outlined, picture_row
from wmhlib.running.files import write_json
from wmhlib.study import open_study

study = open_study(config, data)
subjects = cohort.load_cohort(study)
unseen = subjects[subjects.split.isin(SPLITS)]
recipe = study.recipe(loss)
images, references, index = slices.open_slices(study.slices / recipe.preparation.name)
print(f"{title(loss)}, seed {seed}")
settings = {"loss": recipe.loss, **recipe.settings}
settings |= {f"feature {key}": value for key, value in records.features_of(study, loss).items()}
settings |= {"labels": recipe.labels, "view": recipe.view, "intensity": recipe.intensity, **recipe.augmentation}
pd.Series({**settings, **recipe.training.model_dump(), **recipe.generator.model_dump()}, name="value").to_frame()

# %% [markdown]
# ## The training step
#
# This is the loop that trains every loss, as the package has it: a batch, a step of the adversary where the loss plays the
# min-max game (it raises the content loss; VGG19's filters move), a step of the generator (it lowers the loss; the generator's
# weights move). Everything else is Keras.

# %%
devices = ", ".join(str(device) for device in keras.distribution.list_devices())
steps = recipe.training.epochs * recipe.training.steps_per_epoch
print(f"{steps} steps of {recipe.training.batch_size} slices on {devices}; the time left stands beside the bar below.")
Code(inspect.getsource(training.run_epoch), language="python")

# %% [markdown]
# ## Train
#
# The curve grows with every epoch; a larger dot marks the epoch that is kept. Below it, the same slice after each of the
# latest epochs, as the network then marks it: a validation slice, or a training slice where the study has no validation.

# %%
checked = index[index.split == ("validation" if (index.split == "validation").any() else "training")]
row = int(checked.lesion_density_pct.idxmax())
seen = {"reference": outlined(images[row], {"reference": references[row] > 0})}


def watch(so_far, generator):
    """Draw the curve, and the slice as the generator marks it (None: the training was done before)."""
    curve.update(training_figures.output(training_figures.training_curves({loss: so_far})), raw=True)
    if generator is not None:
        marked = ops.convert_to_numpy(generator(network_input(images[[row]]), training=False))[0, ..., 0] >= 0.5
        seen[f"epoch {len(so_far)}"] = outlined(images[row], {loss: marked})
        latest = ["reference", *list(seen)[1:][-6:]]
        slice_so_far.update(training_figures.output(picture_row({name: seen[name] for name in latest})), raw=True)


curve = display(Markdown("*The curve appears after the first epoch.*"), display_id=True)
slice_so_far = display(Markdown("*The slice appears with it, where there is anything left to train.*"), display_id=True)
history = training.train(study, loss, seed, watch)
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
trained_on = subjects[(subjects.split == "training") & (subjects.centre != recipe.without)]
span = suitability.training_range(trained_on)
write_json(study.model(loss, seed) / "training_range.json", span)
print(suitability.about_range(span, recipe.intensity))

# %% [markdown]
# ## What has it learnt?
#
# Slices of the validation subjects (of the training subjects, where there is no validation), most lesion first:
# reference left, prediction right.

# %%
generator = inference.load_generator(study.model(loss, seed) / "model.keras")
chosen = checked.sort_values("lesion_density_pct", ascending=False).groupby("subject").head(1).index[:3]
predicted = np.asarray(generator(network_input(images[chosen]), training=False))[..., 0]
pictures = {}
for number, row in enumerate(chosen):
    name = index.subject[row]
    pictures[f"reference, {name}"] = outlined(images[row], {"reference": references[row] > 0})
    pictures[f"prediction, {name}"] = outlined(images[row], {loss: predicted[number] >= inference.THRESHOLD})
picture_row(pictures)

# %% [markdown]
# ## Segment the unseen scans
#
# Probabilities are brought back to each scan's own grid and cut at 0.5 there. Notebook 5 scores the masks. What other
# thresholds would detect, and mark falsely, is kept beside the model; the same of the validation scans, which choose each
# loss's own threshold.

# %%
scoring.segment_unseen(study, loss, seed, unseen, subjects[subjects.split == "validation"])
print(f"{len(unseen)} masks written")

# %% [markdown]
# ## A loss and an augmentation of your own
#
# Both are defined in a cell: no file of the package changes, and no configuration. `my_focal` is a loss, `more_brightness` the
# study's loss with one more augmentation. Set `your_own = True` here or among the
# parameters and run the cells below: each network is trained on this study's slices, segments its unseen scans, and stands
# beside the losses trained so far. Change the formula and run them again: the training starts over, because it is
# recognised by its code. The files lie with the study's own (`models/my_focal`, `masks/my_focal`, …); its tables stay as they are.


# %%
class FocalLoss(losses.Loss, name="my_focal", title="Focal (your own)", colour="#882255", labels="hard"):
    """Mean of -(1 - q)^gamma log q, where q is the probability given to the true class (Lin et al. 2017,
    doi:10.1109/ICCV.2017.324)."""

    def __init__(self, gamma: float = 2.0):
        super().__init__()
        self.gamma = gamma

    def call(self, y_true, y_pred):
        q = ops.clip(y_true * y_pred + (1 - y_true) * (1 - y_pred), 1e-7, 1.0)
        return -ops.mean((1 - q) ** self.gamma * ops.log(q))


@augmentations.augmentation
def brightness_pct(image, reference, random, most: float):
    """Multiply the image by up to 1 ± `most` per cent."""
    return np.clip(image * (1 + random.uniform(-most, most) / 100), 0, 1), reference


entries = {
    "my_focal": {"gamma": 2.0},
    "more_brightness": {**study.raw["losses"][loss], "loss": recipe.loss, "augmentation": {"brightness_pct": 10.0}},
}
own = study.changed(losses=entries)

# %%
curves = {}
for name in entries if your_own else ():
    curves[name] = training.train(own, name, seed)
    scoring.segment_unseen(own, name, seed, unseen)
training_figures.training_curves(curves | {loss: history}) if curves else Markdown(
    "*`your_own` is False: nothing was trained.*"
)

# %%
if your_own:
    beside = scoring.score_masks(own, unseen, scoring.segmented(own, unseen))["per_subject"]
    for split in beside.split.unique():
        figures.metric_panels(beside, split).update_layout(title=f"{split} subjects").show()
    means = beside.groupby(["split", "loss"])[["dice", "lesion_recall", "lesion_f1"]].mean().round(3)
    display(means.rename(index=title, level="loss"))
