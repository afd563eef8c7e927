"""Files as fastText reads them: every line is `__label__CLASS`, a space, and the text."""

from collections.abc import Iterator

from trimtab.errors import DataError, suggest
from trimtab.registry import tasks
from trimtab.tasks import SPLITS, Task
from trimtab.tasks.reading import Places, read_lines, resolve_path
from trimtab.tasks.splits import check_filled
from trimtab.types import Example
from trimtab.verbalizers import Verbalizer

MARK = "__label__"


@tasks.register("fasttext")
class FastText:
    """Lines of fastText, a file for each split.

    Args:
        train: the training rows.
        dev: the rows that select the checkpoint.
        test: the rows that are reported.
        label_words: class -> label word or words, in the order of the classes.
        template: what the model reads; the only field is `text`.
        name: how the task is called in tables and run ids.
    """

    def __init__(
        self,
        *,
        train: str,
        dev: str,
        test: str,
        label_words: dict[str, list[str] | str],
        template: str = "{prompt} {answer}: {text}",
        name: str = "fasttext",
    ) -> None:
        self.files = dict(zip(SPLITS, (train, dev, test), strict=True))
        self.verbalizer = Verbalizer.of(label_words)
        self.template, self.name = template, name

    def load(self, subset_seed: int, places: Places) -> Task:
        """Read the files; nothing is drawn, so the seed means nothing.

        Raises:
            DataError: see `examples`; or a file without rows.
        """
        splits = {split: self.examples(split, places) for split in SPLITS}
        check_filled(splits)
        return Task(self.name, splits, self.template, ("text",), self.verbalizer)

    def examples(self, split: str, places: Places) -> tuple[Example, ...]:
        """The rows of one file.

        Raises:
            DataError: no such file, or a line without a label, without a text, or with an unknown label.
        """
        return tuple(self._examples(split, places))

    def _examples(self, split: str, places: Places) -> Iterator[Example]:
        file, classes = self.files[split], self.verbalizer.classes
        for i, line in enumerate(read_lines(resolve_path(file, places), file), 1):
            label, _, text = line.partition(" ")
            where = f"{file}:{i}"
            if not label.startswith(MARK) or not text.strip():
                raise DataError(f"a line must be {MARK}CLASS, a space and a text, got {line!r}.", where=where)
            if (label := label.removeprefix(MARK)) not in classes:
                raise DataError(f"the class {label!r} has no label words.", where=where, fix=suggest(label, classes))
            yield Example(f"{split}-{i}", {"text": text.strip()}, label, where)
