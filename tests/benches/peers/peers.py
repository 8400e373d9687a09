"""Our engine beside PyTorch and ONNX Runtime: the same weights, the same input, in alternation.

    python peers.py --setup VENV                      installs the peers with plain pip
    VENV/bin/python peers.py [--only WORD] [--rounds 5] [--threads 2] [--profile bench] [--small]

Tried with torch 2.15.0, onnxruntime 1.31.1, onnx 1.23.2, nnunetv2 2.8.1, safetensors 0.8.0, Python 3.11.

For each network, every engine runs in a process of its own that waits for its turn: a round is one run of
each, after one round that does not count. "brainchop" needs NEGATOSCOPE_TEST_DATA; "folder" predicts a
folder of files by both programs, from the command to the last mask. The table has the median seconds, our time as a part of the
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
PAUSE_SECS = 0.5

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
        "foreground_intensity_properties_per_channel": {
            "0": dict.fromkeys(["mean", "std", "median", "percentile_00_5", "percentile_99_5"], 1.0)
        },
    }


def meshnet_of(package):
    """A network of plain layers, from a package of ours; ends in labels."""
    import torch
    from safetensors.torch import load_file

    weights = load_file(package / "weights.safetensors")
    layers = []
    for layer in json.loads((package / "manifest.json").read_text())["network"]["layers"]:
        if layer["op"] == "conv3d":
            reach = layer["dilation"] * (layer["kernel"] // 2)
            conv = torch.nn.Conv3d(
                layer["input"], layer["output"], layer["kernel"], padding=reach, dilation=layer["dilation"]
            )
            conv.weight.data, conv.bias.data = weights[layer["weight"]], weights[layer["bias"]]
            layers.append(conv)
        else:
            layers.append({"elu": torch.nn.ELU(inplace=True), "relu": torch.nn.ReLU(inplace=True)}[layer["op"]])

    class Labels(torch.nn.Sequential):
        def forward(self, x):
            return super().forward(x).argmax(1, keepdim=True).to(torch.float32)

    return Labels(*layers).eval()


SEGRESNET = {
    "_target_": "SegResNet",
    "spatial_dims": 3,
    "init_filters": 16,
    "in_channels": 1,
    "out_channels": 3,
    "blocks_down": [1, 2, 2, 4],
    "blocks_up": [1, 1, 1],
}


def monai_network(folder):
    from monai.networks import nets

    inference = json.loads((folder / "model" / "configs" / "inference.json").read_text())
    described = dict(inference["network_def"])
    return getattr(nets, described.pop("_target_"))(**described)


def network_of(folder):
    import torch

    if (folder / "model" / "manifest.json").is_file():
        return meshnet_of(folder / "model")
    if (folder / "model" / "models").is_dir():
        network = monai_network(folder).eval()
        network.load_state_dict(torch.load(folder / "model" / "models" / "model.pt", weights_only=True))
        return network
    if (folder / "model.pt").is_file():
        from torchxrayvision.models import DenseNet

        network = DenseNet(num_classes=18, in_channels=1, weights=None, apply_sigmoid=False).eval()
        network.load_state_dict(torch.load(folder / "model.pt", weights_only=True), strict=False)
        network.op_threshs = None
        return network
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
    export(folder, torch.randn(1, 1, *[patch] * axes))


def prepare_brainchop(folder, edge):
    """brainchop's model 4 as a package of ours; noise does for an input."""
    import torch
    from safetensors.torch import save_file

    data = pathlib.Path(os.environ["NEGATOSCOPE_TEST_DATA"])
    model = data / "brainchop" / "models" / "model30chan18cls"
    ours("dev", ["--home", folder / "home", "models", "import", model])
    (manifest,) = (folder / "home" / "models").glob("brainchop-4*/**/manifest.json")
    manifest.parent.rename(folder / "model")
    torch.manual_seed(5)
    x = torch.rand(1, 1, edge, edge, edge)
    save_file({"x": x}, folder / "x.safetensors")
    names = {"input_names": ["x"], "output_names": ["y"]}
    network = network_of(folder)
    # Traced on a small box: the graph holds no sizes.
    free = {"dynamic_axes": {"x": [2, 3, 4], "y": [2, 3, 4]}}
    example = torch.rand(1, 1, 40, 40, 40)
    torch.onnx.export(network, (example,), folder / "model.onnx", dynamo=False, opset_version=17, **names, **free)


