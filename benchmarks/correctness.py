"""The same checks on trimtab and on PEFT: method x family x task.

    OMP_NUM_THREADS=1 python benchmarks/correctness.py --out docs/results/correctness

Tiny random models, float32, on a CPU; one process. What has been found is kept in OUT.cells.jsonl, so a run that was
interrupted goes on where it stopped, and `--only` adds to it or, with `--again`, repeats a part:

    python benchmarks/correctness.py --only library=peft family=t5,bart check="off, written" --out /tmp/part

Writes OUT.json and OUT.md of all that OUT.cells.jsonl holds.
"""

from correctness.command import main

if __name__ == "__main__":
    main()
