"""ONNX files as exporters write them, with random weights, and their results by ONNX Runtime.

Writes NAME.onnx and golden.safetensors (NAME/input, NAME/want). Results are those of ONNX Runtime; for
files from PyTorch they are compared with PyTorch's own before anything is written.
Made with torch 2.15.0, onnx 1.23.2, onnxruntime 1.31.1, monai 1.6.1, onnxscript 0.7.2:  python make.py
"""
import pathlib
import warnings

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file
from torch import nn
import torch.nn.functional as F

warnings.filterwarnings("ignore")
torch.manual_seed(20261121)
rng = np.random.default_rng(20261121)
here = pathlib.Path(__file__).parent
tensors = {}


def keep(name, x, tolerance=2e-5, torch_want=None):
    """Runs a file by ONNX Runtime and keeps what it gives."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(here / f"{name}.onnx", options)
    want = session.run(None, {session.get_inputs()[0].name: x})[0]
    if torch_want is not None:
        scale = np.sqrt((torch_want**2).mean())
        assert np.abs(want - torch_want).max() / scale < tolerance, name
    tensors[f"{name}/input"] = x
    tensors[f"{name}/want"] = want.astype(np.float32)
    size = (here / f"{name}.onnx").stat().st_size
    print(f"{name}: {size} bytes, {want.shape}")


def randomize(net):
    """Norms with statistics and weights that matter."""
    for m in net.modules():
        for name in ("running_mean", "weight", "bias"):
            t = getattr(m, name, None)
            if torch.is_tensor(t) and t.dim() == 1:
                t.data.uniform_(-0.5, 0.5)
                if name == "weight":
                    t.data.add_(1)
        if getattr(m, "running_var", None) is not None:
            m.running_var.uniform_(0.5, 1.5)
    return net.eval()


def export(name, net, shape, opset, dynamo=False, dynamic=False):
    net = randomize(net)
    x = torch.randn(*shape)
    with torch.no_grad():
        want = net(x)
        kwargs = {}
        if dynamic and not dynamo:
            axes = {0: "batch", **{n + 2: "DHW"[n] for n in range(len(shape) - 2)}}
            kwargs = {"dynamic_axes": {"input": axes, "output": axes}}
        if dynamo:
            program = torch.onnx.export(net, (x,), dynamo=True, opset_version=opset,
                                        input_names=["input"], output_names=["output"])
            onnx.save_model(program.model_proto, here / f"{name}.onnx")
        else:
            torch.onnx.export(net, (x,), here / f"{name}.onnx", dynamo=False, opset_version=opset,
                              input_names=["input"], output_names=["output"], **kwargs)
    model = onnx.load(here / f"{name}.onnx")
    # Names of source files have no place here.
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for held in (model.graph, model):
        held.doc_string = ""
        del held.metadata_props[:]
    for value in list(model.graph.value_info) + list(model.graph.input) + list(model.graph.output):
        del value.metadata_props[:]
    del model.graph.value_info[:]
    onnx.save_model(model, here / f"{name}.onnx")
    assert model.opset_import[0].version == opset, (name, model.opset_import)
    keep(name, x.numpy(), torch_want=want.numpy())


def block(i, o, norm=nn.InstanceNorm3d):
    return nn.Sequential(nn.Conv3d(i, o, 3, padding=1), norm(o, affine=True), nn.LeakyReLU(0.01))


class UNet(nn.Module):
    """Two levels; up by trilinear resize or by transposed convolution."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.a, self.b, self.c = block(1, 5), block(5, 9), block(14 if how != "up" else 10, 5)
        self.pool = nn.MaxPool3d(2)
        self.up = nn.ConvTranspose3d(9, 5, 2, 2)
        self.end = nn.Conv3d(5, 3, 1)

    def forward(self, x):
        a = self.a(x)
        b = self.b(self.pool(a))
        if self.how == "up":
            b = self.up(b)
        elif self.how == "size":
            b = F.interpolate(b, size=a.shape[2:], mode="trilinear", align_corners=False)
        elif self.how == "corners":
            b = F.interpolate(b, scale_factor=2, mode="trilinear", align_corners=True)
        else:
            b = F.interpolate(b, scale_factor=2, mode=self.how)
        return torch.softmax(self.end(self.c(torch.cat([a, b], 1))), 1)


