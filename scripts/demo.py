"""The main job, offline: three soft prompts on the embedded backbone and the bundled support desk.

    make demo        (or: python scripts/demo.py)

Trains the recipes of recipes/quickstart with `trimtab.run`, as any user would, and prints what came out.
"""

from __future__ import annotations

import time
from pathlib import Path

import trimtab
from trimtab.cli.console import out, print_table, say
from trimtab.cli.progress import TrainingProgress

RECIPES = ("prompt_tuning", "p_tuning_lstm", "residual")
QUESTIONS = (
    "I was charged twice for the same order, please look at my card.",
    "The courier left my parcel in the rain and now it cannot be found.",
    "Since the update the speaker does not turn on any more.",
    "You people are wonderful, the new lamp makes my evenings.",
)


def main() -> None:
    begun = time.monotonic()
    folder = Path(__file__).parent.parent / "recipes" / "quickstart"
    say("Frozen backbone: nano-masked (embedded). Task: support desk, 6 classes, 192 training rows.\n")
    records = []
    for name in RECIPES:
        with TrainingProgress(f"{name:<14}", quiet=False) as progress:
            records.append(trimtab.run(folder / f"{name}.yaml", report=progress))
    rows = [
        [
            r["prompt"],
            f"{r['parameters']['trained']:,}",
            f"{r['parameters']['kept']:,}",
            r["metrics"]["test"]["accuracy"],
            "finished earlier" if r["reused"] else f"{r['seconds']:.0f}",
        ]
        for r in records
    ]
    out.print()
    print_table(["method", "parameters trained", "kept", "test accuracy", "seconds"], rows)
    baselines = records[0]["baselines"]
    say(f"\nFor comparison: majority class {baselines['majority']:.3f}, bare model {baselines['no_prompt']:.3f}.")
    best = max(records, key=lambda r: r["metrics"]["dev"]["accuracy"])
    say(f"\nPredictions of {best['prompt']} (chosen on dev) for messages it has never seen:\n")
    for text, prediction in zip(QUESTIONS, trimtab.predict(best["run"], QUESTIONS), strict=True):
        say(f"  {prediction.label:<9} {max(prediction.scores.values()):.2f}  {text}")
    say("\nRun folders (each is also a bundle that `trimtab predict` loads):")
    for record in records:
        say(f"  {record['run']}")
    say(f"\nTry:  .venv/bin/trimtab evaluate {best['run']}")
    say("      .venv/bin/trimtab init YOUR.csv --label COLUMN -o my.yaml")
    say(f"\n{time.monotonic() - begun:.0f} s in all.")


if __name__ == "__main__":
    main()
