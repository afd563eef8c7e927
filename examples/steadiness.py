"""Does noise on the text steady training? Two arms, a few seeds, one pack each; prints mean, spread and worst seed.

python examples/steadiness.py                  # 3 seeds of 20 steps: a minute, and no answer
python examples/steadiness.py 20 300           # 20 seeds of 300 steps: an answer for this small model
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import yaml

from trimtab import api


def main(seeds: int = 3, steps: int = 20) -> None:
    training = {"max_steps": steps, "min_steps": steps, "evaluations": 2, "learning_rate": 1e-2}
    study = {
        "recipe": {
            "backbone": {"model": "nano-masked"},
            "task": {"kind": "product_reviews", "shots": 16},
            "prompt": {"kind": "prompt_tuning", "length": 5},
            "training": training,
        },
        "arms": {
            "plain": {},
            "noise": {"regularizers": [{"kind": "gaussian", "sigma_relative": 0.1}]},
        },
        "seeds": seeds,
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "steadiness.yaml")
        file.write_text(yaml.safe_dump(study))
        found = api.study(file, [], studies_dir=Path(folder, "studies"))
    for line in found["lines"]:
        print(
            f"{line['label']:<6} mean {line['mean']:.3f}  sd {line['sd']:.3f}  worst {line['min']:.3f}  n {line['n']}"
        )
    print(found["verdict"]["headline"])


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
