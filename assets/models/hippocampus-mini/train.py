#!/usr/bin/env python3
"""Trains hippocampus-mini: anterior and posterior hippocampus on T1-weighted MR, 3-D, 8 convolutions.

    pip install torch nibabel numpy safetensors
    negatoscope phantom --seed N --out phantoms/N.nii.gz      # writes N.nii.gz and N-labels.nii.gz; seeds 1 to 24
    python train.py --data hippocampus-msd --phantoms phantoms --work work --out .

`--data` holds images/*.nii.gz and labels/*.nii.gz of the Medical Segmentation Decathlon Task04 (CC BY-SA 4.0).
Network input: [1, 1, k, j, i] with i to the patient's right, j to anterior, k to superior (RAS), 1 mm.
"""

import argparse, hashlib, json, time
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

CHANNELS = 16
DILATIONS = [1, 1, 2, 4, 8, 4, 2, 1]
CLASSES = 3
PATCH = (32, 48, 32)  # k, j, i
SPLIT_SEED = 20261121


# ---------------------------------------------------------------- data

def normalize(voxels):
    """5 % quantile to 0, 95 % quantile to 1, not clipped; the manifest says the same."""
    s = np.sort(voxels.astype(np.float32), axis=None)
    low, high = s[int(np.floor(0.05 * s.size))], s[int(np.ceil(0.95 * s.size)) - 1]
    return ((voxels - low) / (high - low)).astype(np.float32)


def read(image, label):
    """Normalized voxels and labels, [k, j, i], RAS."""
    image, label = (nib.as_closest_canonical(nib.load(f)) for f in (image, label))
    voxels = np.asarray(image.dataobj, dtype=np.float32).transpose(2, 1, 0)
    labels = np.asarray(label.dataobj).astype(np.uint8).transpose(2, 1, 0)
    return np.ascontiguousarray(normalize(voxels)), np.ascontiguousarray(labels)


def split(ids):
    """Train, validation and test ids.

    Neighboring numbers are mostly the two hippocampi of one person (one of them mirrored), so a run of
    consecutive numbers stays in one part.
    """
    runs = []
    for n in sorted(ids):
        if runs and n == runs[-1][-1] + 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    order = np.random.default_rng(SPLIT_SEED).permutation(len(runs))
    parts = {"test": [], "val": [], "train": []}
    for run in (runs[n] for n in order):
        # Long runs go to training, so that the small parts hold many persons.
        name = next((p for p in ("test", "val") if len(run) <= 3 and len(parts[p]) + len(run) <= 20), "train")
        parts[name] += run
    return {name: sorted(part) for name, part in parts.items()}


def read_decathlon(folder):
    files = {int(f.name[12:15]): f for f in sorted((folder / "images").glob("hippocampus_*.nii.gz"))}
    parts = split(files)
    return {p: [(n, *read(files[n], folder / "labels" / files[n].name)) for n in ids] for p, ids in parts.items()}


def read_phantoms(folder, seeds):
    return [(n, *read(folder / f"{n}.nii.gz", folder / f"{n}-labels.nii.gz")) for n in seeds]


def read_background(file):
    """A real head without labels: background away from the hippocampi, 255 (ignored) around them.

    The box is that of brainchop's t1_crop.nii.gz (MIT), in RAS mm of its affine.
    """
    image = nib.as_closest_canonical(nib.load(file))
    voxels = np.asarray(image.dataobj, dtype=np.float32)
    labels = np.zeros(voxels.shape, np.uint8)
    low, high = (np.linalg.inv(image.affine) @ np.append(p, 1) for p in ((-47, -54, -35), (47, 3, 12)))
    labels[tuple(slice(int(a), int(b)) for a, b in zip(low[:3], high[:3]))] = 255
    head = np.argwhere(voxels > 0.2 * voxels.max())
    box = tuple(slice(a, b) for a, b in zip(head.min(0), head.max(0)))
    ready = lambda x: np.ascontiguousarray(x[box].transpose(2, 1, 0))
    return "background", ready(normalize(voxels)), ready(labels)


# ---------------------------------------------------------------- augmentation

