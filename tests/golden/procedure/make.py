"""Golden results of nnU-Net v2's and MONAI's own functions on small generated arrays.

    python make.py            writes cases.json and arrays.bin beside this file

Made with Python 3.11, nnunetv2 2.8.1, batchgenerators 0.25.5, acvl_utils 0.2.6, scikit-image 0.26.0,
scipy 1.17.1, numpy 2.4.6, torch 2.15.0 (CPU), monai 1.6.1.

cases.json names every array by its place in arrays.bin (offset in bytes, type, shape; little endian).
The toy network is written out in elementary steps of f32, so that another language can repeat it to the bit.
"""
import json
import os
from pathlib import Path

for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ.setdefault(name, "/tmp")
import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from monai.transforms import (Activationsd, Compose, CropForegroundd, DivisiblePadd, Invertd, NormalizeIntensity,
                              Orientationd, ScaleIntensity, ScaleIntensityRange, ScaleIntensityRanged,
                              ScaleIntensityRangePercentiles, SpatialPadd, Spacingd)
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape, resample_data_or_seg_to_shape
from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

HERE = Path(__file__).parent
blob = bytearray()
rng = np.random.default_rng(20)


def keep(array):
    array = np.ascontiguousarray(array)
    kinds = {"float32": "f32", "float64": "f64", "uint8": "u8", "int16": "i16", "int64": "i64"}
    place = {"at": len(blob), "type": kinds[array.dtype.name], "shape": list(array.shape)}
    blob.extend(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return place


def smooth(shape):
    """Blobs with some noise, roughly like anatomy: neighbors are alike, and values go below zero."""
    grid = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    out = np.zeros(shape)
    for _ in range(5):
        center, width = rng.uniform(-0.8, 0.8, len(shape)), rng.uniform(0.2, 0.7)
        out += rng.uniform(-300, 400) * np.exp(-sum((g - c) ** 2 for g, c in zip(grid, center)) / width**2)
    return (out + rng.normal(0, 15, shape)).astype(np.float32)


def regions_map(shape, labels):
    score = np.stack([smooth(shape) for _ in labels])
    return np.asarray(labels, dtype=np.int16)[score.argmax(0)]


def resample_images():
    cases = []
    for shape, to, current, new, order, order_z, force in [
        ((9, 11, 13), (12, 9, 20), (1, 1, 1), (0.8, 1.2, 0.7), 3, 0, None),
        ((9, 11, 13), (5, 6, 7), (1, 1, 1), (2, 2, 2), 3, 0, None),
        ((7, 16, 12), (15, 21, 13), (5, 1, 1), (2.3, 0.8, 0.9), 3, 0, None),
        ((16, 7, 12), (11, 15, 13), (1, 5, 1), (1.4, 2.3, 0.9), 3, 0, None),
        ((16, 12, 7), (11, 13, 4), (1, 1, 2), (1.4, 0.9, 5), 3, 0, None),
        ((6, 10, 10), (11, 10, 10), (5, 1, 1), (2.7, 1, 1), 3, 0, None),
        ((6, 10, 11), (6, 14, 8), (5, 1, 1), (5, 0.7, 1.4), 3, 0, None),
        ((6, 10, 11), (11, 14, 8), (5, 1, 1), (2.7, 0.7, 1.4), 3, 1, None),
        ((6, 10, 11), (11, 14, 8), (5, 1, 1), (2.7, 0.7, 1.4), 1, 3, None),
        ((6, 10, 11), (11, 14, 8), (5, 1, 1), (2.7, 0.7, 1.4), 1, 0, False),
        ((6, 10, 11), (11, 14, 8), (1, 1.5, 1), (0.5, 1, 1.4), 3, 0, True),
        ((6, 10, 11), (11, 14, 8), (0.2, 1.5, 1.5), (0.1, 1, 2), 3, 0, None),
        ((6, 10, 11), (11, 14, 8), (1, 1, 1), (0.5, 1, 1.4), 0, 0, None),
        ((1, 10, 11), (1, 14, 8), (1, 1, 1), (1, 1, 1.4), 3, 0, None),
        ((2, 2, 3), (5, 4, 7), (1, 1, 1), (0.4, 0.5, 0.4), 3, 0, None),
        ((1, 1, 1), (3, 2, 2), (1, 1, 1), (0.4, 0.5, 0.5), 3, 0, None),
        ((30, 5, 6), (61, 5, 6), (1, 1, 1), (0.5, 1, 1), 3, 0, None),
    ]:
        data = np.stack([smooth(shape) for _ in range(2 if order == 3 and shape[0] == 9 else 1)])
        out = resample_data_or_seg_to_shape(data, to, current, new, is_seg=False, order=order, order_z=order_z,
                                            force_separate_z=force)
        cases.append({"current": current, "new": new, "order": order, "order_z": order_z, "force": force,
                      "input": keep(data), "output": keep(out)})
    return cases


def resample_labels():
    cases = []
    for shape, to, current, new, order, order_z in [
        ((9, 11, 13), (12, 9, 20), (1, 1, 1), (0.8, 1.2, 0.7), 1, 0),
        ((8, 8, 8), (16, 16, 16), (1, 1, 1), (0.5, 0.5, 0.5), 1, 0),
        ((12, 12, 12), (6, 6, 6), (1, 1, 1), (2, 2, 2), 1, 0),
        ((7, 16, 12), (15, 21, 13), (5, 1, 1), (2.3, 0.8, 0.9), 1, 0),
        ((7, 16, 12), (15, 21, 13), (5, 1, 1), (2.3, 0.8, 0.9), 1, 1),
        ((7, 16, 12), (14, 8, 24), (5, 1, 1), (2.5, 2, 0.5), 1, 1),
        ((16, 12, 7), (11, 13, 4), (1, 1, 2), (1.4, 0.9, 5), 1, 0),
        ((9, 11, 13), (12, 9, 20), (1, 1, 1), (0.8, 1.2, 0.7), 0, 0),
    ]:
        data = regions_map(shape, [-1, 0, 1, 2, 5])
        # Single voxels and corners where many labels meet.
        data = np.where(rng.random(shape) < 0.1, rng.integers(-1, 6, shape), data).astype(np.int16)
        out = resample_data_or_seg_to_shape(data[None], to, current, new, is_seg=True, order=order, order_z=order_z,
                                            force_separate_z=None)
        cases.append({"current": current, "new": new, "order": order, "order_z": order_z,
                      "input": keep(data), "output": keep(out[0])})
    return cases


def shapes():
    cases = []
    for _ in range(200):
        old = rng.integers(1, 600, 3).tolist()
        current = np.round(rng.uniform(0.3, 6, 3), 3).tolist()
        new = np.round(rng.uniform(0.3, 6, 3), 3).tolist()
        if rng.random() < 0.3:  # halves
            current, new = [1.5, 2.5, 0.5], [1.0, 1.0, 1.0]
        out = compute_new_shape(old, current, new).tolist()
        if min(out) > 0:
            cases.append([old, current, new, out])
    return cases


def steps():
    cases = []
    for _ in range(400):
        patch = int(rng.integers(1, 200))
        size = patch + int(rng.integers(0, 500))
        step = float(rng.choice([0.5, 0.5, 0.25, 0.3, 1.0, 0.75]))
        cases.append([size, patch, step, compute_steps_for_sliding_window((size,), (patch,), step)[0]])
    return cases


def gaussians():
    cases = []
    for patch in [(16, 16, 16), (7, 12, 20), (64, 1, 9), (40, 56), (33, 5), (1, 1, 1)]:
        for half in (True, False):
            map_ = compute_gaussian(patch, sigma_scale=1 / 8, value_scaling_factor=10,
                                    dtype=torch.half if half else torch.float, device=torch.device("cpu"))
            cases.append({"patch": patch, "half": half, "map": keep(map_.float().numpy())})
        compute_gaussian.cache_clear()
    return cases


class Toy(torch.nn.Module):
    """Each output is a weighted sum of the first channel, its neighbors along x, y and the first axis, and
    the other channels."""

    def __init__(self, heads, weights):
        super().__init__()
        self.weights = torch.nn.Parameter(torch.from_numpy(weights), requires_grad=False)

    def forward(self, x):
        right = torch.nn.functional.pad(x[:, :1], [0, 1])[..., 1:]
        down = torch.nn.functional.pad(x[:, :1], [0, 0, 0, 1])[..., 1:, :]
        before = torch.cat([torch.zeros_like(x[:, :1, :1]), x[:, :1, :-1]], 2)
        out = []
        for w in self.weights:
            y = x[:, :1] * w[0]
            y = y + right * w[1]
            y = y + down * w[2]
            y = y + before * w[3]
            for c in range(1, x.shape[1]):
                y = y + x[:, c:c + 1] * w[3 + c]
            out.append(y + w[-1])
        return torch.cat(out, 1)


def plans_for(case):
    resampling = {"resampling_fn_data": "resample_data_or_seg_to_shape",
                  "resampling_fn_seg": "resample_data_or_seg_to_shape",
                  "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
                  "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
                  "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
                  "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, "order_z": 0,
                                                         "force_separate_z": None}}
    return {
        "dataset_name": "toy", "plans_name": "toy",
        "transpose_forward": case["transpose"], "transpose_backward": np.argsort(case["transpose"]).tolist(),
        "image_reader_writer": "SimpleITKIO", "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            str(c): {"mean": 31.25, "std": 117.5, "percentile_00_5": -180.0, "percentile_99_5": 260.5}
            for c in range(len(case["schemes"]))},
        "configurations": {"toy": {
            "preprocessor_name": "DefaultPreprocessor", "patch_size": case["patch"], "spacing": case["target"],
            "normalization_schemes": case["schemes"], "use_mask_for_norm": case["masks"], **resampling,
            "architecture": {"network_class_name": "none", "arch_kwargs": {}, "_kw_requires_import": []}}},
    }


