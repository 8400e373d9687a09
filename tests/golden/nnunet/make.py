"""Trains nnU-Net briefly by its own trainer and predicts by its own predictor: the truth for our engine.

    python make.py --data FOLDER --out FOLDER [--epochs 2] [--iterations 40] [--dataset NAME]
        [--stage all|prepare|train|predict]

--data holds `images/NAME.nii.gz` and `labels/NAME.nii.gz` of the Medical Segmentation Decathlon's
hippocampus task (labels 1 anterior, 2 posterior, 1 mm MR crops). Nothing of --out belongs into the
repository: it is about 1 GB. CPU only; about half an hour on two cores.

Tried with Python 3.11, torch 2.15.0, nnunetv2 2.8.1, dynamic-network-architectures 0.4.4, numpy 2.4.6.

Two data sets are made, so that most of the procedure has a case:

| | Dataset404_Hippocampus | Dataset405_Regions |
|---|---|---|
| channels | MRI (z-score) | CT, rescale_to_0_1 |
| spacing | 1 mm | 3 mm along x: anisotropic kernels, a transpose, separate z |
| labels | plain | regions |
| network | PlainConvUNet | ResidualEncoderUNet (planner ResEncM) |
| trained | 2d, 3d_fullres (folds 0 and 1), 3d_lowres, 3d_cascade_fullres | 2d, 3d_fullres |

Written to --out:
- `results/DATASET/TRAINER__PLANS__CONFIGURATION/`: result folders as users have them;
- `inputs/DATASET/CASE_000C.nii.gz`: cases that no training saw: as they are, thick slices, oblique,
  axes permuted, axes reversed, a zero margin, smaller than a patch;
- `reference/DATASET/CONFIGURATION/WAY/CASE.nii.gz` and `.npz` (`probabilities`): predictions;
  WAY is `fold0`, `fold0_mirrored` (two cases) or `folds01` (ensemble);
- `reference/DATASET/CONFIGURATION/steps/CASE.npz`: `data` (preprocessed), `logits` (fold 0, sliding
  window, no mirroring, before resampling back), `bbox`, `spacing`, `shape_before_cropping`;
- `reference/DATASET/CONFIGURATION/forward_fold0.npz`: `x` (normal random, one patch), `y` (logits).

The predictor adds up logits in 16-bit floats, on CPU too: steps agree to about 1e-2, not to 1e-5;
`forward` is plain f32.
"""

import argparse
import functools
import json
import os
import pathlib
import random
import shutil
import sys

import nibabel
import numpy

MR, REGIONS = "Dataset404_Hippocampus", "Dataset405_Regions"
TRAINING, HELD_OUT = 32, 4
MODELS = [
    (MR, "nnUNetPlans", "2d", (0,)),
    (MR, "nnUNetPlans", "3d_fullres", (0, 1)),
    (MR, "nnUNetPlans", "3d_lowres", (0,)),
    (MR, "nnUNetPlans", "3d_cascade_fullres", (0,)),
    (REGIONS, "nnUNetResEncUNetMPlans", "2d", (0,)),
    (REGIONS, "nnUNetResEncUNetMPlans", "3d_fullres", (0,)),
]


