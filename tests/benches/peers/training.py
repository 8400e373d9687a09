"""Steps of training beside PyTorch: the same networks, batch, loss and optimizer, in alternation.

    VENV/bin/python training.py [--rounds 7] [--threads 2] [--profile bench] [--curve 20]

`cnn`: the compact residual network, 16 images of 224 x 224; `unet`: the 3-D U-Net, 2 pieces of 48^3,
Dice + cross-entropy; AdamW. PyTorch runs in its default layout and in channels last; a round is one
step of each after two that do not count. The table has median seconds, and our throughput as a part
of the best peer's. Nothing else should run meanwhile.

`--curve N`: both begin with the same weights, images and targets (ours, written to a file), and the
losses of N steps are compared; nothing is timed.
"""

import argparse
import array
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]


def read_start(path):
    """Rows of numbers, each behind its length: what the bench writes."""
    data = memoryview(pathlib.Path(path).read_bytes())
    while data:
        count = int.from_bytes(data[:8], "little")
        yield array.array("f", data[8 : 8 + 4 * count].tobytes())
        data = data[8 + 4 * count :]


def torch_side(name, layout, threads, begin=None):
    import torch
    import torch.nn.functional as F
    from torch import nn

    torch.set_num_threads(threads)
    torch.manual_seed(1)
    three = name == "unet"
    conv, up = (nn.Conv3d, nn.ConvTranspose3d) if three else (nn.Conv2d, None)

    def layer(i, o, stride):
        norm = nn.InstanceNorm3d(o, affine=True) if three else nn.BatchNorm2d(o)
        act = nn.LeakyReLU(0.01, inplace=True) if three else nn.ReLU(inplace=True)
        return nn.Sequential(conv(i, o, 3, stride, 1, bias=False), norm, act)

    class Block(nn.Module):
        def __init__(self, i, o, stride):
            super().__init__()
            self.a = layer(i, o, stride)
            self.b = nn.Sequential(conv(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o))
            self.skip = nn.Sequential()
            if stride != 1 or i != o:
                self.skip = nn.Sequential(conv(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))

        def forward(self, x):
            return F.relu(self.b(self.a(x)) + self.skip(x), inplace=True)

    class Unet(nn.Module):
        def __init__(self, widths):
            super().__init__()
            self.down, self.up = nn.ModuleList(), nn.ModuleList()
            i = 1
            for n, w in enumerate(widths):
                self.down.append(nn.Sequential(layer(i, w, 2 if n else 1), layer(w, w, 1)))
                i = w
            for w in reversed(widths[:-1]):
                joined = nn.Sequential(layer(2 * w, w, 1), layer(w, w, 1))
                self.up.append(nn.ModuleList([up(i, w, 2, 2), joined]))
                i = w
            self.head = conv(i, 3, 1)

        def forward(self, x):
            skips = []
            for down in self.down:
                x = down(x)
                skips.append(x)
            for n, (up, joined) in enumerate(self.up):
                x = joined(torch.cat([up(x), skips[-2 - n]], 1))
            return self.head(x)

    widths = [16, 32, 64, 128]
    if three:
        net, x = Unet(widths), torch.randn(2, 1, 48, 48, 48)
        y = torch.randint(0, 3, (2, 48, 48, 48))
        memory = torch.channels_last_3d
    else:
        blocks = [Block(i, o, 2 if n else 1) for n, (i, o) in enumerate(zip([16] + widths, widths))]
        net = nn.Sequential(layer(1, 16, 2), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 2))
        x, y = torch.randn(16, 1, 224, 224), torch.randint(0, 2, (16,))
        memory = torch.channels_last
    if begin:
        tensors = list(read_start(begin))
        between = tensors.index(array.array("f"))
        with torch.no_grad():
            assert between == len(list(net.parameters()))
            for parameter, values in zip(net.parameters(), tensors):
                parameter.copy_(torch.tensor(values).reshape(parameter.shape))
        x = torch.tensor(tensors[between + 1]).reshape(x.shape)
        y = torch.tensor(tensors[between + 2]).long().reshape(y.shape)
    if layout == "last":
        net, x = net.to(memory_format=memory), x.to(memory_format=memory)

    def loss(z):
        value = F.cross_entropy(z, y)
        if three:
            p, t = z.softmax(1), F.one_hot(y, 3).movedim(-1, 1).float()
            axes = (0, 2, 3, 4)
            dice = (2 * (p * t).sum(axes) + 1e-5) / (p.sum(axes) + t.sum(axes) + 1e-5)
            value = value + 1 - dice[1:].mean()
        return value

    # As usual, and as ours: biases, scales and shifts do not decay.
    groups = [[p for p in net.parameters() if (p.ndim > 1) == decays] for decays in (True, False)]
    groups = [{"params": groups[0], "weight_decay": 0.01}, {"params": groups[1], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    print("ready", sum(p.numel() for p in net.parameters()), flush=True)
    for line in sys.stdin:
        if line.strip() != "run":
            break
        start = time.perf_counter()
        optimizer.zero_grad()
        value = loss(net(x))
        value.backward()
        optimizer.step()
        print(time.perf_counter() - start, value.item(), flush=True)
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM:"):
            print(line.split()[1], flush=True)


class Engine:
    def __init__(self, label, command, threads):
        self.label, self.times = label, []
        environment = dict(os.environ, RAYON_NUM_THREADS=str(threads), OMP_NUM_THREADS=str(threads))
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
        )
        while not (line := self.process.stdout.readline()).startswith("ready"):
            if not line:
                sys.exit(f"{label} ended")
        self.weights = int(line.split()[1])

    def step(self):
        """Seconds and loss."""
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        return tuple(map(float, self.process.stdout.readline().split()))

    def end(self):
        self.process.stdin.write("end\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline()) / 1024


def curves(ours, me, threads, steps):
    """Losses of both from the same begin."""
    with tempfile.TemporaryDirectory() as folder:
        begin = str(pathlib.Path(folder) / "begin")
        first = Engine("ours", [*ours, begin], threads)
        peer = Engine("PyTorch", [*me, "default", begin], threads)
        losses = [(first.step()[1], peer.step()[1]) for _ in range(steps)]
        apart = [abs(a - b) / abs(b) for a, b in losses]
        for number, ((a, b), d) in enumerate(zip(losses, apart)):
            print(f"  step {number:2}  ours {a:.6f}  PyTorch {b:.6f}  relative {d:.1e}")
        print(f"  largest relative difference of {steps} steps: {max(apart):.1e}", flush=True)
        for engine in (first, peer):
            engine.end()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--profile", default="bench")
    parser.add_argument("--ours", help="a program that is built already, called with the network's name")
    parser.add_argument("--only", choices=["cnn", "unet"])
    parser.add_argument("--curve", type=int, help="compare the losses of so many steps in place of the time")
    parser.add_argument("--torch", nargs="+")
    arguments = parser.parse_args()
    if arguments.torch:
        name, layout, *begin = arguments.torch
        return torch_side(name, layout, arguments.threads, *begin)
    for name in ["cnn", "unet"]:
        if arguments.only not in (None, name):
            continue
        ours = ["cargo", "bench", "--quiet", "--profile", arguments.profile, "--bench", "negatoscope", "--", "training", name]
        if arguments.ours:
            ours = [arguments.ours, name]
        threads = arguments.threads
        me = [sys.executable, __file__, "--threads", str(threads), "--torch", name]
        if arguments.curve:
            print(name, flush=True)
            curves(ours, me, threads, arguments.curve)
            continue
        engines = [
            Engine("ours", ours, threads),
            Engine("PyTorch", [*me, "default"], threads),
            Engine("PyTorch, channels last", [*me, "last"], threads),
        ]
        assert len({e.weights for e in engines}) == 1, [e.weights for e in engines]
        for n in range(arguments.rounds + 2):
            for engine in engines:
                seconds, _ = engine.step()
                if n >= 2:
                    engine.times.append(seconds)
        medians = {e.label: statistics.median(e.times) for e in engines}
        best = min(seconds for label, seconds in medians.items() if label != "ours")
        print(f"{name}: {engines[0].weights} weights")
        for engine in engines:
            print(f"  {engine.label:<24} {medians[engine.label]:.3f} s  {engine.end():.0f} MB")
        print(f"  throughput of the best peer's: {best / medians['ours']:.2f}", flush=True)


if __name__ == "__main__":
    main()