def whole_cases():
    ct, z, one, rgb, none = ("CTNormalization", "ZScoreNormalization", "RescaleTo01Normalization",
                             "RGBTo01Normalization", "NoNormalization")
    labels4 = {"background": 0, "a": 1, "b": 2, "c": 3}
    base = {"transpose": [0, 1, 2], "schemes": [ct], "masks": [False], "labels": labels4, "regions": None,
            "mirror": None, "gaussian": True, "step": 0.5, "folds": 1, "border": 0, "previous": False}
    return [
        {**base, "name": "ct, coarser", "shape": [17, 30, 26], "spacing": [2.0, 0.8, 0.8], "target": [2.5, 1.1, 1.1],
         "patch": [8, 12, 10]},
        {**base, "name": "same grid, mirrored, two folds", "shape": [13, 20, 22], "spacing": [1.0, 1.0, 1.0],
         "target": [1.0, 1.0, 1.0], "patch": [8, 12, 10], "mirror": [0, 1, 2], "folds": 2},
        {**base, "name": "z-score in a mask, transposed, cropped", "shape": [24, 18, 21], "spacing": [0.9, 3.0, 0.9],
         "target": [3.0, 1.2, 1.2], "transpose": [1, 0, 2], "schemes": [z], "masks": [True], "patch": [6, 16, 12],
         "border": 4},
        {**base, "name": "anisotropic, separate z", "shape": [9, 30, 28], "spacing": [5.0, 0.7, 0.7],
         "target": [3.6, 1.0, 1.0], "patch": [6, 14, 16], "schemes": [z], "border": 2, "mirror": [1, 2]},
        {**base, "name": "finer than the scan", "shape": [10, 12, 11], "spacing": [2.0, 2.0, 2.0],
         "target": [1.3, 1.3, 1.3], "patch": [10, 10, 10], "schemes": [one]},
        {**base, "name": "slices", "shape": [7, 25, 31], "spacing": [4.0, 0.9, 0.9], "target": [1.3, 1.3],
         "patch": [14, 12], "mirror": [0, 1], "schemes": [z]},
        {**base, "name": "smaller than the patch", "shape": [5, 9, 14], "spacing": [1.0, 1.0, 1.0],
         "target": [1.0, 1.2, 0.9], "patch": [8, 16, 12], "schemes": [none], "mirror": [0]},
        {**base, "name": "regions, three channels, no gaussian", "shape": [12, 19, 20], "spacing": [1.5, 1.0, 1.0],
         "target": [1.5, 1.3, 1.3], "patch": [8, 8, 12], "schemes": [rgb, one, z], "masks": [False, False, False],
         "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "active": 3}, "regions": [1, 2, 3],
         "gaussian": False, "step": 0.6, "folds": 3},
        {**base, "name": "cascade", "shape": [14, 20, 18], "spacing": [1.5, 1.0, 1.0], "target": [1.0, 1.4, 1.4],
         "patch": [10, 8, 12], "border": 3, "previous": True, "transpose": [2, 0, 1]},
        {**base, "name": "ignore label", "shape": [8, 15, 18], "spacing": [1.0, 1.0, 1.0], "target": [1.0, 1.4, 1.4],
         "patch": [8, 8, 8], "labels": {"background": 0, "a": 1, "ignore": 2}},
    ]


