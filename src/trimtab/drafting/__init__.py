"""A recipe for a table that has none: which columns are text, which words stand for the classes, how long to train.

`draft_recipe` guesses, says in comments and notes what it guessed, and checks that the recipe resolves, loads and
renders before it returns it. What a person has to decide (a missing label, several labels per row) is an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.backbones.loading import TextSide, load_encoder
from trimtab.config import check_groups, resolve
from trimtab.documents import parse_yaml
from trimtab.drafting.label_words import Choice, choose_words, is_scale, looks_like_rating
from trimtab.drafting.presets import presets
from trimtab.drafting.survey import Survey
from trimtab.drafting.writing import write_recipe
from trimtab.errors import DataError, TemplateError
from trimtab.metrics import normalized
from trimtab.registry import prompts, tasks
from trimtab.tasks import SPLITS, Task
from trimtab.tasks.reading import Places, read_table, resolve_path
from trimtab.templates import Template
from trimtab.text_encoder import TextEncoder
from trimtab.training.preparing import render_task, slots_of
from trimtab.training.settling import concrete
from trimtab.types import Example

TOPIC_TEMPLATE = "{{prompt}} {{answer}}: {fields}"
SCALE_TEMPLATE = "{{prompt}} {fields} {{answer}}."
LAST_TEMPLATE = "{{prompt}} {fields}. {name}: {{answer}}"
"""For free text, and for models that read from left to right, which must have read all before they answer."""
FIELD_BORDER = ". "
SEED = 13

WRITER = "nano-causal"
_RENDERED = 300
_SHORT_ANSWER = 3
_SHOWN = 60
_FEW_TEST_ROWS = 50


@dataclass(frozen=True)
class Draft:
    """A recipe as commented YAML, and what a person should know about it: guesses, ignored columns, doubts."""

    recipe: str
    notes: tuple[str, ...]


def draft_recipe(
    path: Path,
    label: str,
    text: Sequence[str] = (),
    *,
    is_free: bool = False,
    backbone: str | None = None,
    prompt: str = "residual",
    output: Path | None = None,
    places: Places | None = None,
) -> Draft:
    """Look at a table and write a complete recipe for it. Nothing is written to disk.

    Args:
        path: the table, as the recipe shall name it.
        label: the label column.
        text: the text columns, in the order of the template; guessed where none are given.
        is_free: the label is free text, which the model shall learn to write.
        backbone: the model whose tokenizer must know the label words; its weights are not loaded. By default
            nano-masked or, for free text, nano-causal.
        prompt: the prompt method.
        output: where the recipe will be, for the command in its first lines.
        places: where relative paths start.

    Raises:
        DataError: the table is unreadable, or does not suit classification with one label per row.
        TemplateError: a row does not fit the backbone.
        ConfigError: there is no such prompt method, or nothing is trained with it.
        BackboneError: the backbone's tokenizer cannot be loaded.
    """
    places = places or Places()
    prompts.get(prompt, "prompt")
    backbone = backbone or (WRITER if is_free else "nano-masked")
    survey = Survey(read_table(resolve_path(str(path), places), str(path)), label, str(path), is_free)
    split = survey.split_column()
    columns = survey.given_texts(text) if text else survey.guess_texts(split)
    survey.check_texts(columns)
    text_side = load_encoder(backbone)
    options = _task(path, survey, columns, split, text_side.family.is_causal)
    words: Mapping[str, Choice] = {}
    if is_free:
        answer = {"readout": {"kind": "text", "max_new_tokens": _longest(survey.labels, text_side.encoder)}}
    else:
        words = choose_words(_training_texts(options, columns, places), text_side.encoder, label)
        options |= {"label_words": {name: words[name].words for name in survey.classes}}
        answer = {}
    data: dict[str, Any] = {
        "seed": SEED,
        "backbone": {"model": backbone},
        "task": options,
        "prompt": {"kind": prompt, **_length_of(prompt)},
        **answer,
        "training": training_options(len(survey.labels), _select(survey)),
    }
    if (preset := presets().get((text_side.family.architecture, prompt))) is not None:
        data["prompt"] |= preset.prompt()
        data["training"] |= {"learning_rate": preset.learning_rate}
    notes = survey.notes + _rating_notes(survey)
    task = _checked(data, text_side, places, notes)
    recipe = write_recipe(data, task, survey.sizes, words, output or Path(f"{path.stem}.yaml"))
    if parse_yaml(recipe, "recipe") != data:
        raise RuntimeError(f"the draft does not read back as it was meant:\n{recipe}")
    return Draft(recipe, tuple(notes))


def _length_of(prompt: str) -> dict[str, Any]:
    """The method's own length, to be seen in the recipe; nothing where it has none, as `manual`."""
    length = prompts.options(prompt).get("length")
    return {} if length is None else {"length": length.default}


