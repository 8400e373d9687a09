"""Whole bundles, read and run by MONAI itself: folders in bundles/, volumes and labels in volumes/."""

import json
import pathlib
import shutil

import nibabel as nib
import numpy as np
import torch
import yaml
from monai.bundle import ConfigParser
from monai.data import decollate_batch, list_data_collate

HERE = pathlib.Path(__file__).parent

NAMES = {"0": "background", "1": "spleen", "2": "left_kidney"}


def metadata(name, modality, channels, outputs, shape):
    return {
        "version": "0.1.2", "monai_version": "1.6.1", "pytorch_version": "2.15.0", "name": name, "task": "a test",
        "description": "Random weights.", "authors": "nobody", "copyright": "none",
        "intended_use": "Tests alone.", "data_source": "made up", "references": ["none"],
        "eval_metrics": {"mean_dice": 0.0},
        "network_data_format": {
            "inputs": {"image": {"type": "image", "format": "x", "modality": modality, "num_channels": channels,
                                 "spatial_shape": shape, "dtype": "float32", "value_range": [0, 1],
                                 "channel_def": {"0": "image"}}},
            "outputs": {"pred": {"type": "image", "format": "segmentation", "num_channels": len(outputs),
                                 "spatial_shape": shape, "dtype": "float32", "channel_def": outputs}}},
    }


def common(network, preprocessing, inferer, postprocessing):
    """In the manner of the model zoo, with expressions where none is needed to predict."""
    return {
        "imports": ["$import glob", "$import os"],
        "bundle_root": ".", "image_key": "image", "output_dir": "$@bundle_root + '/eval'",
        "datalist": "$list(sorted(glob.glob(@bundle_root + '/*.nii.gz')))",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": network, "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": preprocessing},
        "dataset": {"_target_": "Dataset", "data": "$[{'image': i} for i in @datalist]",
                    "transform": "@preprocessing"},
        "inferer": inferer,
        "postprocessing": {"_target_": "Compose", "transforms": postprocessing},
        "evaluator": {"_target_": "SupervisedEvaluator", "device": "@device", "network": "@network",
                      "inferer": "@inferer", "postprocessing": "@postprocessing", "amp": True},
        "run": ["$@evaluator.run()"],
    }


def invert(**more):
    return {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "@image_key",
            "meta_key_postfix": "meta_dict", "to_tensor": True, **more}


def d(target, **more):
    return {"_target_": target, "keys": "image", **more}


SAVE = {"_target_": "SaveImaged", "keys": "pred", "_disabled_": True, "output_dir": "@output_dir"}

BUNDLES = {
    # As for a CT of an abdomen. The volumes are empty for more than one voxel at their edges: right beside a crop,
    # where places should meet voxels exactly, MONAI's labels are decided by rounding errors of its interpolation.
    "ct": ("json", metadata("Spleen CT", "CT", 1, NAMES, [24, 24, 16]), common(
        {"_target_": "UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 3, "channels": [4, 8, 12],
         "strides": [2, 2], "num_res_units": 2, "norm": "batch"},
        [d("LoadImaged"), d("EnsureChannelFirstd"), d("Orientationd", axcodes="RAS"),
         d("Spacingd", pixdim=[1.4, 1.6, 2.1], mode="bilinear"),
         d("ScaleIntensityRanged", a_min=-100, a_max=240, b_min=0.0, b_max=1.0, clip=True),
         d("CropForegroundd", source_key="image"), d("EnsureTyped")],
        {"_target_": "SlidingWindowInferer", "roi_size": "$[24, 24, 16]", "sw_batch_size": 4, "overlap": 0.5,
         "mode": "gaussian"},
        [{"_target_": "Activationsd", "keys": "pred", "softmax": True}, invert(nearest_interp=False),
         {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}, SAVE])),
    # As for an MR with overlapping regions.
    "mr": ("yaml", metadata("Tumor MR", "MR", 1, {"0": "tumor core", "1": "whole tumor", "2": "enhancing tumor"},
                            [32, 32, 32]), common(
        {"_target_": "monai.networks.nets.SegResNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 3,
         "init_filters": 4, "blocks_down": [1, 1, 1], "blocks_up": [1, 1], "norm": ["GROUP", {"num_groups": 2}]},
        [d("LoadImaged", keys=["image"]), d("EnsureChannelFirstd"), d("Orientationd", axcodes="LPS"),
         d("NormalizeIntensityd", nonzero=True, channel_wise=True),
         d("SpatialPadd", spatial_size=[40, 32, 20], method="symmetric"), d("EnsureTyped")],
        {"_target_": "SlidingWindowInferer", "roi_size": [32, 24, 16], "sw_batch_size": 1, "overlap": 0.25},
        [{"_target_": "Activationsd", "keys": "pred", "sigmoid": True},
         {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5}, invert(nearest_interp=True), SAVE])),
    # A network of slices.
    "slices": ("json", metadata("Slices", "MR", 1, NAMES, [32, 48]), common(
        {"_target_": "BasicUNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 3,
         "features": [4, 4, 8, 8, 8, 4]},
        [d("LoadImaged"), d("EnsureChannelFirstd"), d("Orientationd", axcodes="RAS"),
         d("Resized", spatial_size=[32, 48, -1], mode="trilinear", align_corners=True),
         d("ScaleIntensityd"), d("EnsureTyped")],
        {"_target_": "SliceInferer", "roi_size": [32, 48], "spatial_dim": 2, "sw_batch_size": 1},
        [{"_target_": "Activationsd", "keys": "pred", "softmax": True}, invert(nearest_interp=False),
         {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}, SAVE])),
    # The whole image at once; the largest part is kept.
    "whole": ("json", metadata("Whole", "MR", 1, NAMES, ["*", "*", "*"]), common(
        {"_target_": "DynUNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 3, "kernel_size": [3, 3, 3],
         "strides": [1, 2, [2, 2, 1]], "upsample_kernel_size": [2, [2, 2, 1]], "filters": [4, 8, 12],
         "deep_supervision": True, "res_block": True},
        [d("LoadImaged"), d("EnsureChannelFirstd"), d("Orientationd", axcodes="RAS"),
         d("Spacingd", pixdim=[2.0, 2.0, 3.2], mode=["bilinear"]),
         d("ScaleIntensityRangePercentilesd", lower=1, upper=99, b_min=-1, b_max=1, clip=True),
         d("DivisiblePadd", k=[4, 4, 2]), d("EnsureTyped", dtype="$torch.float32")],
        {"_target_": "SimpleInferer"},
        [invert(nearest_interp=False), {"_target_": "Activationsd", "keys": "pred", "softmax": True},
         {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
         {"_target_": "KeepLargestConnectedComponentd", "keys": "pred", "applied_labels": [1, 2]}, SAVE])),
    # A classifier.
    "classifier": ("json", metadata("Density", "MG", 1, {"0": "A", "1": "B"}, [32, 32]), common(
        {"_target_": "DenseNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 2, "init_features": 4,
         "growth_rate": 4, "block_config": [2, 2]},
        [d("LoadImaged"), d("EnsureChannelFirstd"), d("ScaleIntensityd"),
         d("Resized", spatial_size=[32, 32], mode="bilinear")],
        {"_target_": "SimpleInferer"}, [{"_target_": "Activationsd", "keys": "pred", "softmax": True}])),
}


def volume(number, size, affine):
    """Blobs and a little noise, in whole numbers."""
    rng = np.random.default_rng(number)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in size], indexing="ij"))
    image = np.full(size, -200.0)
    inside = (grid ** 2).sum(0) < 0.6
    image[inside] = 20
    for _ in range(6):
        middle, width = rng.uniform(-0.6, 0.6, 3), rng.uniform(0.15, 0.4)
        near = ((grid - middle[:, None, None, None]) ** 2).sum(0) / width ** 2
        image += rng.uniform(-150, 200) * np.exp(-near)
    image[~inside] = -200
    image += rng.normal(0, 8, size)
    return nib.Nifti1Image(np.round(image).astype(np.int16), affine)