def whole():
    cases = []
    for case in whole_cases():
        plans = PlansManager(plans_for(case))
        configuration = plans.get_configuration("toy")
        dataset = {"labels": case["labels"], "channel_names": {str(i): "x" for i in range(len(case["schemes"]))}}
        if case["regions"]:
            dataset["regions_class_order"] = case["regions"]
        manager = plans.get_label_manager(dataset)

        image = np.stack([smooth(case["shape"]) for _ in case["schemes"]])
        image = np.round(image)
        if case["schemes"][0] == "RGBTo01Normalization":
            image[0] = np.clip(np.round(image[0] / 4 + 100), 0, 255)
        if case["border"]:
            b = case["border"]
            inside = np.zeros(case["shape"], bool)
            inside[b:-1, 1:-b, b:] = True
            # A corner is missing and a hole is inside: neither all of the box nor all that is zero is outside.
            inside[b:b + 4, 1:6, b:b + 5] = False
            image[:, ~inside] = 0
            image[:, b + 5, 9:11, b + 6:b + 8] = 0
        previous = None
        if case["previous"]:
            previous = np.clip(regions_map(case["shape"], [0, 1, 2, 3]), 0, 3).astype(np.int16)
            previous[image[0] == 0] = 0

        properties = {"spacing": case["spacing"]}
        data, seg, properties = DefaultPreprocessor(verbose=False).run_case_npy(
            image, None if previous is None else previous[None], properties, plans, configuration, dataset)
        if previous is not None:
            data = np.vstack((data, convert_labelmap_to_one_hot(seg[0], manager.foreground_labels, data.dtype)))

        heads = manager.num_segmentation_heads
        weights = [(rng.normal(0, 1, (heads, data.shape[0] + 4)) * np.array([1.5, 1, 1, 1] + [1] * (data.shape[0] - 1) + [0.2])
                    ).astype(np.float32) for _ in range(case["folds"])]
        if case["schemes"] == ["NoNormalization"]:
            weights = [w * np.float32(0.01) for w in weights]

        predictor = nnUNetPredictor(tile_step_size=case["step"], use_gaussian=case["gaussian"],
                                    use_mirroring=case["mirror"] is not None, perform_everything_on_device=False,
                                    device=torch.device("cpu"), allow_tqdm=False)
        predictor.plans_manager, predictor.configuration_manager = plans, configuration
        predictor.label_manager, predictor.dataset_json = manager, dataset
        predictor.network = Toy(heads, weights[0].copy())
        predictor.list_of_parameters = [{"weights": torch.from_numpy(w)} for w in weights]
        predictor.allowed_mirroring_axes = case["mirror"]
        logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data).float())
        labels = convert_predicted_logits_to_segmentation_with_correct_shape(
            logits, plans, configuration, manager, properties)
        counts = np.bincount(labels.ravel(), minlength=4)
        print(f"{case['name']}: {data.shape} -> {labels.shape}, labels {counts}")
        kept = {key: case[key] for key in ("name", "spacing", "target", "patch", "transpose", "schemes", "masks",
                                           "regions", "mirror", "gaussian", "step", "folds")}
        cases.append({**kept, "heads": heads, "image": keep(image.astype(np.int16)),
                      "foreground": [int(i) for i in manager.foreground_labels],
                      "previous": None if previous is None else keep(previous.astype(np.uint8)),
                      "bbox": [[int(a), int(b)] for a, b in properties["bbox_used_for_cropping"]],
                      "prepared": keep(data.astype(np.float32)),
                      "weights": [keep(w) for w in weights],
                      "labels": keep(labels.astype(np.uint8))})
    return cases


