# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 6 · What happens when VGG19 plays against the generator?
#
# The paper's second experiment (section 5, Table 2) unfreezes VGG19: the generator lowers the distance of the features, the
# discriminator raises it, with a learning rate of 0.00001. It scores far worse there, and the paper names possible reasons:
# too many parameters for the data, vanishing gradients, the set-up of the game. Every training of a Siamese loss keeps a
# step log; here the game's stands beside the frozen network's, on the same seeds and the same batches. A step log can show
# vanishing gradients and what the adversary does to the features; whether more data would help, it cannot.

# %% tags=["parameters"]
config = "config/demo.yaml"  # the study; paths are relative to the project's folder
data = ""  # another folder in the challenge's layout; empty: the one the study names

# %%
from wmhlib.running import parameters

parameters.check(config=config, data=data)

# %%
import pandas as pd
from IPython.display import Markdown

from wmhlib.evaluation import game, published, records, scoring
from wmhlib.evaluation.names import title
from wmhlib.report import findings, training_figures
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
# ## The game, step by step
#
# Each line is one training of the first seed. The generator's gradient is that of every step, the adversary's that of its
# last turn; everything else is looked at on one batch that is always the same. *Strength* is the root mean square of the last tap's features of the image times
# its reference: it says what became of VGG19 itself, whatever the generator does.

# %%
seed = study.config.seeds[0]
reference_pct = next(iter(logs.values())).reference_density_pct.iloc[0]
training_figures.step_logs({loss: game.relative_steps(logs[loss, seed]) for loss in entries}, reference_pct)

# %% [markdown]
# ## Beginning and end
#
# *scale_free_ratio* divides the features' growth out of the content loss: an adversary that only turns the volume up changes
# *distance_ratio* and leaves this where it was. *gradient_ratio* compares the last tenth of the steps with the first.

# %%
games = pd.DataFrame({"loss": loss, "seed": seed} | game.game(rows) for (loss, seed), rows in logs.items())
write_table(study.tables / "minmax.csv", games)
games.assign(loss=games.loss.map(title)).set_index(["loss", "seed"]).round(3)

# %% [markdown]
# ## In words
#
# Means over the seeds.

# %%
Markdown("\n".join(f"- {sentence}" for sentence in findings.minmax(games, tables["summary"], reference_pct)))
