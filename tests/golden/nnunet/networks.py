"""Writes small result folders as nnU-Net's, with random weights, and what PyTorch computes with them.

    python networks.py

Tried with torch 2.15.0, nnunetv2 2.8.1, dynamic-network-architectures 0.4.4, Python 3.11.

Per case, a folder beside this file: `plans.json`, `dataset.json`, `fold_N/checkpoint_final.pth` (keys as
nnU-Net's trainer writes them), and `forward.pth`: `x`, one patch, and `fold_N`, the logits for it.
The networks are built by nnU-Net's own `get_network_from_plans` from the plans that are written.
Tolerance: relative error 1e-5 of the largest logit (f32 sums in another order).

| case | what |
|---|---|
| plain_3d | PlainConvUNet, anisotropic kernels and strides, two folds, deep supervision's heads |
| cascade_3d | the same plans: inherits, a previous stage, its labels as input channels |
| lowres_3d | that stage |
| older_2d | PlainConvUNet in the plans' form before nnU-Net 2.4 |
| residual_3d | ResidualEncoderUNet, two channels, regions, anisotropic strides |
| variant_2d | batch norm, dropout, ReLU before the norm, no bias |
"""

import copy
import json
import pathlib

import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

HERE = pathlib.Path(__file__).parent
LABELS = {"background": 0, "anterior": 1, "posterior": 2}


def architecture(name, axes, **others):
    blocks = "n_blocks_per_stage" if name.startswith("Residual") else "n_conv_per_stage"
    arguments = {
        "n_stages": 3,
        "features_per_stage": [4, 6, 8],
        "conv_op": f"torch.nn.modules.conv.Conv{axes}d",
        "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]] if axes == 3 else [[3, 3]] * 3,
        "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]] if axes == 3 else [[1, 1], [2, 2], [2, 2]],
        blocks: [1, 2, 1],
        "n_conv_per_stage_decoder": [1, 2],
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{axes}d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    arguments.update(others)
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{name}",
        "arch_kwargs": arguments,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def configuration(axes, channels, **others):
    resampling = {}
    for function, is_seg, order in [("data", False, 3), ("seg", True, 1), ("probabilities", False, 1)]:
        resampling[f"resampling_fn_{function}"] = "resample_data_or_seg_to_shape"
        resampling[f"resampling_fn_{function}_kwargs"] = {
            "is_seg": is_seg,
            "order": order,
            "order_z": 0,
            "force_separate_z": None,
        }
    return {
        "data_identifier": "x",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [6, 8, 12] if axes == 3 else [8, 12],
        "median_image_size_in_voxels": [10.0, 10.0, 10.0][:axes],
        "spacing": [3.0, 0.8, 0.8] if axes == 3 else [0.8, 0.8],
        "normalization_schemes": ["CTNormalization", "ZScoreNormalization"][:channels],
        "use_mask_for_norm": [False, True][:channels],
        **resampling,
        "batch_dice": False,
        **others,
    }


def plans_of(configurations, transpose=(0, 1, 2)):
    back = [transpose.index(axis) for axis in range(3)]
    return {
        "dataset_name": "Dataset999_Golden",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [3.0, 0.8, 0.8],
        "original_median_shape_after_transp": [10, 10, 10],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": list(transpose),
        "transpose_backward": back,
        "configurations": configurations,
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": {
                "max": 900.0,
                "mean": 100.5,
                "median": 99.0,
                "min": -10.0,
                "percentile_00_5": -5.0,
                "percentile_99_5": 800.0,
                "std": 50.25,
            }
        },
    }


def write(case, name, plans, channels, labels=LABELS, order=None, folds=(0,), axes=(0, 1)):
    folder = HERE / case
    folder.mkdir(exist_ok=True)
    dataset = {
        "channel_names": {str(n): kind for n, kind in enumerate(["CT", "MRI"][:channels])},
        "labels": labels,
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    if order:
        dataset["regions_class_order"] = order
    (folder / "dataset.json").write_text(json.dumps(dataset, indent=1) + "\n")
    (folder / "plans.json").write_text(json.dumps(plans, indent=1) + "\n")
    manager = PlansManager(copy.deepcopy(plans))
    settings = manager.get_configuration(name)
    inputs = determine_num_input_channels(manager, settings, dataset)
    heads = manager.get_label_manager(dataset).num_segmentation_heads
    torch.manual_seed(11)
    x = torch.randn(1, inputs, *settings.patch_size)
    forward = {"x": x}
    for fold in folds:
        network = get_network_from_plans(
            settings.network_arch_class_name,
            settings.network_arch_init_kwargs,
            settings.network_arch_init_kwargs_req_import,
            inputs,
            heads,
            deep_supervision=False,
        ).eval()
        with torch.no_grad():
            for tensor in [*network.parameters(), *network.buffers()]:
                if tensor.is_floating_point() and tensor.ndim == 1:
                    tensor.copy_(0.5 + torch.rand_like(tensor))
            forward[f"fold_{fold}"] = network(x)
        checkpoint = {
            "network_weights": network.state_dict(),
            "optimizer_state": {},
            "grad_scaler_state": None,
            "logging": {},
            "_best_ema": None,
            "current_epoch": 1,
            "init_args": {"configuration": name, "fold": fold, "device": torch.device("cpu")},
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": axes,
        }
        (folder / f"fold_{fold}").mkdir(exist_ok=True)
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
    torch.save(forward, folder / "forward.pth")


def main():
    plain = architecture("PlainConvUNet", 3)
    in_stages = plans_of(
        {
            "3d_lowres": configuration(3, 1, architecture=plain, next_stage="3d_cascade_fullres"),
            "3d_fullres": configuration(3, 1, architecture=plain),
            "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        },
        transpose=(1, 2, 0),
    )
    write("plain_3d", "3d_fullres", in_stages, 1, folds=(0, 1), axes=(0, 1, 2))
    write("cascade_3d", "3d_cascade_fullres", in_stages, 1, axes=None)
    write("lowres_3d", "3d_lowres", in_stages, 1, axes=None)
    older = configuration(
        2,
        1,
        UNet_class_name="PlainConvUNet",
        UNet_base_num_features=3,
        n_conv_per_stage_encoder=[1, 2, 1],
        n_conv_per_stage_decoder=[1, 1],
        num_pool_per_axis=[2, 2],
        pool_op_kernel_sizes=[[1, 1], [2, 2], [2, 2]],
        conv_kernel_sizes=[[3, 3], [3, 3], [3, 3]],
        unet_max_num_features=8,
    )
    write("older_2d", "2d", plans_of({"2d": older}), 1)
    residual = architecture("ResidualEncoderUNet", 3, n_conv_per_stage_decoder=[1, 1])
    write(
        "residual_3d",
        "3d_fullres",
        plans_of({"3d_fullres": configuration(3, 2, architecture=residual)}),
        2,
        labels={"background": 0, "whole": [1, 2], "core": [2]},
        order=[1, 2],
    )
    variant = architecture(
        "PlainConvUNet",
        2,
        conv_bias=False,
        norm_op="torch.nn.modules.batchnorm.BatchNorm2d",
        dropout_op="torch.nn.modules.dropout.Dropout2d",
        dropout_op_kwargs={"p": 0.1},
        nonlin="torch.nn.ReLU",
        nonlin_first=True,
    )
    write("variant_2d", "2d", plans_of({"2d": configuration(2, 1, architecture=variant)}), 1, axes=(0,))


if __name__ == "__main__":
    main()