class Residual(nn.Module):
    def __init__(self, i, o, stride):
        super().__init__()
        self.a, self.na = nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o)
        self.b, self.nb = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
        self.skip = nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))

    def forward(self, x):
        y = F.relu(self.na(self.a(x)))
        return F.relu(self.nb(self.b(y)) + self.skip(x))


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 5, 2, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.body = nn.Sequential(Residual(8, 8, 1), Residual(8, 11, 2))
        self.end = nn.Linear(11, 5)

    def forward(self, x):
        return self.end(torch.flatten(F.adaptive_avg_pool2d(self.body(self.stem(x)), 1), 1))


class Dense(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 12, 3, 2, 1)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(12 + 6 * n), nn.ReLU(), nn.Conv2d(12 + 6 * n, 6, 3, padding=1, bias=False))
            for n in range(3))
        self.end = nn.Sequential(nn.BatchNorm2d(30), nn.ReLU(), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1),
                                 nn.Flatten(), nn.Linear(30, 4), nn.Sigmoid())

    def forward(self, x):
        x = self.stem(x)
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.end(x)


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        scores = (q @ k.transpose(-2, -1)) * (c // self.heads) ** -0.5
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, n, c))


class ViT(nn.Module):
    """Patches, a class token, positions, two transformer blocks."""

    def __init__(self, fused=False):
        super().__init__()
        w = 16
        self.fused = fused
        self.patch = nn.Conv2d(1, w, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, w))
        self.place = nn.Parameter(torch.randn(1, 17, w))
        if fused:
            layer = nn.TransformerEncoderLayer(w, 4, 24, 0.0, "gelu", batch_first=True, norm_first=True)
            self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        else:
            self.blocks = nn.ModuleList(nn.ModuleList([nn.LayerNorm(w), Attention(w, 4), nn.LayerNorm(w), nn.Sequential(
                nn.Linear(w, 24), nn.GELU(), nn.Linear(24, w))]) for _ in range(2))
        self.norm, self.end = nn.LayerNorm(w), nn.Linear(w, 3)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.place
        if self.fused:
            x = self.blocks(x)
        else:
            for n1, a, n2, m in self.blocks:
                x = x + a(n1(x))
                x = x + m(n2(x))
        return self.end(self.norm(x)[:, 0])


