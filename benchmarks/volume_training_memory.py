"""How much memory does a training step on one large CT take? With activations kept, and computed anew.

    python benchmarks/volume_training_memory.py --checkpoint mmfm-volume-small --slices 600

One step of a batch of one study, from DICOM files of 512 x 512, in bfloat16, on the GPU where there is one, all weights
trained. "Kept" counts the numbers that the forward pass keeps for the backward pass, "weights" the weights, their
gradients and the two moments of AdamW: together what a GPU must hold, but for the workspace of a kernel. "Peak" is
measured: allocated by the process on the GPU, else the whole of its resident memory.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from volume_report_speed import large_ct

from mmfm.data.collate import collate
from mmfm.data.example import Example
from mmfm.data.synthetic_volumes import write_dicom
from mmfm.io import read_studies
from mmfm.models import load_checkpoint
from mmfm.report import Sections
from mmfm.training import SFTConfig


def main() -> None:
    """Prints one table; each row is a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="mmfm-volume-small")
    parser.add_argument("--slices", type=int, default=600)
    parser.add_argument("--study", help=argparse.SUPPRESS)
    parser.add_argument("--anew", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.study:
        print(row(arguments.checkpoint, Path(arguments.study), anew=arguments.anew))
        return
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"{arguments.slices} slices of 512 x 512, batch of 1, bfloat16, {device}\n")
    print("| activations | slabs | kept | weights | peak |\n| --- | --- | --- | --- | --- |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        write_dicom(large_ct(arguments.slices), Path(folder))
        own = [sys.executable, __file__, "--checkpoint", arguments.checkpoint, "--study", folder]
        for options in ([], ["--anew"]):
            subprocess.run([*own, *options], check=True)


def row(name: str, folder: Path, *, anew: bool) -> str:
    """Makes one training step and returns its row of the table."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    checkpoint = load_checkpoint(name, device=torch.device(device))
    model, processor = checkpoint.model, checkpoint.processor
    assert model.volume_encoder is not None, "a checkpoint of volumes"
    model.volume_encoder.checkpoint_activations = anew
    (study,) = read_studies(folder)
    text = Sections(findings="A nodule of 8 mm in the left upper lobe.", impression="Nodule.")
    example = Example(
        study_uid="large", study=study, region="chest_ct", indication=None, target=text,
        target_findings=(), states={}, report_findings=(), outlined=True,
    )  # fmt: skip
    inputs = processor(example)
    masks = [replace(v, mask_DHW=torch.zeros(v.pixels_CDHW.shape[1:], dtype=torch.uint8)) for v in inputs.volumes]
    batch = collate([replace(inputs, volumes=tuple(masks))], pad_token_id=processor.tokenizer.pad_token_id).to(device)
    model.requires_grad_(True)
    task = SFTConfig().build(model, seed=0, names=processor.config).train()
    optimizer = torch.optim.AdamW(model.parameters())
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), torch.autocast(device, dtype=torch.bfloat16):
        losses, _ = task.losses(batch)
    losses["loss"].backward()
    optimizer.step()
    held = {p.untyped_storage().data_ptr() for p in model.parameters()}
    activations = sum(size for place, size in kept.items() if place not in held)
    weights = 4 * sum(p.numel() * p.element_size() for p in model.parameters())
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    told = "computed anew" if anew else "kept"
    return f"| {told} | {len(batch.volumes)} | {_gb(activations)} | {_gb(weights)} | {_gb(peak)} |"


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB"


if __name__ == "__main__":
    main()
