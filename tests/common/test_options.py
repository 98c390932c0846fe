"""Configuration is checked, never coerced, and the same from flags, TOML and defaults."""

import argparse
from dataclasses import dataclass
from typing import Literal

import pytest

from segmodel.common.errors import UserError
from segmodel.common.options import add_flags, build, checked, flag_values, option, parsed, read_toml, to_toml


@dataclass(frozen=True)
class Section:
    count: int = option(3, "a count", "Eq. 1")
    rate: float = option(0.5, "100 % of a rate")
    on: bool = option(True, "a switch")
    kind: Literal["one", "two"] = option("one", "a kind")
    size: tuple[int, int] = option((1, 2), "a size")
    rings: tuple[tuple[int, int], ...] = option(((1, 2),), "rings")
    maybe: int | None = option(None, "a count or nothing")

    def __post_init__(self):
        if self.count < 0:
            raise ValueError(f"count: expected at least 0, got {self.count}")


SECTIONS = {"part": Section}


def flags(*texts):
    parser = argparse.ArgumentParser()
    add_flags(parser, SECTIONS)
    return flag_values(parser.parse_args(texts), SECTIONS).get("part", {})


def test_flags_give_typed_values_and_absent_ones_nothing():
    assert flags() == {}
    assert flags("--count", "5", "--rate", "2", "--no-on", "--kind", "two") == {
        "count": 5, "rate": 2.0, "on": False, "kind": "two",
    }  # fmt: skip
    assert flags("--size", "3,4", "--rings", "[1,2],[3,4]") == {"size": (3, 4), "rings": ((1, 2), (3, 4))}
    assert flags("--rings", "[[1,2]]")["rings"] == ((1, 2),)
    assert flags("--rings", "")["rings"] == flags("--rings", "[]")["rings"] == ()
    assert flags("--maybe", "4") == {"maybe": 4}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["--count", "2.7"], "--count: expected a whole number, got 2.7"),
        (["--count", "many"], "--count: expected a whole number, got 'many'"),
        (["--count", "true"], "--count: expected a whole number, got True"),
        (["--rate", "NaN"], "--rate: expected a finite number"),
        (["--rate", "Infinity"], "--rate: expected a finite number"),
        (["--kind", "three"], "--kind: expected one of one, two, got 'three'"),
        (["--size", "3"], "--size: expected a list of 2"),
        (["--rings", "[1,2,3]"], "--rings: expected a list of 2"),
    ],
)
def test_wrong_flags_are_named(texts, message):
    with pytest.raises(UserError) as caught:
        flags(*texts)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[part]\ncount = 2.0", "part.count: expected a whole number, got 2.0"),
        ("[part]\ncount = true", "part.count: expected a whole number, got True"),
        ('[part]\nrate = "1"', "part.rate: expected a number, got '1'"),
        ("[part]\non = 1", "part.on: expected true or false, got 1"),
        ("[part]\ncuont = 1", "unknown key part.cuont (did you mean 'count'?)"),
        ("[prat]\ncount = 1", "unknown section or key 'prat' (did you mean 'part'?)"),
        ("count = 1", "unknown section or key 'count'"),
        ("[part", "not a TOML file"),
        ("[part]\nrate = nan", "part.rate: expected a finite number"),
    ],
)
def test_wrong_files_are_named(tmp_path, text, message):
    file = tmp_path / "settings.toml"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        read_toml(file, SECTIONS)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_a_configuration_survives_the_way_through_toml(tmp_path):
    section = Section(count=7, rate=1e-4, on=False, kind="two", size=(5, 6), rings=(), maybe=2)
    file = tmp_path / "settings.toml"
    file.write_text(to_toml({"part": section}))
    assert build(Section, read_toml(file, SECTIONS)["part"]) == section


def test_later_layers_win_and_the_section_checks_values():
    assert build(Section, {"count": 1, "on": False}, {"count": 2}) == Section(count=2, on=False)
    with pytest.raises(UserError, match="count: expected at least 0, got -1"):
        build(Section, {"count": -1})


def test_whole_numbers_may_stand_for_floats_only():
    assert checked(2, float, "x") == 2.0
    assert isinstance(checked(2, float, "x"), float)
    with pytest.raises(UserError):
        checked(2.0, int, "x")
    assert parsed("text", str, "x") == "text"


def test_help_shows_default_and_source():
    parser = argparse.ArgumentParser()
    add_flags(parser, SECTIONS)
    text = " ".join(parser.format_help().split())
    assert "a count (default: 3; Eq. 1)" in text
    assert "100 % of a rate" in text
