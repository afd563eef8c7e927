# %% [markdown]
# # A first prompt
#
# Train five vectors on a bundled task, look at what they learned, and label new texts. Nothing is downloaded, and it
# takes about half a minute on one core.

# %%
import json
from pathlib import Path

import trimtab

# %% [markdown]
# A recipe is plain data: from a YAML file, or written out like this. What it leaves out has a default.

# %%
recipe = {
    "seed": 13,
    "backbone": {"model": "nano-masked"},
    "task": {"kind": "product_reviews"},
    "prompt": {"kind": "prompt_tuning", "length": 5},
    "training": {"learning_rate": 1e-2, "max_steps": 60, "min_steps": 60, "evaluations": 4},
}
seen = trimtab.show(recipe, n=1)
print(seen.parameters["trained"], "numbers will be trained, beside a frozen model of 5 million")
first = seen.examples[0]
print(len(first.encoded.slots), "of the", len(first.tokens), "positions of the first example are virtual tokens")

# %% [markdown]
# `run` trains and returns what is in the run folder. Doing it again finds the finished run.

# %%
run = trimtab.run(recipe)
print("test accuracy:", round(run["metrics"]["test"]["accuracy"], 3))
print("without the prompt:", round(run["baselines"]["no_prompt"], 3))

# %% [markdown]
# The course of training is a file, a line for each evaluation or step that was told.

# %%
history = [json.loads(line) for line in Path(run["run"], "metrics.jsonl").read_text().splitlines()]
print(len(history), "lines, the last:", sorted(history[-1]))

# %% [markdown]
# The folder is also the artifact: load it and ask.

# %%
predict = trimtab.load(run["run"])
for text in ("It stopped working after a day.", "I use it every day and love it."):
    answer = predict(text)
    print(f"{answer.label}: {text}")
