"""The ranges, the pins, the conda file and what is installed agree, and none lies below a security floor."""

import ast
import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from mmfm.doctor import FLOORS


@pytest.fixture(scope="module")
def pins(root):
    lines = (root / "constraints.txt").read_text().split()
    assert all(re.fullmatch(r"[a-z0-9.-]+==[0-9][\w.]*", line) for line in lines), "one name==version a line"
    return {canonicalize_name(name): Version(pin) for name, pin in (line.split("==") for line in lines)}


@pytest.fixture(scope="module")
def ranges(root):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    return [Requirement(line) for line in sum(extras.values(), project["dependencies"])]


def installed(name):
    try:
        return Version(version(name))
    except PackageNotFoundError:
        return None


def test_conda_file_lists_the_same_pins(root, pins):
    wanted = {f"{name}=={pin}" for name, pin in pins.items()}
    (pip_section,) = [
        d["pip"] for d in yaml.safe_load((root / "environment.yml").read_text())["dependencies"] if isinstance(d, dict)
    ]
    assert set(pip_section) - wanted == {"-e .[dev,train,deid]"}
    assert wanted <= set(pip_section)


def test_everything_that_is_imported_is_declared(root, ranges):
    """What only another package brought along would be gone the day that package drops it."""
    declared = {canonicalize_name(r.name) for r in ranges}
    folders = ("mmfm", "experiments", "datasets", "demos", "benchmarks", "tests")
    names = set()
    for path in (p for folder in folders for p in (root / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.partition(".")[0])
    distributions = packages_distributions()
    foreign = {
        name: distributions[name] for name in names - sys.stdlib_module_names - {"mmfm"} if name in distributions
    }
    assert {"torch", "PIL", "pytest"} <= set(foreign)
    assert {n: d for n, d in foreign.items() if not declared & {canonicalize_name(x) for x in d}} == {}


def test_every_pin_lies_in_its_range(pins, ranges):
    assert [str(r) for r in ranges if not r.specifier.contains(pins[canonicalize_name(r.name)])] == []


def test_everything_that_is_needed_is_pinned(pins, ranges):
    """Direct and transitive: an unpinned name would be whatever the index holds that day."""
    seen, waiting = set(), list(ranges)
    while waiting:
        wanted = waiting.pop()
        key = (canonicalize_name(wanted.name), frozenset(wanted.extras))
        if key in seen or installed(wanted.name) is None:
            continue
        seen.add(key)
        for line in requires(wanted.name) or []:
            inner = Requirement(line)
            if inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in {"", *wanted.extras}):
                waiting.append(inner)
    with_cuda = ("cuda-", "nvidia-", "triton")  # come with a CUDA build of torch, which pins them itself
    names = {name for name, _ in seen if not name.startswith(with_cuda)}
    assert {"torch", "sympy"} <= names, "direct and transitive"
    assert names - set(pins) == set()


def test_installed_versions_are_the_pins(pins):
    found = {name: installed(name) for name in pins}
    wrong = {n: (str(found[n]), str(pin)) for n, pin in pins.items() if found[n] and found[n].public != pin.public}
    assert wrong == {}, "run `make setup`"


@pytest.mark.parametrize("name", FLOORS)
def test_security_floor_holds_for_installed_pin_and_range(name, pins, ranges):
    floor = Version(FLOORS[name])
    for found in (installed(name), pins.get(name)):
        assert found is None or found >= floor
    for requirement in ranges:
        if canonicalize_name(requirement.name) == name:
            assert [s for s in requirement.specifier if s.operator == ">=" and Version(s.version) >= floor]


def test_floors_are_those_of_the_advisories():
    """Raising one is a decision; lowering one brings a published hole back."""
    assert FLOORS["torch"] >= "2.10"
    assert FLOORS.keys() >= {"torch", "lightning", "transformers", "gradio", "pydicom"}


def test_no_gpl_decoder(pins, ranges):
    assert installed("pylibjpeg-libjpeg") is None
    assert "pylibjpeg-libjpeg" not in pins
    assert not [r for r in ranges if r.name == "pylibjpeg" and r.extras]
