"""LeViT and T2T-ViT in torch with early exits, and the recipe of workloads whose training needs a GPU.

LeViT: Graham et al., "LeViT: a Vision Transformer in ConvNet's Clothing for Faster Inference", 2021, arXiv 2104.01136; its
exits: Patne et al., "DART", 2026, arXiv 2603.12269. T2T-ViT: Yuan et al., "Tokens-to-Token ViT: Training Vision
Transformers from Scratch on ImageNet", 2021, arXiv 2101.11986; its exits: Regol et al., "Jointly-Learned Exit and Inference
for a Dynamic Neural Network (JEI-DNN)", 2024, arXiv 2310.09163.

Such a workload travels without weights and without a trace: `network` writes its network.onnx (topology and shapes) and
network.yaml; `train` (CUDA only) writes trained.onnx, which stays where it was made; `record` runs that one.
"""

import argparse
import copy
import math
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import cifar10
from .raw import stop

try:
    import torch
    from torch import nn
    from torch.nn import functional
except ImportError:
    stop("this recipe needs torch; install it with pip install 'eesim[torch]'")

from .networks import MultiExit

SIZE = 224
"""Height and width of the images these networks take; CIFAR-10 is enlarged to it."""


def folded(network):
    """A copy for inference: batch norms merged into the layers beside them, tables of learned biases written out."""
    network = copy.deepcopy(network).eval()
    with torch.no_grad():
        for module in list(network.modules()):
            if hasattr(module, "fold"):
                module.fold()
    return network


# --- LeViT -----------------------------------------------------------------------------------------------------------------


class Projection(nn.Module):
    """A fully connected layer over tokens [n, T, C] with batch normalisation behind it. `start`: its first scale."""

    def __init__(self, inputs, outputs, start=1.0):
        super().__init__()
        self.linear, self.norm = nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs)
        nn.init.trunc_normal_(self.linear.weight, std=0.02)
        nn.init.constant_(self.norm.weight, start)

    def forward(self, x):
        x = self.linear(x)
        return x if self.norm is None else self.norm(x.flatten(0, 1)).view_as(x)

    def fold(self):
        self.linear, self.norm = nn.utils.fuse_linear_bn_eval(self.linear, self.norm), None


class NormedClassifier(nn.Module):
    """Batch normalisation, then the classifier (LeViT's own head, without the distillation one)."""

    def __init__(self, inputs, classes):
        super().__init__()
        self.norm, self.linear = nn.BatchNorm1d(inputs), nn.Linear(inputs, classes)
        nn.init.trunc_normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x):
        return self.linear(x if self.norm is None else self.norm(x))

    def fold(self):
        scale = self.norm.weight / (self.norm.running_var + self.norm.eps).sqrt()
        self.linear.bias += self.linear.weight @ (self.norm.bias - self.norm.running_mean * scale)
        self.linear.weight *= scale
        self.norm = None