def patch_of(rng, voxels, labels, size, center, augment):
    """A patch with a random rotation, scale and mirror around `center` ([k, j, i])."""
    angles = rng.uniform(-0.2, 0.2, 3) if augment else np.zeros(3)
    scale = rng.uniform(0.88, 1.14) if augment else 1.0
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    turn = (np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]]) @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
            @ np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])) * scale
    if augment and rng.random() < 0.5:
        turn = turn @ np.diag([-1.0, 1.0, 1.0])  # x is i: left and right are mirror images
    grid = [np.arange(n) - (n - 1) / 2 for n in size]
    k, j, i = np.meshgrid(*grid, indexing="ij")
    at = np.stack([i, j, k], -1) @ turn.T + np.asarray(center, float)[::-1]
    shape = np.array(voxels.shape[::-1], float)
    at = torch.from_numpy((2 * at / (shape - 1) - 1).astype(np.float32))[None]
    x = F.grid_sample(torch.from_numpy(voxels)[None, None], at, "bilinear", "border", True)[0, 0]
    y = F.grid_sample(torch.from_numpy(labels.astype(np.float32))[None, None], at, "nearest", "border", True)[0, 0]
    return x, y.long()


def alter_intensity(rng, x):
    x = x * rng.uniform(0.7, 1.3) + rng.uniform(-0.15, 0.15)
    if rng.random() < 0.5:
        x = torch.sign(x) * torch.abs(x) ** rng.uniform(0.75, 1.33)
    ramp = sum(rng.uniform(-0.12, 0.12) * torch.linspace(-1, 1, n).reshape([n if d == a else 1 for d in range(3)])
               for a, n in enumerate(x.shape))
    x = x * (1 + ramp)
    if rng.random() < 0.3:
        x = F.avg_pool3d(x[None, None], 3, 1, 1, count_include_pad=False)[0, 0] * 0.6 + x * 0.4
    return x + torch.randn(x.shape) * rng.uniform(0, 0.08)


def crop_sample(rng, case, augment=True):
    _, voxels, labels = case
    center = (np.array(voxels.shape) - 1) / 2 + rng.uniform(-4, 4, 3)
    x, y = patch_of(rng, voxels, labels, PATCH, center, augment)
    return alter_intensity(rng, x), y


def phantom_sample(rng, case):
    _, voxels, labels = case
    if rng.random() < 0.5:  # a hippocampus, not always in the middle
        where = np.argwhere(labels > 0)
        center = where[rng.integers(len(where))] + rng.uniform(-10, 10, 3)
    else:  # anywhere
        center = rng.uniform(0, 1, 3) * (np.array(voxels.shape) - 1)
    half = np.array(PATCH) / 2
    center = np.clip(center, half - 4, np.array(voxels.shape) - half + 3)
    x, y = patch_of(rng, voxels, labels, PATCH, center, rng.random() < 0.7)
    return (alter_intensity(rng, x) if rng.random() < 0.7 else x), y


def background_sample(rng, case):
    _, voxels, labels = case
    while True:
        center = rng.uniform(0.08, 0.92, 3) * np.array(voxels.shape)
        x, y = patch_of(rng, voxels, labels, PATCH, center, True)
        if (y == 0).float().mean() > 0.25:
            return alter_intensity(rng, x), y


# ---------------------------------------------------------------- network

class Network(torch.nn.Module):
    """3×3×3 convolutions with dilation, batch norm and ReLU; a 1×1×1 convolution ends it."""

    def __init__(self):
        super().__init__()
        layers, width = [], 1
        for dilation in DILATIONS:
            layers += [torch.nn.Conv3d(width, CHANNELS, 3, padding=dilation, dilation=dilation, bias=False),
                       torch.nn.BatchNorm3d(CHANNELS), torch.nn.ReLU(inplace=True)]
            width = CHANNELS
        self.body = torch.nn.Sequential(*layers)
        self.head = torch.nn.Conv3d(width, CLASSES, 1)

    def forward(self, x):
        return self.head(self.body(x))

    def folded(self):
        """[(weight, bias)]: batch norm taken into the convolutions."""
        out = []
        for n in range(0, len(self.body), 3):
            conv, norm = self.body[n], self.body[n + 1]
            gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            out.append((conv.weight * gain.reshape(-1, 1, 1, 1, 1), norm.bias - norm.running_mean * gain))
        return [(w.detach(), b.detach()) for w, b in out + [(self.head.weight, self.head.bias)]]


