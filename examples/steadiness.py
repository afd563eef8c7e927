# %% [markdown]
# # Does noise on the text steady training?
#
# Two arms, a few seeds, one pack each: the runs of an arm share the forward passes of one frozen backbone. With 3 seeds
# of 20 steps it takes about a minute and gives no answer; `python examples/steadiness.py 20 300` gives one for this
# small model.

# %%
import sys
import tempfile
from pathlib import Path

import yaml

from trimtab import api

seeds, steps = [int(word) for word in sys.argv[1:] if word.isdigit()] or (3, 20)

# %% [markdown]
# A study is a recipe and what differs between its lines. Here the lines are *arms*, sets of keys that change together.

# %%
study = {
    "recipe": {
        "backbone": {"model": "nano-masked"},
        "task": {"kind": "product_reviews", "shots": 16},
        "prompt": {"kind": "prompt_tuning", "length": 5},
        "training": {"max_steps": steps, "min_steps": steps, "evaluations": 2, "learning_rate": 1e-2},
    },
    "arms": {
        "plain": {},
        "noise": {"regularizers": [{"kind": "gaussian", "sigma_relative": 0.1}]},
    },
    "seeds": seeds,
}

# %% [markdown]
# The command line reads the same from a file. What comes back is what `study.json` holds.

# %%
with tempfile.TemporaryDirectory() as folder:
    file = Path(folder, "steadiness.yaml")
    file.write_text(yaml.safe_dump(study))
    found = api.study(file, [], studies_dir=Path(folder, "studies"))

# %% [markdown]
# A line for each arm: mean, standard deviation and worst seed of the test accuracy.

# %%
for line in found["lines"]:
    print(f"{line['label']:<6} mean {line['mean']:.3f}  sd {line['sd']:.3f}  worst {line['min']:.3f}  n {line['n']}")

# %% [markdown]
# And the verdict in words, which says how little three seeds can tell.

# %%
print(found["verdict"]["headline"])
