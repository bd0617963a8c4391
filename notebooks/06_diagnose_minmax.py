# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 6 · Why does fine-tuning VGG19 in a min-max game fail?
#
# The paper's second experiment (section 5, Table 2) unfreezes VGG19: the generator lowers the distance of the features, the
# discriminator raises it, in turns, with a learning rate of 0.00001. It scores far worse, and the paper can only guess why:
# too many parameters for the data, or vanishing gradients. Every training of a Siamese loss keeps a diary, so the guesses
# can be checked, on the same seeds and the same batches as the frozen network.

# %% tags=["parameters"]
config = "config/demo.yaml"  # the study; paths are relative to the project's folder
data = ""  # another folder in the challenge's layout; empty: the one the study names

# %%
import numpy as np
import pandas as pd
from IPython.display import Markdown

from wmhlib import context, evaluation, figures, findings, statistics
from wmhlib.study import open_study, replacing

study = open_study(config, data)
tables = evaluation.load_tables(study)
entries = [name for name, kind in study.kinds.items() if kind in ("siamese", "siamese_minmax")]
diaries = {(loss, seed): evaluation.diary(study, loss, seed) for loss in entries for seed in study.config["seeds"]}
print(f"{len(diaries)} diaries: {', '.join(statistics.LOSSES[loss] for loss in entries)}")

# %% [markdown]
# ## Table 2

# %%
context.readable(tables["table2"])

# %% [markdown]
# ## The game, step by step
#
# Each line is one training of the first seed. The gradients are the players' own, at every step; everything else is looked
# at on one batch that is always the same. *Strength* is the root mean square of the last tap's features of the image times
# its reference: it says what became of VGG19 itself, whatever the generator does.

# %%
seed = study.config["seeds"][0]
reference_pct = next(iter(diaries.values())).reference_density_pct.iloc[0]
figures.diaries({loss: findings.diary(diaries[loss, seed]) for loss in entries}, reference_pct)

# %% [markdown]
# ## Beginning and end
#
# *scale_free_ratio* divides the features' growth out of the content loss: an adversary that only turns the volume up changes
# *distance_ratio* and leaves this where it was.

# %%
games = pd.DataFrame({"loss": loss, "seed": seed} | findings.game(rows) for (loss, seed), rows in diaries.items())
with replacing(study.tables / "minmax.csv") as temporary:
    games.to_csv(temporary, index=False)
assert np.isfinite(games.drop(columns="loss").to_numpy(dtype=float)).all()
games.assign(loss=games.loss.map(statistics.LOSSES)).set_index(["loss", "seed"]).round(3)

# %%
Markdown("\n".join(f"- {sentence}" for sentence in findings.minmax(games, tables["summary"], reference_pct)))