class BiasedAttention(nn.Module):
    """LeViT's attention over size x size tokens: a learned bias for each offset between query and key, HardSwish before the output.

    With a stride, queries are taken from every second token each way, so that the map shrinks; `ratio`: width of a value over
    that of a key.
    """

    KEY = 16

    def __init__(self, inputs, outputs, heads, ratio, size, stride=1, start=1.0):
        super().__init__()
        value = ratio * self.KEY
        self.heads, self.size, self.stride, self.width = heads, size, stride, heads * value
        self.parts = [self.KEY, value] if stride > 1 else [self.KEY, self.KEY, value]
        self.mixed = Projection(inputs, heads * sum(self.parts))
        self.query = Projection(inputs, heads * self.KEY) if stride > 1 else None
        self.output = Projection(self.width, outputs, start)
        offset, count = offsets(size, stride)
        self.bias = nn.Parameter(torch.zeros(heads, count))
        self.register_buffer("offset", offset, persistent=False)

    def forward(self, x):
        parts = self._by_head(self.mixed(x)).split(self.parts, dim=3)
        query = parts[0] if self.query is None else self._by_head(self.query(self._thinned(x)))
        keys, values = parts[-2:]
        bias = self.bias if self.offset is None else self.bias[:, self.offset]
        weights = torch.softmax(query * self.KEY**-0.5 @ keys.transpose(2, 3) + bias, dim=3)
        mixed = (weights @ values).transpose(1, 2).reshape(-1, query.shape[2], self.width)
        return self.output(functional.hardswish(mixed))

    def _by_head(self, x):
        return x.view(-1, x.shape[1], self.heads, x.shape[2] // self.heads).transpose(1, 2)

    def _thinned(self, x):
        kept = x.view(-1, self.size, self.size, x.shape[2])[:, :: self.stride, :: self.stride]
        return kept.reshape(-1, kept.shape[1] * kept.shape[2], x.shape[2])

    def fold(self):
        """The bias of every pair of query and key, as LeViT keeps it for inference."""
        self.bias, self.offset = nn.Parameter(self.bias[:, self.offset]), None


def offsets(size, stride):
    """For each query and key of a size x size map, which offset (|rows|, |columns|) lies between them; and how many there are."""
    keys = [(row, column) for row in range(size) for column in range(size)]
    queries = [(row, column) for row in range(0, size, stride) for column in range(0, size, stride)]
    known: dict[tuple[int, int], int] = {}
    pairs = [[known.setdefault((abs(a - c), abs(b - d)), len(known)) for c, d in keys] for a, b in queries]
    return torch.tensor(pairs), len(known)


class Added(nn.Module):
    """A residual connection around a module."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


def expanded(channels, ratio=2):
    """LeViT's MLP, residual: both layers batch-normalised, HardSwish between them; it starts as the identity."""
    return Added(nn.Sequential(Projection(channels, ratio * channels), nn.Hardswish(), Projection(ratio * channels, channels, 0.0)))


class ConvolutionTokens(nn.Module):
    """LeViT's embedding: four 3x3 convolutions of stride 2 from the image to 14 x 14 tokens."""

    def __init__(self, channels):
        super().__init__()
        layers, inputs = [], 3
        for outputs in (channels // 8, channels // 4, channels // 2, channels):
            layers += [nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.Hardswish()]
            inputs = outputs
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x):
        return self.layers(x).flatten(2).transpose(1, 2)


class Pooled(nn.Module):
    """The mean over tokens."""

    def forward(self, x):
        return x.mean(dim=1)


def pooled_head(channels, classes, hidden=256):
    """DART's exit of a LeViT: layer normalisation, mean over tokens, a hidden layer."""
    return nn.Sequential(
        nn.LayerNorm(channels), Pooled(), nn.Linear(channels, hidden), nn.GELU(), nn.Dropout(0.1), nn.Linear(hidden, classes)
    )  # fmt: skip


def levit(channels, heads, depths, classes=10):
    """LeViT with exits after its convolutions and its first two stages, as DART's code places them; the last one is its own."""
    segments, size = [ConvolutionTokens(channels[0])], SIZE // 16
    for stage, (width, count, depth) in enumerate(zip(channels, heads, depths)):
        blocks = []
        if stage:
            before = channels[stage - 1]
            blocks = [BiasedAttention(before, width, before // BiasedAttention.KEY, 4, size, stride=2), expanded(width)]
            size = (size + 1) // 2
        for _ in range(depth):
            blocks += [Added(BiasedAttention(width, width, count, 2, size, start=0.0)), expanded(width)]
        segments.append(nn.Sequential(*blocks))
    early = [pooled_head(width, classes) for width in (channels[0], *channels[:-1])]
    return MultiExit(segments, [*early, nn.Sequential(Pooled(), NormedClassifier(channels[-1], classes))])


def levit_128s(classes=10):
    """LeViT-128S: the smallest of the paper."""
    return levit((128, 256, 384), (4, 6, 8), (2, 3, 4), classes)


# --- T2T-ViT ---------------------------------------------------------------------------------------------------------------


class Performer(nn.Module):
    """T2T's token transformer with linear attention (Choromanski et al. 2021): one head, positive random features of a softmax kernel.

    The values serve as the skip connection, because the width changes.
    """

    def __init__(self, inputs, width=64, features=32):
        super().__init__()
        self.width, self.features = width, features
        self.before, self.after = nn.LayerNorm(inputs), nn.LayerNorm(width)
        self.mixed, self.output = nn.Linear(inputs, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        directions = nn.init.orthogonal_(torch.empty(features, width)) * math.sqrt(features)
        self.register_buffer("directions", directions)

    def kernel(self, x):
        return torch.exp(x @ self.directions.T - (x * x).sum(dim=2, keepdim=True) / 2) / math.sqrt(self.features)

    def forward(self, x):
        keys, queries, values = self.mixed(self.before(x)).split(self.width, dim=2)
        keys, queries = self.kernel(keys), self.kernel(queries)
        scale = queries @ keys.sum(dim=1).unsqueeze(2) + 1e-8
        x = values + self.output(queries @ (keys.transpose(1, 2) @ values) / scale)
        return x + self.mlp(self.after(x))


class SoftSplit(nn.Module):
    """Windows of a size x size image [n, C, s, s] as tokens [n, T, C * kernel * kernel]: torch's unfold, by gathering rows and columns."""

    def __init__(self, size, kernel, stride, padding):
        super().__init__()
        self.padding, self.window = padding, kernel**2
        starts = torch.arange(0, size + 2 * padding - kernel + 1, stride)
        self.tokens = len(starts) ** 2
        self.register_buffer("places", starts.unsqueeze(1) + torch.arange(kernel), persistent=False)

    def forward(self, image):
        windows = functional.pad(image, (self.padding,) * 4)[:, :, self.places][..., self.places]  # [n, C, rows, kernel, columns, kernel]
        return windows.permute(0, 2, 4, 1, 3, 5).reshape(-1, self.tokens, image.shape[1] * self.window)


class TokensToToken(nn.Module):
    """T2T's tokens: three soft splits (overlapping windows laid out as tokens), a performer behind the first and the second."""

    def __init__(self, channels, width=64):
        super().__init__()
        self.splits = nn.ModuleList([SoftSplit(SIZE, 7, 4, 2), SoftSplit(SIZE // 4, 3, 2, 1), SoftSplit(SIZE // 8, 3, 2, 1)])
        self.performers = nn.ModuleList([Performer(3 * 7 * 7, width), Performer(width * 3 * 3, width)])
        self.project = nn.Linear(width * 3 * 3, channels)

    def forward(self, x):
        for split, performer in zip(self.splits, self.performers):
            x = as_map(performer(split(x)))
        return self.project(self.splits[2](x))


def as_map(tokens):
    """Tokens [n, s * s, C] as an image [n, C, s, s]."""
    side = math.isqrt(int(tokens.shape[1]))
    return tokens.transpose(1, 2).reshape(-1, tokens.shape[2], side, side)


class ClassToken(nn.Module):
    """Puts the learned class token before the others and adds sinusoidal positions (Vaswani et al. 2017)."""

    def __init__(self, tokens, channels):
        super().__init__()
        self.token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, channels), std=0.02))
        self.register_buffer("positions", sinusoids(tokens + 1, channels))

    def forward(self, x):
        rows = self.positions if self.token is None else torch.cat([self.positions[:1] + self.token, self.positions[1:]])
        return functional.pad(x, (0, 0, 1, 0)) + rows

    def fold(self):
        """Token and positions are one table."""
        self.positions[:1] += self.token
        self.token = None


def sinusoids(rows, columns):
    """sin and cos of the row at falling frequencies, in turn over the columns."""
    angles = torch.arange(rows).unsqueeze(1) / 10_000 ** (torch.arange(0, columns, 2) / columns)
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)


class SelfAttention(nn.Module):
    """Attention of a vision transformer; no bias in its first layer, as in T2T-ViT."""

    def __init__(self, channels, heads):
        super().__init__()
        self.heads, self.scale = heads, (channels // heads) ** -0.5
        self.mixed, self.output = nn.Linear(channels, 3 * channels, bias=False), nn.Linear(channels, channels)

    def forward(self, x):
        tokens, channels = x.shape[1:]
        mixed = self.mixed(x).view(-1, tokens, 3 * self.heads, channels // self.heads).transpose(1, 2)
        queries, keys, values = mixed.split(self.heads, dim=1)
        weights = torch.softmax(queries * self.scale @ keys.transpose(2, 3), dim=3)
        return self.output((weights @ values).transpose(1, 2).reshape(-1, tokens, channels))


def block(channels, heads, ratio):
    """A transformer block: attention and MLP, each behind a layer normalisation and with a residual connection."""
    attention = nn.Sequential(nn.LayerNorm(channels), SelfAttention(channels, heads))
    mlp = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, ratio * channels), nn.GELU(), nn.Linear(ratio * channels, channels))
    return nn.Sequential(Added(attention), Added(mlp))


class FirstToken(nn.Module):
    """The class token alone."""

    def forward(self, x):
        return x[:, 0]


def t2t_vit(channels, depth, heads, ratio, classes=10):
    """T2T-ViT with JEI-DNN's exits: after each block one linear layer on the class token, behind one shared layer normalisation."""
    segments = [block(channels, heads, ratio) for _ in range(depth)]
    segments[0] = nn.Sequential(TokensToToken(channels), ClassToken((SIZE // 16) ** 2, channels), segments[0])
    norm = nn.LayerNorm(channels)
    network = MultiExit(segments, [nn.Sequential(FirstToken(), norm, nn.Linear(channels, classes)) for _ in segments])
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network


def t2t_vit_7(classes=10):
    """The smallest T2T-ViT of the paper."""
    return t2t_vit(256, 7, 4, 2, classes)


def t2t_vit_14(classes=10):
    """T2T-ViT of ResNet-50's size."""
    return t2t_vit(384, 14, 6, 3, classes)


# --- The recipe ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """What a workload's own `recipe.py` has to say. final_head: name of the node where the last exit's own head begins."""

    folder: Path
    build: Any
    final_head: str
    plan: Any
    """recipes.training.Plan; untested on the full data, see the card."""

    @property
    def trained(self):
        return self.folder / "trained.onnx"


def run(recipe):
    """The command line: network, train, record, card."""
    parser = argparse.ArgumentParser(description=f"Recipe of the workload {recipe.folder.name}.")
    verbs = {
        "network": "write network.onnx, without weights, and network.yaml",
        "train": "train on CIFAR-10 enlarged to 224 x 224 and write trained.onnx; needs CUDA",
        "record": "run trained.onnx and write trace.parquet",
        "card": "print the card's tables",
    }
    parser.add_argument("verb", choices=verbs, help="; ".join(f"{verb}: {what}" for verb, what in verbs.items()))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.verb == "network":
        write(recipe)
    elif options.verb == "train":
        train(recipe, options.seed)
    elif options.verb == "record":
        record(recipe, options.seed)
    else:
        from .card import print_card

        print_card(recipe.folder)


def write(recipe, folder=None):
    """network.onnx without weights and network.yaml, into the workload's folder or another one; the same bytes each time."""
    import onnx

    from eesim.network import write_network
    from eesim.network.onnx_import import import_onnx

    from .export import weightless

    folder = Path(folder or recipe.folder)
    path = folder / "network.onnx"
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as aside:
        model = weightless(exported(folded(drawn(recipe.build())), Path(aside) / "network.onnx", batch=1))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))
    write_network(import_onnx(path, name=recipe.folder.name, final_head=recipe.final_head), folder / "network.yaml")
    print(f"wrote {path.name}: {path.stat().st_size / 1e3:.0f} kB, and network.yaml", file=sys.stderr)


def drawn(network, seed=0):
    """The network with every number drawn: equal ones (zero biases) would be exported as one tensor."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for values in (*network.parameters(), *network.buffers()):
            if values.is_floating_point():
                values += 0.02 * torch.randn(values.shape, generator=draw)
    return network


def exported(network, path, batch=None):
    """The ONNX model of a network, with weights, after a run against torch; `path` is written. batch: fixed to this, else any."""
    import warnings

    import numpy as np
    import onnx

    from .export import run as run_onnx

    image = torch.rand(batch or 1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = np.stack([logits.numpy() for logits in network(image)])
        names = [f"logits_{exit}" for exit in range(len(expected))]
        axes = {} if batch else {name: {0: "n"} for name in ("image", *names)}
        options = {"input_names": ["image"], "output_names": names, "dynamic_axes": axes}
        torch.onnx.export(network, (image,), str(path), dynamo=False, opset_version=20, **options)  # 20: GELU is one operator
    found = np.stack(run_onnx(path, {"image": image.numpy()}))
    difference, allowed = np.abs(found - expected).max(), 1e-3 * max(1.0, np.abs(expected).max())
    if not difference <= allowed:  # also where one of them is no number
        stop(f"{path.name} and torch differ by {difference:.1e}")
    return onnx.load(str(path))


class Enlarged(nn.Module):
    """A network that takes small images, for training: they are enlarged where the network runs."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    @property
    def segments(self):
        return self.network.segments

    @property
    def heads(self):
        return self.network.heads

    def forward(self, x):
        return self.network(enlarged(x))


def enlarged(images):
    """Images [n, 3, h, w] at 224 x 224, bilinear."""
    return functional.interpolate(images, size=(SIZE, SIZE), mode="bilinear", align_corners=False)


def train(recipe, seed=0):
    """Train all exits jointly from scratch and write trained.onnx. An interrupted training goes on where it stopped."""
    from .training import train as learn

    if not torch.cuda.is_available():
        stop(f"training {recipe.folder.name} on 224 x 224 images needs a GPU with CUDA, and torch finds none here")
    samples, draw = cifar10.training()
    torch.manual_seed(seed)
    network = recipe.build()
    state = recipe.folder / "training.pt"
    learn(Enlarged(network), recipe.plan, samples, draw, seed, state)
    exported(folded(network), recipe.trained)
    state.unlink()


def record(recipe, seed=0):
    """Run trained.onnx over calibration and test images and write trace.parquet; without features.

    The recorder averages what enters a head over its last axis; of tokens [n, T, C] that would be the channels.
    """
    from eesim.trace import record as record_trace

    if not recipe.trained.is_file():
        stop(f"{recipe.trained.name} is missing in {recipe.folder}; python recipe.py train makes it, on a GPU with CUDA")
    trace = record_trace(
        recipe.trained,
        batches(),
        recipe.folder / "trace.parquet",
        network=recipe.folder.name,
        classes=cifar10.CLASSES,
        features=False,
        input_range=(0.0, 1.0),
        source=cifar10.DATASET,
        split_rule=cifar10.SPLIT_RULE,
        training_mode="joint",
        recipe="recipe.py",
        seed=seed,
        final_head=recipe.final_head,
        progress=lambda done, total: print(f"\r{done}", end="", file=sys.stderr, flush=True),
    )
    print(f"\nwrote trace.parquet: {len(trace)} samples", file=sys.stderr)


def batches(images=256):
    """The dataset for the recorder, enlarged a batch at a time: whole it would take 9 GB."""
    data = cifar10.dataset()
    for begin in range(0, len(data["label"]), images):
        part = {name: values[begin : begin + images] for name, values in data.items()}
        yield {**part, "image": enlarged(torch.from_numpy(part["image"])).numpy()}
