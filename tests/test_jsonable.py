from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum

import pytest

from mmfm.jsonable import from_json, to_json


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True, kw_only=True)
class Leaf:
    size: float


@dataclass(frozen=True, kw_only=True)
class Tree:
    name: str
    colour: Colour | None = None
    leaves: tuple[Leaf, ...] = ()
    corner: tuple[float, float] = (0.0, 0.0)
    by_name: dict[str, Leaf] = field(default_factory=dict)
    load: object = field(default=None, metadata={"json": False})


TREE = Tree(name="oak", colour=Colour.RED, leaves=(Leaf(size=1.5),), corner=(1.0, 2.0), by_name={"a": Leaf(size=2.0)})


def test_round_trip_through_text():
    assert from_json(Tree, json.loads(json.dumps(to_json(TREE)))) == TREE


def test_json_holds_plain_values_and_leaves_out_what_is_marked():
    assert to_json(TREE) == {
        "name": "oak",
        "colour": "red",
        "leaves": [{"size": 1.5}],
        "corner": [1.0, 2.0],
        "by_name": {"a": {"size": 2.0}},
    }


def test_defaults_fill_what_is_absent_and_whole_numbers_become_floats():
    assert from_json(Tree, {"name": "ash", "leaves": [{"size": 3}]}) == Tree(name="ash", leaves=(Leaf(size=3.0),))
    assert isinstance(from_json(Leaf, {"size": 3}).size, float)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "expected an object"),
        ({"name": "oak", "height": 3}, "height"),
        ({"name": "oak", "load": 3}, "load"),
        ({}, "name"),
        ({"name": "oak", "colour": "blue"}, "blue"),
        ({"name": "oak", "corner": [1.0]}, "zip"),
        ({"name": "oak", "leaves": [{"width": 1}]}, "Leaf"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(value, message):
    with pytest.raises(ValueError, match=message):
        from_json(Tree, value)