def monai_windows():
    """SlidingWindowInferer on its own, and its starts and weights."""
    cases = []
    for shape, roi, overlap, mode, padding, cval in [
        ((14, 20, 17), (8, 12, 10), 0.25, "constant", "constant", 0.0),
        ((14, 20, 17), (8, 12, 10), 0.5, "gaussian", "constant", 0.0),
        ((9, 20, 17), (12, 0, 10), (0.6, 0.25, 0.3), "gaussian", "reflect", 0.0),
        ((9, 7, 17), (12, 10, 10), 0.25, "gaussian", "replicate", 0.0),
        ((9, 7, 17), (12, 10, 10), 0.1, "constant", "circular", 0.0),
        ((9, 7, 17), (12, 10, 20), 0.25, "gaussian", "constant", -1.5),
    ]:
        image = smooth(shape)[None] / 100
        weights = rng.normal(0, 1, (4, 5)).astype(np.float32)
        network = Toy(4, weights.copy())
        inferer = SlidingWindowInferer(roi_size=roi, sw_batch_size=2, overlap=overlap, mode=mode,
                                       padding_mode=padding, cval=cval)
        with torch.no_grad():
            out = inferer(torch.from_numpy(image)[None], network)[0].numpy()
        cases.append({"roi": roi, "overlap": [overlap] * 3 if isinstance(overlap, float) else overlap,
                      "gaussian": mode == "gaussian", "padding": padding, "cval": cval, "image": keep(image),
                      "weights": keep(weights), "labels": keep(out.argmax(0).astype(np.uint8))})
    return cases


