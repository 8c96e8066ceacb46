"""The rules of the house that no type checker, linter or import contract holds."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import mmfm

ROOT = Path(__file__).parents[1]
CODE_FOLDERS = ("mmfm", "experiments", "datasets", "demos", "benchmarks", "tests")
FLOORS = {
    **dict.fromkeys(("study", "report", "batch", "errors", "jsonable", "files"), 1),
    **dict.fromkeys(("io", "imaging", "text"), 2),
    "data": 3,
    **dict.fromkeys(("models", "evaluation"), 4),
    **dict.fromkeys(("training", "inference", "ui"), 5),
    **dict.fromkeys(("experiment", "measure", "doctor"), 6),
    "cli": 7,
}
"""Of each room of mmfm; the import contract in pyproject.toml holds it inside the package."""

MODULES = [m.name for m in pkgutil.walk_packages(mmfm.__path__, "mmfm.")]
PACKAGES = [m.name for m in pkgutil.walk_packages(mmfm.__path__, "mmfm.") if m.ispkg]


def python_files(*folders: str) -> list[Path]:
    return sorted(p for folder in folders for p in (ROOT / folder).rglob("*.py") if "__pycache__" not in p.parts)


def text_files() -> Iterator[Path]:
    """Everything of the project that a person reads, without asking git (an archive has none)."""
    for folder in (*CODE_FOLDERS, "docs", "checkpoints", ".ci"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and path.stat().st_size < 2**20:
                yield path
    yield from (p for p in sorted(ROOT.iterdir()) if p.is_file())


def words(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(path: Path) -> Iterator[str]:
    """Yields the dotted name of everything that a file imports, at any depth."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 or "mmfm" in path.parts, f"{path}: relative import outside a package"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def calls(path: Path) -> Iterator[tuple[int, str, dict[str, ast.expr]]]:
    """Yields line, dotted name and keyword arguments of every call."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func), {k.arg: k.value for k in node.keywords if k.arg}


def is_true(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Constant) and value.value is True


# Floors of what is no package


def above(path: Path, highest: int) -> list[str]:
    """Returns the imports of ``path`` that come from a floor above ``highest``, or from no floor at all."""
    inside = [name.split(".") for name in imports(path) if name.split(".")[0] == "mmfm"]
    rooms = [parts[1] for parts in inside if len(parts) > 1 and parts[1] != "__version__"]
    return [room for room in rooms if FLOORS.get(room, 99) > highest]


@pytest.mark.parametrize(("folder", "highest"), [("datasets", 3), ("demos", 6), ("experiments", 7), ("benchmarks", 7)])
def test_what_is_no_package_imports_only_from_below(folder, highest):
    wrong = {str(p.relative_to(ROOT)): above(p, highest) for p in python_files(folder)}
    assert {path: rooms for path, rooms in wrong.items() if rooms} == {}


def test_every_room_has_a_floor():
    rooms = {name.split(".")[1] for name in MODULES} - {"_torchvision_cpu"}
    assert rooms - set(FLOORS) == set()


def test_nobody_imports_from_datasets_experiments_or_demos():
    """A folder named datasets/ that is imported shadows the package of that name, which other libraries import."""
    wrong = [
        f"{p.relative_to(ROOT)}: {name}"
        for p in python_files("mmfm", "datasets", "demos", "benchmarks", "tests")
        for name in imports(p)
        if name.split(".")[0] in ("datasets", "experiments", "demos", "benchmarks")
    ]
    assert wrong == []


def test_datasets_is_no_package():
    assert list((ROOT / "datasets").glob("*.py")) == []
    assert list((ROOT / "datasets").rglob("__init__.py")) == []


def test_every_source_has_a_card_and_a_prepare():
    sources = [p for p in (ROOT / "datasets").iterdir() if p.is_dir() and p.name != "__pycache__"]
    assert sources
    for source in sources:
        assert (source / "README.md").is_file(), f"{source.name} has no card"
        assert (source / "prepare.py").is_file(), f"{source.name} has no prepare.py"


def test_the_import_contract_has_the_same_floors():
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    layers = [set(re.findall(r"\w+", layer)) for layer in contract["layers"]]
    assert layers == [{room for room in FLOORS if FLOORS[room] == floor} for floor in range(7, 0, -1)]


def test_architecture_lists_every_module():
    """Reads the tree that is drawn there: two spaces deeper is one folder down."""
    listed, folders = set(), [""]
    for indent, name in re.findall(
        r"^( *)([\w/]+/|\w+\.py)(?: .*)?$", (ROOT / "ARCHITECTURE.md").read_text(), flags=re.MULTILINE
    ):
        depth = len(indent) // 2
        del folders[depth + 1 :]
        if name.endswith("/"):
            folders.append(folders[-1] + name)
        else:
            listed.add(folders[-1] + name)
    there = {p.relative_to(ROOT).as_posix() for p in python_files("mmfm") if p.name != "__init__.py"}
    assert listed == there


# Modules, their names and their weight


@pytest.mark.parametrize("name", MODULES)
def test_module_imports_and_says_what_it_is_for(name):
    module = importlib.import_module(name)
    path = Path(str(module.__file__))
    assert module.__doc__ or path.stat().st_size == 0


@pytest.mark.parametrize("name", PACKAGES)
def test_package_exports_few_names_that_exist(name):
    module = importlib.import_module(name)
    exported = getattr(module, "__all__", [])
    if not exported:
        assert not [n for n in vars(module) if not n.startswith("_") and callable(vars(module)[n])]
        return
    assert len(exported) <= 10
    assert len(set(exported)) == len(exported)
    assert [n for n in exported if not hasattr(module, n)] == []


@pytest.mark.parametrize(
    "code", ["import mmfm", "from mmfm.cli import main", "import mmfm.study, mmfm.report, mmfm.errors"]
)
def test_light_imports_stay_light(code):
    """`mmfm --help` has to answer at once; the package that would spoil it is named, which a time would not do."""
    heavy = "('torch', 'torchvision', 'gradio', 'transformers', 'lightning', 'timm', 'sklearn', 'scipy', 'matplotlib')"
    code = f"import sys; {code}; print(*[name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


# Lines that this project forbids


def forbidden(path: Path) -> Iterator[str]:
    for name in imports(path):
        if name.split(".")[0] in ("pickle", "cPickle", "dill", "cloudpickle", "joblib"):
            yield f"imports {name}: what is shared is safetensors and JSON"
    for line, name, keywords in calls(path):
        last = name.rpartition(".")[2]
        if name in ("eval", "exec"):
            yield f"{line}: calls {name}"
        if name == "torch.load" and not is_true(keywords.get("weights_only")):
            yield f"{line}: torch.load without weights_only=True"
        if is_true(keywords.get("allow_pickle")):
            yield f"{line}: allow_pickle=True"
        strict = keywords.get("strict")
        if last == "load_state_dict" and isinstance(strict, ast.Constant) and strict.value is False:
            yield f"{line}: loads weights that do not fit without saying so"
        if last.lower() in ("randomhorizontalflip", "hflip", "horizontal_flip", "fliplr", "random_flip_left_right"):
            yield f"{line}: {name} swaps left and right"
        if last == "create_transform" and is_true(keywords.get("is_training")):
            yield f"{line}: timm's training transform flips"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            yield f"{node.lineno}: except without a type"


def test_nothing_forbidden_is_called():
    files = python_files("mmfm", "experiments", "datasets", "demos", "benchmarks")
    assert len(files) > 20
    assert [f"{p.relative_to(ROOT)} {fault}" for p in files for fault in forbidden(p)] == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "eval('1')",
        "torch.load(p)",
        "torch.load(p, weights_only=False)",
        "np.load(p, allow_pickle=True)",
        "model.load_state_dict(s, strict=False)",
        "T.RandomHorizontalFlip(p=0.5)",
        "F.hflip(x)",
        "timm.data.create_transform(224, is_training=True)",
        "try:\n    x\nexcept:\n    y",
    ],
)
def test_the_forbidden_would_be_seen(line, tmp_path):
    path = tmp_path / "wrong.py"
    path.write_text(line)
    assert list(forbidden(path))


def test_what_mirrors_pictures_is_for_measuring_alone():
    """Sides would come out wrong in every text that is trained beside a mirrored picture."""
    users = {
        p.relative_to(ROOT).as_posix()
        for p in python_files("mmfm", "experiments", "datasets", "demos", "benchmarks")
        for name in imports(p)
        if name.startswith("mmfm.imaging.alterations")
    }
    assert users == {"mmfm/measure/robustness.py"}


def test_no_unfinished_marks_and_no_paths_of_a_machine():
    unfinished = re.compile(r"\b(TO[D]O|FIX[M]E|raise NotImplemented[E]rror)\b")
    machine = re.compile(r"(?<![\w.)}$])/(root|Users|home/\w+|work|opt)/\w")
    wrong = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in text_files()
        for match in (*unfinished.finditer(words(path)), *machine.finditer(words(path)))
    ]
    assert wrong == []


def test_links_in_markdown_resolve():
    wrong = []
    for path in (p for p in text_files() if p.suffix == ".md"):
        for target in re.findall(r"\]\(([^)\s]+)\)", words(path)):
            if not re.match(r"[a-z]+:|#", target) and not (path.parent / target.partition("#")[0]).exists():
                wrong.append(f"{path.relative_to(ROOT)}: {target}")
    assert wrong == []
