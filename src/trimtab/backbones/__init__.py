"""Into what a prompt goes: frozen pretrained models, one short file per family that differs from the default."""

from trimtab.backbones.backbone import Backbone
from trimtab.backbones.family import Family
from trimtab.backbones.loading import load_backbone

__all__ = ["Backbone", "Family", "load_backbone"]