def monai_intensities():
    image = np.stack([smooth((5, 6, 7)), smooth((5, 6, 7)) * 3])
    image[:, 1:3, 2:4] = 0
    cases = []
    for name, transform in [
        ("ScaleIntensity", ScaleIntensity()),
        ("ScaleIntensity channel_wise", ScaleIntensity(minv=-1, maxv=2, channel_wise=True)),
        ("ScaleIntensityRange clip", ScaleIntensityRange(-175, 250, 0, 1, clip=True)),
        ("ScaleIntensityRange", ScaleIntensityRange(-175, 250, -1, 1, clip=False)),
        ("Percentiles", ScaleIntensityRangePercentiles(1, 99, 0, 1, clip=True)),
        ("Percentiles relative", ScaleIntensityRangePercentiles(5, 90, 0, 1, clip=False, relative=True,
                                                                channel_wise=True)),
        ("Normalize", NormalizeIntensity()),
        ("Normalize nonzero channel_wise", NormalizeIntensity(nonzero=True, channel_wise=True)),
    ]:
        cases.append({"name": name, "image": keep(image), "output": keep(transform(image.copy()).numpy())})
    return cases


def monai_whole():
    """Transforms, sliding window, activation, inverse and labels, as a bundle has them."""
    tilt, turn = np.deg2rad(12), np.deg2rad(-5)
    rotation = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]]) @ np.array(
        [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    flip = np.eye(4)
    flip[:3, :3] = rotation @ np.diag([-0.9, -0.9, 2.5])
    flip[:3, 3] = [5, -3, 7]
    swap = np.array([[0, 0, 1.1, 5.0], [-1.4, 0, 0, -3.0], [0, 0.8, 0, 7.0], [0, 0, 0, 1.0]])
    plain = np.diag([1.5, 1.5, 1.5, 1.0])
    spacing = {"pixdim": (1.5, 1.5, 2.0), "mode": "bilinear"}
    cases = []
    # One letter per transform, to keep the list readable; see `build`.
    for name, affine, shape, steps, activation, linear in [
        ("orientation and spacing", flip, (26, 22, 9), [("o", "RAS"), ("s", spacing)], "softmax", True),
        ("swapped axes, other codes", swap, (14, 23, 19), [("o", "LPS"), ("s", spacing), ("r", None)], "none", True),
        ("crop after spacing", flip, (26, 22, 9), [("o", "RAS"), ("s", spacing), ("r", None), ("c", 1), ("p", None)],
         "softmax", True),
        ("crop before spacing, nearest", swap, (14, 23, 19), [("r", None), ("c", 2), ("s", spacing), ("d", 4)], "sigmoid", False),
        ("finer than the scan", plain, (11, 12, 10), [("s", {"pixdim": (1.0, 1.0, 1.0), "mode": "bilinear"})],
         "sigmoid", True),
        ("spacing kept", plain, (11, 12, 10), [("o", "RAS"), ("s", {"pixdim": (1.5, 1.5, 1.5), "mode": "bilinear"})],
         "none", True),
    ]:
        image = smooth(shape)[None]
        border = np.zeros(shape, bool)
        border[4:-3, 3:-4, 2:-2] = True
        image[:, ~border] = -300
        build = {"o": lambda a: Orientationd("image", axcodes=a, labels=(("L", "R"), ("P", "A"), ("I", "S"))),
                 "s": lambda a: Spacingd("image", **a),
                 "r": lambda a: ScaleIntensityRanged("image", -175, 250, 0, 1, clip=True),
                 "c": lambda a: CropForegroundd("image", source_key="image", margin=a, k_divisible=3),
                 "p": lambda a: SpatialPadd("image", spatial_size=(20, 5, 24)),
                 "d": lambda a: DivisiblePadd("image", k=a)}
        before = Compose([build[kind](argument) for kind, argument in steps])
        data = before({"image": MetaTensor(torch.from_numpy(image.copy()), affine=torch.from_numpy(affine))})
        weights = rng.normal(0, 1, (3, 5)).astype(np.float32)
        if not any(kind == "r" for kind, _ in steps):
            weights[:, :4] /= 100
        with torch.no_grad():
            out = SlidingWindowInferer((10, 12, 8), 1, 0.25, mode="gaussian")(data["image"][None], Toy(3, weights.copy()))
        data["pred"] = out[0]
        act = {"softmax": {"softmax": True}, "sigmoid": {"sigmoid": True}}.get(activation)
        if act:
            data = Activationsd("pred", **act)(data)
        data = Invertd("pred", before, orig_keys="image", nearest_interp=not linear, to_tensor=True)(data)
        values = data["pred"].as_tensor().numpy()
        # What lies beside a crop is 0; MONAI's coordinates miss the sample by 1e-16 and find as much of its neighbor.
        values[np.abs(values) < 1e-9] = 0
        if activation == "sigmoid":
            labels = np.zeros(values.shape[1:], np.uint8)
            for label, channel in zip((2, 1, 3), values):
                labels[channel >= 0.5] = label
        else:
            labels = values.argmax(0)
        print(f"{name}: {tuple(data['image'].shape)} -> {labels.shape}, labels {np.bincount(labels.ravel())}")
        cases.append({"name": name, "affine": affine.tolist(), "steps": [[k, a] for k, a in steps],
                      "activation": activation, "linear": linear, "image": keep(image), "weights": keep(weights),
                      "prepared": keep(data["image"].as_tensor().numpy().astype(np.float32)),
                      "labels": keep(labels.astype(np.uint8))})
    return cases


def main():
    cases = {"resample_images": resample_images(), "resample_labels": resample_labels(), "new_shapes": shapes(),
             "steps": steps(), "gaussians": gaussians(), "whole": whole(), "monai_windows": monai_windows(), "monai_intensities": monai_intensities(),
             "monai_whole": monai_whole()}
    (HERE / "arrays.bin").write_bytes(bytes(blob))
    (HERE / "cases.json").write_text(json.dumps(cases, separators=(",", ":")) + "\n")
    print(len(blob), "bytes")


main()
