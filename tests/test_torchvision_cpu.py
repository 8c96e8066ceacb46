import subprocess
import sys

import pytest
import torch

from mmfm import _torchvision_cpu


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)


def test_torchvision_imports_and_transforms_in_a_new_interpreter():
    done = run(
        "import mmfm, torch, torchvision\n"
        "from torchvision.transforms.v2 import functional as F\n"
        "print(tuple(F.resize(torch.zeros(1, 8, 8), [4, 4], antialias=True).shape))"
    )
    assert done.stdout.strip() == "(1, 4, 4)", done.stderr


def test_the_hook_costs_no_torch_import_and_leaves_once_it_has_run():
    done = run(
        "import sys, mmfm\n"
        "hooks = lambda: [f for f in sys.meta_path if type(f).__name__ == '_DeclareOperators']\n"
        "assert 'torch' not in sys.modules and len(hooks()) == 1\n"
        "mmfm._torchvision_cpu.install()\n"
        "assert len(hooks()) == 1, 'installed twice'\n"
        "import torchvision\n"
        "assert not hooks()\n"
        "mmfm._torchvision_cpu.install()\n"
        "assert not hooks(), 'installed behind a loaded torchvision'"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(torch.version.cuda is not None, reason="torchvision fits a CUDA build of torch as it is")
def test_without_the_hook_the_trap_is_there():
    """Skips once the package index carries a torchvision that fits: then the hook can go."""
    done = run("import torchvision")
    if done.returncode == 0:
        pytest.skip("this torchvision fits this torch")
    assert "torchvision::nms does not exist" in done.stderr


def test_nothing_is_declared_on_a_cuda_build(monkeypatch):
    before = len(_torchvision_cpu._libraries)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    _torchvision_cpu._declare_missing_operators()
    assert len(_torchvision_cpu._libraries) == before
