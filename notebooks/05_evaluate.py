# %% [markdown]
# # 5 · Losses compared on unseen scans
#
# **Question.** Which loss segments lesions best on scans that no training has seen, how sure is that, and which lesions
# does each loss miss?
#
# **Before.** Notebooks [1](01_explore_data.ipynb) and [2](02_preprocess.ipynb), and [4](04_train.ipynb) for every loss and
# seed. **Time.** About a minute, and a second per unseen scan, on two cores.
#
# `centres`, `losses` and `seeds` choose a part of a finished study. The study's tables are written only where everything
# is chosen.

# %% tags=["parameters"]
config = "config/demo.yaml"  # the study; paths are relative to the project's folder
data = ""  # another folder in the challenge's layout; empty: the one the study names
centres = ""  # unseen scans of these centres alone, with commas between; empty: all
losses = ""  # these entries of the configuration alone, such as "dice, siamese"; empty: all
seeds = ""  # these seeds alone, such as "1, 2"; empty: all

# %%
from wmhlib.running import parameters

parameters.check(config=config, data=data, centres=centres, losses=losses, seeds=seeds)

# %%
import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from wmhlib import cohort, slices
from wmhlib.evaluation import froc, published, records, scoring
from wmhlib.evaluation.names import SPLITS, present, title
from wmhlib.metrics import METRICS
from wmhlib.report import answer, captions, figures, findings, scoreboard, training_figures, viewers
from wmhlib.report.pictures import middle_and_worst, prediction_samples, sample
from wmhlib.study import open_study

study = open_study(config, data)
subjects = cohort.load_cohort(study)
every_unseen = subjects[subjects.split.isin(SPLITS)]
study, unseen, part = scoring.choose(study, every_unseen, *map(parameters.listed, (centres, losses, seeds)))
seed = study.config.seeds[0]

# %% [markdown]
# ## The answer

# %%
level, tuned = scoring.write_threshold_masks(study, subjects)
scored = scoring.of_scans(scoring.score(study, every_unseen), unseen)
tables = scoring.summarise(scored, study.kinds)
per_subject, per_lesion = tables["per_subject"], tables["per_lesion"]
if not part:
    scoring.save_tables(study, tables)

# %%
synthetic = answer.unseen_is_synthetic(study, unseen, tables["summary"])
trainings, alike = [study.recipes[loss].training for loss in study.losses], answer.one_kind(study, unseen)
said = answer.answers(tables, len(study.config.seeds), trainings, alike)
details = "".join(f"\n- *{question}* {text}" for question, text in said.items())
headline = answer.headline(tables, answer.unseen_scans(tables, [subjects], synthetic))
Markdown(f"**{headline}**\n{details}")

# %% [markdown]
# Means over the unseen scans with 95 % intervals; *better* and *worse* mark significant differences from the Siamese loss.
# *Equal false positives*: the fraction of lesions detected at the same number of false positives per scan.

# %%
scoreboard.headline_table(tables, study.losses)

# %% [markdown]
# ## Scans, slice by slice
#
# The middle and the worst scan of each split come first, by mean Dice over the losses. With a kernel, every scan and seed
# can be chosen. Click a plane to move the cross, then scroll with the wheel or the arrow keys. *errors* paints what was
# detected, missed and falsely marked.

# %%
names = [loss for loss in present(per_subject) if loss in study.recipes]
shown = names[:7]  # viewers and samples hold eight masks, the reference among them
trained = per_subject[per_subject.loss.isin(names)]
examples = middle_and_worst(trained)
viewers.results_viewer(study, unseen, per_subject, [name for *_, name in examples], shown)

# %% [markdown]
# ## Lesions, one by one
#
# Filter for reference lesions that one loss misses and another detects, choose a row, and see that slice under every
# loss.

# %%
lesions = viewers.pack_lesions(per_lesion, unseen, lambda loss, name: study.mask(loss, seed, name), shown, seed)
viewers.LesionExplorer(lesions=lesions)

# %% [markdown]
# ## Figures
#
# They show the unseen scans that the answer is about. *Details* has the other split.
#
# ### Lesions detected at equal false positives
#
# A loss can detect more lesions by marking more. Each curve moves the threshold through a loss's probabilities
# (free-response ROC); the large point is the threshold 0.5. Where one curve is above another, its loss detects more
# lesions at the same number of false positives. A component counts as detecting here where a tenth of it lies in lesions,
# elsewhere where one voxel does, so the large point can differ a little from the tables.

