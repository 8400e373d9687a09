"""Golden results of MONAI's networks and of whole bundles, and TorchXRayVision's DenseNet.

Made with MONAI 1.6.1, PyTorch 2.15, TorchXRayVision 1.5.7 and NumPy; run `python make.py` here.

Networks: weights and inputs follow a formula over a tensor's name (`formula`), which the test knows
too, so that only names, shapes and a sample of each output are kept (networks.json, networks.bin).
Bundles: small folders with real state dicts; see bundles.py.
"""

import json
import sys
import warnings

import numpy as np
import torch

warnings.filterwarnings("ignore")
from monai.networks import nets  # noqa: E402

KEPT = 1500
LOST = [0.0]


def uniform(name, count):
    """Numbers in [-1, 1) from a hash of the name and the index."""
    h = np.uint32(2166136261)
    with np.errstate(over="ignore"):
        for byte in name.encode():
            h = np.uint32((int(h) ^ byte) * 16777619 & 0xFFFFFFFF)
        x = np.arange(count, dtype=np.uint32) * np.uint32(2654435761) ^ h
        x ^= x >> np.uint32(16)
        x *= np.uint32(0x85EBCA6B)
        x ^= x >> np.uint32(13)
        x *= np.uint32(0xC2B2AE35)
        x ^= x >> np.uint32(16)
    return (x >> np.uint32(8)).astype(np.float32) / np.float32(1 << 23) - np.float32(1)


def formula(name, shape):
    u = uniform(name, int(np.prod(shape)))
    f = np.float32
    if name.endswith("running_var"):
        u = f(1) + f(0.5) * np.abs(u)
    elif list(shape) == [1]:
        u = f(0.25) + f(0.125) * u
    elif len(shape) == 1 and name.endswith("weight"):
        u = f(1) + f(0.25) * u
    elif len(shape) == 1:
        u = f(0.25) * u
    elif name.endswith(("position_embeddings", "position_bias_table")):
        u = f(0.5) * u
    else:
        u = u * f(np.sqrt(2.0 / (np.prod(shape) / shape[0])))
    return torch.from_numpy(u.reshape(shape).copy())


def fill(net):
    for name, tensor in net.state_dict().items():
        # Modules that are registered twice keep their other name's values.
        if tensor.dtype == torch.float32 and not name.startswith(("skip_layers", "act_mod")):
            tensor.copy_(formula(name, tuple(tensor.shape)))
    return net.eval()


def run(net, x):
    """In 64 bits: the truth for both; what PyTorch loses in 32 is printed."""
    with torch.no_grad():
        single = net(x)
        out = net.double()(x.double()).float()
    net.float()
    LOST[0] = float((single - out).abs().max() / out.abs().max())
    print(f"PyTorch in 32 bits: {LOST[0]:.1e}", end=" ")
    return out


def older_merging(self, x):
    """PatchMerging of three axes as it was before MONAI 1.5: two corners twice, two never."""
    corners = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 0), (0, 0, 1), (1, 1, 1)]
    if x.dim() == 4:
        return nets.swin_unetr.PatchMergingV2.forward(self, x)
    x = torch.cat([x[:, i::2, j::2, k::2] for i, j, k in corners], -1)
    return self.reduction(self.norm(x))


