# %% [markdown]
# # 5 · Which loss, how sure, on which lesions?
#
# Every mask is scored on its scan's own grid by the five figures of the WMH Challenge (paper 3.2.3) and compared with
# the reference's lesion load. The tables are computed here once; every figure and sentence of the report reads them.

# %% tags=["parameters"]
config = "config/demo.yaml"  # the study; paths are relative to the project's folder
data = ""  # another folder in the challenge's layout; empty: the one the study names

# %%
from wmhlib.running import parameters

parameters.check(config=config, data=data)

# %%
from functools import partial

import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from wmhlib import cohort
from wmhlib.evaluation import froc, published, records, scoring
from wmhlib.evaluation.names import SPLITS, present, title
from wmhlib.metrics import METRICS
from wmhlib.report import captions, figures, findings, training_figures, viewers
from wmhlib.report.pictures import prediction_samples, sample
from wmhlib.study import open_study

study = open_study(config, data)
subjects = cohort.load_cohort(study)
unseen = subjects[subjects.split.isin(SPLITS)]

# %% [markdown]
# ## The floor: one threshold for everything
#
# The simplest segmenter marks whatever is brighter than one level. The level is tuned on the training subjects; a
# network that is not better than this has learnt nothing.

# %%
level, tuned = scoring.write_threshold_masks(study, subjects)
print(f"level {level:.2f} of the volume's maximum; mean Dice on the training subjects {tuned:.2f}")

# %% [markdown]
# ## Score every mask
#
# One row a subject in `per_subject.csv`; one row for every lesion of a reference and for every false detection in
# `per_lesion.csv`. All later tables follow from these two. Human observers are scored as another model, where the data
# has their masks.

# %%
scored = scoring.score(study, unseen)
tables = scoring.summarise(scored, study.kinds)
scoring.save_tables(study, tables)
per_subject, per_lesion = tables["per_subject"], tables["per_lesion"]
assert per_subject.dice.dropna().between(0, 1).all()
assert not per_subject.duplicated(["loss", "seed", "subject"]).any()
found = per_lesion[per_lesion.kind == "reference"].groupby(["loss", "seed", "subject"]).found.mean()
recall = per_subject.set_index(["loss", "seed", "subject"]).lesion_recall.dropna()
assert np.allclose(found.reindex(recall.index).astype(float), recall), "lesions and subjects tell the same recall"
per_subject.groupby(["loss", "split"]).agg(subjects=("subject", "nunique"), seeds=("seed", "nunique")).unstack()

# %% [markdown]
# ## Table 1
#
# Mean ± SD over subjects, as in the paper. The interval in brackets draws subjects and, for all of them together, seeds:
# it says how far the mean would move with other patients and other trainings. Below each data set stand the paper's own
# figures for the data set in the same role, then people and teams of the challenge; they were measured on other scans
# and are there for orientation. The second table is the **ceiling**: the Dice of a network that repeats its reference slices
# without a fault, since it sees resampled ones.

# %%
display(Markdown(captions.table1_caption(study, tables)))
display(published.readable(tables["table1"]))
limits = records.ceilings(study).query("split in ['holdout', 'external']")
limits.groupby(["split", "centre"], sort=False).dice.agg(["size", "min", "mean", "max"]).round(3)

# %% [markdown]
# ## What holds, and what does not
#
# A difference is called better or worse only where its interval excludes zero *and* a paired permutation test stays
# below 0.05 after Holm's correction over the losses compared in that figure.

# %%
Markdown("\n".join(f"- {sentence}" for sentence in findings.findings(tables)))

# %% [markdown]
# Each loss less the Siamese one, on the same subjects and seeds. *effect_size* is Cohen's d of the paired differences,
# *share_above* the share of subjects on which the loss has the larger figure.

# %%
columns = ["difference", "low", "high", "effect_size", "share_above", "subjects", "p", "p_holm"]
tables["comparisons"].assign(
    metric=lambda table: table.metric.map({key: metric.title for key, metric in METRICS.items()}),
    loss=lambda table: table.loss.map(title),
).set_index(["split", "metric", "loss"]).reindex(columns=columns).round(3)

# %%
for split in tables["comparisons"].split.unique():
    figures.show(
        figures.differences(tables["comparisons"], split).update_layout(
            title=f"{split} subjects, less the Siamese loss"
        ),
        "To the right is better than the Siamese loss. Bars are 95 % intervals over subjects and seeds.",
    )

# %% [markdown]
# ## One change at a time
#
# Variants of a loss (other labels, taps, features, views), each less the loss it varies, on the same subjects and seeds.

