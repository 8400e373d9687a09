"""Writes small PyTorch checkpoints beside this file, and `expected.json` with what they hold.

    python make.py

Tried with torch 2.15.0, numpy 2.4.6, Python 3.11. The reader must give the same numbers exactly:
every conversion to 32-bit floats is defined (rounding to nearest).

| file | what |
|---|---|
| zip.pth | the form since PyTorch 1.6, laid out as nnU-Net's checkpoints |
| legacy.pth | the same in the older form |
| protocol4.ckpt | a `state_dict` inside, pickle protocol 4, laid out as Lightning's checkpoints |
| bare.pt | the dictionary itself, parameters among its tensors |
| nan.pth | one weight is NaN |
| script.pt | TorchScript: to be refused |
| module.pth | a whole module: to be refused |
"""

import collections
import json
import pathlib

import numpy
import torch

HERE = pathlib.Path(__file__).parent


def tensors():
    torch.manual_seed(3)
    kernel = torch.randn(2, 3, 2, 2)
    shared = torch.arange(12, dtype=torch.float32)
    named = {
        "conv.weight": kernel,
        "conv.channels_last": kernel.clone().contiguous(memory_format=torch.channels_last),
        "transposed": torch.arange(6.0).reshape(2, 3).t(),
        "sliced": torch.arange(20.0).reshape(4, 5)[1:3, ::2],
        "shared.first": shared[:6].reshape(2, 3),
        "shared.second": shared[6:],
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "double": torch.tensor([0.1, -1e300, 3.0], dtype=torch.float64).clamp(-3e38, 3e38),
        "half": torch.tensor([0.1, -65504.0, 6e-8], dtype=torch.float16),
        "bfloat": torch.tensor([0.1, -3e38, 1e-40], dtype=torch.bfloat16),
        "int64": torch.tensor([1, -2, 1 << 40]),
        "int32": torch.tensor([1, -2, 1 << 30], dtype=torch.int32),
        "int16": torch.tensor([1, -2, 32767], dtype=torch.int16),
        "int8": torch.tensor([1, -2, -128], dtype=torch.int8),
        "uint8": torch.tensor([1, 2, 255], dtype=torch.uint8),
        "bool": torch.tensor([True, False, True]),
    }
    return collections.OrderedDict(named)


def expected(named):
    return [
        {
            "name": name,
            "shape": list(tensor.shape),
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "values": [float(v) for v in tensor.detach().to(torch.float32).flatten()],
        }
        for name, tensor in named.items()
    ]


def main():
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.InstanceNorm2d(2, affine=True))
    weights = tensors()
    # As `Module.state_dict()` does.
    weights._metadata = collections.OrderedDict({"": {"version": 1}})
    like_nnunet = {
        "network_weights": weights,
        "optimizer_state": torch.optim.SGD(network.parameters(), 0.01, 0.99).state_dict(),
        "grad_scaler_state": None,
        "logging": {
            "mean_fg_dice": [numpy.float64(0.5), numpy.float32(0.25)],
            "dice_per_class_or_region": [[numpy.float64(0.125)]],
            "epoch_start_timestamps": [1.5, 1e300],
        },
        "_best_ema": numpy.float64(0.75),
        "current_epoch": 3,
        "init_args": {
            "plans": {"transpose_forward": [0, 1, 2], "name": "größer"},
            "configuration": "3d_fullres",
            "fold": 0,
            "device": torch.device("cpu"),
        },
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1, 2),
        "others": {
            "set": {7},
            "bytes": b"\x00\xff",
            "wide": 1 << 70,
            "negative": -(1 << 40),
            "flags": [True, False],
            "array": numpy.asfortranarray(numpy.arange(6, dtype=numpy.int16).reshape(2, 3)),
            "dtype": torch.float16,
            "size": torch.Size([4, 5]),
            1: "one",
        },
    }
    torch.save(like_nnunet, HERE / "zip.pth")
    torch.save(like_nnunet, HERE / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save({"epoch": 1, "state_dict": weights}, HERE / "protocol4.ckpt", pickle_protocol=4)
    torch.save(dict(network.named_parameters()), HERE / "bare.pt")
    wrong = torch.zeros(2, 3)
    wrong[1, 1] = float("nan")
    torch.save({"good.weight": torch.zeros(2), "bad.weight": wrong}, HERE / "nan.pth")
    torch.jit.script(torch.nn.ReLU()).save(str(HERE / "script.pt"))
    torch.save(torch.nn.ReLU(), HERE / "module.pth")
    found = {"weights": expected(weights), "bare": expected(dict(network.named_parameters()))}
    (HERE / "expected.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