def affine(spacing, directions, origin):
    matrix = np.eye(4)
    matrix[:3, :3] = np.asarray(directions, float) * np.asarray(spacing)
    matrix[:3, 3] = origin
    return matrix


def turned(a, b):
    """A rotation by two angles."""
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    return x @ z


VOLUMES = {
    "axial": volume(1, (40, 36, 12), affine((0.9, 0.9, 3.0), np.diag([-1, -1, 1]), (20, 30, -10))),
    "sagittal": volume(2, (14, 38, 30), affine((2.5, 1.1, 1.0), [[0, 0, 1], [1, 0, 0], [0, -1, 0]], (-5, 12, 3))),
    "oblique": volume(3, (32, 30, 20), affine((1.2, 1.2, 2.0), turned(0.25, -0.35), (0, 0, 0))),
}


def make():
    shutil.rmtree(HERE / "bundles", ignore_errors=True)
    shutil.rmtree(HERE / "volumes", ignore_errors=True)
    (HERE / "volumes").mkdir()
    for name, image in VOLUMES.items():
        nib.save(image, HERE / "volumes" / f"{name}.nii.gz")
    for name, (form, about, config) in BUNDLES.items():
        folder = HERE / "bundles" / name
        (folder / "configs").mkdir(parents=True)
        (folder / "models").mkdir()
        (folder / "configs" / "metadata.json").write_text(json.dumps(about, indent=1))
        text = json.dumps(config, indent=1) if form == "json" else yaml.safe_dump(config, sort_keys=False)
        (folder / "configs" / f"inference.{form}").write_text(text)
        parser = ConfigParser()
        parser.read_config(str(folder / "configs" / f"inference.{form}"))
        torch.manual_seed(7)
        net = parser.get_parsed_content("network_def")
        for key, tensor in net.state_dict().items():
            if key.endswith("running_mean"):
                tensor.uniform_(-0.2, 0.2)
            elif key.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
        net.eval()
        saved = net.state_dict()
        torch.save({"state_dict": saved} if name == "mr" else saved, folder / "models" / "model.pt")
        if name == "ct":
            broken = {key: tensor.clone() for key, tensor in saved.items()}
            broken["model.0.conv.unit0.conv.weight"][0, 0, 1, 1, 1] = float("nan")
            torch.save(broken, HERE / "nan.pt")
        if name != "classifier":
            predict(name, parser, net)


def predict(name, parser, net):
    before, after = (parser.get_parsed_content(key) for key in ["preprocessing", "postprocessing"])
    inferer = parser.get_parsed_content("inferer")
    for case in VOLUMES:
        data = before({"image": str(HERE / "volumes" / f"{case}.nii.gz")})
        with torch.no_grad():
            batch = list_data_collate([data])
            batch["pred"] = inferer(batch["image"], net)
        done = after(decollate_batch(batch)[0])
        pred = done["pred"].numpy()
        labels = pred[0]
        if name == "mr":
            # Regions in each other, the largest first.
            labels = np.zeros(pred.shape[1:])
            for channel in [1, 0, 2]:
                labels[pred[channel] > 0] = channel + 1
        image = VOLUMES[case]
        assert labels.shape == image.shape, (labels.shape, image.shape)
        print(name, case, tuple(data["image"].shape), np.bincount(labels.astype(int).ravel()))
        nib.save(nib.Nifti1Image(labels.astype(np.uint8), image.affine), HERE / "volumes" / f"{name}_{case}.nii.gz")
