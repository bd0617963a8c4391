# %% [markdown]
# # 3 · The two networks and the losses
#
# **Question.** How are the generator and the discriminator built, where does the content loss come from, and which masks does
# each loss reward?
#
# The **generator** predicts the mask. It is a 2D U-Net of dense blocks (paper 2.1). The **discriminator** compares two
# masks: the image times the reference and the image times the prediction both go through the first layers of VGG19, and
# the squared distance of their features is the loss (paper 2.2, Equation 1). The code calls VGG19 a feature network, and the
# player that trains it in the min-max game the adversary.
#
# **Before.** Notebook [2](02_preprocess.ipynb). **Time.** Half a minute on two cores; nothing is trained.

# %% tags=["parameters"]
config = "config/demo.yaml"  # the study; paths are relative to the project's folder
data = ""  # another folder in the challenge's layout; empty: the one the study names

# %%
from wmhlib.running import parameters

parameters.check(config=config, data=data)

# %%
import keras
import numpy as np
import pandas as pd
from IPython.display import Markdown
from keras import layers, ops
from scipy.ndimage import binary_dilation, binary_erosion, label

from wmhlib import batches, features, losses, siamese, slices, training
from wmhlib.evaluation.names import title
from wmhlib.generator import IMAGENET_MEANS, build, network_input
from wmhlib.report import drawings, summaries
from wmhlib.report.pictures import outlined, picture_row
from wmhlib.running.files import replacing, write_json
from wmhlib.study import open_study

study = open_study(config, data)
size = study.config.preprocessing.size_px

# %% [markdown]
# ## A dense block
#
# A convolution here is a 3 × 3 convolution, batch norm and a leaky ReLU of slope 0.1 (paper 2.1). In a dense block each
# convolution takes the block's input $x$ **and the outputs of all convolutions before it**. With $h_i$ the $i$-th
# convolution and $[\,\cdot\,]$ the concatenation of channels,
#
# $$x_i = h_i([x, x_1, \ldots, x_{i-1}]), \qquad \text{out} = [x_1, \ldots, x_n]$$
#
# **Change this:** `convolutions=3` to 5, `filters=8` to 16, or `outputs` in the function's last line to `[x, *outputs]`, which
# passes the input on as well. **See that:** more convolutions add boxes and arcs, more filters change the numbers in the
# boxes and the number of weights, and passing on the input adds an arc and three channels. (The generator below is built by
# the package, so it stays as it is.)


# %%
def dense_block(x, filters, convolutions):
    outputs = []
    for _ in range(convolutions):
        output = layers.Concatenate()([x, *outputs]) if outputs else x
        output = layers.Conv2D(filters, 3, padding="same", use_bias=False)(output)
        output = layers.BatchNormalization()(output)
        outputs.append(layers.LeakyReLU(negative_slope=0.1)(output))
    return layers.Concatenate()(outputs)


block_input = keras.Input((size, size, 3))
block = keras.Model(block_input, dense_block(block_input, filters=8, convolutions=3))
drawings.network(block, f"A dense block, {block.count_params():,} weights").show()

# %% [markdown]
# ## Generator
#
# Figure 2 of the paper. The encoder has dense blocks, each followed by a 2 × 2 max pool: the image is halved and the
# filters are doubled. One block lies at the bottom. The decoder enlarges the image by transposed convolutions, and each
# of its blocks also takes the output of the encoder's block of the same size. The number in a box is its channels; hover
# over it for its shape. `wmhlib/generator.py` builds the network in the same way, with two convolutions per block
# (D-005). The untrained network predicts the background everywhere, about 0 for hard labels and 0.1 for soft ones. With 0.5,
# training would begin with half the brain as false positives (D-004).

# %%
first_recipe = next(iter(study.recipes.values()))  # the losses of a seed start from the same weights
generator = training.make_generator(first_recipe, size, seed=study.config.seeds[0])
assert generator.output_shape == (None, size, size, 1)
untrained = ops.convert_to_numpy(generator(np.zeros((1, size, size, 3), "float32")))
assert abs(untrained.mean() - first_recipe.generator.output_prior) < 0.05
drawings.network(generator, f"The generator, {generator.count_params():,} weights").show()

