# %% [markdown]
# # 7 · Segment scans of your own
#
# White matter hyperintensities (WMH) are bright spots in the brain's white matter on a FLAIR scan. A network trained
# in this project looks at a scan slice by slice and says for each voxel how likely it is to be one. This notebook
# does that for one scan, for several or for a whole folder, and gives for each a mask to lay over the scan, the count
# of its lesions and their volume, and a picture to judge the mask by.
#
# **This is no medical device.** It is research code, tested on few scans and approved by nobody: look at every mask,
# and do not use its figures to diagnose or treat anyone.

# %% tags=["parameters"]
scans = ""  # a FLAIR file, a folder, a pattern such as "scans/*.nii.gz", or several of these with ":" between
model = ""  # a model.keras; empty: the network that comes with the project
out = ""  # the folder for the results, relative to the project's; empty: data/segmented
bids = ""  # a folder, relative to the project's, for the masks as a BIDS derivative as well; empty: nowhere
threshold = 0.0  # voxels of this probability or more are marked; 0: the network's own, one half where it has none
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
from wmhlib.slices import Preparation

# %% [markdown]
# ## Which network, which scans?
#
# The model file is read in Keras's safe mode, which runs no code from it. Of a folder, every NIfTI with FLAIR in its
# name is taken, or every NIfTI where none has; earlier results (`…_mask.nii.gz`, `…_probability.nii.gz`) are passed
# over.
#
# A network that divides scans by their maximum misses lesions where fat or a few bright voxels set that maximum. The
# brightness of each scan's tissue is compared with that of the scans the network was trained on. A network trained with
# `intensity: tissue` is not misled by bright voxels; of it is said only whether skull and fat are new to it.

# %%
path, network, trained_on = segment.open_network(model)
chosen = find.find_scans(scans)
intensity = Preparation.named(network.inputs[0].name).intensity
print(f"Network: {path}\nScans: {len(chosen)}\n{suitability.about_range(trained_on, intensity)}")
if path == BUNDLED:
    card = path.with_name("README.md").read_text(encoding="utf-8")
    display(Markdown(re.sub("^#", "###", card, flags=re.MULTILINE)))

# %% [markdown]
# ## Segment
#
# One scan at a time, so memory does not grow with their number. Each scan is brought to the network's slices as in
# training (notebook 2) and looked at twice, as it is and with left and right exchanged; the mean of both probabilities is
# brought back to the scan's own grid and cut at the threshold there. A network that can read a scan finds nearly the same
# lesions in its mirror image: how well the two masks agree (`mirror_dice`) is a sign of how far to trust them.
# A scan that cannot be read or segmented is reported and does not stop the others.
#
# A result is replaced only by one of the same scan and network. Scans of one name in different folders, or the masks of
# two networks, get names of their own, and `<name>.json` says which scan and network a mask is of.

# %%
table = segment.segment_scans(network, chosen, out, trained_on, path, threshold or None, smallest_mm3)
assert len(table) == len(chosen), "every scan has its row, whatever became of it"
for row in table[table.status == "failed"].itertuples():
    print(f"Failed: {row.reason}")
done = table[table.status == "done"]
print(f"{len(done)} of {len(table)} scans segmented; volumes.csv and lesions.csv lie with the results.")
assert done.verdict.notna().all(), "every mask has its verdict"
for problem in segment.write_bids(table, bids, path) if bids else ():
    print(f"Not in {bids}: {problem}")

# %% [markdown]
# ## How many lesions, how much?
#
# A lesion is a piece of the mask whose voxels touch by a side, an edge or a corner. `volumes.csv` has the
# same rows, and those of earlier results in the folder; `lesions.csv` has a row per lesion: volume, centre in mm, mean and
# highest probability.
# The mask is 0 or 1 and the probability map 0 to 1, both on the scan's own grid, so they overlay it in any viewer.
#
# **An empty mask is not a healthy brain.** The verdict tells the two apart as far as it can: a doubt is raised where tissue
# is unusually dark or bright for the network, and where the mask of the mirrored scan is another one (`mirror_dice`). Few
# scans stand behind these limits (`wmhlib/apply/suitability.py`), so a mask without a doubt can still be wrong.

# %%
with pd.option_context("display.max_colwidth", None, "display.max_rows", None):
    wanted = ["status", "lesions", "volume_ml", "largest_lesion_ml", "tissue_ml", "voxel_mm", "mirror_dice"]
    wanted += ["verdict", "warnings", "reason", "scan"]
    display(table[wanted].round(3).astype(object).where(table[wanted].notna(), ""))

# %% [markdown]
# ## Look at each
#
# Doubtful masks first, at most 200; the pictures of all lie beside their masks. Each shows the three axial slices with
# most lesion, the mask outlined, or three evenly spaced ones where nothing was found, and below them how likely each voxel
# is a lesion. All scans have the same grey window. Look for outlines
# on the ventricles' edges, the skull or the scalp, for bright spots without an outline, and for a head that does not
# stand upright: such masks are to be discarded, whatever their volume.

# %%
for name, picture in pictures.doubtful_first(table, most=200):
    display(
        Image(picture, format="jpeg", alt=f"{name}: three axial slices with the mask outlined, and its probability")
    )