# %%
split = answer.unseen_split(tables["summary"])
splits = [split, *(other for other in tables["summary"].split.unique() if other != split)]
figures.show(
    figures.froc(tables["froc"].query("loss in @shown"), split).update_layout(title=f"{split} subjects"),
    " ".join(findings.equal_rates(tables["froc_scores"], tables["froc_comparisons"], split)),
)

# %% [markdown]
# ### Lesions detected by size
#
# Each class of size is about three times the one before. A lesion below 10 mm³ is one to three voxels of the challenge's
# scans. First at equal false positives, then the fraction of lesions that a mask touches at the threshold 0.5.

# %%
figures.show(
    figures.detection_by_size(tables["froc_by_size"].query("loss in @shown"), split).update_layout(
        title=f"{split} subjects, at equal false positives"
    ),
    answer.on_which_lesions(tables),
)
figures.show(
    figures.detection_by_size(tables["detection_by_size"], split).update_layout(
        title=f"{split} subjects, at the threshold 0.5"
    ),
    captions.detection_caption(tables, split),
)

# %% [markdown]
# ### Dice and lesion recall of each subject

# %%
figures.show(
    figures.paired_slopes(per_subject, split).update_layout(title=f"{split} subjects"),
    captions.slopes_caption(tables["summary"], tables["comparisons"], split),
)

# %% [markdown]
# ### Samples (the paper's Figure 4)
#
# The middle and the worst scan of each split, at the slice with the largest reference area: lesions that are detected
# (green), missed (violet), and false positives (red).

# %%
prediction_samples(
    [
        sample(study, subjects, name, shown, seed) | {"title": f"{split}, {which}: {name}"}
        for split, which, name in examples
    ]
)

# %% [markdown]
# ## Details
#
# Every table and figure by split. Open what you need.

# %% [markdown] tags=["details"]
# ### How masks are scored
#
# Each mask is compared with its reference on the scan's own grid, by the five metrics of the WMH Challenge (paper 3.2.3).
# The **brightness threshold** is the floor: it marks whatever is brighter than one level, tuned on the training subjects.
# `per_subject.csv` has one row per mask, `per_lesion.csv` one row per reference lesion and per false positive. All other
# tables, figures and sentences are computed from these two and from what each threshold detects.

# %%
kept = (
    f"Only {part}: the study's tables stay as they are"
    if part
    else f"All centres, losses and seeds: {len(tables)} tables"
)
print(f"{kept}. {len(per_subject)} masks were scored.")
print(f"Brightness threshold: {level:.2f} of the volume's maximum, mean Dice on the training subjects {tuned:.2f}.")
assert per_subject.dice.dropna().between(0, 1).all()
assert not per_subject.duplicated(["loss", "seed", "subject"]).any(), "no mask is scored twice"
keys = ["loss", "seed", "subject"]
detected = per_lesion[per_lesion.kind == "reference"].groupby(keys).found.mean()
recall = per_subject.set_index(keys).lesion_recall.dropna()
assert np.allclose(detected.reindex(recall.index).astype(float), recall), "lesions and subjects give the same recall"
per_subject.groupby(["loss", "split"]).agg(subjects=("subject", "nunique"), seeds=("seed", "nunique")).unstack()

# %% [markdown] tags=["details"]
# ### Table 1, with the paper's and the challenge's values
#
# Mean ± SD over subjects, as in the paper. The 95 % interval in brackets draws subjects and seeds: it says how far the mean
# would move with other patients and other trainings. Below each data set are the paper's values for the data set in the
# same role, then human observers and teams of the challenge. They were measured on other scans and are for orientation.
#
# The second table is the **ceiling**: the Dice of a network that repeats its reference slices without an error.

# %%
if not part:
    display(Markdown(captions.table1_caption(study, tables)))
display(published.readable(tables["table1"]))
slices.ceilings_by_centre(records.ceilings(study).query("subject in @unseen.subject"))

# %% [markdown] tags=["details"]
# ### Findings, split by split
#
# A difference is called better or worse only where its interval excludes zero *and* a paired permutation test stays
# below 0.05 after Holm's correction over the losses compared in that metric (D-019).

