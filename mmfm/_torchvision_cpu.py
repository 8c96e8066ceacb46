"""Lets torchvision be imported beside a CPU build of torch.

The package index carries only the torchvision that is linked against CUDA. Beside a CPU build of torch its
compiled operators cannot load, so ``import torchvision`` dies with "operator torchvision::nms does not exist"
and takes timm, open_clip, lightning and torchmetrics with it. Declaring the schemas of the two operators that
torchvision registers at import is enough for everything written in Python to work.

``torchvision.ops.nms`` and ``torchvision.io.decode_*`` stay unusable on such an installation: use torch and Pillow.
On a CUDA build of torch, and beside a true CPU build of torchvision, nothing is changed.
"""

import importlib.util
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import Any

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[Any] = []  # torch drops a schema when its Library is collected


class _DeclareOperators(MetaPathFinder):
    """Runs once, when torchvision is about to be loaded, and never finds a module itself."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname != "torchvision":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec("torchvision")
        if spec is not None:
            _declare_missing_operators()
        return spec


def _declare_missing_operators() -> None:
    import torch

    if torch.version.cuda is not None:
        return
    library = torch.library.Library("torchvision", "FRAGMENT")  # noqa: TOR901  kept alive below
    for schema in _SCHEMAS:
        name = schema.partition("(")[0]
        try:
            torch._C._dispatch_find_schema_or_throw(f"torchvision::{name}", "")
        except RuntimeError:
            library.define(schema)
    _libraries.append(library)


def install() -> None:
    """Puts the hook in place. Costs no torch import; calling it again does nothing."""
    if "torchvision" not in sys.modules and not any(isinstance(f, _DeclareOperators) for f in sys.meta_path):
        sys.meta_path.insert(0, _DeclareOperators())
