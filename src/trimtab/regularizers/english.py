"""What `word_swap` knows of English: stop words, and words that are used alike and mean something else.

Neither embeddings nor a language model tell opposites, and kinds of one thing, from synonyms (`good` and `bad` stand in
the same places), so what must not replace what is listed here, by hand and far from complete. A word stands for its
forms in -s, -ed, -ing, -er, -est and -ly, too. A word with and without a negating prefix (`able`, `unable`) is a pair
of opposites anyway.
"""

from __future__ import annotations

_SIDES = """
good great fine nice best better well wonderful excellent superb | bad poor worst worse terrible awful horrible
happy glad cheerful hopeful | sad unhappy sorry hopeless
love like adore enjoy | hate dislike loathe
beautiful pretty gorgeous handsome attractive | ugly hideous
hard difficult tough complicated complex | easy simple effortless
big large huge great enormous giant vast major | small little tiny minor
long lengthy tall | short brief
high higher upper up upward above top over | low lower down downward below bottom under beneath
old elderly ancient former aged | new young fresh modern recent latter
strong powerful | weak feeble powerless
fast quick rapid swift early sudden | slow late gradual
rich wealthy | poor cheap
hot warm | cold cool
light bright | dark dim heavy
more most many much | less least few little fewer
always often frequently usually commonly generally | never rarely seldom hardly occasionally sometimes
first | last final
begin start open opening beginning | end finish stop close closing ending
before previous earlier past prior ago | after next following later future
inside inner internal indoor in within | outside outer external outdoor out without
left | right
east | west | north | south
eastern | western | northern | southern
right correct true proper | wrong incorrect false improper
real genuine actual true | fake false fictional imaginary
success succeed win victory winner | failure fail lose lost defeat loser
gain increase rise grow add raise | lose decrease fall shrink reduce drop decline
smart intelligent clever wise brilliant | stupid dumb foolish silly
interesting exciting entertaining funny fascinating engaging | boring dull tedious dreary
serious tragic solemn | funny comic comedic silly humorous
friend ally | enemy foe rival
hero | villain
life alive living birth born live | death dead dying die
war fight | peace truce
day daytime morning | night nighttime evening
dream | nightmare
remember recall | forget
public | private
liberal leftist | conservative
male man men boy guy gentleman father dad son brother husband uncle king prince actor he his him himself |
female woman women girl lady mother mom daughter sister wife aunt queen princess actress she her hers herself
parent adult grown | child kid baby teen
full entire whole complete | empty partial half part
rough | smooth
safe | dangerous
same similar alike | different unlike other
buy purchase | sell
give send | take receive get
come enter arrive | go leave exit depart
push | pull
ask question | answer reply
present | absent
positive optimistic | negative pessimistic
cause | effect result
teacher | student
laugh smile | cry weep frown
original | copy sequel remake
allow permit | forbid prevent ban
accept | reject refuse
support | oppose
clean | dirty
clear obvious | vague obscure
deep | shallow
wide broad | narrow
thick fat | thin slim
loud | quiet silent
natural | artificial
normal usual ordinary common typical | strange weird odd unusual rare
include including | exclude excluding
worth valuable | worthless
careful | careless
want wish | need must
hope | fear
"""
"""One line for each pair of opposites, or for several sides that exclude each other."""

_KINDS = """
zero one two three four five six seven eight nine ten eleven twelve twenty thirty fifty hundred thousand million billion
first second third fourth fifth sixth seventh eighth ninth tenth
once twice thrice
tens dozens hundreds thousands millions billions
second minute hour day week month year decade century
monday tuesday wednesday thursday friday saturday sunday
january february march april may june july august september october november december
spring summer autumn winter
red blue green yellow black white brown orange purple pink gray gold silver
american british english french german spanish italian russian chinese japanese indian korean mexican canadian irish
america britain england france germany spain italy russia china japan india korea mexico canada ireland
king queen prince princess
mother father parent brother sister son daughter uncle aunt cousin wife husband child
boy girl man woman
dog cat horse cow pig bird fish
he she it they we you
"""
"""One line for each sort of thing: none of them may become another."""

_PREFIXES = ("un", "in", "im", "ir", "il", "dis", "non", "anti", "mis")
_SUFFIXES = ("s", "es", "ed", "d", "ing", "er", "r", "est", "st", "ly", "y")
_CHANGED = {"ing": "e", "es": "e", "ier": "y", "iest": "y", "ily": "y", "ies": "y", "ied": "y", "iness": "y"}
"""Endings before which the word lost a letter -> the letter: making, easier, happily."""


_CONTRACTED = "ain aren couldn didn doesn don hadn hasn haven isn mightn mustn needn shan shouldn wasn weren won wouldn"


def english_stop_words() -> frozenset[str]:
    """scikit-learn's, and what stands before "n't", as vocabularies have that as a word."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return ENGLISH_STOP_WORDS.union(_CONTRACTED.split())


def are_opposed(one: str, other: str) -> bool:
    """Whether one word must not stand in for the other."""
    one, other = one.lower(), other.lower()
    if any(a == prefix + b for prefix in _PREFIXES for a, b in ((one, other), (other, one))):
        return True
    ours, theirs = _places(one), _places(other)
    return any(line == its and side != that for line, side in ours for its, that in theirs)


def _places(word: str) -> set[tuple[int, str]]:
    """In which lines a word stands, and on which side."""
    forms = {word, *(word.removesuffix(s) for s in _SUFFIXES)}
    forms |= {word.removesuffix(end) + lost for end, lost in _CHANGED.items() if word.endswith(end)}
    forms |= {form[:-1] for form in forms if len(form) > 3 and form[-1] == form[-2]}  # bigger
    return {place for form in forms for place in _TABLE.get(form, ())}


def _read() -> dict[str, set[tuple[int, str]]]:
    table: dict[str, set[tuple[int, str]]] = {}
    sides = _SIDES.replace("|\n", "| ").strip().splitlines()
    for line, text in enumerate(sides):
        for side, words in enumerate(text.split("|")):
            for word in words.split():
                table.setdefault(word, set()).add((line, str(side)))
    for line, text in enumerate(_KINDS.strip().splitlines(), len(sides)):
        for word in text.split():
            table.setdefault(word, set()).add((line, word.removesuffix("s")))
    return table


_TABLE = _read()