# %%
Markdown("\n".join(f"- {sentence}" for sentence in findings.findings(tables)))

# %% [markdown] tags=["details"]
# ### Differences from the Siamese loss
#
# On the same subjects and seeds. The effect size is Cohen's d of the paired differences; *subjects above* is the fraction of
# subjects on which the loss has the larger value.

# %%
for which in tables["comparisons"].split.unique():
    figures.show(
        figures.differences(tables["comparisons"], which).update_layout(title=f"{which} subjects, minus Siamese"),
        "To the right is better than the Siamese loss. Bars are 95 % intervals over subjects and seeds.",
    )
heads = {"difference": "difference", "low": "95 % low", "high": "95 % high", "effect_size": "effect size"}
heads |= {"share_above": "subjects above", "subjects": "subjects", "p": "p", "p_holm": "p (Holm)"}
tables["comparisons"].assign(
    metric=lambda table: table.metric.map({key: metric.title for key, metric in METRICS.items()}),
    loss=lambda table: table.loss.map(title),
).set_index(["split", "metric", "loss"]).reindex(columns=list(heads)).rename(columns=heads).round(3)

# %% [markdown] tags=["details"]
# ### One change at a time
#
# Variants of a loss (other labels, taps, features, views), each minus the loss it varies, on the same subjects and seeds.

# %%
if not len(tables["ablations"]):
    display(Markdown("*No variant and its loss to compare; `config/ablations.yaml` has many.*"))
for which in tables["ablations"].split.unique():
    figures.show(
        figures.differences(tables["ablations"], which).update_layout(title=f"{which} subjects, minus the loss varied"),
        " ".join(findings.ablations(tables["ablations"], which)),
    )

# %% [markdown] tags=["details"]
# ### Table 2: VGG19 fine-tuned in a min-max game
#
# Paper, section 5: VGG19 is trained to raise the loss that the generator lowers. Notebook
# [6](06_diagnose_minmax.ipynb) shows what happens in the game.

# %%
published.readable(tables["table2"]) if len(tables["table2"]) else Markdown("*This study has no min-max game.*")

# %% [markdown] tags=["details"]
# ### All metrics of each subject
#
# With the human observers, where the data has their masks.

# %%
masks_of = per_subject[per_subject.loss != "global_threshold"]
for which in splits:
    figures.metric_panels(masks_of, which).update_layout(title=f"{which} subjects").show()

# %% [markdown] tags=["details"]
# ### The figures above for the other split

# %%
for which in splits[1:]:
    figures.show(
        figures.froc(tables["froc"].query("loss in @shown"), which).update_layout(title=f"{which} subjects"),
        " ".join(findings.equal_rates(tables["froc_scores"], tables["froc_comparisons"], which)),
    )

# %%
for which in splits[1:]:
    figures.show(
        figures.detection_by_size(tables["detection_by_size"], which).update_layout(title=f"{which} subjects"),
        captions.detection_caption(tables, which),
    )

# %%
for which in splits[1:]:
    figures.show(
        figures.paired_slopes(per_subject, which).update_layout(title=f"{which} subjects"),
        captions.slopes_caption(tables["summary"], tables["comparisons"], which),
    )

# %% [markdown] tags=["details"]
# ### False positives, and scores at equal numbers of them
#
# *score* is the fraction of lesions detected, averaged over 1, 2, 4, 8 and 16 false positives per scan. *difference* is
# each loss minus the Siamese one.

# %%
display(
    tables["false_detections"].assign(loss=lambda table: table.loss.map(title)).set_index(["split", "loss"]).round(2)
)
keys = ["split", "lesions", "loss"]
compared = tables["froc_comparisons"].drop(columns="against")
tables["froc_scores"].merge(compared, how="left", on=keys, suffixes=("", " (difference)")).assign(
    lesions=lambda table: table.lesions.map(lambda which: froc.LESIONS[which][0]),
    loss=lambda table: table.loss.map(title),
).set_index(keys).round(3)

# %% [markdown] tags=["details"]
# ### Thresholds chosen on the validation subjects
#
# Each training's own threshold has the highest mean Dice on the **validation** subjects, which are not scored here. *gain*
# is the mean Dice at that threshold minus the one at 0.5: a loss that gains much is badly placed at 0.5.

