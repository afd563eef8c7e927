"""LAMA (Petroni et al. 2019, "Language Models as Knowledge Bases?"): the object of a fact, as one word.

With P-tuning's template t = (t0, t1, t2), (3,3,3) by default (Liu et al. 2021, arXiv 2103.10385, their LAMA code):

    masked LMs:   [CLS]  P x t0  [MASK]  P x t1  subject  P x t2  [SEP]          a full stop where t2 = 0
    causal LMs:          P x t0  subject  P x t1  ->  the next word             t2 plays no part

An encoder-decoder has the first of them, the sentinel in the place of the mask.

What is reported beside P@1: the `manual` template of the relation, asked of the bare model (`baselines.no_prompt`); the
objects of train, the most frequent first (`baselines.majority`); P@1 of facts whose object is not the most frequent,
and of those whose object train does not have. For what a prompt learns without any knowledge in the model (Zhong et al.
2021, arXiv 2104.05240), run the same with `backbone.random_weights: 0`.

Deviations: the splits of the papers (AutoPrompt's, with more facts than LAMA has) are not those drawn here, so numbers
are not theirs; give their files as `train`, `dev` and `test`. Of a causal model, a subject right behind the first
virtual tokens is tokenized as the beginning of a text; the released code puts a space before it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, final

from pydantic import Field

from trimtab.chat import TemplateSource
from trimtab.errors import ConfigError, DataError, suggest
from trimtab.registry import tasks
from trimtab.seeding import stream
from trimtab.tasks import SPLITS, Task
from trimtab.tasks.facts import Fact, Relation, checked_template, read_facts, read_relations, read_words
from trimtab.tasks.reading import Places, resolve_path
from trimtab.tasks.splits import check_filled, few, files_of
from trimtab.types import Example
from trimtab.verbalizers import Verbalizer

ALL = "all"
_SLOT = "{relation}"
_ANSWERED = ("{before} {answer} {after}", "{before} {answer}")
"""What stands around the object: for all models, and for those that read from left to right."""


@final
@tasks.register("lama")
class Lama:
    """Facts of one relation, or of several with one prompt: give `path`, or `train` and where they exist `dev`, `test`.

    For the files see `trimtab.tasks.facts`. Splits that have no file are drawn from the training facts by subject: a
    hash of `split_seed` and the subject decides, so a subject is in the same split in whatever relation it occurs, and
    the splits of a relation do not depend on which others are read.

    Args:
        relation: the relation's id, or several, or `all` of the relations file whose facts exist.
        path: a file of facts for all splits; `{relation}` stands for the id.
        train: the training facts.
        dev: those that select the checkpoint.
        test: those that are reported.
        relations: a file of relations with their templates.
        templates: relation -> template such as "[X] was born in [Y] .", beside that file or instead of it. Relations
            without one have sentences.
        template: `p_tuning` (see above); `manual`, the relation's own behind the prompt; or a template (see
            `trimtab.templates`) with the fields `subject`, `relation`, `label` (what the relation is called), `before`
            and `after` (what stands around the object in the manual template or the sentence). `auto` is `p_tuning` for
            one relation with a template, else `manual`, as the model must be told what is asked.
        slots: of P-tuning's template.
        vocabulary: which words may be answers: `full`, all entries of the tokenizer; `relation`, the objects that the
            training facts of the example's relation have; or a file, the words that several models share.
        vocabulary_entry: of a JSON file with lists for several models, the name of the list.
        name: how the task is called in tables and run ids; the id of a single relation is added.
        max_length: positions a row may take, slots included; 0 for what the backbone has.
        rows: training facts of each relation, drawn with the `subset` seed; 0 for all. What is said of the objects of
            train means all training facts.
        dev_fraction: share of the subjects, where there is no dev file.
        test_fraction: share of the subjects, where there is no test file.
        split_seed: of drawn splits.
    """

    def __init__(
        self,
        *,
        relation: list[str] | str = ALL,
        path: str | None = None,
        train: str | None = None,
        dev: str | None = None,
        test: str | None = None,
        relations: str | None = None,
        templates: dict[str, str] = {},  # noqa: B006  (a schema default, never mutated)
        template: TemplateSource = "auto",
        slots: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=3, max_length=3)] = [3, 3, 3],  # noqa: B006
        vocabulary: str = "full",
        vocabulary_entry: str | None = None,
        name: str = "lama",
        max_length: Annotated[int, Field(ge=0)] = 0,
        rows: Annotated[int, Field(ge=0)] = 0,
        dev_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.15,
        test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.3,
        split_seed: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        self._files = files_of(path, train, dev, test)
        self._asked = None if relation == ALL else [relation] if isinstance(relation, str) else list(relation)
        self._relations = relations
        self._templates = {r: checked_template(t, f"task.templates.{r}", ConfigError) for r, t in templates.items()}
        self._check(vocabulary, vocabulary_entry)
        self.template, self.slots = template, tuple(slots)
        self.vocabulary, self.vocabulary_entry = vocabulary, vocabulary_entry
        self.name, self.max_length, self.rows = name, max_length or None, rows
        self.dev_fraction, self.test_fraction, self.split_seed = dev_fraction, test_fraction, split_seed

    def _check(self, vocabulary: str, entry: str | None) -> None:
        asked = self._asked
        if asked is not None and (not asked or len(set(asked)) < len(asked)):
            raise ConfigError(f"name relations, each once, got {asked}.", where="task.relation")
        if asked is None and self._relations is None:
            what = "all relations are those of a file of relations, and none is given."
            raise ConfigError(what, where="task.relation", fix="Name them, or give task.relations.")
        for split, given in self._files.items():
            if _SLOT not in given and (asked is None or len(asked) > 1):
                where = "task.path" if len(self._files) == 1 else f"task.{split}"
                what = f"several relations need a file each, got {given!r}."
                raise ConfigError(what, where=where, fix=f"Write {_SLOT} where the relation's id belongs.")
        if entry is not None and vocabulary in ("full", "relation"):
            raise ConfigError("only a file has entries.", where="task.vocabulary_entry", fix="Leave it out.")

    @property
    def files(self) -> dict[str, str]:
        """The files that are known before any is read: of `all` relations, only the file that names them."""
        named = {"relations": self._relations} if self._relations else {}
        if self.vocabulary not in ("full", "relation"):
            named["vocabulary"] = self.vocabulary
        of = {f"{s}:{r}": given.replace(_SLOT, r) for s, given in self._files.items() for r in self._asked or ()}
        return named | of

    def load(self, subset_seed: int, places: Places) -> Task:
        """Read facts and relations, draw missing splits and the training facts.

        Raises:
            DataError: see `trimtab.tasks.facts`; also an unknown relation, an empty split, or fewer training facts than
                `rows`.
        """
        notes: list[str] = []
        relations = self._load_relations(places, notes)
        facts = {r.id: self._read(r, places, notes) for r in relations}
        splits = {s: [f for its in facts.values() for f in its[s]] for s in SPLITS}
        check_filled(splits, "Give more facts, other shares, or another task.split_seed.")
        notes.append(self._told(splits))
        frequent = {r: _by_frequency(its["train"]) for r, its in facts.items()}
        if self.rows:
            rng = stream(subset_seed, "subset:train")
            drawn = [few(its["train"], self.rows, rng, f"facts of {r}", "train", "task.rows")
                     for r, its in facts.items()]  # fmt: skip
            splits["train"] = [fact for its in drawn for fact in its]
        by_id = {r.id: r for r in relations}
        examples = {s: tuple(_example(f, by_id[f.relation], frequent) for f in its) for s, its in splits.items()}
        readable = all(e.fields["before"] for its in examples.values() for e in its)
        template, causal = self._templates_of(relations)
        return Task(
            f"{self.name}/{relations[0].id}" if len(relations) == 1 else self.name,
            examples, template, (), Verbalizer.free(), self.max_length, "word", notes=tuple(notes), causal=causal,
            manual=(_ANSWERED[0], _ANSWERED[1] if readable else None), allowed=self._allowed(frequent, places),
        )  # fmt: skip

    def _load_relations(self, places: Places, notes: list[str]) -> list[Relation]:
        known: dict[str, Relation] = {}
        if self._relations is not None:
            known = read_relations(resolve_path(self._relations, places), _shown(self._relations))
        known |= {r: Relation(r, t, known[r].label if r in known else "") for r, t in self._templates.items()}
        if self._asked is None:
            there = [r for r in known.values() if self._exists(r.id, places)]
            if len(there) < len(known):
                notes.append(f"{len(known) - len(there)} of the {len(known)} relations have no file of facts.")
            if not there:
                raise DataError(
                    "no relation has a file of facts.", where=str(self._files["train"]), fix="Check --data-dir."
                )
            return there
        for name in self._asked if self._relations is not None else ():
            if name not in known:
                what = f"there is no relation {name!r} in {self._relations}."
                raise DataError(what, where="task.relation", fix=suggest(name, known))
        return [known.get(r, Relation(r)) for r in self._asked]

    def _exists(self, relation: str, places: Places) -> bool:
        return all(resolve_path(given.replace(_SLOT, relation), places).is_file() for given in self._files.values())

    def _read(self, relation: Relation, places: Places, notes: list[str]) -> dict[str, list[Fact]]:
        """The facts of a relation by split."""
        found: dict[str, list[Fact]] = {s: [] for s in SPLITS}
        for split, given in self._files.items():
            file = given.replace(_SLOT, relation.id)
            facts, left_out = read_facts(resolve_path(file, places), relation, _shown(file))
            notes += [f"{file}: {n} left out, {_WHY[why]}." for why, n in left_out.items() if n]
            for fact in facts:
                found[self._split_of(fact) if split == "train" else split].append(fact)
        return found

    def _split_of(self, fact: Fact) -> str:
        """The split of a fact from the file of training facts."""
        digest = hashlib.sha256(f"{self.split_seed}:{fact.key}".encode()).digest()
        place, end = int.from_bytes(digest[:8]) / 2**64, 0.0
        for split, share in (("test", self.test_fraction), ("dev", self.dev_fraction)):
            end += share if split not in self._files else 0.0
            if split not in self._files and place < end:
                return split
        return "train"

    def _told(self, splits: Mapping[str, Sequence[Fact]]) -> str:
        """The splits in a sentence, with their hash."""
        content = sorted([s, f.relation, f.key, f.object] for s, its in splits.items() for f in its)
        digest = hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()
        sizes = ", ".join(f"{s} {len(splits[s])}" for s in SPLITS)
        drawn = [s for s in ("dev", "test") if s not in self._files]
        how = f"{' and '.join(drawn)} drawn by subject with split_seed {self.split_seed}" if drawn else "as given"
        keys = [{f.key for f in splits[s]} for s in SPLITS]
        shared = len((keys[0] & keys[1]) | (keys[0] & keys[2]) | (keys[1] & keys[2]))
        several = f" {shared} subjects are in several splits." if shared else " No subject is in two splits."
        return f"Facts: {sizes}, {how}. SHA-256 {digest[:16]}.{several}"

    def _templates_of(self, relations: Sequence[Relation]) -> tuple[Any, str | None]:
        """The template, and that of models that read from left to right where it is another."""
        only = relations[0] if len(relations) == 1 and relations[0].template else None
        source = ("p_tuning" if only else "manual") if self.template == "auto" else self.template
        if source == "p_tuning":
            if not all(r.template for r in relations):
                what = "P-tuning's template has a subject, and these facts are sentences."
                raise ConfigError(what, where="task.template", fix="Use task.template=manual.")
            return _p_tuning(*self.slots)
        if source != "manual":
            return source, None
        if only is None:
            return f"{{prompt}} {_ANSWERED[0]}", f"{{prompt}} {_ANSWERED[1]}"
        text = only.template.replace("{", "{{").replace("}", "}}").replace("[X]", "{subject}")
        before, _, after = text.partition("[Y]")
        return f"{{prompt}} {before}{{answer}}{after}", f"{{prompt}} {before}{{answer}}" if before.strip() else None

    def _allowed(self, frequent: Mapping[str, Sequence[str]], places: Places) -> dict[str, tuple[str, ...]]:
        if self.vocabulary == "full":
            return {}
        if self.vocabulary == "relation":
            return {relation: tuple(objects) for relation, objects in frequent.items()}
        path = resolve_path(self.vocabulary, places)
        return {"": read_words(path, self.vocabulary_entry, _shown(self.vocabulary))}


_WHY = {"denied": "denied by more raters than confirm it", "equal": "equal to a fact before"}


def _shown(given: str) -> str | None:
    return given if ":" in given else None


def _by_frequency(facts: Sequence[Fact]) -> list[str]:
    """Their objects, the most frequent first; of equally frequent ones in the order of the alphabet."""
    counts = Counter(fact.object for fact in facts)
    return sorted(counts, key=lambda o: (-counts[o], o))


def _example(fact: Fact, relation: Relation, frequent: Mapping[str, list[str]]) -> Example:
    """A fact as an example; its label is the object."""
    before, after = relation.around(fact)
    fields = {"subject": fact.subject, "relation": relation.id, "label": relation.label, "before": before,
              "after": after}  # fmt: skip
    known = frequent[relation.id]
    prior = known.index(fact.object) + 1 if fact.object in known else 0
    return Example(fact.id, fields, fact.object, fact.source, prior=prior)


def _p_tuning(first: int, second: int, third: int) -> tuple[str, str]:
    """P-tuning's template as it is, and for models that read from left to right.

    >>> _p_tuning(3, 3, 0)
    ('{prompt:3} {answer} {prompt:3} {subject}.', '{prompt:3} {subject} {prompt:3} {answer}')
    """
    a, b, c = (f"{{prompt:{n}}}" if n else "" for n in (first, second, third))
    masked = " ".join(filter(None, (a, "{answer}", b, f"{{subject}}{'' if c else '.'}", c)))
    return masked, " ".join(filter(None, (a, "{subject}", b, "{answer}")))
