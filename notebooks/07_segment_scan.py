# %% [markdown]
# # 7 · Scans of your own, segmented
#
# White matter hyperintensities (WMH) are bright lesions in the brain's white matter on a FLAIR scan.
#
# **Question.** Which voxels of a scan are lesion, how many lesions are there, what is their volume, and can the mask be
# trusted?
#
# **Before.** Nothing: a trained network comes with the project. `model` names another one, of notebook
# [4](04_train.ipynb). **Time.** Half a minute, and a few seconds per scan, on two cores.
#
# **This is not a medical device.** It is research code, tested on few scans and approved by nobody. Look at every mask,
# and do not use its numbers to diagnose or treat anyone.

# %% tags=["parameters"]
scans = ""  # a FLAIR file, a folder, a pattern such as "scans/*.nii.gz", or several of these with ":" between
model = ""  # a model.keras; empty: the network that comes with the project
out = ""  # the folder for the results, relative to the project's; empty: data/segmented
bids = ""  # a folder, relative to the project's, for the masks as a BIDS derivative as well; empty: nowhere
threshold = 0.0  # voxels of this probability or more are marked; 0: the network's own, 0.5 where it has none
smallest_mm3 = 0.0  # lesions below this volume are left out

# %%
from wmhlib.running import parameters

parameters.check(scans=scans, model=model, out=out, bids=bids, threshold=threshold, smallest_mm3=smallest_mm3)

# %%
import re

import pandas as pd
from IPython.display import Image, Markdown, display

from wmhlib.apply import find, pictures, segment, suitability
from wmhlib.inference import BUNDLED
from wmhlib.intake import folders
from wmhlib.report import summaries
from wmhlib.slices import Preparation

# %% [markdown]
# ## Network and scans
#
# The model file is read in Keras's safe mode, which runs no code from it. In a folder, every NIfTI with FLAIR in its name
# is taken or, where no name has it, every NIfTI that is not named like another contrast. Masks and maps, such as earlier
# results, and images of other formats are left out, and listed below.
#
# A network that divides scans by their maximum misses lesions where fat or a few bright voxels set that maximum. The
# brightness of each scan's tissue is therefore compared with that of the training scans. Bright voxels do not mislead a
# network trained with `intensity: tissue`; for such a network the comparison only shows whether skull and fat are new
# to it.

# %%
path, network, trained_on = segment.open_network(model)
left_out = []
chosen = find.find_scans(scans, left_out)
intensity = Preparation.named(network.inputs[0].name).intensity
print(f"Network: {path}\nScans: {len(chosen)}\n{suitability.about_range(trained_on, intensity)}")
print(*["Images left out:" if left_out else "No image was left out.", *folders.listed(left_out)], sep="\n")

# %% [markdown]
# ## Masks
#
# From six scans on, every core segments scans of its own; memory does not grow with their number. Each scan is
# resampled to the network's slices as in training (notebook [2](02_preprocess.ipynb)) and segmented twice, as it is and
# mirrored left to right. The mean of both probabilities is resampled to the scan's own grid, where the threshold is
# applied. A network that can read a scan detects nearly the same lesions in the mirror image: the agreement of the two
# masks (`mirror_dice`) shows how far to trust them. Two small networks mark the space inside the skull and the
# ventricles; no lesion is marked outside the skull. A scan that cannot be read or segmented is reported and does not
# stop the others.
#
# A result is replaced only by one of the same scan and network, and never if a person changed its mask. Scans of the same
# name in different folders, and masks of two networks, get names of their own; `<name>.json` says which scan and network a
# mask is of.

# %%
table = segment.segment_scans(network, chosen, out, trained_on, path, threshold or None, smallest_mm3)
assert len(table) == len(chosen), "every scan has its row, whatever became of it"
for row in table[table.status == "failed"].itertuples():
    print(f"Failed: {row.reason}")
done = table[table.status == "done"]
print(f"{len(done)} of {len(table)} scans segmented; volumes.csv and lesions.csv are with the results.")
assert done.verdict.notna().all(), "every mask has its verdict"
for problem in segment.write_bids(table, bids, path) if bids else ():
    print(f"Not in {bids}: {problem}")

# %% [markdown]
# ## Pictures to judge each mask by
#
# Doubtful masks come first, at most 200; the pictures of all scans are next to their masks. Each shows the three axial
# slices with most lesion, or three evenly spaced ones where nothing was detected: above the outlined mask, below the
# probability of lesion. The grey window is the same for all scans.
#
# Look for outlines on the ventricles' edges, the skull or the scalp, for bright lesions without an outline, and for a head
# that is not upright. Discard such masks, whatever their volume.

# %%
for name, picture in pictures.doubtful_first(table, most=200):
    alt = f"{name}: three axial slices with the mask outlined, and its probability"
    display(Image(picture, format="jpeg", alt=alt))

# %% [markdown]
# ## Lesions and volumes
#
# A lesion is a component of the mask whose voxels touch by a side, an edge or a corner. `volumes.csv` has these rows and
# those of earlier results in the folder; `lesions.csv` has one row per lesion: volume, centre in mm, mean and highest
# probability, distance from the ventricles. A lesion is *periventricular* if at least half of it is within 10 mm of the
# ventricles (all four), otherwise *deep*; with a confluent lesion this line is arbitrary. The volume inside the skull, by
# which lesion volumes are often divided, is that of the brain in a skull-stripped scan. Mask (0 or 1) and probability
# map (0 to 1) are on the scan's own grid, so any viewer can overlay them.
#
# **An empty mask is not a healthy brain.** The verdict says whether an empty mask may be due to an unsuitable scan. It
# raises a doubt where tissue is unusually dark or bright for the network, where the mirrored scan has another mask
# (`mirror_dice`), and where the scan is implausible: a head of impossible size, blank planes, bright air, thick sagittal
# slices. These limits rest on few scans (`wmhlib/apply/suitability.py`, `wmhlib/intake/plausible.py`), so a mask without a
# doubt can still be wrong.

# %%
columns = ["status", "lesions", "volume_ml", "largest_lesion_ml", "periventricular_ml", "deep_ml", "intracranial_ml"]
columns += ["ventricles_ml", "voxel_mm", "mirror_dice", "verdict", "warnings", "reason", "scan"]
with pd.option_context("display.max_colwidth", None, "display.max_rows", None):
    display(table[columns].round(3).astype(object).where(table[columns].notna(), ""))

# %% [markdown] tags=["details"]
# ## Model card of the network

# %%
if path == BUNDLED:
    card = path.with_name("README.md").read_text(encoding="utf-8")
    display(Markdown(re.sub("^#", "###", card, flags=re.MULTILINE)))
else:
    print(f"{path} is not the network that comes with the project, so no card describes it.")

# %% [markdown]
# ## What was learnt

# %%
Markdown(summaries.segmented(table))

# %% [markdown]
# `volumes.csv` and the masks are ready for an analysis of your own. To compare losses on your scans, start with
# [1 · Scans, lesions and splits](01_explore_data.ipynb) and name their folder as `data`.
