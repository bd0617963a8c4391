# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 3 · The two networks, and what each loss rewards
#
# The **generator** draws the mask: a 2D U-Net of dense blocks (paper 2.1). The **discriminator** judges it: the image
# times the reference mask and the image times the predicted mask both go through the first layers of VGG19, and the
# squared distance of their features is the loss (paper 2.2, Equation 1). Here both are built, their shapes asserted, and
# every loss is asked what it thinks of masks with known faults.

# %% tags=["parameters"]
config = "config/demo.yaml"  # the study; paths are relative to the project's folder
data = ""  # another folder in the challenge's layout; empty: the one the study names

# %%
import keras
import numpy as np
import pandas as pd
from IPython.display import display
from keras import ops
from scipy.ndimage import binary_dilation, binary_erosion, label

from wmhlib import batches, evaluation, figures, siamese, slices, statistics, training
from wmhlib.generator import dense_unet
from wmhlib.study import open_study, replacing, write_json

study = open_study(config, data)
size = study.config["preprocessing"]["size_px"]

# %% [markdown]
# ## Generator
#
# Each step is convolution, batch norm, leaky ReLU (slope 0.1). In a dense block each convolution sees the block's input
# and everything the block made before. Max pools halve the picture and double the filters; transposed convolutions
# bring it back, with skip connections across. The last layer starts near the background's label, so training does not begin
# with half the brain as false positives.

# %%
first = next(iter(study.config["losses"]))  # the losses differ in the last layer's bias alone
generator = training.make_generator(study, first, seed=study.config["seeds"][0])
assert generator.output_shape == (None, size, size, 1)
untrained = ops.convert_to_numpy(generator(np.zeros((1, size, size, 3), "float32")))
assert abs(untrained.mean() - study.recipe(first)["generator"]["output_prior"]) < 0.05
shapes = pd.DataFrame(
    [
        {"layer": layer.name, "output": " × ".join(map(str, layer.output.shape[1:])), "weights": layer.count_params()}
        for layer in generator.layers
        if layer.__class__.__name__ in ("Conv2D", "Conv2DTranspose", "MaxPooling2D")
    ]
)
print(f"{generator.count_params():,} weights")
shapes

# %% [markdown]
# ## How many dense blocks?
#
# The paper chose their number on the validation subjects (2.1). `config/depth.yaml` repeats that search in minutes on the
# demonstration's cohort, `config/paper-depth.yaml` by the paper's protocol. Where one was run, its validation Dice is shown:
# a search's own page has it in notebook 5, since this one comes before the training.

# %%
blocks = pd.Index([depth for depth in range(1, 6) if size % 2**depth == 0], name="dense blocks")
own = study.recipe(first)["generator"]
weights = [dense_unet(size, **(own | {"depth": depth})).count_params() for depth in blocks]
pd.DataFrame(
    {"weights": weights, "smallest map": [f"{size // 2**depth} × {size // 2**depth}" for depth in blocks]}, blocks
)

# %%
for search in ("config/depth.yaml", "config/paper-depth.yaml"):
    found = evaluation.by_depth(open_study(search))
    print(f"{search}:" if len(found) else f"{search} was not run here yet: make report CONFIG={search}")
    if len(found):
        display(found.round(3))

# %% [markdown]
# ## Discriminator
#
# VGG19 up to its second max pool (further where a loss of the study looks deeper), frozen but in the min-max game. Where the ImageNet weights came from is written beside the models and shown
# on every page of the report, since random features are another method.

# %%
features, origin = siamese.load_vgg19(size, taps=max(study.taps, 2))
with replacing(study.discriminator) as temporary:
    features.save(temporary)
