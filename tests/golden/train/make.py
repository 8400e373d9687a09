"""Losses of the first 20 steps by PyTorch, for networks whose weights and data come from formulas.

    python make.py > losses.json

The networks are those of src/training/build, tensors named and ordered as there. Everything is
computed in f32 as PyTorch does it; the test compares with a relative tolerance of 1e-3, since
sums are in another order and differences grow from step to step.
"""

import json
import math

import torch
import torch.nn.functional as F

torch.manual_seed(0)
torch.set_num_threads(2)


def numbers(count, seed):
    n = torch.arange(count, dtype=torch.int64)
    return (((n * 7919 + seed * 104729) % 2003).double() / 1001.5 - 1.0).float()


class Tensors:
    def __init__(self):
        self.all = {}
        self.decayed = set()

    def need(self, name, shape, role, fan_in=1):
        if name not in self.all:
            count = math.prod(shape)
            seed = len(self.all) + 1
            if role == "weight":
                value = numbers(count, seed) * math.sqrt(6.0 / fan_in) / 1.0
                self.decayed.add(name)
            elif role == "scale" or role == "variance":
                value = 1.0 + 0.1 * numbers(count, seed)
            else:
                value = 0.1 * numbers(count, seed)
            value = value.reshape(shape)
            self.all[name] = value.requires_grad_(role not in ("mean", "variance"))
        return self.all[name]


class Net:
    def __init__(self, axes, norm, slope):
        self.t, self.axes, self.norm, self.slope = Tensors(), axes, norm, slope

    def conv(self, name, x, output, kernel, stride, bias):
        conv = F.conv2d if self.axes == 2 else F.conv3d
        fan_in = x.shape[1] * kernel**self.axes
        w = self.t.need(f"{name}.weight", [output, x.shape[1]] + [kernel] * self.axes, "weight", fan_in)
        b = self.t.need(f"{name}.bias", [output], "offset") if bias else None
        return conv(x, w, b, stride=stride, padding=(kernel - 1) // 2)

    def normalize(self, name, x):
        c = [x.shape[1]]
        w = self.t.need(f"{name}.weight", c, "scale")
        b = self.t.need(f"{name}.bias", c, "offset")
        if self.norm == "batch":
            m = self.t.need(f"{name}.running_mean", c, "mean")
            v = self.t.need(f"{name}.running_var", c, "variance")
            return F.batch_norm(x, m, v, w, b, training=True, momentum=0.1, eps=1e-5)
        return F.instance_norm(x, weight=w, bias=b, eps=1e-5)

    def activate(self, x):
        return F.leaky_relu(x, self.slope) if self.slope else F.relu(x)

    def layer(self, name, x, output, stride):
        x = self.conv(f"{name}.conv", x, output, 3, stride, False)
        return self.activate(self.normalize(f"{name}.norm", x))


class Residual(Net):
    def __init__(self):
        super().__init__(2, "batch", 0.0)

    def __call__(self, x):
        widths = [8, 16]
        x = self.layer("stem", x, widths[0], 1)
        for stage, width in enumerate(widths):
            name, stride = f"stage{stage}.block0", 2 if stage else 1
            y = self.layer(f"{name}.0", x, width, stride)
            y = self.normalize(f"{name}.1.norm", self.conv(f"{name}.1.conv", y, width, 3, 1, False))
            if stride == 2:
                x = self.conv(f"{name}.skip.conv", x, width, 1, stride, False)
                x = self.normalize(f"{name}.skip.norm", x)
            x = F.relu(x + y)
        x = x.mean((2, 3))
        w = self.t.need("head.weight", [3, x.shape[1]], "weight", x.shape[1])
        return F.linear(x, w, self.t.need("head.bias", [3], "offset"))


class Unet(Net):
    def __init__(self):
        super().__init__(3, "instance", 0.01)

    def __call__(self, x):
        widths, skips = [8, 16, 24], []
        for level, width in enumerate(widths):
            x = self.layer(f"down{level}.0", x, width, 2 if level else 1)
            x = self.layer(f"down{level}.1", x, width, 1)
            skips.append(x)
        for level in [1, 0]:
            width = widths[level]
            w = self.t.need(f"up{level}.conv.weight", [x.shape[1], width, 2, 2, 2], "weight", x.shape[1])
            b = self.t.need(f"up{level}.conv.bias", [width], "offset")
            x = torch.cat([F.conv_transpose3d(x, w, b, stride=2), skips[level]], 1)
            x = self.layer(f"up{level}.0", x, width, 1)
            x = self.layer(f"up{level}.1", x, width, 1)
        return self.conv("head", x, 3, 1, 1, True)


def dice_cross_entropy(z, y):
    p = z.softmax(1)
    t = F.one_hot(y, z.shape[1]).movedim(-1, 1).float()
    axes = [0] + list(range(2, z.dim()))
    both, below = (p * t).sum(axes), p.sum(axes) + t.sum(axes)
    dice = (2 * both + 1e-5) / (below + 1e-5)
    return F.cross_entropy(z, y) + 1 - dice[1:].mean()


def rate(step, peak, warm, total):
    if step < warm:
        return peak * (step + 1) / warm
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm))))


def run(net, shape, loss, optimizer):
    images = lambda step: numbers(math.prod(shape), 500 + step).reshape(shape)
    count = shape[0] if isinstance(net, Residual) else math.prod(shape)
    net(images(0))
    for name, tensor in net.t.all.items():  # the first call moved running statistics
        if "running" in name:
            seed = list(net.t.all).index(name) + 1
            base = 1.0 if name.endswith("var") else 0.0
            tensor.copy_(base + 0.1 * numbers(tensor.numel(), seed))
    trained = [(n, t) for n, t in net.t.all.items() if t.requires_grad]
    groups = [
        {"params": [t for n, t in trained if n in net.t.decayed], "decayed": True},
        {"params": [t for n, t in trained if n not in net.t.decayed], "decayed": False},
    ]
    optimizer = optimizer(groups)
    losses = []
    for step in range(20):
        x = images(step)
        # Something to learn: the class is told by the mean of a part.
        if isinstance(net, Residual):
            y = (torch.arange(shape[0]) + step) % 3
            x = x + (y.float() - 1).reshape(-1, 1, 1, 1)
        else:
            y = ((torch.arange(count) // 7 + step) % 3).reshape([shape[0]] + shape[2:])
            x = x + 0.5 * y.float().unsqueeze(1)
        optimizer.zero_grad()
        value = loss(net(x), y)
        value.backward()
        torch.nn.utils.clip_grad_norm_([t for _, t in trained], 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate(step, optimizer.peak, 5, 20)
        optimizer.step()
        losses.append(value.item())
    return losses


def adamw(groups):
    for g in groups:
        g["weight_decay"] = 0.05 if g.pop("decayed") else 0.0
    made = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.999), eps=1e-8)
    made.peak = 1e-2
    return made


def sgd(groups):
    for g in groups:
        g.pop("decayed")
    made = torch.optim.SGD(groups, lr=5e-3, momentum=0.9, nesterov=True)
    made.peak = 5e-3
    return made


weights = torch.tensor([0.5, 1.0, 1.5])
smooth = lambda z, y: F.cross_entropy(z, y, weight=weights, label_smoothing=0.1)
print(json.dumps({
    "made_with": f"PyTorch {torch.__version__}",
    "residual_2d": run(Residual(), [6, 1, 20, 18], smooth, adamw),
    "unet_3d": run(Unet(), [2, 1, 16, 12, 8], dice_cross_entropy, sgd),
}, indent=1))