# %% [markdown]
# ## The number of dense blocks
#
# The paper chose it on the validation subjects (2.1). `config/depth.yaml` repeats that search on the demonstration's
# cohort in minutes, and `config/paper-depth.yaml` by the paper's protocol; notebook 05 of those studies shows the
# result. The table shows what each depth means for the network.

# %%
blocks = pd.Index([depth for depth in range(1, 6) if size % 2**depth == 0], name="dense blocks")
settings = first_recipe.generator.model_dump()
weights = [build(size, **(settings | {"depth": depth})).count_params() for depth in blocks]
pd.DataFrame(
    {"weights": weights, "smallest map": [f"{size // 2**depth} × {size // 2**depth}" for depth in blocks]}, blocks
)

# %% [markdown]
# ## Discriminator
#
# A pretrained network up to the deepest layer that a loss of the study compares. The layers compared are called *taps*.
# In the paper this is VGG19 up to its second max pool. It is frozen except in the min-max game. Every page of the
# report states the origin of its weights, because with random features it is another method.

# %%
origins, networks = {}, {}
for name, taps in (study.pretrained_taps or {"vgg19": ["block1_pool", "block2_pool"]}).items():
    networks[name], origins[name] = features.load(size, taps, name)
    assert not networks[name].trainable_weights
    with replacing(study.features / f"{name}.npz") as temporary:
        features.save_arrays(networks[name], temporary)
write_json(study.features / "origins.json", origins)
pd.DataFrame(origins)

# %% [markdown]
# At the paper's 224 pixels the taps are 112 × 112 × 64 and 56 × 56 × 128, as section 2.2 says:

# %%
paper_taps = features.build(224).outputs
assert [tuple(tap.shape[1:]) for tap in paper_taps] == [(112, 112, 64), (56, 56, 128)]
[tuple(tap.shape[1:]) for tap in paper_taps]

# %% [markdown]
# ## Equation 1
#
# The image $x$ times the reference $y$ and the image times the prediction $\hat y$ go through the same network. With
# $f_l$ the features at tap $l$, flattened, and $N_l$ their number,
#
# $$L(y, \hat y) = \sum_{l} \frac{1}{N_l} \left\lVert f_l(x \odot y) - f_l(x \odot \hat y) \right\rVert_2^2$$
#
# The paper writes $y'$ for $\hat y$, and one feature vector of length $L$. It does not say how its two taps become one
# vector; here the means of both are added (D-066). $x$ is the slice as VGG19 wants it, with ImageNet's mean colour subtracted,
# so what a mask leaves out is that colour, a mid-grey.
#
# In the next cell every symbol is an array: the training slice with the largest lesion area, its reference, and a
# prediction that misses the smaller half of its lesions. **Change this:** let `y_hat` be another mask, such as
# `as_batch(binary_dilation(mask))`, and run this cell and the two below. **See that:** the loss and the pictures change.

