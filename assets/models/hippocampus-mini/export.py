#!/usr/bin/env python3
"""Turns a checkpoint of train.py into weights.safetensors, manifest.json and MODEL_CARD.md, and measures it.

    python export.py --data hippocampus-msd --phantoms phantoms --checkpoint work/checkpoint.pt --out .

Batch norm is folded into the convolutions. Test cases and phantom seeds were not used in training or
for choosing anything. Figures in the card are those of this run.
"""

import argparse, hashlib, json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

import train


def fold(network):
    """Convolutions with batch norm folded in, in float64."""
    layers, tensors, pending = [], {}, None
    def emit(conv, weight, bias):
        n = sum(layer["op"] == "conv3d" for layer in layers)
        tensors[f"{n}.weight"], tensors[f"{n}.bias"] = weight.float().contiguous(), bias.float().contiguous()
        layers.append({"op": "conv3d", "weight": f"{n}.weight", "bias": f"{n}.bias", "input": conv.in_channels,
                       "output": conv.out_channels, "kernel": conv.kernel_size[0], "dilation": conv.dilation[0]})
    for m in network.modules():
        if isinstance(m, torch.nn.Conv3d):
            if pending is not None:
                emit(pending, pending.weight.double(), pending.bias.double())
            pending = m
        elif isinstance(m, torch.nn.BatchNorm3d):
            scale = m.weight.double() / torch.sqrt(m.running_var.double() + m.eps)
            bias = pending.bias.double() if pending.bias is not None else torch.zeros(pending.out_channels).double()
            emit(pending, pending.weight.double() * scale[:, None, None, None, None],
                 (bias - m.running_mean.double()) * scale + m.bias.double())
            pending = None
        elif isinstance(m, torch.nn.ReLU):
            layers.append({"op": "relu"})
    emit(pending, pending.weight.double(), pending.bias.double())
    return layers, {k: v.detach() for k, v in tensors.items()}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, required=True)
    p.add_argument("--phantoms", type=Path, required=True)
    p.add_argument("--phantom-seeds", type=int, nargs="*", default=[101, 102])
    p.add_argument("--checkpoint", type=Path, required=True)
    p.add_argument("--out", type=Path, required=True)
    args = p.parse_args()
    torch.set_num_threads(1)
    network = train.Network()
    network.load_state_dict(torch.load(args.checkpoint))
    network.eval()
    parts = train.read_decathlon(args.data)
    test = train.summary(train.scores(network, parts["test"]))
    phantom = train.summary(train.scores(network, train.read_phantoms(args.phantoms, args.phantom_seeds)))
    print(json.dumps({"test": test, "phantom": phantom}, indent=1))
    with torch.no_grad():
        layers, tensors = fold(network)
    save_file(tensors, args.out / "weights.safetensors")
    sha = hashlib.sha256((args.out / "weights.safetensors").read_bytes()).hexdigest()
    limits = [
        "Made for crops of about 35 × 50 × 35 mm around one hippocampus and for the synthetic head of this program; on whole real heads it was not validated and may mark other tissue.",
        "Does not tell left from right: both sides carry the same labels.",
        "One public data set; scanners, ages and diseases beyond it were not looked at.",
    ]
    anatomy = {"value": "123037004", "scheme": "SCT", "meaning": "Anatomical Structure"}
    def code(name):
        return {"value": "N" + hashlib.sha256(name.encode()).hexdigest()[:12], "scheme": "99NEGATOSCOPE", "meaning": name}
    manifest = {
        "shape": "negatoscope-model/1", "id": "hippocampus-mini", "version": "1.0.0", "name": "Hippocampus, anterior and posterior",
        "license": "CC-BY-SA-4.0",
        "intended_use": "Demonstration and research on T1-weighted MR around the hippocampus. Not for diagnosis.",
        "limits": limits,
        "training_data": "Medical Segmentation Decathlon Task04 (110 of 150 cases, CC BY-SA 4.0) and synthetic heads",
        "modality": "MR",
        "input": {"conform": {"kind": "grid", "spacing_mm": [1.0, 1.0, 1.0], "orientation": "RAS"},
                  "normalization": {"kind": "quantile", "low": 0.05, "high": 0.95}},
        "network": {"layers": layers},
        "output": {"kind": "segmentation", "largest_component": False},
        "labels": [
            {"label": 1, "name": "Anterior hippocampus", "color": [240, 160, 80], "category": anatomy, "property": code("Anterior hippocampus")},
            {"label": 2, "name": "Posterior hippocampus", "color": [90, 170, 230], "category": anatomy, "property": code("Posterior hippocampus")},
        ],
        "weights_sha256": sha,
        "origin": {"trainer": "assets/models/hippocampus-mini/train.py"},
    }
    (args.out / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    row = lambda name, s: f"| {name} | {s['cases']} | {s['mean']:.3f} ± {s['sd']:.3f} | {s['ci95'][0]:.3f} – {s['ci95'][1]:.3f} | {s['min']:.3f} |"
    card = f"""# hippocampus-mini 1.0.0

Segments the anterior (1) and posterior (2) hippocampus on T1-weighted MR. **Research use – not for diagnostic use.**

- **Data**: Medical Segmentation Decathlon Task04 Hippocampus (CC BY-SA 4.0; Antonelli et al., Nature Communications 2022), 150 cases here: {len(parts['train'])} for training, {len(parts['val'])} to watch the training, {len(parts['test'])} for the figures below. Runs of consecutive case numbers, which are mostly the two sides of one person, stay in one part; which cases share a person is not published, so a leak cannot be ruled out. Also synthetic heads of this program (seeds 1 to 20), and one real head (brainchop's t1_crop, MIT) as background.
- **License of the weights**: CC BY-SA 4.0, like the data.
- **Method**: eight 3×3×3 convolutions with 16 channels and dilations {', '.join(map(str, train.DILATIONS))}, batch norm (folded), ReLU, then 1×1×1; {sum(t.numel() for t in tensors.values()):,} parameters. Dice and cross-entropy, AdamW, augmentation by mirroring, small rotations and scales, intensity and noise; about 45 minutes on one CPU core. `train.py` and `export.py` beside this file reproduce it.
- **Input**: 1 mm, RAS; 5 % quantile to 0, 95 % quantile to 1, over the whole volume.

Dice on cases that were used for nothing else (95 % interval by bootstrap over cases):

| structure | cases | mean ± SD | 95 % interval | worst |
|---|---|---|---|---|
{row('anterior', test['anterior'])}
{row('posterior', test['posterior'])}
{row('whole hippocampus', test['whole'])}

On synthetic heads of unseen seeds ({', '.join(map(str, args.phantom_seeds))}): anterior {phantom['anterior']['mean']:.3f}, posterior {phantom['posterior']['mean']:.3f}. That says that the program works, nothing about patients.

## Limits

{chr(10).join('- ' + l for l in limits)}
- Quantiles are taken over the whole volume given, so the result depends on how it was cropped.
"""
    (args.out / "MODEL_CARD.md").write_text(card)


if __name__ == "__main__":
    main()