write_json(study.discriminator.with_suffix(".json"), origin)
assert [tuple(tap.shape[1:]) for tap in features.outputs[:2]] == [
    (size // 2, size // 2, 64),
    (size // 4, size // 4, 128),
]
assert not features.trainable_weights
pd.Series(origin, name="VGG19").to_frame()

# %% [markdown]
# At the paper's 224 pixels the taps are 112 × 112 × 64 and 56 × 56 × 128, as section 2.2 says:

# %%
paper_taps = siamese.vgg19_features(224).outputs
assert [tuple(tap.shape[1:]) for tap in paper_taps] == [(112, 112, 64), (56, 56, 128)]
[tuple(tap.shape[1:]) for tap in paper_taps]

# %% [markdown]
# ## What the two paths see, and where the loss comes from
#
# The training slice with the most lesion, and a prediction that misses the smaller half of its lesions. Masked, only
# lesions are left on ImageNet's mean colour. Each row is a tap: its most telling feature map for the reference, for the
# prediction, and **where the content loss comes from** (squared differences, all channels; white is most). Only what was
# missed lights up; the taps see it at two scales.

# %%
images, references, index = slices.open_slices(study.slices / study.views[0])
row = int(index.lesion_density_pct[index.split == "training"].idxmax())
image, mask = slices.network_input(images[[row]]), references[row].astype(bool)
pieces, count = label(mask)
sizes = np.bincount(pieces.ravel())[1:]
small = np.isin(pieces, 1 + np.flatnonzero(sizes < np.median(sizes))) if count > 1 else mask
truth, guess = (batches.label_values(drawn, "hard")[np.newaxis, ..., np.newaxis] for drawn in (mask, mask & ~small))
features = keras.Model(features.inputs, features.outputs[:2])
content = siamese.SiameseContentLoss(features).bound_to(image)
squares = [ops.convert_to_numpy(tap)[0] for tap in content.squared_differences(truth, guess)]
maps = [[ops.convert_to_numpy(tap)[0] for tap in features(image * seen)] for seen in (truth, guess)]
assert np.isclose(sum(tap.mean() for tap in squares), float(content(truth, guess)), rtol=1e-4)
figures.picture_row(
    {
        "FLAIR and reference": figures.outlined(images[row], {"reference": mask}),
        "prediction": figures.outlined(images[row], {"siamese": mask & ~small}),
        "missed": figures.outlined(images[row], {"missed": small}),
    }
).show()
for tap, (ours, theirs, apart) in enumerate(zip(*maps, squares, strict=True), start=1):
    channel = int(apart.mean(axis=(0, 1)).argmax())
    highest = max(ours[..., channel].max(), theirs[..., channel].max(), 1e-6)
    heat = apart.mean(axis=-1)
    figures.picture_row(
        {
            f"tap {tap}, channel {channel}: reference": figures.outlined(ours[..., channel] / highest, {}),
            f"tap {tap}, channel {channel}: prediction": figures.outlined(theirs[..., channel] / highest, {}),
            f"tap {tap}: {heat.mean():.0f} of the loss": figures.outlined(np.sqrt(heat / max(heat.max(), 1e-6)), {}),
        }
    ).show()

# %% [markdown]
# ## What does each loss think of a faulty mask?
#
# Masks with known faults on that slice, each scored by every loss with the labels it trains on. Every column is scaled
# so that predicting nothing costs 1: **what is below 1 is better than an empty mask, what is above is worse.** Change a
# mask or a loss's settings and run the cell again.

# %%
faulty = {
    "perfect": mask,
    "without the smaller half of the lesions": mask & ~small,
    "one pixel too thin": binary_erosion(mask),
    "one pixel too wide": binary_dilation(mask),
    "nothing": np.zeros_like(mask),
    "everything": np.ones_like(mask),
}
scores = {}
for loss in study.config["losses"]:
    recipe = study.recipe(loss)
    criterion = training.make_loss(recipe["kind"], recipe["loss"], training.make_features(study, recipe))
    criterion = criterion.bound_to(image) if hasattr(criterion, "bound_to") else criterion
    target = batches.label_values(mask, recipe["labels"])[np.newaxis, ..., np.newaxis]
    scores[statistics.LOSSES[loss]] = {
        name: float(criterion(target, batches.label_values(drawn, recipe["labels"])[np.newaxis, ..., np.newaxis]))
        for name, drawn in faulty.items()
    }
judged = pd.DataFrame(scores)
assert (judged.loc["perfect"] < judged.loc["nothing"]).all(), "every loss prefers the perfect mask to an empty one"
(judged / judged.loc["nothing"]).round(3)

# %% [markdown]
# ## Why soft labels break Dice
#
# With targets of 0.1 and 0.9 the background carries a tenth of a lesion everywhere. For a small lesion fraction *f* the
# mask that marks **everything** then scores better than the perfect hard mask: 2 (0.1 + 0.8 f) / (1.1 + 0.8 f) against
# 1.8 f / (0.1 + 1.8 f). The paper says that labels were softened "for all models"; taken literally that handicaps the
# losses it compares with. Here overlap losses train on hard labels and the Siamese loss on soft ones (decision D-002).

# %%
fraction = np.array([0.001, 0.002, 0.004, 0.008, 0.013, 0.02, 0.05])
everything = 2 * (0.1 + 0.8 * fraction) / (1.1 + 0.8 * fraction)
perfect = 1.8 * fraction / (0.1 + 1.8 * fraction)
here = index.lesion_density_pct[index.lesion_density_pct > 0].median() / 100
print(
    f"the median slice with lesion has f = {here:.2%}; everything wins below f = {fraction[everything > perfect].max():.1%} at least"
)
pd.DataFrame({"lesion fraction f": fraction, "everything": everything, "perfect": perfect}).round(3)
