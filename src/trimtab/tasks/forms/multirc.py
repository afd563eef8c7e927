"""MultiRC (Khashabi et al. 2018), as SuperGLUE writes it: a line is a passage with questions, each with answers of
which any number is right. A row is one answer, true or false; the answers to a question are scored together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, final

from trimtab.errors import DataError
from trimtab.tasks.forms import FlatRow, forms, number
from trimtab.tasks.reading import part


@final
@forms.register("multirc")
class MultiRC:
    """Fields `passage`, `question`, `answer`, and the answer's number `idx`; groups are (passage, question)."""

    expects: ClassVar[str] = (
        '{"idx": 0, "passage": {"text": "...", "questions": [{"idx": 0, "question": "...", "answers": [{"idx": 0, '
        '"text": "...", "label": 0}]}]}}'
    )

    def rows(self, line: Mapping[str, Any], source: str) -> list[FlatRow]:
        """A row per answer, in their order."""
        of, passage = number(line, "idx", source), part(line, "passage", dict, source)
        text = part(passage, "text", str, source)
        found, seen = list[FlatRow](), set[tuple[str, ...]]()
        for question in part(passage, "questions", list, source):
            asked = part(question, "question", str, source)
            group = (of, number(question, "idx", source))
            answers = part(question, "answers", list, source)
            if not answers:
                raise DataError(f"question {group[1]} has no answers.", where=source)
            _claim(seen, group, source)
            for answer in answers:
                cells: dict[str, Any] = {
                    "passage": text, "question": asked, "answer": part(answer, "text", str, source),
                    "idx": number(answer, "idx", source),
                }  # fmt: skip
                if "label" in answer:
                    cells["label"] = _truth(answer["label"], source)
                name = (*group, cells["idx"])
                _claim(seen, name, source)
                found.append(FlatRow(cells, source, "-".join(name), group))
        return found


def _claim(seen: set[tuple[str, ...]], name: tuple[str, ...], source: str) -> None:
    """Remember the numbers of a question or an answer."""
    if name in seen:
        what = "question" if len(name) == 2 else f"answer to question {name[1]}"
        raise DataError(f"the {what} with the number {name[-1]} stands twice.", where=source, fix="Number them anew.")
    seen.add(name)


def _truth(label: Any, source: str) -> bool:
    if label not in (0, 1):
        raise DataError(f"the label of an answer is 0 or 1, got {label!r}.", where=source)
    return bool(label)
