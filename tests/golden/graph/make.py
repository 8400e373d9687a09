"""Operations of a graph as PyTorch computes them, on small random values.

Writes ops.json (one graph per case) and ops.safetensors (inputs, weights, results).
Made with torch 2.15.0, safetensors 0.8:  python make.py
"""
import json
import pathlib

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

torch.manual_seed(20261121)
here = pathlib.Path(__file__).parent
tensors, cases = {}, []


def case(name, x, nodes, want, weights=None, extra=()):
    """nodes: graph after the input; weights: named tensors used by it."""
    graph = {"nodes": [{"op": "input", "channels": x.shape[1], "axes": x.dim() - 2}] + nodes,
             "outputs": [len(nodes)]}
    tensors[f"{name}/input"] = x.clone().contiguous()
    tensors[f"{name}/want"] = want.detach().clone().contiguous()
    for key, value in (weights or {}).items():
        tensors[f"{name}/w/{key}"] = value.detach().clone().contiguous()
    cases.append({"name": name, "graph": graph})


def r(*shape):
    return torch.randn(*shape)


def pads(p):
    return [[n, n] for n in p]


def conv(name, x, w, b, stride, padding, dilation, groups):
    axes = x.dim() - 2
    f = [F.conv1d, F.conv2d, F.conv3d][axes - 1]
    node = {"op": "conv", "weight": "w", "stride": stride, "padding": pads(padding),
            "dilation": dilation, "groups": groups, "from": [0]}
    weights = {"w": w}
    if b is not None:
        node["bias"], weights["b"] = "b", b
    case(name, x, [node], f(x, w, b, stride, padding, dilation, groups), weights)


conv("conv1d", r(1, 3, 11), r(4, 3, 3), r(4), [2], [1], [1], 1)
conv("conv2d", r(1, 3, 9, 7), r(5, 3, 3, 3), r(5), [1, 1], [1, 1], [1, 1], 1)
conv("conv2d_odd", r(1, 4, 9, 8), r(6, 2, 2, 5), None, [2, 3], [0, 2], [2, 1], 2)
conv("conv2d_depthwise", r(1, 12, 8, 8), r(12, 1, 3, 3), r(12), [1, 1], [1, 1], [1, 1], 12)
conv("conv2d_stem", r(1, 3, 23, 21), r(16, 3, 7, 7), None, [2, 2], [3, 3], [1, 1], 1)
conv("conv3d", r(1, 2, 5, 6, 7), r(4, 2, 3, 3, 3), r(4), [1, 1, 1], [1, 1, 1], [1, 1, 1], 1)
conv("conv3d_33", r(1, 33, 4, 5, 9), r(35, 33, 3, 3, 3), r(35), [1, 1, 1], [1, 1, 1], [1, 1, 1], 1)
conv("conv3d_strided", r(1, 9, 6, 7, 9), r(17, 9, 3, 3, 3), r(17), [2, 2, 2], [1, 1, 1], [1, 1, 1], 1)
conv("conv3d_anisotropic", r(1, 3, 5, 8, 9), r(8, 3, 1, 3, 3), r(8), [1, 2, 2], [0, 1, 1], [1, 1, 1], 1)
conv("conv3d_dilated", r(1, 5, 9, 10, 11), r(7, 5, 3, 3, 3), r(7), [1, 1, 1], [4, 4, 4], [4, 4, 4], 1)
conv("conv3d_pointwise", r(1, 19, 3, 4, 5), r(6, 19, 1, 1, 1), r(6), [1, 1, 1], [0, 0, 0], [1, 1, 1], 1)
conv("conv3d_groups", r(1, 16, 4, 5, 6), r(32, 8, 3, 3, 3), r(32), [1, 1, 1], [1, 1, 1], [1, 1, 1], 2)


def transposed(name, x, w, b, stride, padding, added, groups):
    axes = x.dim() - 2
    f = [F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d][axes - 1]
    node = {"op": "conv-transpose", "weight": "w", "stride": stride, "padding": pads(padding),
            "output_padding": added, "groups": groups, "from": [0]}
    weights = {"w": w}
    if b is not None:
        node["bias"], weights["b"] = "b", b
    case(name, x, [node], f(x, w, b, stride, padding, added, groups), weights)