def prepare_bundle(folder, network, edge, onnx=True):
    """A MONAI bundle with random weights."""
    import torch

    (folder / "model" / "models").mkdir(parents=True)
    (folder / "model" / "configs").mkdir()
    metadata = {
        "version": "1.0.0",
        "monai_version": "1.6.1",
        "network_data_format": {
            "inputs": {"image": {"type": "image", "modality": "MR", "num_channels": 1}},
            "outputs": {"pred": {"channel_def": {"0": "background", "1": "one", "2": "two"}}},
        },
    }
    transforms = [
        {"_target_": "LoadImaged", "keys": "image"},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "NormalizeIntensityd", "keys": "image"},
    ]
    post = [
        {"_target_": "Activationsd", "keys": "pred", "softmax": True},
        {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
    ]
    inference = {
        "network_def": network,
        "preprocessing": {"_target_": "Compose", "transforms": transforms},
        "postprocessing": {"_target_": "Compose", "transforms": post},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [edge] * 3, "overlap": 0.5},
    }
    (folder / "model" / "configs" / "metadata.json").write_text(json.dumps(metadata))
    (folder / "model" / "configs" / "inference.json").write_text(json.dumps(inference))
    torch.manual_seed(5)
    torch.save(monai_network(folder).state_dict(), folder / "model" / "models" / "model.pt")
    export(folder, torch.randn(1, 1, edge, edge, edge), onnx)


def prepare_densenet(folder):
    """TorchXRayVision's DenseNet-121 with random weights."""
    import torch
    from torchxrayvision.models import DenseNet

    torch.manual_seed(5)
    network = DenseNet(num_classes=18, in_channels=1, weights=None)
    torch.save(network.state_dict(), folder / "model.pt")
    export(folder, torch.randn(1, 1, 224, 224))


def export(folder, x, onnx=True):
    import torch
    from safetensors.torch import save_file

    save_file({"x": x}, folder / "x.safetensors")
    names = {"input_names": ["x"], "output_names": ["y"]}
    if not onnx:
        return
    # The older exporter needs nothing beyond torch and onnx.
    torch.onnx.export(network_of(folder), (x,), folder / "model.onnx", dynamo=False, opset_version=17, **names)


def family(pid):
    """A process and all that it has started."""
    found = [pid]
    for one in found:
        children = pathlib.Path(f"/proc/{one}/task/{one}/children")
        try:
            found += [int(child) for child in children.read_text().split()]
        except OSError:
            pass
    return found