def loss_of(logits, target):
    cross = F.cross_entropy(logits, target, weight=torch.tensor([0.5, 1.0, 1.0]), ignore_index=255)
    known = (target != 255)[:, None]
    p = logits.softmax(1) * known
    t = F.one_hot(target.where(target != 255, 0), CLASSES).permute(0, 4, 1, 2, 3).float() * known
    both, sum_ = (p * t).sum((0, 2, 3, 4)), (p + t).sum((0, 2, 3, 4))
    return cross + 1 - ((2 * both + 10) / (sum_ + 10))[1:].mean()


# ---------------------------------------------------------------- evaluation

@torch.no_grad()
def predict(network, voxels):
    network.eval()
    x = torch.from_numpy(voxels)[None, None].to(memory_format=torch.channels_last_3d)
    return network(x)[0].argmax(0).numpy().astype(np.uint8)


def dice(a, b):
    total = a.sum() + b.sum()
    return 2 * (a & b).sum() / total if total else 1.0


def scores(network, cases):
    rows = []
    for _, voxels, labels in cases:
        found = predict(network, voxels)
        rows.append([dice(found == c, labels == c) for c in (1, 2)] + [dice(found > 0, labels > 0)])
    return np.array(rows)


def summary(rows):
    """Mean, SD and 95 % percentile bootstrap interval of the mean, by structure."""
    rng = np.random.default_rng(1)
    draws = rows[rng.integers(len(rows), size=(10000, len(rows)))].mean(1)
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    return {name: {"cases": len(rows), "mean": round(float(rows[:, n].mean()), 4), "sd": round(float(rows[:, n].std(ddof=1)), 4),
                   "ci95": [round(float(low[n]), 4), round(float(high[n]), 4)], "min": round(float(rows[:, n].min()), 4)}
            for n, name in enumerate(("anterior", "posterior", "whole"))}


# ---------------------------------------------------------------- training

def train(args):
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    rng = np.random.default_rng(args.seed)
    parts = read_decathlon(args.data)
    background = read_background(args.background) if args.background else None
    phantoms = read_phantoms(args.phantoms, args.train_seeds) if args.phantoms else []
    print({p: [c[0] for c in cases] for p, cases in parts.items()}, "phantoms", [p[0] for p in phantoms], flush=True)
    network = Network().to(memory_format=torch.channels_last_3d)
    if args.init:
        network.load_state_dict(torch.load(args.init))
    optimizer = torch.optim.AdamW(network.parameters(), lr=args.rate, weight_decay=1e-4)
    began, losses, step, done = time.time(), [], 0, 0.0
    while done < 1:
        step += 1
        done = max(step / args.steps, (time.time() - began) / 60 / args.minutes)
        warm = min(1.0, 0.1 + done / 0.08)
        for group in optimizer.param_groups:
            group["lr"] = args.rate * warm * (0.5 + 0.5 * np.cos(np.pi * min(done, 1.0))) + 1e-5
        network.train()
        samples = [crop_sample(rng, parts["train"][rng.integers(len(parts["train"]))]) for _ in range(2)]
        if background and rng.random() < 0.3:
            samples += [background_sample(rng, background)]
        elif phantoms:
            samples += [phantom_sample(rng, phantoms[rng.integers(len(phantoms))])]
        x = torch.stack([s[0] for s in samples])[:, None].to(memory_format=torch.channels_last_3d)
        loss = loss_of(network(x), torch.stack([s[1] for s in samples]))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if step % 100 == 0 or done >= 1:
            note = f"step {step} loss {np.mean(losses[-100:]):.4f} {time.time() - began:.0f} s"
            if step % 500 == 0 or done >= 1:
                note += f" val {scores(network, parts['val'][:10] if done < 1 else parts['val']).mean(0).round(4)}"
                torch.save(network.state_dict(), args.work / "checkpoint.pt")
            print(note, flush=True)
    return network, parts


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, required=True)
    p.add_argument("--phantoms", type=Path)
    p.add_argument("--background", type=Path, help="brainchop's t1_crop.nii.gz")
    p.add_argument("--train-seeds", type=int, nargs="*", default=list(range(1, 17)))
    p.add_argument("--work", type=Path, required=True)
    p.add_argument("--steps", type=int, default=6000)
    p.add_argument("--minutes", type=float, default=1e9, help="the learning rate reaches its end after this time or after the steps")
    p.add_argument("--rate", type=float, default=6e-3)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--init", type=Path)
    args = p.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    train(args)


if __name__ == "__main__":
    main()
