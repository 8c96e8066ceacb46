import json

from mmfm.training.provenance import has_fast_bf16, provenance


def test_provenance_names_versions_and_hardware_as_json():
    record = json.loads(json.dumps(provenance(accelerator="cpu")))
    assert record["packages"]["torch"] and record["python"].startswith("3.")
    assert record["hardware"].startswith("CPU (")


def test_apple_devices_train_in_float32():
    assert has_fast_bf16("mps") is False