# %%
if not len(tables["ablations"]):
    display(Markdown("*This study has no variants; `config/ablations.yaml` has many.*"))
for split in tables["ablations"].split.unique():
    figures.show(
        figures.differences(tables["ablations"], split).update_layout(title=f"{split} subjects, less the loss varied"),
        " ".join(findings.ablations(tables["ablations"], split)),
    )

# %% [markdown]
# ## Table 2: VGG19 fine-tuned in a min-max game
#
# Paper, section 5: VGG19 is unfrozen and raises the loss that the generator lowers. Notebook 6 looks into the game.

# %%
published.readable(tables["table2"]) if len(tables["table2"]) else Markdown("*This study has no min-max game.*")

# %% [markdown]
# ## Every subject, every loss

# %%
names = [loss for loss in present(per_subject) if loss in study.recipes]
seen = names[:7]  # samples and viewers hold eight masks, the reference among them
seed = study.config.seeds[0]
trained = per_subject[per_subject.loss.isin(names)]
people = per_subject[~per_subject.loss.isin([*names, "global_threshold"])]
splits = list(tables["summary"].split.unique())
for split in splits:
    figures.show(
        figures.paired_slopes(per_subject, split).update_layout(title=f"{split} subjects"),
        captions.slopes_caption(tables["summary"], tables["comparisons"], split),
    )

# %%
for split in splits:
    figures.metric_panels(pd.concat([trained, people]), split).update_layout(title=f"{split} subjects").show()

# %% [markdown]
# ## Which lesions are found?
#
# The share of reference lesions that a mask touches, by lesion volume. Bins are even in ratio: below 10 mm³ a lesion has
# one to three of the challenge's voxels, and the median lesion of real scans lies in the two bins after it.

# %%
for split in splits:
    figures.show(
        figures.detection_by_size(tables["detection_by_size"], split).update_layout(title=f"{split} subjects"),
        captions.detection_caption(tables["detection_by_size"], split),
    )
tables["false_detections"].assign(loss=lambda table: table.loss.map(title)).set_index(["split", "loss"]).round(2)

# %% [markdown]
# ## At the same number of false detections
#
# A loss that finds more lesions may only mark more. So the cut through every loss's probabilities is moved (free-response
# ROC), and the losses are compared where all mark equally much that is none. Every point is one cut, the large one the cut
# at one half that all other figures are about; where one curve lies above another, its loss finds more of these lesions
# without marking more that is none. A detection counts here where a tenth of it lies in lesions, elsewhere where one voxel
# does, so the large point may lie a little beside the tables above. The score is the share of lesions found, averaged over
# 1, 2, 4, 8 and 16 false detections a scan; *difference* is each loss less the Siamese one.

# %%
for split in splits:
    figures.show(
        figures.froc(tables["froc"].query("loss in @seen"), split).update_layout(title=f"{split} subjects"),
        " ".join(findings.equal_rates(tables["froc_scores"], tables["froc_comparisons"], split)),
    )

# %%
same = ["split", "lesions", "loss"]
scored_and_compared = tables["froc_scores"].merge(
    tables["froc_comparisons"].drop(columns="against"), how="left", on=same, suffixes=("", " (difference)")
)
scored_and_compared.assign(
    lesions=lambda table: table.lesions.map(lambda which: froc.LESIONS[which][0]),
    loss=lambda table: table.loss.map(title),
).set_index(same).round(3)

# %% [markdown]
# ## At a threshold of its own
#
# Each training's threshold is the one with the highest mean Dice on the **validation** subjects; none of them is scored here.
# *gain* is the mean Dice at that threshold less the one at one half: a loss that gains much is badly placed at one half.

# %%
own = tables["own_thresholds"]
display(
    own.assign(loss=own.loss.map(title))
    .set_index(["split", "loss"])
    .rename(columns={"dice_half": "Dice at 0.5", "dice_own": "Dice at its own", "low": "95 % low", "high": "95 % high"})
    .round(3)
    if len(own)
    else Markdown("*This study has no validation subjects.*")
)

# %% [markdown]
# ## Do the probabilities mean what they say?
#
# Of the voxels that a network gives a probability of, say, 0.8, four of five should be lesion: the dotted line. Below it a network
# is surer than it should be. Soft labels keep probabilities between 0.1 and 0.9.

# %%
for split in splits:
    figures.calibration(tables["calibration"].query("loss in @seen"), split).update_layout(
        title=f"{split} subjects"
    ).show()

# %% [markdown]
# ## Where are they?

