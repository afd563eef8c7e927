"""How an example becomes rows."""

from __future__ import annotations

from tests.unit.made_bundles import WORDS
from trimtab.backbones import Backbone
from trimtab.rendering import Rendering
from trimtab.templates import Template
from trimtab.types import Example
from trimtab.verbalizers import Verbalizer


def test_a_rendered_row_knows_its_class_or_that_it_has_none(backbone: Backbone) -> None:
    rendering = Rendering(Template.parse("{prompt} {text} {answer}", 3), Verbalizer.of(WORDS), 32)
    for label, index in (("positive", 0), ("negative", 1), (None, -1), ("other", -1)):
        assert rendering.row(Example("1", {"text": "x"}, label), backbone.encoder).label == index