transposed("up2d", r(1, 6, 5, 4), r(6, 3, 2, 2), r(3), [2, 2], [0, 0], [0, 0], 1)
transposed("up3d", r(1, 17, 3, 4, 5), r(17, 9, 2, 2, 2), r(9), [2, 2, 2], [0, 0, 0], [0, 0, 0], 1)
transposed("up3d_anisotropic", r(1, 4, 3, 4, 5), r(4, 9, 1, 2, 2), None, [1, 2, 2], [0, 0, 0], [0, 0, 0], 1)
transposed("up3d_overlap", r(1, 5, 3, 4, 5), r(5, 4, 3, 3, 3), r(4), [2, 2, 2], [1, 1, 1], [1, 1, 1], 1)
transposed("up2d_padded", r(1, 4, 5, 6), r(4, 3, 2, 4), r(6), [2, 2], [1, 3], [0, 1], 2)

x = r(1, 6, 4, 5, 6) * 3 + 2
affine = {"scale": "s", "shift": "b"}
s, b = r(6), r(6)
case("instance_norm", x, [{"op": "instance-norm", "epsilon": 1e-5, "affine": affine, "from": [0]}],
     F.instance_norm(x, weight=s, bias=b), {"s": s, "b": b})
case("instance_norm_plain", x, [{"op": "instance-norm", "epsilon": 1e-5, "from": [0]}], F.instance_norm(x))
case("group_norm", x, [{"op": "group-norm", "groups": 3, "epsilon": 1e-6, "affine": affine, "from": [0]}],
     F.group_norm(x, 3, s, b, 1e-6), {"s": s, "b": b})
m, v = r(6), r(6).abs() + 0.1
case("batch_norm", x, [{"op": "batch-norm", "epsilon": 1e-3, "mean": "m", "variance": "v", "affine": affine,
                        "from": [0]}],
     F.batch_norm(x, m, v, s, b, False, 0.1, 1e-3), {"s": s, "b": b, "m": m, "v": v})
case("layer_norm", x, [{"op": "layer-norm", "epsilon": 1e-5, "affine": affine, "from": [0]}],
     F.layer_norm(x, (6,), s, b), {"s": s, "b": b})

x = r(1, 4, 5, 6) * 3
slope = torch.rand(4)
for name, node, want, weights in [
    ("relu", {"op": "relu"}, F.relu(x), None),
    ("leaky_relu", {"op": "leaky-relu", "slope": 0.01}, F.leaky_relu(x, 0.01), None),
    ("prelu", {"op": "p-relu", "slope": "p"}, F.prelu(x, slope), {"p": slope}),
    ("prelu_one", {"op": "p-relu", "slope": "p"}, F.prelu(x, slope[:1]), {"p": slope[:1]}),
    ("elu", {"op": "elu", "alpha": 1.5}, F.elu(x, 1.5), None),
    ("gelu", {"op": "gelu"}, F.gelu(x), None),
    ("gelu_tanh", {"op": "gelu-tanh"}, F.gelu(x, approximate="tanh"), None),
    ("silu", {"op": "silu"}, F.silu(x), None),
    ("sigmoid", {"op": "sigmoid"}, torch.sigmoid(x), None),
    ("tanh", {"op": "tanh"}, torch.tanh(x), None),
    ("softmax", {"op": "softmax", "axis": 1}, torch.softmax(x, 1), None),
    ("softmax_last", {"op": "softmax", "axis": 3}, torch.softmax(x, 3), None),
    ("slice", {"op": "slice", "axis": 2, "start": -3, "end": 9223372036854775807}, x[:, :, -3:], None),
    ("pad", {"op": "pad", "padding": [[0, 0], [1, 2], [0, 3], [2, 0]], "mode": {"constant": 0.5}},
     F.pad(x, (2, 0, 0, 3, 1, 2), value=0.5), None),
    ("pad_reflect", {"op": "pad", "padding": [[0, 0], [0, 0], [2, 1], [3, 4]], "mode": "reflect"},
     F.pad(x, (3, 4, 2, 1), mode="reflect"), None),
    ("pad_replicate", {"op": "pad", "padding": [[0, 0], [0, 0], [2, 1], [3, 4]], "mode": "replicate"},
     F.pad(x, (3, 4, 2, 1), mode="replicate"), None),
    ("reshape", {"op": "reshape", "shape": [0, -1, 6]}, x.reshape(1, -1, 6), None),
    ("transpose", {"op": "transpose", "order": [0, 2, 3, 1]}, x.permute(0, 2, 3, 1), None),
    ("mean", {"op": "mean", "axes": [1, 3], "keep": False}, x.mean((1, 3)), None),
    ("mean_keep", {"op": "mean", "axes": [2], "keep": True}, x.mean(2, keepdim=True), None),
    ("global_average", {"op": "global-average-pool"}, F.adaptive_avg_pool2d(x, 1), None),
    ("adaptive_average", {"op": "adaptive-average-pool", "size": [3, 4]}, F.adaptive_avg_pool2d(x, (3, 4)), None),
]:
    case(name, x, [{**node, "from": [0]}], want, weights)