CASES = [
    ("unet_3d", "UNet", dict(spatial_dims=3, in_channels=1, out_channels=2, channels=[4, 8, 16, 24, 32],
                             strides=[2, 2, 2, 2], num_res_units=2, norm="batch"), [32, 32, 16]),
    ("unet_3d_uneven", "UNet", dict(spatial_dims=3, in_channels=2, out_channels=3, channels=[6, 12, 20],
                                    strides=[[2, 2, 1], [1, 2, 2]], kernel_size=[3, 3, 1], up_kernel_size=[3, 3, 1],
                                    num_res_units=1, act=["leakyrelu", {"negative_slope": 0.2}], bias=False,
                                    norm=["group", {"num_groups": 1}], dropout=0.1, adn_ordering="ADN"), [12, 16, 10]),
    ("unet_2d_plain", "UNet", dict(spatial_dims=2, in_channels=3, out_channels=1, channels=[8, 16, 16],
                                   strides=[2, 1], act="swish"), [24, 20]),
    ("basic_unet_3d", "BasicUNet", dict(spatial_dims=3, in_channels=1, out_channels=3,
                                        features=[4, 6, 8, 10, 12, 5], upsample="nontrainable"), [32, 16, 16]),
    ("basic_unet_2d", "BasicUNet", dict(spatial_dims=2, in_channels=2, out_channels=2,
                                        features=[4, 6, 8, 10, 12, 4], act="elu",
                                        norm=["instance", {"affine": False}]), [48, 32]),
    ("dynunet_3d", "DynUNet", dict(spatial_dims=3, in_channels=1, out_channels=3,
                                   kernel_size=[[3, 3, 1], [3, 3, 3], [3, 3, 3], 3], strides=[1, [2, 2, 1], 2, 2],
                                   upsample_kernel_size=[[2, 2, 1], 2, 2], filters=[4, 8, 12, 16],
                                   deep_supervision=True, deep_supr_num=2, res_block=True,
                                   norm_name="instance"), [16, 24, 12]),
    ("dynunet_2d", "DynUNet", dict(spatial_dims=2, in_channels=2, out_channels=2, kernel_size=[3, 3, 5],
                                   strides=[1, 2, 2], upsample_kernel_size=[2, 2], filters=[6, 8, 10],
                                   trans_bias=True, norm_name="batch"), [20, 28]),
    ("segresnet_brats", "SegResNet", dict(spatial_dims=3, in_channels=4, out_channels=3, init_filters=8,
                                          blocks_down=[1, 2, 2, 4], blocks_up=[1, 1, 1], dropout_prob=0.2), [24, 16, 16]),
    ("segresnet_2d", "SegResNet", dict(spatial_dims=2, in_channels=1, out_channels=2, init_filters=4,
                                       blocks_down=[1, 1], blocks_up=[2], upsample_mode="deconv",
                                       norm=["group", {"num_groups": 2}], act="prelu"), [18, 22]),
    ("swin_unetr_3d", "SwinUNETR", dict(in_channels=1, out_channels=3, feature_size=12), [64, 32, 32]),
    ("swin_unetr_3d_older", "SwinUNETR", dict(in_channels=2, out_channels=2, feature_size=12, num_heads=[3, 3, 6, 6],
                                              depths=[2, 1, 1, 1], normalize=False, window_size=[4, 5, 7],
                                              patch_norm=True), [32, 64, 32]),
    ("swin_unetr_2d_v2", "SwinUNETR", dict(spatial_dims=2, in_channels=1, out_channels=2, feature_size=12,
                                           use_v2=True, downsample="mergingv2", qkv_bias=False), [96, 64]),
    ("unetr_3d", "UNETR", dict(in_channels=1, out_channels=2, img_size=[32, 48, 16], feature_size=4, hidden_size=24,
                               mlp_dim=40, num_heads=4), [32, 48, 16]),
    ("unetr_2d", "UNETR", dict(spatial_dims=2, in_channels=3, out_channels=2, img_size=[64, 32], feature_size=4,
                               hidden_size=36, mlp_dim=24, num_heads=3, proj_type="perceptron", qkv_bias=True,
                               norm_name="batch", conv_block=False, res_block=False), [64, 32]),
    ("densenet121_2d", "DenseNet121", dict(spatial_dims=2, in_channels=1, out_channels=5), [96, 64]),
    ("densenet_3d", "DenseNet", dict(spatial_dims=3, in_channels=2, out_channels=3, init_features=8, growth_rate=6,
                                     block_config=[2, 3], bn_size=2, act="leakyrelu", norm="instance"), [24, 20, 18]),
]


def networks():
    listed, samples = [], []
    for name, target, arguments, size in CASES:
        original = nets.swin_unetr.PatchMerging.forward
        if name.endswith("older"):
            nets.swin_unetr.PatchMerging.forward = older_merging
        net = fill(getattr(nets, target)(**arguments))
        inputs = arguments["in_channels"]
        out = run(net, formula("input", (1, inputs, *size)))
        nets.swin_unetr.PatchMerging.forward = original
        listed.append(keep(name, target, arguments, size, inputs, net, out, samples))
    import torchxrayvision as xrv
    net = fill(xrv.models.DenseNet())
    out = run(net, formula("input", (1, 1, 224, 224)))
    listed.append(keep("torchxrayvision", "torchxrayvision", {}, [224, 224], 1, net, out, samples))
    with open("networks.json", "w") as file:
        json.dump(listed, file, indent=0)
    np.concatenate(samples).astype("<f4").tofile("networks.bin")


def keep(name, target, arguments, size, inputs, net, out, samples):
    flat = out.numpy().ravel()
    step = max(1, -(-flat.size // KEPT))
    samples.append(flat[::step])
    tensors = {n: list(t.shape) for n, t in net.state_dict().items() if "skip_layers" not in n}
    print(name, tuple(out.shape), float(np.abs(flat).max()), float(flat.std()))
    return dict(name=name, config=dict(_target_=target, **arguments), size=size, inputs=inputs,
                shape=list(out.shape), step=step, kept=int(samples[-1].size), largest=float(np.abs(flat).max()), lost=LOST[0],
                tensors=[f"{n} {','.join(map(str, s))}" for n, s in tensors.items()])


def xray():
    """A small DenseNet of TorchXRayVision: its state dict, the whole module, and what it says."""
    import torchxrayvision as xrv
    torch.manual_seed(11)
    thresholds = torch.linspace(0.05, 0.9, 18)
    thresholds[3] = float("nan")
    net = xrv.models.DenseNet(growth_rate=4, block_config=(2, 1), num_init_features=6, bn_size=2, op_threshs=thresholds)
    for name, tensor in net.state_dict().items():
        if name.endswith(("running_mean", "bias")):
            tensor.uniform_(-0.2, 0.2)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
    net.eval()
    torch.save(net.state_dict(), "xray.pth")
    torch.save(net, "xray_module.pt")
    net.op_threshs = None
    out = run(net, formula("input", (1, 1, 64, 64)))
    with open("xray.values", "w") as file:
        json.dump(out[0].tolist(), file)


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(2)
    if "bundles" not in sys.argv:
        networks()
    if "networks" not in sys.argv:
        import bundles
        bundles.make()
        xray()