def save(array, affine, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    nibabel.save(image, path)


def thick(array, affine, axis, factor):
    """Every `factor`-th slice."""
    index = [slice(None)] * 3
    index[axis] = slice(factor // 2, None, factor)
    start = numpy.zeros(4)
    start[axis], start[3] = factor // 2, 1
    moved = affine.copy()
    moved[:, 3] = affine @ start
    moved[:, axis] *= factor
    return numpy.ascontiguousarray(array[tuple(index)]), moved


def channels_of(dataset, image):
    """The second channel is made up; what counts is that there are two."""
    if dataset == MR:
        return [image]
    second = numpy.abs(numpy.gradient(image.astype(numpy.float32), axis=1))
    return [image, second.astype(numpy.float32)]


def variants(image, affine):
    yield "plain", image, affine
    yield ("thick", *thick(image, affine, 2, 4))
    angle = numpy.deg2rad(20)
    turn = numpy.eye(4)
    turn[:2, :2] = [[numpy.cos(angle), -numpy.sin(angle)], [numpy.sin(angle), numpy.cos(angle)]]
    yield "oblique", image, turn @ affine @ numpy.diag([0.9, 1.15, 1.0, 1.0])
    order = [1, 2, 0]
    yield "permuted", numpy.ascontiguousarray(image.transpose(order)), affine[:, [*order, 3]]
    reversed_affine = affine.copy()
    reversed_affine[:, 3] = affine @ [image.shape[0] - 1, 0, image.shape[2] - 1, 1]
    reversed_affine[:, [0, 2]] *= -1
    yield "reversed", numpy.ascontiguousarray(image[::-1, :, ::-1]), reversed_affine
    margin = affine.copy()
    margin[:, 3] = affine @ [-5, -7, -4, 1]
    yield "margin", numpy.pad(image, ((5, 9), (7, 0), (4, 3))), margin
    yield "small", numpy.ascontiguousarray(image[6:26, 8:30, 5:24]), affine


def prepare(data, out):
    names = sorted(p.name for p in (data / "images").glob("*.nii.gz"))
    train, held_out = names[:TRAINING], names[TRAINING : TRAINING + HELD_OUT]
    for dataset in (MR, REGIONS):
        raw = out / "raw" / dataset
        for name in train:
            image, label = (nibabel.load(data / kind / name) for kind in ("images", "labels"))
            pixels = numpy.asarray(image.dataobj).astype(numpy.float32)
            marks = numpy.asarray(label.dataobj).astype(numpy.uint8)
            affine = image.affine
            if dataset == REGIONS:
                marks, _ = thick(marks, affine, 0, 3)
                pixels, affine = thick(pixels, affine, 0, 3)
            case = name.removesuffix(".nii.gz")
            for c, channel in enumerate(channels_of(dataset, pixels)):
                save(channel, affine, raw / "imagesTr" / f"{case}_{c:04}.nii.gz")
            save(marks, affine, raw / "labelsTr" / name)
        plain = dataset == MR
        described = {
            "channel_names": {"0": "MRI"} if plain else {"0": "CT", "1": "rescale_to_0_1"},
            "labels": {"background": 0, "anterior": 1, "posterior": 2}
            if plain
            else {"background": 0, "hippocampus": [1, 2], "posterior": [2]},
            "numTraining": len(train),
            "file_ending": ".nii.gz",
        }
        if not plain:
            described["regions_class_order"] = [1, 2]
        (raw / "dataset.json").write_text(json.dumps(described, indent=1))
        for number, name in enumerate(held_out):
            image = nibabel.load(data / "images" / name)
            pixels = numpy.asarray(image.dataobj).astype(numpy.float32)
            for variant, changed, affine in variants(pixels, image.affine):
                if number > 0 and variant != "plain":
                    continue
                for c, channel in enumerate(channels_of(dataset, changed)):
                    case = f"{name.removesuffix('.nii.gz')}_{variant}"
                    save(channel, affine, out / "inputs" / dataset / f"{case}_{c:04}.nii.gz")


def plan(out):
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api

    for number, planner, plans, configurations in [
        (404, "ExperimentPlanner", "nnUNetPlans", ["2d", "3d_fullres", "3d_lowres"]),
        (405, "nnUNetPlannerResEncM", "nnUNetResEncUNetMPlans", ["2d", "3d_fullres"]),
    ]:
        dataset = MR if number == 404 else REGIONS
        api.extract_fingerprints([number], num_processes=1, check_dataset_integrity=True)
        api.plan_experiments([number], planner)
        path = out / "preprocessed" / dataset / f"{plans}.json"
        written = json.loads(path.read_text())
        known = written["configurations"]
        for name, configuration in known.items():
            configuration["batch_size"] = 2
            # Few features: this is about agreement, and labels must come out after minutes on a CPU.
            network = configuration["architecture"]["arch_kwargs"]
            network["features_per_stage"] = [8, 16, 32, 32] if name != "2d" else [16, 32, 32, 32]
            if "n_blocks_per_stage" in network:
                network["n_blocks_per_stage"] = [1, 2, 2, 3]
        if number == 404:
            # Smaller than a case, so that windows overlap.
            known["3d_fullres"]["patch_size"] = [32, 40, 32]
            known["2d"]["batch_size"] = 8
            # The planner makes no low resolution for images this small.
            known["3d_lowres"] = {
                "inherits_from": "3d_fullres",
                "data_identifier": "nnUNetPlans_3d_lowres",
                "patch_size": [16, 24, 16],
                "spacing": [1.9, 1.8, 2.0],
                "next_stage": "3d_cascade_fullres",
            }
            known["3d_cascade_fullres"] = {
                "inherits_from": "3d_fullres",
                "previous_stage": "3d_lowres",
            }
        path.write_text(json.dumps(written, indent=1))
        api.preprocess([number], plans, configurations, num_processes=[1] * len(configurations))


def seed():
    import torch

    random.seed(1)
    numpy.random.seed(1)
    torch.manual_seed(1)


def split(out, dataset, swapped):
    """Two folds; the second is the first with training and validation exchanged."""
    names = sorted(p.name.removesuffix(".nii.gz") for p in (out / "raw" / dataset / "labelsTr").glob("*.gz"))
    halves = [{"train": names[:24], "val": names[24:]}, {"train": names[8:], "val": names[:8]}]
    if swapped:
        halves[0] = {"train": names[24:], "val": names[:24]}
    (out / "preprocessed" / dataset / "splits_final.json").write_text(json.dumps(halves))


def train(out, models, epochs, iterations):
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args
    from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler

    os.environ["nnUNet_n_proc_DA"] = "0"  # in this process; the planner wants at least 1
    def configure_optimizers(trainer):
        # The trainer's own SGD finds only background in so few steps.
        optimizer = torch.optim.Adam(trainer.network.parameters(), 3e-3)
        return optimizer, PolyLRScheduler(optimizer, 3e-3, trainer.num_epochs)

    for dataset, plans, configuration, folds in models:
        for fold in folds:
            folder = out / "results" / dataset / f"nnUNetTrainer__{plans}__{configuration}" / f"fold_{fold}"
            if (folder / "checkpoint_final.pth").is_file():
                continue
            seed()
            split(out, dataset, False)
            trainer = get_trainer_from_args(
                dataset, configuration, fold, "nnUNetTrainer", plans, device=torch.device("cpu")
            )
            trainer.num_epochs = epochs
            trainer.num_iterations_per_epoch = iterations
            trainer.num_val_iterations_per_epoch = 2
            trainer.configure_optimizers = functools.partial(configure_optimizers, trainer)
            trainer.run_training()
            if configuration == "3d_lowres":
                for swapped in (False, True):
                    split(out, dataset, swapped)
                    trainer.perform_actual_validation(False)
                split(out, dataset, False)


def predictor_of(out, dataset, plans, configuration, folds, mirrored):
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        use_mirroring=mirrored, perform_everything_on_device=False, device=torch.device("cpu"), allow_tqdm=False
    )
    folder = out / "results" / dataset / f"nnUNetTrainer__{plans}__{configuration}"
    predictor.initialize_from_trained_model_folder(str(folder), folds)
    return predictor


def predict(out, models):
    import torch

    for dataset, plans, configuration, folds in models:
        reference = out / "reference" / dataset / configuration
        previous = str(reference.parent / "3d_lowres" / "fold0") if "cascade" in configuration else None
        ways = [("fold0", (0,), False), ("fold0_mirrored", (0,), True)]
        if len(folds) > 1:
            ways += [("folds01", folds, False)]
        count = len(json.loads((out / "raw" / dataset / "dataset.json").read_text())["channel_names"])
        cases = [
            [str(first.parent / first.name.replace("_0000", f"_{c:04}")) for c in range(count)]
            for first in sorted((out / "inputs" / dataset).glob("*_0000.nii.gz"))
        ]
        for way, used, mirrored in ways:
            folder = reference / way
            if (folder / "done").is_file():
                continue
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            predictor = predictor_of(out, dataset, plans, configuration, used, mirrored)
            # Mirroring takes up to eight times as long: one case as it is, one with thick slices.
            chosen = [
                files
                for files in cases
                if not mirrored or files[0].endswith(("107_plain_0000.nii.gz", "107_thick_0000.nii.gz"))
            ]
            names = [str(folder / pathlib.Path(files[0]).name.removesuffix("_0000.nii.gz")) for files in chosen]
            predictor.predict_from_files_sequential(chosen, names, True, True, previous)
            (folder / "done").touch()

        steps = reference / "steps"
        steps.mkdir(exist_ok=True)
        predictor = predictor_of(out, dataset, plans, configuration, (0,), False)
        settings = predictor.configuration_manager
        for files in cases:
            case = pathlib.Path(files[0]).name.removesuffix("_0000.nii.gz")
            before = previous and str(pathlib.Path(previous) / f"{case}.nii.gz")
            data, marks, properties = settings.preprocessor_class(verbose=False).run_case(
                files, before, predictor.plans_manager, settings, predictor.dataset_json
            )
            data = numpy.asarray(data, dtype=numpy.float32)
            if before:
                from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot

                hot = convert_labelmap_to_one_hot(marks[0], predictor.label_manager.foreground_labels, data.dtype)
                data = numpy.vstack((data, hot))
            logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data))
            numpy.savez_compressed(
                steps / f"{case}.npz",
                data=data,
                logits=logits.numpy(),
                bbox=numpy.array(properties["bbox_used_for_cropping"]),
                spacing=numpy.array(properties["spacing"]),
                shape_before_cropping=numpy.array(properties["shape_before_cropping"]),
            )

        for fold in folds:
            network = predictor_of(out, dataset, plans, configuration, (fold,), False).network.eval()
            torch.manual_seed(7)
            planes = next(iter(network.parameters())).shape[1]
            x = torch.randn(1, planes, *settings.patch_size)
            with torch.inference_mode():
                y = network(x)
            numpy.savez_compressed(reference / f"forward_fold{fold}.npz", x=x.numpy(), y=y.numpy())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--dataset", choices=[MR, REGIONS], help="train and predict only this one")
    parser.add_argument("--stage", choices=["all", "prepare", "train", "predict"], default="all")
    given = parser.parse_args()
    out = given.out.resolve()
    models = [model for model in MODELS if given.dataset in (None, model[0])]
    for kind in ("raw", "preprocessed", "results"):
        (out / kind).mkdir(parents=True, exist_ok=True)
        os.environ[f"nnUNet_{kind}"] = str(out / kind)
    os.environ.update(nnUNet_n_proc_DA="1", nnUNet_def_n_proc="2", nnUNet_compile="f")
    if given.stage in ("all", "prepare"):
        prepare(given.data, out)
        plan(out)
    if given.stage in ("all", "train"):
        train(out, models, given.epochs, given.iterations)
    if given.stage in ("all", "predict"):
        predict(out, models)


if __name__ == "__main__":
    sys.exit(main())
