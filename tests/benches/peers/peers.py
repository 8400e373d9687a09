"""Our engine beside PyTorch and ONNX Runtime: the same weights, the same input, in alternation.

    python peers.py --setup VENV                      installs the peers with plain pip
    VENV/bin/python peers.py [--only WORD] [--rounds 5] [--threads 2] [--profile bench] [--small]

Tried with torch 2.15.0, onnxruntime 1.31.1, onnx 1.23.2, nnunetv2 2.8.1, safetensors 0.8.0, Python 3.11.

For each network, every engine runs in a process of its own that waits for its turn: a round is one run of
each, after one round that does not count. The table has the median seconds, our time as a part of the
best peer's, the peak memory of the process (with its libraries; and ours as a part of PyTorch's), the
effective rate as a part of the machine's measured FMA peak, and the largest difference to PyTorch's
result in parts of the largest value. Nothing else should run meanwhile. `--small` is for trying out.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

PEERS = ["torch", "onnx", "onnxruntime", "nnunetv2", "monai", "torchxrayvision", "safetensors"]
ROOT = pathlib.Path(__file__).resolve().parents[3]

# Name, class, axes, features, patch, small patch.
NETWORKS = [
    ("nnU-Net 3D 128", "PlainConvUNet", 3, [32, 64, 128, 256, 320, 320], 128, 64),
    ("nnU-Net 2D 512", "PlainConvUNet", 2, [32, 64, 128, 256, 512, 512, 512, 512], 512, 128),
    ("ResEnc U-Net 3D 128", "ResidualEncoderUNet", 3, [32, 64, 128, 256, 320, 320], 128, 64),
]


def plans_of(kind, axes, features, patch):
    stages = len(features)
    residual = kind == "ResidualEncoderUNet"
    blocks = "n_blocks_per_stage" if residual else "n_conv_per_stage"
    resampling = {}
    for function, is_seg, order in [("data", False, 3), ("seg", True, 1), ("probabilities", False, 1)]:
        resampling[f"resampling_fn_{function}"] = "resample_data_or_seg_to_shape"
        resampling[f"resampling_fn_{function}_kwargs"] = {
            "is_seg": is_seg,
            "order": order,
            "order_z": 0,
            "force_separate_z": None,
        }
    configuration = {
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [patch] * axes,
        "spacing": [1.0] * axes,
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        **resampling,
        "architecture": {
            "network_class_name": f"dynamic_network_architectures.architectures.unet.{kind}",
            "arch_kwargs": {
                "n_stages": stages,
                "features_per_stage": features,
                "conv_op": f"torch.nn.modules.conv.Conv{axes}d",
                "kernel_sizes": [[3] * axes] * stages,
                "strides": [[1] * axes] + [[2] * axes] * (stages - 1),
                blocks: [1, 3, 4, 6, 6, 6][:stages] if residual else [2] * stages,
                "n_conv_per_stage_decoder": [1 if residual else 2] * (stages - 1),
                "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{axes}d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    return {
        "dataset_name": "Dataset998_Peers",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"bench": configuration},
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {},
    }


def network_of(folder):
    import torch
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    plans = json.loads((folder / "model" / "plans.json").read_text())
    described = plans["configurations"]["bench"]["architecture"]
    network = get_network_from_plans(
        described["network_class_name"],
        described["arch_kwargs"],
        described["_kw_requires_import"],
        1,
        3,
        deep_supervision=False,
    ).eval()
    weights = folder / "model" / "fold_0" / "checkpoint_final.pth"
    if weights.is_file():
        network.load_state_dict(torch.load(weights, weights_only=True)["network_weights"])
    return network


def prepare(folder, kind, axes, features, patch):
    """Writes the result folder, the input, and the ONNX file."""
    import torch
    from safetensors.torch import save_file

    (folder / "model" / "fold_0").mkdir(parents=True)
    plans = plans_of(kind, axes, features, patch)
    (folder / "model" / "plans.json").write_text(json.dumps(plans))
    labels = {"background": 0, "one": 1, "two": 2}
    dataset = {"channel_names": {"0": "MRI"}, "labels": labels, "file_ending": ".nii.gz"}
    (folder / "model" / "dataset.json").write_text(json.dumps(dataset))
    torch.manual_seed(5)
    network = network_of(folder)
    checkpoint = {
        "network_weights": network.state_dict(),
        "init_args": {"configuration": "bench"},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": None,
    }
    torch.save(checkpoint, folder / "model" / "fold_0" / "checkpoint_final.pth")
    x = torch.randn(1, 1, *[patch] * axes)
    save_file({"x": x}, folder / "x.safetensors")
    names = {"input_names": ["x"], "output_names": ["y"]}
    # The older exporter needs nothing beyond torch and onnx.
    torch.onnx.export(network, (x,), folder / "model.onnx", dynamo=False, opset_version=17, **names)


def worker(engine, folder, threads):
    """The peers' side of what `peer.rs` describes."""
    import torch
    from safetensors.torch import load_file, save_file

    torch.set_num_threads(threads)
    x = load_file(folder / "x.safetensors")["x"]
    if engine == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(
            folder / "model.onnx", options, providers=["CPUExecutionProvider"]
        )

        def run():
            return torch.from_numpy(session.run(["y"], {"x": x.numpy()})[0])

    else:
        network = network_of(folder)
        if engine == "torch_channels_last":
            layout = torch.channels_last_3d if x.ndim == 5 else torch.channels_last
            network, x = network.to(memory_format=layout), x.to(memory_format=layout)

        def run():
            with torch.inference_mode():
                return network(x)

    print(json.dumps({"ready": True}), flush=True)
    y = None
    for line in sys.stdin:
        if line.strip() != "run":
            break
        start = time.perf_counter()
        y = run()
        print(json.dumps({"secs": time.perf_counter() - start}), flush=True)
    save_file({"y": y.contiguous()}, folder / f"{engine}.safetensors")
    # Of this process alone: getrusage's maximum is handed down by the process that started it.
    status = pathlib.Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
    print(json.dumps({"peak_bytes": peak}), flush=True)