# %%
images, references, index = slices.open_slices(study.slices / study.preparations[0].name)
row = int(index.lesion_density_pct[index.split == "training"].idxmax())
mask = references[row].astype(bool)
pieces, count = label(mask, np.ones((3, 3)))
smallest_first = 1 + np.argsort(np.bincount(pieces.ravel())[1:])
small = np.isin(pieces, smallest_first[: max(1, count // 2)])


def as_batch(mask):
    """A mask as a batch of one: (1, size, size, 1)."""
    return mask[np.newaxis, ..., np.newaxis].astype(np.float32)


x = network_input(images[[row]])  # (1, size, size, 3)
y = as_batch(mask)
y_hat = as_batch(mask & ~small)

f, _ = features.load(size)
of_y, of_y_hat = f(x * y), f(x * y_hat)  # at each tap (1, height, width, channels)
squared = [(a - b) ** 2 for a, b in zip(of_y, of_y_hat, strict=True)]
equation_1 = sum(float(ops.mean(tap)) for tap in squared)
by_package = float(siamese.SiameseContentLoss(f).bound_to(x)(y, y_hat))
assert np.isclose(equation_1, by_package, rtol=1e-4), "Equation 1 and the package's loss agree"
print(f"Equation 1: {' + '.join(f'{float(ops.mean(tap)):.1f}' for tap in squared)} = {equation_1:.1f}")

# %% [markdown]
# The same as a drawing (Figure 3 of the paper), with the mid-grey outside of the masks. The number in a box is its channels.

# %%
predicted = y_hat[0, ..., 0] > 0.5
grey = np.mean(IMAGENET_MEANS) / 255
masked = {
    "x ⊙ y (reference)": np.where(mask, images[row], grey),
    "x ⊙ ŷ (prediction)": np.where(predicted, images[row], grey),
}
drawings.two_paths(f, {name: outlined(picture, {}) for name, picture in masked.items()}, "The discriminator").show()

# %% [markdown]
# ## Where the content loss comes from
#
# Each row is a tap: the feature map that differs most, for the reference and for the prediction, and the difference over
# all channels (root mean square; white is most). Only where the masks differ do the maps light up, at the scale of each tap.

# %%
squares = [ops.convert_to_numpy(tap)[0] for tap in squared]
maps = [[ops.convert_to_numpy(tap)[0] for tap in path] for path in (of_y, of_y_hat)]
picture_row(
    {
        "FLAIR and reference": outlined(images[row], {"reference": mask}),
        "prediction": outlined(images[row], {"found": mask & predicted}),
        "missed (violet) and false (red)": outlined(
            images[row], {"missed": mask & ~predicted, "false": predicted & ~mask}
        ),
    }
).show()
for tap, (of_reference, of_prediction, apart) in enumerate(zip(*maps, squares, strict=True), start=1):
    channel = int(apart.mean(axis=(0, 1)).argmax())
    highest = max(of_reference[..., channel].max(), of_prediction[..., channel].max(), 1e-6)
    heat = apart.mean(axis=-1)
    picture_row(
        {
            f"tap {tap}, channel {channel}: reference": outlined(of_reference[..., channel] / highest, {}),
            f"tap {tap}, channel {channel}: prediction": outlined(of_prediction[..., channel] / highest, {}),
            f"tap {tap} adds {heat.mean():,.1f} to the loss": outlined(np.sqrt(heat / max(heat.max(), 1e-6)), {}),
        }
    ).show()

# %% [markdown]
# ## Faulty masks under each loss
#
# Masks with known faults on that slice, each scored by every loss with the labels it trains on. Every column is scaled
# so that an empty mask costs 1: **a mask below 1 is better than an empty one, a mask above 1 is worse.** (The min-max game
# starts with the loss of Equation 1, so before training its column equals that of the Siamese loss.) **Change this:** add a
# mask, such as `"two pixels too wide": binary_dilation(mask, iterations=2)`. **See that:** it gets a row.

# %%
masks = {
    "perfect": mask,
    "without the smaller half of the lesions": mask & ~small,
    "one pixel too thin": binary_erosion(mask),
    "one pixel too wide": binary_dilation(mask),
    "nothing": np.zeros_like(mask),
    "everything": np.ones_like(mask),
}


def costs(criterion, labels):
    """What each mask costs under a loss that trains on `hard` or `soft` labels, over the cost of an empty mask."""
    targets = {name: as_batch(batches.label_values(mask, labels)) for name, mask in masks.items()}
    costs = pd.Series({name: float(criterion(targets["perfect"], target)) for name, target in targets.items()})
    return (costs / costs["nothing"]).round(3) + 0.0  # no minus before a zero


def cost_of(recipe):
    """What each mask costs under an entry of the study's losses."""
    criterion = training.make_loss(recipe, training.make_features(study, recipe))
    return costs(criterion.bound_to(x), recipe.labels)


relative_costs = pd.DataFrame({title(loss): cost_of(recipe) for loss, recipe in study.recipes.items()})
assert (relative_costs.loc["perfect"] < 1).all(), "every loss prefers the perfect mask to an empty one"
relative_costs

# %% [markdown]
# ## Other settings of the Siamese loss
#
# **Change this:** `own_taps` to any layers of VGG19 (`block1_conv1` … `block5_pool`), or in `own_settings` `mask` to
# `"before"` (masked before VGG19's preprocessing, so the background is black) or `"painted"` (white, on the whole image), or
# `normalise` to `True` (features of length 1 at each position).
# **See that:** the sentence says which faults became cheaper or dearer than under the paper's settings.

# %%
own_taps, own_settings = ["block1_conv2", "block2_conv2"], {"mask": "after", "normalise": False}

own_features, own_origin = features.load(size, own_taps)
compared = {
    "paper's taps": siamese.SiameseContentLoss(f),
    "your settings": siamese.SiameseContentLoss(own_features, **own_settings),
}
compared = pd.DataFrame({name: costs(criterion.bound_to(x), "soft") for name, criterion in compared.items()})
Markdown(summaries.changed_costs(compared, f"features: {own_origin['weights']}"))

# %% [markdown]
# ## A loss of your own
#
# A loss is one class: a title and a colour for readers, the labels it trains on, settings as the constructor's arguments,
# and `call`, which gets reference and prediction as (batch, size, size, 1) and may use `self.image`. Defining it in a cell
# registers it under its name. **Change this:** `gamma` or the formula. **See that:** its column in the table of faulty masks
# changes. Notebook [4](04_train.ipynb) has the same class to train with: change it there too.


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


# %%
relative_costs[FocalLoss.title] = cost_of(study.changed(losses={"my_focal": {}}).recipe("my_focal"))
relative_costs

# %% [markdown]
# ## Another feature network
#
# Any network of `keras.applications` can replace VGG19, and so can a class of your own (`wmhlib/features.py`). In a
# configuration: `siamese: {network: MobileNetV2, taps: [block_1_expand_relu]}`. The table shows the content loss of the
# missed lesions at each tap. The networks have random weights here, so the numbers show the size of features, not their worth.

# %%
choices = {"vgg19": ["block1_pool", "block3_conv2"], "MobileNetV2": ["Conv1_relu", "block_1_expand_relu"]}
rows = []
for name, taps in choices.items():
    content_loss = siamese.SiameseContentLoss(features.build(size, taps, name)).bound_to(x)
    for tap, part in zip(taps, content_loss.distances(y, y_hat), strict=True):
        rows.append({"network": name, "tap": tap, "content loss": float(part)})
pd.DataFrame(rows).set_index(["network", "tap"])

# %% [markdown]
# ## Soft labels break the Dice loss
#
# With targets of 0.1 and 0.9, background counts as a tenth of a lesion everywhere. If the lesion fraction *f* is below
# about 1.4 %, the mask that marks **everything** then has a higher soft Dice than the perfect hard mask: 2 (0.1 + 0.8 f) /
# (1.1 + 0.8 f) against 1.8 f / (0.1 + 1.8 f). The paper softens labels "for all models", which taken literally handicaps
# the losses it compares with. Here overlap losses train on hard labels and the Siamese loss on soft ones (D-002).

# %%
fraction = np.array([0.001, 0.002, 0.004, 0.008, 0.013, 0.02, 0.05])
everything = 2 * (0.1 + 0.8 * fraction) / (1.1 + 0.8 * fraction)
perfect = 1.8 * fraction / (0.1 + 1.8 * fraction)
median_fraction = index.lesion_density_pct[index.lesion_density_pct > 0].median() / 100
pd.DataFrame({"lesion fraction f": fraction, "everything": everything, "perfect": perfect}).set_index(
    "lesion fraction f"
).round(3)

# %% [markdown]
# ## What was learnt

# %%
Markdown(
    summaries.networks(relative_costs, generator.count_params(), origins, median_fraction)
    + "\n\nNext: [4 · Training with one loss](04_train.ipynb)."
)