x = r(1, 3, 7, 8)
for kernel, stride, padding, ceil in [(2, 2, 0, False), (3, 2, 1, False), (3, 2, 1, True), (2, 2, 0, True)]:
    pool = {"kernel": [kernel] * 2, "stride": [stride] * 2, "padding": [[padding] * 2] * 2, "ceil": ceil, "from": [0]}
    tag = f"{kernel}{stride}{padding}{int(ceil)}"
    case(f"max_pool_{tag}", x, [{"op": "max-pool", **pool}], F.max_pool2d(x, kernel, stride, padding, ceil_mode=ceil))
    for count in (True, False):
        case(f"average_pool_{tag}_{int(count)}", x, [{"op": "average-pool", "count_padding": count, **pool}],
             F.avg_pool2d(x, kernel, stride, padding, ceil, count))
x = r(1, 3, 5, 6, 7)
case("max_pool3d", x, [{"op": "max-pool", "kernel": [1, 2, 2], "stride": [1, 2, 2], "padding": [[0, 0]] * 3,
                        "from": [0]}], F.max_pool3d(x, (1, 2, 2)))

for mode, torch_mode, align in [("nearest", "nearest", None), ("linear", "trilinear", False),
                                ("linear-align-corners", "trilinear", True)]:
    for to, kwargs in [({"size": [7, 4, 12]}, {"size": (7, 4, 12)}),
                       ({"factor": [2.0, 2.0, 2.0]}, {"scale_factor": (2.0, 2.0, 2.0)}),
                       ({"factor": [1.5, 0.6, 1.3]}, {"scale_factor": (1.5, 0.6, 1.3)})]:
        if mode == "linear-align-corners" and "factor" in to:
            continue
        tag = "size" if "size" in to else ("double" if to["factor"][0] == 2 else "part")
        case(f"resize_{mode}_{tag}", x, [{"op": "resize", "to": to, "mode": mode, "from": [0]}],
             F.interpolate(x, mode=torch_mode, align_corners=align, **kwargs))
x2 = r(1, 2, 5, 6)
case("resize_2d", x2, [{"op": "resize", "to": {"size": [9, 11]}, "mode": "linear", "from": [0]}],
     F.interpolate(x2, size=(9, 11), mode="bilinear", align_corners=False))

# Two values.
x = r(1, 4, 5, 6)
c, row = r(1, 4, 5, 6), r(4, 1, 1)
for name, op, f in [("add", "add", torch.add), ("sub", "sub", torch.sub), ("mul", "mul", torch.mul),
                    ("div", "div", torch.div)]:
    case(name, x, [{"op": "constant", "tensor": "c"}, {"op": op, "from": [0, 1]}], f(x, c), {"c": c})
    case(f"{name}_broadcast", x, [{"op": "constant", "tensor": "c"}, {"op": op, "from": [0, 1]}], f(x, row), {"c": row})
case("concat", x, [{"op": "constant", "tensor": "c"}, {"op": "concat", "axis": 1, "from": [0, 1, 0]}],
     torch.cat([x, c, x], 1), {"c": c})
k = r(6, 7)
case("matmul", x, [{"op": "constant", "tensor": "c"}, {"op": "mat-mul", "from": [0, 1]}], x @ k, {"c": k})
w, b = r(3, 6), r(3)
case("linear", x, [{"op": "linear", "weight": "w", "bias": "b", "from": [0]}], F.linear(x, w, b), {"w": w, "b": b})
q, kk, vv = x, r(1, 4, 9, 6), r(1, 4, 9, 8)
case("attention", q, [{"op": "constant", "tensor": "k"}, {"op": "constant", "tensor": "v"},
                      {"op": "attention", "scale": 0.3, "from": [0, 1, 2]}],
     F.scaled_dot_product_attention(q, kk, vv, scale=0.3), {"k": kk, "v": vv})

save_file(tensors, here / "ops.safetensors")
(here / "ops.json").write_text("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")
print(len(cases), "cases")