def proportional_bytes(pid):
    """Memory of a process, pages that it shares counted by share; 0 once it is gone."""
    try:
        text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
        return int(text.split("\nPss:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        return 0


def watched(command, environment):
    """Runs a command: its seconds, and the peak memory of it and all that it starts, looked at ten times a second."""
    start = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(map(proportional_bytes, family(process.pid))))
        time.sleep(0.1)
    if process.returncode != 0:
        raise SystemExit(f"{command[0]} ended with {process.returncode}")
    return time.perf_counter() - start, peak


def ours(profile, words, threads=2):
    """Runs our program; its seconds and its peak memory."""
    build = ["cargo", "build", "--quiet", "--profile", profile, "--bin", "negatoscope"]
    subprocess.check_call(build, cwd=ROOT)
    target = {"dev": "debug", "bench": "release"}.get(profile, profile)
    program = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / target / "negatoscope"
    return watched([program, *words], {**os.environ, "RAYON_NUM_THREADS": str(threads)})


def compare_folder(folder, small, edge, threads, profile):
    """A folder of two scans in, two masks out: nnU-Net's own command and ours, without mirroring."""
    import nibabel
    import numpy

    features = [8, 16, 32] if small else [32, 64, 128, 256, 320, 320]
    prepare(folder, "PlainConvUNet", 3, features, 32 if small else 128)
    (folder / "in").mkdir()
    random = numpy.random.default_rng(5)
    edge = 48 if small else min(edge, 192)
    for case in ("a", "b"):
        scan = random.normal(100, 20, (edge, edge, edge * 3 // 4)).astype(numpy.float32)
        nibabel.save(nibabel.Nifti1Image(scan, numpy.eye(4)), folder / "in" / f"{case}_0000.nii.gz")
    counts = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(counts, str(threads))}
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        environment[variable] = str(folder)
    peer = [pathlib.Path(sys.executable).with_name("nnUNetv2_predict_from_modelfolder")]
    peer += ["-i", folder / "in", "-o", folder / "theirs", "-m", folder / "model", "-f", "0"]
    peer += ["--disable_tta", "-device", "cpu", "-npp", "1", "-nps", "1", "--disable_progress_bar"]
    theirs, their_peak = watched(peer, environment)
    home = ["--home", folder / "home"]
    ours(profile, [*home, "models", "import", folder / "model"])
    analyze = ["analyze", folder / "in", "--model", "nnunet-dataset998-peers-bench"]
    analyze += ["--out", folder / "ours", "--format", "nifti"]
    secs, peak = ours(profile, [*home, *analyze], threads)
    found = {}
    for mask in sorted((folder / "ours").rglob("*.nii.gz")):
        case = "a" if "a_0000" in str(mask) else "b"
        found[case] = numpy.asarray(nibabel.load(mask).dataobj)
    agreement = [
        (numpy.asarray(nibabel.load(folder / "theirs" / f"{case}.nii.gz").dataobj) == found[case]).mean()
        for case in ("a", "b")
    ]
    print(f"\nfolder of two scans {edge} x {edge} x {edge * 3 // 4}, nnU-Net 3D, {threads} threads, no mirroring")
    print(f"nnUNetv2_predict {theirs:.1f} s, ours {secs:.1f} s: {secs / theirs:.2f} of it")
    print(f"peak memory {their_peak / 1e6:.0f} MB, ours {peak / 1e6:.0f} MB: {peak / their_peak:.2f} of it")
    print(f"voxels with the same label: {100 * min(agreement):.4f} % at least")


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
    peers = ["torch", "torch_channels_last"]
    if (folder / "model.onnx").is_file():
        peers.append("onnx")
    for peer in peers:
        command = [sys.executable, __file__, "--worker", peer, str(folder), "--threads", str(threads)]
        engines.append(Engine(peer, command, threads))
    for number in range(rounds + 1):
        for engine in engines:
            # Threads of OpenMP and ONNX Runtime spin on for a while after a run.
            time.sleep(PAUSE_SECS)
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
        if bool((truth == truth.round()).all()):  # labels: the share of voxels that differ
            difference = float((y != truth).double().mean())
        else:
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
    parser.add_argument("--edge", type=int, default=256, help="of the box for brainchop's model, and (to 192) of the folder's scans")
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
    wanted = given.only.lower()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        if wanted in "brainchop 4" and "NEGATOSCOPE_TEST_DATA" in os.environ:
            edge = 64 if given.small else given.edge
            prepare_brainchop(folder, edge)
            name = f"brainchop 4, {edge} x {edge} x {edge}"
            compare(name, folder, given.rounds, given.threads, given.profile)
    edge = 64 if given.small else 96
    two = {"in_channels": 1, "out_channels": 2}
    swin = {"_target_": "SwinUNETR", **two, "feature_size": 24}
    unetr = {"_target_": "UNETR", **two, "img_size": [edge] * 3}
    for name, prepare_it in [
        ("SegResNet 96", lambda folder: prepare_bundle(folder, SEGRESNET, edge)),
        ("SwinUNETR 96", lambda folder: prepare_bundle(folder, swin, edge, onnx=False)),
        ("UNETR 96", lambda folder: prepare_bundle(folder, unetr, edge, onnx=False)),
        ("DenseNet-121 224", prepare_densenet),
    ]:
        if wanted in name.lower():
            with tempfile.TemporaryDirectory() as folder:
                prepare_it(pathlib.Path(folder))
                compare(name, pathlib.Path(folder), given.rounds, given.threads, given.profile)
    for name, kind, axes, features, patch, small in NETWORKS:
        if wanted not in name.lower():
            continue
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            prepare(folder, kind, axes, features, small if given.small else patch)
            compare(name, folder, given.rounds, given.threads, given.profile)
    if wanted in "folder":
        with tempfile.TemporaryDirectory() as folder:
            compare_folder(pathlib.Path(folder), given.small, given.edge, given.threads, given.profile)


if __name__ == "__main__":
    main()
