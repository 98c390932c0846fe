"""What an ablation compares: the variants of Table 3 and the peers, as they are or with other settings.

guide                                          as it is
patch:patch_size=4                             with another setting of [model], [augmentation] or [train]
guide:guidance_radius=12+guidance_weight=8     with two
"context:rings=[[1,3],[3,7]]"                  a list stands in brackets, and in a shell in quotes
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, get_type_hints
from urllib.parse import quote, unquote

from segmodel.common.errors import UserError
from segmodel.common.options import nearest, parsed
from segmodel.model.config import PEERS, VARIANTS
from segmodel.training.settings import SECTIONS, WITHOUT_EFFECT, Config, odd

SHARED = {"data", "seed", "device", "precision", *(name.partition(".")[2] for name in WITHOUT_EFFECT)}
"""Settings that no variant has for itself: all runs share them, or they change nothing."""
FIELDS = {
    name: (title, hint)
    for title, section in SECTIONS.items()
    for name, hint in get_type_hints(section).items()
    if name not in SHARED
}
"""Section and type of each setting that a variant may change."""
PARTS = tuple(name for name in VARIANTS if name not in PEERS)


@dataclass(frozen=True)
class Variant:
    """A variant's name in ``VARIANTS``, and (field, value) of the settings that it has otherwise, as in ``FIELDS``."""

    base: str
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """As it is given: BASE, or BASE:FIELD=VALUE+FIELD=VALUE."""
        texts = [f"{field}={_text(value)}" for field, value in self.settings]
        return f"{self.base}:{'+'.join(texts)}" if texts else self.base

    @property
    def folder(self) -> str:
        """Its name as a part of a file's name, with + for the colon; ``of_folder`` reads it."""
        return quote(self.name.replace(":", "+", 1), safe="[],+=")

    @property
    def order(self) -> tuple[Any, ...]:
        """What variants are sorted by: Table 3's order, the plain one before those with settings, these by value."""
        places = list(FIELDS)
        return list(VARIANTS).index(self.base), [(places.index(field), value) for field, value in self.settings]

    def config(self, base: Config, seed: int) -> Config:
        """The configuration of a run: the base with what makes the variant, its settings, and the seed.

        Raises:
            UserError: settings that do not fit; the message names the variant.
        """
        changes: dict[str, dict[str, Any]] = {title: {} for title in SECTIONS}
        changes["model"] |= VARIANTS[self.base]
        changes["train"]["seed"] = seed
        for field, value in self.settings:
            changes[FIELDS[field][0]][field] = value
        n = changes["model"].get("patch_size", base.model.patch_size)
        if "label_pool" not in changes["model"]:  # it covers as much of the picture whatever n is
            changes["model"]["label_pool"] = odd(base.model.label_pool * n / base.model.patch_size)
        try:
            return Config(**{title: replace(getattr(base, title), **values) for title, values in changes.items()})
        except ValueError as error:
            raise UserError(f"--variants: {self.name}: {error}") from error


def _text(value: Any) -> str:
    """As it is given on a command line; of a whole number as such, whatever the type of its field."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53:
        value = int(value)
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def parse_variant(text: str) -> Variant:
    """The variant that a text names, see above.

    Raises:
        UserError: no such variant or setting, or a value of another type.
    """
    base, colon, rest = text.partition(":")
    if base not in VARIANTS:
        raise UserError(f"variants: expected one of {', '.join(VARIANTS)}, or one with settings such as "
                        f"patch:patch_size=4, got {text!r:.200}")  # fmt: skip
    settings: dict[str, Any] = {}
    for part in re.split(r"\+(?=\w+=)", rest) if colon else ():
        field, sign, value = part.partition("=")
        if not sign or field in settings:
            raise UserError(f"variants: expected {base}:FIELD=VALUE+..., each field once, got {text!r:.200}")
        if field in SHARED:
            raise UserError(f"variants: {base}: expected a setting that may differ between runs, got {field}")
        if field not in FIELDS:
            raise UserError(f"variants: {base}: unknown setting {field!r:.200}{nearest(field, FIELDS)}")
        settings[field] = parsed(value, FIELDS[field][1], f"variants: {base}: {field}")
    return Variant(base, tuple((field, settings[field]) for field in FIELDS if field in settings))


def of_folder(text: str) -> Variant | None:
    """The variant whose ``folder`` this is, or None."""
    try:
        return parse_variant(unquote(text.replace("+", ":", 1)))
    except UserError:
        return None


def reference(variant: Variant, others: Sequence[Variant]) -> Variant | None:
    """The one of ``others``, which are in order, over which a variant's gain is of interest; None for the first.

    With settings: the plain one, or the first of its kind. A part: the part before it. A peer: the last part, which is
    the full model.
    """
    firsts: dict[str, Variant] = {}
    for one in others:
        firsts.setdefault(one.base, one)
    if firsts.get(variant.base, variant) != variant:
        return firsts[variant.base]
    before = PARTS[: PARTS.index(variant.base)] if variant.base in PARTS else PARTS
    return next((firsts[part] for part in reversed(before) if part in firsts), None)
