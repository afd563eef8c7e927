"""Questions about contexts, answered by a stretch of the context: SQuAD 1.1 and 2.0, and files of their form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, final

from pydantic import Field

from trimtab.chat import TemplateSource
from trimtab.errors import DataError
from trimtab.registry import tasks
from trimtab.seeding import stream
from trimtab.tasks import SPLITS, Task
from trimtab.tasks.reading import Places, resolve_path
from trimtab.tasks.splits import FromFiles, check_filled, claim_id, draw, few, files_of
from trimtab.tasks.squad import Question, read_squad
from trimtab.types import Example
from trimtab.verbalizers import Verbalizer

MOST = 384
"""Positions of a row, where neither recipe nor backbone say less (Devlin et al. 2019, their code)."""


@final
@tasks.register("squad")
class Squad(FromFiles):
    """Questions in a file of SQuAD's form: give `path`, or `train` and where they exist `dev` and `test`.

    Splits that have no file are drawn from the training questions with `split_seed`: contexts are drawn, so all
    questions about one are in one split.

    Args:
        template: see `trimtab.templates`; the fields are `question` and `context`. By default they are a pair, as the
            tokenizer separates texts: BERT reads `[SEP]` between them, T5 `</s>`, GPT-2 and Llama a line break.
        name: how the task is called in tables and run ids.
        path: one file for all splits; for the forms see `trimtab.tasks.squad`.
        train: the training questions.
        dev: the questions that select the checkpoint and, where some have no answer, the no-answer threshold.
        test: the questions that are reported.
        unanswerable: whether questions without an answer are kept or left out.
        repair_offsets: look for answers that do not stand at their offset.
        max_length: positions a row may take, slots included; 0 for 384, or what the backbone has if that is less.
        rows: training questions, drawn with the `subset` seed; 0 for all.
        dev_rows: dev questions, drawn likewise; 0 for all.
        dev_fraction: share of the training contexts, where there is no dev file.
        test_fraction: share of all contexts, where there is no test file.
        split_seed: of drawn splits.
    """

    def __init__(
        self,
        *,
        template: TemplateSource = "{prompt} {question} {sep} {context}",
        name: str = "squad",
        path: str | None = None,
        train: str | None = None,
        dev: str | None = None,
        test: str | None = None,
        unanswerable: Literal["keep", "drop"] = "keep",
        repair_offsets: bool = False,
        max_length: Annotated[int, Field(ge=0)] = 0,
        rows: Annotated[int, Field(ge=0)] = 0,
        dev_rows: Annotated[int, Field(ge=0)] = 0,
        dev_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1,
        test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2,
        split_seed: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        self.files = files_of(path, train, dev, test, test_alone=True)
        self.template, self.name, self.max_length = template, name, max_length or None
        self._drops, self._repairs = unanswerable == "drop", repair_offsets
        self._rows = {"train": rows, "dev": dev_rows}
        self._fractions, self._split_seed = {"test": test_fraction, "dev": dev_fraction}, split_seed

    def load(self, subset_seed: int, places: Places) -> Task:
        """Read the files, draw missing splits and subsets.

        Raises:
            DataError: see `trimtab.tasks.squad`; also an id that stands in two files, too few contexts to draw a split,
                an empty split, or fewer questions than are asked for.
        """
        self.check_train()
        splits = self._read(self.files, places)
        for split in ("test", "dev"):
            if split not in splits:
                splits["train"], splits[split] = self._draw(splits["train"], split)
        for split, wanted in self._rows.items():
            if wanted:
                where = "task.rows" if split == "train" else "task.dev_rows"
                rng = stream(subset_seed, f"subset:{split}")
                splits[split] = few(splits[split], wanted, rng, "questions", split, where)
        check_filled(splits, "Give more questions.")
        examples = {s: tuple(map(_example, splits[s])) for s in SPLITS}
        free = Verbalizer.free()
        return Task(self.name, examples, self.template, (), free, self.max_length, "span", most=MOST)

    def examples(self, split: str, places: Places) -> tuple[Example, ...]:
        return tuple(map(_example, self._read({split: self.file_of(split)}, places)[split]))

    def _read(self, files: Mapping[str, str], places: Places) -> dict[str, list[Question]]:
        splits: dict[str, list[Question]] = {}
        seen: dict[str, str] = {}
        for split, given in files.items():
            shown = given if ":" in given else None
            found = read_squad(resolve_path(given, places), shown, repair_offsets=self._repairs)
            splits[split] = [q for q in found if not (self._drops and q.is_impossible)]
            for question in found:
                claim_id(seen, question.id, question.source, "Make the ids unique over all files.")
        return splits

    def _draw(self, questions: Sequence[Question], split: str) -> tuple[list[Question], list[Question]]:
        """Split off a share of the contexts, with all their questions."""
        contexts = list(dict.fromkeys(q.context for q in questions))
        if len(contexts) < 2:
            raise DataError(
                f"there are {len(contexts)} contexts, too few to draw the {split} split from.",
                where=self.files["train"],
                fix=f"Give a file: task.{split}.",
            )
        its = set(draw([contexts], self._fractions[split], 0, stream(self._split_seed, f"split:{split}"))[1])
        return [q for q in questions if q.context not in its], [q for q in questions if q.context in its]


def _example(question: Question) -> Example:
    """A question with its answers; its label is the first of them."""
    first = question.answers[0][0] if question.answers else ""
    fields = {"question": question.question, "context": question.context}
    return Example(question.id, fields, first, question.source, answers=question.answers)