# %%
own = tables["own_thresholds"]
heads = {"dice_half": "Dice at 0.5", "dice_own": "Dice at its own", "low": "95 % low", "high": "95 % high"}
display(
    own.assign(loss=own.loss.map(title)).set_index(["split", "loss"]).rename(columns=heads).round(3)
    if len(own)
    else Markdown("*This study has no validation subjects.*")
)

# %% [markdown] tags=["details"]
# ### Calibration
#
# Of the voxels that a network gives a probability of 0.8, four of five should be lesion: the dotted line. Below the line
# a network is overconfident. Soft labels pull probabilities towards 0.1 and 0.9, so their
# curves need not follow the dotted line.

# %%
for which in splits:
    figure = figures.calibration(tables["calibration"].query("loss in @shown"), which)
    figure.update_layout(title=f"{which} subjects").show()

# %% [markdown] tags=["details"]
# ### Places of detected, missed and false lesions

# %%
for which in splits:
    figures.show(
        figures.lesion_map(per_lesion, which, seed).update_layout(title=f"{which} subjects, seed {seed}"),
        "Seen from the feet, each scan about the middle of its lesions; the larger the dot, the larger the lesion.",
    )

# %% [markdown] tags=["details"]
# ### Volume difference by lesion load (the paper's Figure 5)
#
# Absolute volume difference by the reference's positive class density. 100 % means that nothing was detected, or twice
# the volume.

# %%
for which in splits:
    figures.show(
        figures.volume_difference_by_density(per_subject, which).update_layout(title=f"{which} subjects"),
        captions.density_caption(per_subject, which),
    )

# %% [markdown] tags=["details"]
# ### Agreement of lesion volumes
#
# Predicted minus reference volume against their mean (Bland and Altman). Points along zero are what a trial that measures
# lesion load needs. A slope means that large loads are underestimated or small ones overestimated.

# %%
for which in splits:
    figures.show(
        figures.volume_agreement(tables["volumes"], tables["volume_agreement"], which).update_layout(
            title=f"{which} subjects"
        ),
        captions.agreement_caption(tables["volume_agreement"], which),
    )

# %% [markdown] tags=["details"]
# ### Centres, and the loss of accuracy at an unseen one

# %%
figures.show(figures.by_centre(tables["centres"]), captions.centres_caption(tables["centres"]))
if len(gap := tables["generalisation_gap"]):
    figures.show(figures.generalisation_gap(gap), captions.gap_caption(gap))

# %% [markdown] tags=["details"]
# ### Trainings, and what each costs
#
# Curves of one seed, then means over seeds. Validation Dice chooses the epoch. The paper also chose the number of dense
# blocks by it (2.1), which `config/depth.yaml` and `config/paper-depth.yaml` repeat.

# %%
training_figures.training_curves({loss: pd.read_csv(study.model(loss, seed) / "history.csv") for loss in names})

# %%
trainings = pd.DataFrame(records.trainings(study))
depths = {name: recipe.generator.depth for name, recipe in study.recipes.items()}
costs = trainings.groupby("loss", sort=False)[["validation_dice", "kept_epoch", "seconds", "parameters"]].mean()
costs.insert(0, "dense blocks in the encoder", costs.index.map(depths))
costs = costs.round({"validation_dice": 3, "kept_epoch": 1, "seconds": 0}).rename(index=title)
display(costs.rename(columns={"validation_dice": "validation Dice", "kept_epoch": "kept epoch"}))
if len(set(depths.values())) > 1:  # a grid search
    display(records.by_depth(study).round(3))

# %% [markdown]
# ## What was learnt

# %%
learnt = findings.leaders(tables["summary"], split) + findings.against_siamese(tables["comparisons"], split)
learnt += findings.small_lesions(tables["detection_by_size"], tables["false_detections"], split)
learnt += findings.floor(tables["summary"], split) + findings.gaps(tables["generalisation_gap"])
Markdown("\n".join(f"- {sentence}" for sentence in learnt))

# %% [markdown]
# Next: [6 · The min-max game: VGG19 trained against the generator](06_diagnose_minmax.ipynb), where the study has one, or
# [7 · Scans of your own, segmented](07_segment_scan.ipynb).
