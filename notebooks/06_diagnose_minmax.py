# %% [markdown]
# # 6 · The min-max game: VGG19 trained against the generator
#
# **Question.** What happens when VGG19 is trained against the generator?
#
# The paper's second experiment (section 5, Table 2) unfreezes VGG19. The generator lowers the distance of the features,
# and the discriminator raises it with a learning rate of 0.00001. In the paper it scores far worse, and possible
# reasons are named: too many parameters for the data, vanishing gradients, the set-up of the game. Every training with
# a Siamese loss keeps a step log. Here the log of the game is compared with that of the frozen network, on the same
# seeds and batches. It can show vanishing gradients and what the discriminator does to the features; it cannot show
# whether more data would help.
#
# With half to three quarters of the paper's schedule the game fails here too (D-035). After the demonstration's 390
# steps it has only begun to inflate VGG19's features (D-030).
#
# **Before.** Notebook [5](05_evaluate.ipynb) of a study with `siamese` and `siamese_minmax`. **Time.** Less than a minute on
# two cores.

# %% tags=["parameters"]
config = "config/demo.yaml"  # the study; paths are relative to the project's folder
data = ""  # another folder in the challenge's layout; empty: the one the study names

# %%
from wmhlib.running import parameters

parameters.check(config=config, data=data)

# %%
import inspect

import numpy as np
import pandas as pd
from IPython.display import Code, Markdown, display

from wmhlib import batches, minmax, slices, training
from wmhlib.evaluation import game, published, records, scoring
from wmhlib.evaluation.names import title
from wmhlib.generator import network_input
from wmhlib.report import findings, summaries, training_figures
from wmhlib.running.files import write_table
from wmhlib.study import open_study

study = open_study(config, data)
tables = scoring.load_tables(study)
entries = [name for name, kind in study.kinds.items() if kind in ("siamese", "siamese_minmax")]
if not entries:
    raise ValueError(
        f"The study {study.name} has no Siamese loss, so there is no step log: add siamese and siamese_minmax."
    )
logs = {(loss, seed): records.steps(study, loss, seed) for loss in entries for seed in study.config.seeds}
pd.DataFrame(
    {title(loss): study.recipe(loss).settings | records.features_of(study, loss) for loss in entries}
).T.fillna("—")

# %% [markdown]
# ## Table 2

# %%
published.readable(tables["table2"])

# %% [markdown]
# ## The two players in code
#
# Both minimise. The discriminator (the class `Adversary`) minimises the negative content loss, and its weights are the
# filters of VGG19; no gradient reaches the generator. In `run_epoch` it takes a step before every
# `discriminator_every`-th step of the generator (5 in the demonstration, 1 in the paper's protocol), on the same batch.

# %%
for part in (minmax.Adversary.compute_loss, training.run_epoch):
    display(Code(inspect.getsource(part), language="python"))

# %% [markdown]
# ## A few moves of the game
#
# An untrained generator and its discriminator take turns on one batch of this study's training slices, and the content
# loss is measured after every move. The discriminator's learning rate is 100 times the paper's, so that six rounds show
# an effect. Nothing is saved.
#
# **Change this:** the discriminator's learning rate, `0.001`, to the paper's `0.00001` or to `0.01`, or the number of rounds.
# **See that:** whose moves decide what becomes of the content loss.

# %%
rate, rounds = 0.001, 6

base = study.recipe(next(iter(entries)))
entry = {
    "loss": "siamese_minmax",
    "discriminator_rate": rate,
    "network": base.features["network"],
    "taps": base.features["taps"],
}
recipe = study.changed(losses={"moves": entry}).recipe("moves")
seed, size = study.config.seeds[0], study.config.preprocessing.size_px
learner = training.make_learner(recipe, size, seed, training.make_features(study, recipe))
adversary = minmax.make_adversary(learner, recipe.training.beta_1, recipe.training.beta_2)

# %%
images, references, index = slices.open_slices(study.slices / recipe.preparation.name)
rows = index[index.split == "training"].lesion_density_pct.nlargest(4).index
image = network_input(images[rows])  # (4, size, size, 3)
reference = batches.label_values(references[rows], recipe.labels)[..., np.newaxis]  # (4, size, size, 1)


def content_loss():
    return float(learner.criterion.bound_to(image)(reference, learner.generator(image, training=True)))


moves = [("start", content_loss())]
for _ in range(rounds):
    adversary.step(image, reference)
    moves.append(("discriminator", content_loss()))
    learner.step(image, reference)
    moves.append(("generator", content_loss()))
moves = pd.DataFrame(moves, columns=["player", "content_loss"])
training_figures.moves(moves).show()
Markdown(summaries.moves(moves))

# %% [markdown]
# ## The trainings, step by step
#
# Each line is one training of the first seed. The generator's gradient is that of every step; where the discriminator
# does not move, its last gradient is shown. Everything else is measured on one batch that never changes. *Strength* is
# the root mean square of the last tap's features of the image times its reference: it shows what became of VGG19
# itself, whatever the generator does.

# %%
reference_pct = next(iter(logs.values())).reference_density_pct.iloc[0]
training_figures.step_logs({loss: game.relative_steps(logs[loss, seed]) for loss in entries}, reference_pct)

# %% [markdown]
# ## Beginning and end
#
# Strength, content loss and gradient are the end of a training over its start. With the features' strength $s$, the
# *content loss without strength* is $(L_{end} / L_{start}) / (s_{end} / s_{start})^2$: it does not change where the
# discriminator only scales its features. The gradient compares the last tenth of the steps with the first.

# %%
games = pd.DataFrame({"loss": loss, "seed": seed} | game.game(rows) for (loss, seed), rows in logs.items())
write_table(study.tables / "minmax.csv", games)
game.readable(games)

# %% [markdown]
# ## What was learnt
#
# Means over the seeds.

# %%
Markdown("\n".join(f"- {sentence}" for sentence in findings.minmax(games, tables["summary"], reference_pct)))

# %% [markdown]
# Next: [7 · Scans of your own, segmented](07_segment_scan.ipynb).
