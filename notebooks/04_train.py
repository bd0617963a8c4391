# %% [markdown]
# # 4 · Training with one loss
#
# **Question.** How does the generator learn with one loss and one seed (paper 3.2.2: Adam, batches of 8, learning rate 0.001)?
#
# All losses of a seed start from the same weights (except the last bias, which starts at the loss's background label) and
# see the same slices with the same augmentation. Only the loss and its labels differ. A variant may also change other
# settings, listed at its entry below `losses`. The epoch with the highest validation Dice is kept, by the same rule for
# every loss; without validation subjects it is the last epoch. An interrupted training resumes from its last whole epoch,
# and a finished one is not repeated. At the end the network segments the scans it has never seen.
#
# **Before.** Notebook [3](03_build_networks.ipynb). **Time.** Minutes with the demonstration's settings on two cores, a day
# with the paper's; a minute or two with the paper's on a GPU.

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
from wmhlib.report import figures, summaries, training_figures
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
# This is the package's loop for one epoch. For each batch, the generator takes a step that lowers the loss. In the min-max
# game, the discriminator (the class `Adversary`) first takes a step that raises the loss, by changing VGG19's filters, before
# every `discriminator_every`-th step of the generator. On a GPU with JAX, `wmhlib/gpu.py` does the same in one call.

# %%
devices = ", ".join(str(device) for device in keras.distribution.list_devices())
steps = recipe.training.epochs * recipe.training.steps_per_epoch
print(f"{steps} steps of {recipe.training.batch_size} slices on {devices}. The progress bar below shows the time left.")
Code(inspect.getsource(training.run_epoch), language="python")

# %% [markdown]
# ## Train
#
# The curve grows with every epoch, and a larger dot marks the epoch that is kept. Below it you see the network learn:
# its mask of the same slice after each of the latest epochs. It is a validation slice, or a training slice where the
# study has no validation.
#
# **Change this:** `row` to another slice, such as `checked.index[5]`, or the threshold 0.5 in `watch`, and `seed` in the
# parameters to 2, since a finished training is not repeated. **See that:** the training shows that slice, or marks more or less.

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
# The ranges of the training scans are stored with the model: notebook 7 warns of scans outside them.

# %%
trained_on = subjects[(subjects.split == "training") & ~subjects.centre.isin(recipe.left_out)]
span = suitability.training_range(trained_on)
write_json(study.model(loss, seed) / "training_range.json", span)
print(suitability.about_range(span, recipe.intensity))

# %% [markdown]
# ## Predictions on validation slices
#
# The slices with the largest lesion area of three validation subjects (of training subjects, where there is no
# validation), the reference on the left and the prediction on the right.

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
# Probabilities are resampled to each scan's own grid, and voxels of at least 0.5 are marked. Notebook 5 scores the
# masks. The lesions detected and the false positives at other thresholds are saved as well. Those of the validation scans
# choose each loss's own threshold.

# %%
scoring.segment_unseen(study, loss, seed, unseen, subjects[subjects.split == "validation"])
print(f"{len(unseen)} masks written")

# %% [markdown]
# ## A loss and an augmentation of your own
#
# Both are defined in a cell; no file of the package or configuration changes. `my_focal` is a loss, and
# `more_brightness` is the study's loss with one more augmentation.
#
# **Change this:** the formula, or delete an entry that you do not want. Then set `your_own = True` in the parameters, run that
# cell, and run the cells below. **See that:** each network is trained on this study's slices, segments its unseen scans, and
# is compared with the losses trained so far. A training whose code has changed starts over. A loss of another name needs it in
# both places, the class and `entries`. Files are written next to the study's own (`models/my_focal`, `masks/my_focal`, …), and
# its tables do not change.


# %%
class FocalLoss(losses.Loss, name="my_focal", title="Focal (your own)", colour="#332288", labels="hard"):
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
    "my_focal": {},  # its settings, such as {"gamma": 3.0}; those left out are the defaults of the class
    "more_brightness": {**study.raw["losses"][loss], "loss": recipe.loss, "augmentation": {"brightness_pct": 10.0}},
}
own = study.changed(losses=entries, seeds=sorted({*study.config.seeds, seed}))

# %%
curves = {}
for name in entries if your_own else ():
    curves[name] = training.train(own, name, seed)
    scoring.segment_unseen(own, name, seed, unseen)
nothing = Markdown("*`your_own` is False: nothing was trained.*")
training_figures.training_curves(curves | {loss: history}) if curves else nothing

# %%
if your_own:
    per_subject = scoring.score_masks(own, unseen, scoring.segmented(own, unseen))["per_subject"]
    for split in per_subject.split.unique():
        figures.metric_panels(per_subject, split).update_layout(title=f"{split} subjects").show()
    means = per_subject.groupby(["split", "loss"])[["dice", "lesion_recall", "lesion_f1"]].mean().round(3)
    display(means.rename(index=title, level="loss"))

# %% [markdown]
# ## What was learnt

# %%
Markdown(
    summaries.training(history, title(loss)) + "\n\nNext: [5 · Losses compared on unseen scans](05_evaluate.ipynb)."
)