class Engine:
    """A process that runs when asked."""

    def __init__(self, name, command, threads):
        counts = ("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
        environment = {**os.environ, **dict.fromkeys(counts, str(threads))}
        pipe = subprocess.PIPE
        self.name, self.secs = name, []
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, env=environment, cwd=ROOT
        )
        self.about = self.answer()

    def answer(self):
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit(f"{self.name} ended early")

    def ask(self, word):
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self.answer()


def compare(name, folder, rounds, threads, profile):
    from safetensors.torch import load_file

    bench = ["cargo", "bench", "--quiet", "--profile", profile, "--bench", "negatoscope"]
    bench += ["--", "peer", str(folder)]
    engines = [Engine("ours", bench, threads)]
    for peer in ("torch", "torch_channels_last", "onnx"):
        command = [sys.executable, __file__, "--worker", peer, str(folder), "--threads", str(threads)]
        engines.append(Engine(peer, command, threads))
    for number in range(rounds + 1):
        for engine in engines:
            secs = engine.ask("run")["secs"]
            if number > 0:
                engine.secs.append(secs)
    for engine in engines:
        engine.peak = engine.ask("end")["peak_bytes"]
        engine.process.wait()
    about = engines[0].about
    truth = load_file(folder / "torch.safetensors")["y"]
    medians = {engine.name: statistics.median(engine.secs) for engine in engines}
    best = min(secs for peer, secs in medians.items() if peer != "ours")
    memory = {engine.name: engine.peak for engine in engines}
    print(f"\n{name}: {about['gflop']:.0f} GFLOP, {threads} threads, FMA peak {about['peak_gflops']:.0f} GFLOP/s")
    print("| engine | median s | of best peer | peak MB | of PyTorch | of FMA peak | difference |")
    print("|---|---|---|---|---|---|---|")
    for engine in engines:
        y = load_file(folder / f"{engine.name}.safetensors")["y"]
        difference = float((y - truth).abs().max() / truth.abs().max())
        secs = medians[engine.name]
        rate = about["gflop"] / secs / about["peak_gflops"]
        print(
            f"| {engine.name} | {secs:.3f} | {secs / best:.2f} | {engine.peak / 1e6:.0f} "
            f"| {engine.peak / memory['torch']:.2f} | {100 * rate:.0f} % | {difference:.1e} |"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setup", type=pathlib.Path, metavar="VENV")
    parser.add_argument("--only", default="")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--profile", default="bench", help="cargo's; dev builds nothing anew after tests")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.setup:
        subprocess.check_call([sys.executable, "-m", "venv", given.setup])
        subprocess.check_call([given.setup / "bin" / "pip", "install", *PEERS])
        return
    if given.worker:
        worker(given.worker[0], pathlib.Path(given.worker[1]), given.threads)
        return
    for name, kind, axes, features, patch, small in NETWORKS:
        if given.only.lower() not in name.lower():
            continue
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            prepare(folder, kind, axes, features, small if given.small else patch)
            compare(name, folder, given.rounds, given.threads, given.profile)


if __name__ == "__main__":
    main()
