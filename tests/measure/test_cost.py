import sys
import time
from types import SimpleNamespace

import pytest
import torch

from mmfm.measure.cost import NOT_TOLD, Meter, resources_of
from mmfm.models import load_checkpoint


def test_a_block_of_work_is_timed_and_the_cpu_tells_no_energy():
    with Meter(torch.device("cpu")) as meter:
        time.sleep(0.05)
    assert 0.05 <= meter.seconds < 5
    assert (meter.joules, meter.energy, meter.peak_device_bytes) == (None, NOT_TOLD, None)


def test_costs_are_for_each_report(tiny_checkpoint):
    checkpoint = load_checkpoint(str(tiny_checkpoint))
    drafting = Meter(torch.device("cpu"))
    drafting.seconds, drafting.joules = 5.0, 60.0
    drafts = [SimpleNamespace(num_tokens=n) for n in (10, 50)]
    given = {"seconds_to_read": 0.25, "seconds_to_draft": 3.0, "drafting": drafting, "batch_size": 2}
    found = resources_of(checkpoint, drafts, **given, training={"hardware": "some GPU", "seconds": 1800})
    assert (found.seconds_per_report, found.tokens_per_second, found.joules_per_report) == (1.75, 20, 30)
    assert (found.training_device, found.training_hours) == ("some GPU", 0.5)
    table = checkpoint.model.language.get_input_embeddings().weight
    assert found.parameters == sum({id(p): p.numel() for p in checkpoint.model.parameters()}.values()) > table.numel()
    assert found.peak_host_bytes > 50e6  # torch alone takes more
    unknown = resources_of(checkpoint, drafts, **given, training={})
    assert (unknown.training_device, unknown.training_hours) == ("not stated", None)


@pytest.fixture
def fake_gpu(monkeypatch):
    """A CUDA device that counts 2,000 mJ more whenever it is asked, behind the interfaces of torch and NVML."""
    asked = []

    class NVMLError(Exception):
        pass

    def energy(handle):
        asked.append(handle)
        if nvml.silent:
            raise NVMLError("Not Supported")
        return 2000 * len(asked)

    nvml = SimpleNamespace(
        NVMLError=NVMLError, silent=False, nvmlInit=lambda: None, nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetTotalEnergyConsumption=energy, asked=asked,
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="12-34"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 123)
    return nvml


def test_a_gpu_that_counts_its_energy_is_asked(fake_gpu):
    with Meter(torch.device("cuda")) as meter:
        pass
    assert meter.joules == 2 and "NVML" in meter.energy and meter.peak_device_bytes == 123
    assert set(fake_gpu.asked) == {"GPU-12-34"}


def test_a_gpu_that_does_not_is_no_error(fake_gpu, monkeypatch):
    fake_gpu.silent = True
    with Meter(torch.device("cuda")) as meter:
        pass
    assert (meter.joules, meter.energy) == (None, NOT_TOLD)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with Meter(torch.device("cuda")) as meter:
        pass
    assert meter.joules is None and "nvidia-ml-py" in meter.energy


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_real_gpu_tells_its_memory():
    device = torch.device("cuda")
    with Meter(device) as meter:
        kept = torch.zeros(2**20, device=device)
    assert meter.peak_device_bytes >= kept.nbytes
    assert meter.joules is None or meter.joules >= 0