# %%
for split in splits:
    figures.show(
        figures.lesion_map(per_lesion, split, seed).update_layout(title=f"{split} subjects, seed {seed}"),
        "Seen from the feet, each scan about the middle of its lesions; the larger the dot, the larger the lesion.",
    )

# %% [markdown]
# ## Figure 4: samples
#
# For each data set the subject whose mean Dice over the losses is the middle one, and the worst. The slice is the one
# with the largest reference area.

# %%
samples, middle_and_worst = [], []
for split, some in trained.groupby("split", sort=False):
    order = some.groupby("subject").dice.mean().sort_values().index
    for name, which in {order[(len(order) - 1) // 2]: "middle", order[0]: "worst"}.items():
        middle_and_worst.append((split, name))
        samples.append(sample(study, subjects, name, seen, seed) | {"title": f"{split}, {which}: {name}"})
prediction_samples(samples)

# %% [markdown]
# ## Figure 5: does the volume come out right, however small the load?
#
# Absolute volume difference by the reference's positive class density. 100 % means that nothing was found, or twice as
# much as there is.

# %%
for split in splits:
    figures.show(
        figures.volume_difference_by_density(per_subject, split).update_layout(title=f"{split} subjects"),
        captions.density_caption(per_subject, split),
    )

# %% [markdown]
# ## Is the load measured right?
#
# Predicted less reference volume against their mean (Bland and Altman). A cloud along zero is what a trial that counts
# lesion load needs; a slope says that large loads are cut short or small ones blown up.

# %%
for split in splits:
    figures.show(
        figures.volume_agreement(tables["volumes"], tables["volume_agreement"], split).update_layout(
            title=f"{split} subjects"
        ),
        captions.agreement_caption(tables["volume_agreement"], split),
    )

# %% [markdown]
# ## By centre, and what is lost on the way to an unseen one

# %%
figures.show(figures.by_centre(tables["centres"]), captions.centres_caption(tables["centres"]))
if len(tables["generalisation_gap"]):
    figures.show(
        figures.generalisation_gap(tables["generalisation_gap"]), captions.gap_caption(tables["generalisation_gap"])
    )

# %% [markdown]
# ## All trainings of one seed side by side

# %%
histories = {loss: pd.read_csv(study.model(loss, seed) / "history.csv") for loss in names}
training_figures.training_curves(histories)

# %% [markdown]
# ## What each entry costs, and how it validates
#
# Means over seeds. Validation Dice chooses the epoch; the paper also chose the number of dense blocks by it (2.1), which
# `config/depth.yaml` and `config/paper-depth.yaml` repeat.

# %%
trainings = pd.DataFrame(records.trainings(study))
depths = {name: recipe.generator.depth for name, recipe in study.recipes.items()}
costs = trainings.groupby("loss", sort=False)[["validation_dice", "kept_epoch", "seconds", "parameters"]].mean()
costs.insert(0, "dense blocks down", costs.index.map(depths))
display(costs.rename(index=title).round({"validation_dice": 3, "kept_epoch": 1, "seconds": 0}))
if len(set(depths.values())) > 1:  # a grid search
    display(records.by_depth(study).round(3))

# %% [markdown]
# ## Look into a scan
#
# The middle and the worst subject of each data set come first, by mean Dice over the losses; with a kernel, every subject
# and seed can be chosen; of a study with many entries the first seven are shown. Click a plane to move the cross, scroll with the wheel or the arrow keys. *errors* paints what
# was found, missed and falsely marked.

# %%
everyone = {}
for number, (split, name) in enumerate([*middle_and_worst, *zip(unseen.split, unseen.subject)]):
    for which in study.config.seeds if number >= len(middle_and_worst) else [seed]:
        rows = per_subject[(per_subject.subject == name) & (per_subject.seed.isin([which, scoring.NO_SEED]))]
        everyone.setdefault(
            f"{split} {name}, seed {which}",
            partial(
                viewers.pack_subject,
                unseen.set_index("subject", drop=False).loc[name],
                {loss: study.mask(loss, which, name) for loss in seen},
                rows.set_index("loss").loc[seen],
            ),
        )
viewers.SliceViewer(everyone, exported=len(middle_and_worst))

# %% [markdown]
# ## Look at one lesion
#
# Every lesion of the references. Filter for those that one loss misses and another finds, choose a row, and see that
# slice under every loss.

# %%
lesions = viewers.pack_lesions(per_lesion, unseen, lambda loss, name: study.mask(loss, seed, name), seen, seed)
viewers.LesionExplorer(lesions=lesions)