class Mixed(nn.Module):
    """Activations, norms and shape work of many kinds on a plane."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(2, 12, 3, padding=2, dilation=2)
        self.norm = nn.GroupNorm(3, 12)
        self.b = nn.ConvTranspose2d(12, 6, 3, 2, 1, 1, groups=2)
        self.prelu = nn.PReLU(6)
        self.instance = nn.InstanceNorm2d(6)

    def forward(self, x):
        y = F.silu(self.norm(self.a(x)))
        y = F.gelu(y, approximate="tanh") + F.elu(y, 0.7) - F.hardswish(y) * F.softplus(y)
        y = F.mish(y).clamp(-0.5, 2.0)
        y = self.instance(self.prelu(self.b(y)))
        p, q = torch.split(y, [2, 4], 1)
        q = F.avg_pool2d(F.pad(q[:, ::2], (1, 2, 0, 1), mode="reflect"), 3, 1, 0)
        p = F.pad(p, (0, 1, 1, 0), value=0.3)[:, :, : q.shape[2], : q.shape[3]]
        y = torch.cat([p, q], 1)
        y = F.pixel_shuffle(y.mean(1, keepdim=True) * y, 2)
        y = y - y.amax((2, 3), keepdim=True) + y.sum(1, keepdim=True).sigmoid()
        y = F.interpolate(y, size=(11, 13), mode="bicubic", align_corners=False)
        return F.log_softmax(y * (torch.tanh(y) ** 2 + 0.5).sqrt(), 2)


for opset, how, dynamo in [(11, "nearest", False), (13, "trilinear", False), (17, "up", False),
                           (18, "size", True), (21, "corners", True)]:
    export(f"unet3d_{how}_{opset}", UNet(how), (1, 1, 8, 8, 12), opset, dynamo)
export("unet3d_open_17", UNet("size"), (1, 1, 8, 8, 12), 17, dynamic=True)
export("resnet_13", ResNet(), (1, 3, 32, 40), 13)
export("resnet_18", ResNet(), (1, 3, 32, 40), 18, dynamo=True)
export("dense_11", Dense(), (1, 1, 24, 20), 11)
export("vit_11", ViT(), (1, 1, 32, 32), 11)
export("vit_17", ViT(), (1, 1, 32, 32), 17)
export("vit_fused_18", ViT(True), (1, 1, 32, 32), 18, dynamo=True)
export("mixed_17", Mixed(), (1, 2, 9, 10), 17)
export("mixed_20", Mixed(), (1, 2, 9, 10), 20, dynamo=True)

from monai.networks.nets import BasicUNet, DynUNet, SegResNet, UNet as MonaiUNet  # noqa: E402

export("monai_segresnet_17", SegResNet(3, 4, 1, 2, blocks_down=(1, 1), blocks_up=(1,),
                                       norm=("GROUP", {"num_groups": 2})),
       (1, 1, 8, 8, 8), 17)
export("monai_segresnet_18", SegResNet(3, 4, 1, 2, blocks_down=(1, 1), blocks_up=(1,),
                                       norm=("GROUP", {"num_groups": 2})), (1, 1, 8, 8, 8), 18, True)
export("monai_unet_17", MonaiUNet(3, 1, 2, (3, 5, 9), (2, 2), num_res_units=2, norm="batch"), (1, 1, 8, 8, 8), 17)
export("monai_unet_18", MonaiUNet(2, 1, 2, (3, 5, 9), (2, 2), num_res_units=2), (1, 1, 16, 16), 18, True)
export("monai_basicunet_17", BasicUNet(3, 1, 2, (2, 2, 3, 4, 5, 3)), (1, 1, 16, 16, 32), 17)
export("monai_dynunet_13", DynUNet(3, 1, 2, [3, 3, 3], [1, 2, 2], [2, 2], filters=[3, 5, 7], res_block=True),
       (1, 1, 8, 8, 8), 13)


# Files that PyTorch does not write.
def made(name, nodes, x, opset, weights=None, out=None, shape=None, metadata=None, ints=None):
    initializers = [numpy_helper.from_array(v, k) for k, v in {**(weights or {}), **(ints or {})}.items()]
    graph = helper.make_graph(
        nodes, "made", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape or x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT if out is None else out, None)], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    for key, value in (metadata or {}).items():
        model.metadata_props.add(key=key, value=value)
    onnx.save_model(model, here / f"{name}.onnx")
    keep(name, x)


def r(*shape):
    return rng.standard_normal(shape).astype(np.float32)


node = helper.make_node
i64 = lambda *v: np.array(v, np.int64)  # noqa: E731
for coordinates, mode, rounding, sizes in [
    ("half_pixel", "linear", None, (7, 5)), ("pytorch_half_pixel", "linear", None, (1, 9)),
    ("align_corners", "linear", None, (9, 4)), ("asymmetric", "linear", None, (11, 9)),
    ("asymmetric", "nearest", "floor", (12, 10)), ("half_pixel", "nearest", "round_prefer_floor", (12, 10)),
    ("half_pixel", "nearest", "round_prefer_ceil", (9, 7)), ("half_pixel", "nearest", "ceil", (4, 3)),
    ("half_pixel", "cubic", None, (9, 8)), ("align_corners", "nearest", "round_prefer_floor", (11, 8)),
]:
    name = "resize_" + "_".join(x for x in (coordinates, mode, rounding) if x)
    attributes = {"coordinate_transformation_mode": coordinates, "mode": mode}
    if rounding:
        attributes["nearest_mode"] = rounding
    made(name, [node("Resize", ["x", "", "", "sizes"], ["y"], **attributes)], r(1, 2, 6, 5), 13,
         ints={"sizes": i64(1, 2, *sizes)})
made("resize_scales", [node("Resize", ["x", "roi", "scales"], ["y"], mode="linear")], r(1, 2, 6, 5), 11,
     weights={"scales": np.array([1, 1, 1.5, 0.7], np.float32), "roi": np.zeros(0, np.float32)})

for name, pads in [("same_upper", {"auto_pad": "SAME_UPPER"}), ("same_lower", {"auto_pad": "SAME_LOWER"}),
                   ("uneven", {"pads": [0, 1, 2, 1]})]:
    made(f"conv_{name}", [
        node("Conv", ["x", "w"], ["a"], strides=[2, 2], **pads),
        node("ConvTranspose", ["a", "v", "b"], ["t"], strides=[2, 3], pads=[0, 1, 1, 0], output_padding=[1, 0]),
        node("AveragePool", ["t"], ["p"], kernel_shape=[3, 2], strides=[2, 1], auto_pad=pads.get("auto_pad", "VALID")),
        node("MaxPool", ["p"], ["y"], kernel_shape=[2, 2], strides=[1, 2], ceil_mode=0),
    ], r(1, 2, 9, 8), 13, weights={"w": r(3, 2, 4, 3), "v": r(3, 2, 3, 2), "b": r(2)})

made("conv1d", [node("Conv", ["x", "w"], ["a"], pads=[2, 0], dilations=[2]), node("GlobalMaxPool", ["a"], ["m"]),
                node("Mul", ["a", "m"], ["y"])], r(1, 3, 11), 12, weights={"w": r(4, 3, 3)})

halves = {"w": r(4, 2, 3, 3).astype(np.float16)}
made("halves", [node("Cast", ["w"], ["wide"], to=TensorProto.FLOAT), node("Conv", ["x", "wide"], ["y"])],
     r(1, 2, 6, 7), 13, weights=halves)

made("norms_21", [
    node("GroupNormalization", ["x", "s", "b"], ["g"], num_groups=2, epsilon=1e-3),
    node("ReduceMean", ["g", "axes"], ["mean"]), node("Sub", ["g", "mean"], ["c"]),
    node("Mul", ["c", "c"], ["cc"]), node("ReduceMean", ["cc", "axes"], ["var"]),
    node("Add", ["var", "eps"], ["ve"]), node("Sqrt", ["ve"], ["sd"]), node("Div", ["c", "sd"], ["n"]),
    node("Mul", ["n", "s4"], ["ns"]), node("Add", ["ns", "b4"], ["i"]),
    node("LayerNormalization", ["i", "ls", "lb"], ["l"], axis=2),
    node("HardSigmoid", ["l"], ["h"]), node("Pow", ["h", "two"], ["p"]), node("Exp", ["p"], ["e"]),
    node("Log", ["e"], ["lg"]), node("Neg", ["lg"], ["ng"]), node("Reciprocal", ["e"], ["rc"]),
    node("Min", ["ng", "rc", "l"], ["mn"]), node("Max", ["mn", "floor"], ["mx"]),
    node("ReduceL2", ["mx", "one"], ["r2"]), node("ReduceMin", ["mx", "one"], ["rm"]),
    node("Sub", ["r2", "rm"], ["d"]), node("Abs", ["d"], ["y"]),
], r(1, 4, 5, 6), 21, weights={
    "s": r(4), "b": r(4), "s4": r(4, 1, 1), "b4": r(1, 4, 1, 1), "ls": r(5, 6), "lb": r(5, 6),
    "eps": np.float32(1e-4), "two": np.float32(2.5), "floor": np.float32(-1.5)}, ints={"axes": i64(2, 3), "one": i64(1)})

made("shapes_13", [
    node("Shape", ["x"], ["shape"]), node("Gather", ["shape", "two"], ["h"]), node("Gather", ["shape", "three"], ["w"]),
    node("Div", ["h", "halve"], ["h2"]), node("Mul", ["h2", "halve"], ["h3"]), node("Unsqueeze", ["h3", "zero"], ["hu"]),
    node("Unsqueeze", ["w", "zero"], ["wu"]), node("Concat", ["one", "minus", "hu", "wu"], ["to"], axis=0),
    node("Reshape", ["x", "to"], ["a"]), node("Slice", ["a", "start", "end", "axes", "steps"], ["s"]),
    node("Tile", ["s", "repeats"], ["t"]), node("Expand", ["t", "wide"], ["e"]),
    node("Gather", ["e", "picks"], ["g"], axis=1), node("Squeeze", ["g", "zero"], ["q"]),
    node("Transpose", ["q"], ["tr"], perm=[1, 0, 2]), node("Unsqueeze", ["tr", "zero"], ["u"]),
    node("Pad", ["u", "pads"], ["y"], mode="edge"),
], r(1, 3, 6, 7), 13, ints={
    "two": np.int64(2), "three": np.int64(3), "halve": np.int64(2), "zero": i64(0), "one": i64(1), "minus": i64(-1),
    "start": i64(1, 0), "end": i64(-1, 2**62), "axes": i64(2, 3), "steps": i64(1, 3), "repeats": i64(1, 1, 2, 1),
    "wide": i64(1, 3, 8, 3), "picks": i64(2, 0, 1, -1), "pads": i64(0, 0, 0, 1, 0, -1, 2, 0)})

made("products_12", [
    node("Flatten", ["x"], ["f"]), node("Gemm", ["f", "m", "c"], ["g"], alpha=0.5, beta=2.0, transB=1),
    node("Reshape", ["g", "to"], ["h"]), node("Einsum", ["h", "h"], ["s"], equation="bhxd,bhyd->bhxy"),
    node("Softmax", ["s"], ["sm"], axis=-1), node("Einsum", ["sm", "h"], ["o"], equation="bhxy,bhyd->bxhd"),
    node("MatMul", ["o", "k"], ["mm"]), node("Add", ["mm", "kb"], ["kk"]), node("MatMul", ["left", "kk"], ["ll"]),
    node("Softmax", ["ll"], ["y"], axis=2),
], r(1, 2, 3, 4), 12, weights={"m": r(24, 24), "c": r(24), "k": r(4, 5), "kb": r(5), "left": r(3, 2)},
     ints={"to": i64(1, 2, 3, 4)})

made("labels_17", [
    node("Conv", ["x", "w"], ["a"], pads=[1] * 6), node("Relu", ["a"], ["b"]), node("Conv", ["b", "v"], ["c"]),
    node("Softmax", ["c"], ["p"], axis=1), node("ArgMax", ["p"], ["m"], axis=1, keepdims=0),
    node("Cast", ["m"], ["y"], to=TensorProto.FLOAT),
], r(1, 1, 8, 8, 8), 17, weights={"w": r(6, 1, 3, 3, 3), "v": r(3, 6, 1, 1, 1)},
     shape=["batch", 1, "i", "j", "k"],
     metadata={"labels": '{"background": 0, "Spleen": 1, "Tumor": 2}', "modality": "CT", "license": "CC0-1.0"})

tensors["labels_17/want"] = tensors["labels_17/want"].astype(np.float32)
save_file(tensors, here / "golden.safetensors")
print(sum(f.stat().st_size for f in here.iterdir()), "bytes in all")