def _training_texts(options: Mapping[str, Any], columns: Sequence[str], places: Places) -> dict[str, list[str]]:
    """Class -> the texts of its training rows, columns joined: dev and test have no say in the label words."""
    task: Task = tasks.build(tasks.resolve(options, "task")).load(0, places)
    texts: dict[str, list[str]] = {name: [] for name in task.verbalizer.classes}
    for example in task.splits["train"]:
        texts[str(example.label)].append(" ".join(example.fields[c] for c in columns))
    return texts


def _task(path: Path, survey: Survey, columns: Sequence[str], split: str | None, answers_last: bool) -> dict[str, Any]:
    """The task section as plain data; each class is its own label word until words are chosen."""
    role = "target" if survey.is_free else "label"
    task: dict[str, Any] = {"kind": "table", "name": path.stem, "path": path.as_posix(), role: survey.label}
    if split is not None:
        task["split_column"] = split
    if (identity := survey.id_column()) is not None:
        task["id_column"] = identity
    fields = FIELD_BORDER.join(_field(column, survey.shown) for column in columns)
    if survey.is_free or answers_last:
        name = " ".join(survey.label.replace("{", " ").replace("}", " ").replace("_", " ").split())
        task["template"] = LAST_TEMPLATE.format(fields=fields, name=name)
    else:
        template = SCALE_TEMPLATE if is_scale(survey.classes, survey.label) else TOPIC_TEMPLATE
        task["template"] = template.format(fields=fields)
    if not survey.is_free:
        task["label_words"] = {name: name for name in survey.classes}
    given = survey.splits_of(split)
    fractions = {"test": 0.2, "dev": 0.1}
    task |= {f"{s}_fraction": share for s, share in fractions.items() if s not in given}
    return task if fractions.keys() <= given else task | {"split_seed": 0}


def _field(column: str, shown: str) -> str:
    """How a template names a column."""
    for written in (f"{{{column}}}", f"{{field:{column}}}"):
        try:
            if Template.parse(f"{{prompt}}{written}{{answer}}", 1).fields == [column]:
                return written
        except TemplateError:
            continue
    raise DataError(
        f"a template cannot name the column {column!r}: a name has no braces and no spaces at its ends.",
        where=shown,
        fix="Rename the column.",
    )


def _lost(answers: Sequence[Example], encoder: TextEncoder) -> list[str]:
    """A note on answers that the model cannot write, as its tokenizer loses part of them."""
    texts = [str(e.label) for e in answers]
    lost = [t for t in texts if normalized(encoder.decode(encoder.encode(f" {t}").ids)) != normalized(t)]
    if not lost:
        return []
    shown = f"{lost[0][:_SHOWN]!r}{' ...' if len(lost[0]) > _SHOWN else ''}"
    return [
        f"{len(lost)} of {len(texts)} answers have signs that the model's vocabulary lacks, such as {shown}; it cannot "
        "write them exactly."
    ]


def _longest(answers: Sequence[str], encoder: TextEncoder) -> int:
    """Tokens of the longest answer, its end included."""
    return 1 + max(len(encoder.encode(f" {answer}").ids) for answer in answers)


def _select(survey: Survey) -> str:
    """The dev score that tells most: of uneven classes macro-F1, of long answers ROUGE-L."""
    if not survey.is_free:
        return "macro_f1" if survey.note_classes() else "accuracy"
    words = sorted(len(answer.split()) for answer in survey.labels)
    return "exact_match" if words[len(words) // 2] <= _SHORT_ANSWER else "rouge_l"


def training_options(rows: int, select: str) -> dict[str, Any]:
    """Many passes over a small table, few over a large one."""
    return {
        "epochs": min(40, max(3, round(16_000 / rows))),
        "min_steps": 400,
        "batch_size": 16,
        "select": select,
    }


def _rating_notes(survey: Survey) -> list[str]:
    if survey.is_free or not looks_like_rating(survey.classes, survey.label):
        return []
    return ["the classes look like ratings; they are learned as separate classes, without an order between them."]


def _checked(data: Mapping[str, Any], text_side: TextSide, places: Places, notes: list[str]) -> Task:
    """Resolve, load and render, as `run` will; notes on what is cut and on a small test split."""
    config = resolve(data).config
    task: Task = tasks.build(config.task).load(config.seeds.subset, places)
    encoder, positions = text_side.encoder, text_side.positions
    config = concrete(config, task, text_side.family.readouts)
    check_groups(config)
    rendering = render_task(task, slots_of(config), encoder, positions, config.readout)
    examples = [e for s in SPLITS for e in task.splits[s]]
    sample = examples[:: max(1, len(examples) // _RENDERED)]
    cut = sum(rendering.row(e, encoder).encoded.dropped > 0 for e in sample)
    if cut:
        share = max(1, round(100 * cut / len(sample)))
        notes.append(f"about {share} % of the rows exceed the model's {positions} positions; their ends are cut off.")
    if task.verbalizer.is_free:
        notes += _lost(examples, encoder)
    n = len(task.splits["test"])
    if n < _FEW_TEST_ROWS:
        notes.append(
            f"only {n} rows are left for the test, so a single row makes {100 / n:.0f} points of the score; more rows, "
            "or runs with other seeds (seed=1, seed=2, ...), tell more."
        )
    return task
