"""Multi-exit networks in torch: a list of segments and a head after each. Batch normalisation folds into its convolution on export."""

from itertools import pairwise

import torch
from torch import nn


class MultiExit(nn.Module):
    """Backbone cut into segments, a head after each. `forward` returns one logits tensor [n, K] per exit."""

    def __init__(self, segments, heads):
        super().__init__()
        self.segments, self.heads = nn.ModuleList(segments), nn.ModuleList(heads)

    def forward(self, x):
        outputs = []
        for segment, head in zip(self.segments, self.heads):
            x = segment(x)
            outputs.append(head(x))
        return outputs


def convolution(inputs, outputs, kernel=3, stride=1, groups=1):
    """Convolution, batch normalisation, ReLU; `kernel` an int or a pair."""
    padding = tuple(k // 2 for k in kernel) if isinstance(kernel, tuple) else kernel // 2
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class Residual(nn.Module):
    """Basic block of He et al. 2016: two 3x3 convolutions and a shortcut, 1x1 where the shape changes."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.first = convolution(inputs, outputs, 3, stride)
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs))
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        return torch.relu(self.second(self.first(x)) + self.shortcut(x))


def grid_head(channels, size, grid, classes):
    """Average pool from size x size to grid x grid, then one fully connected layer."""
    return nn.Sequential(nn.AvgPool2d(size // grid), nn.Flatten(), nn.Linear(channels * grid * grid, classes))


def hidden(*sizes, dropout=0.2):
    """Fully connected layers of these sizes, each with ReLU and dropout after it."""
    return [layer for pair in pairwise(sizes) for layer in (nn.Linear(*pair), nn.ReLU(inplace=True), nn.Dropout(dropout))]


def resnet8(classes=10):
    """The image network of MLPerf Tiny (ResNet-8, 12.5 M MACs) with exits after the stem and each of the three blocks."""
    segments = [convolution(3, 16), Residual(16, 16, 1), Residual(16, 32, 2), nn.Sequential(Residual(32, 64, 2), nn.AvgPool2d(8))]
    heads = [grid_head(16, 32, 4, classes), grid_head(16, 32, 4, classes), grid_head(32, 16, 4, classes)]
    return MultiExit(segments, [*heads, nn.Sequential(nn.Flatten(), nn.Linear(64, classes))])


def scaled(width):
    """Channels at a width multiplier."""
    return lambda channels: max(8, round(channels * width))


def convolution_head(channels, size, width, classes):
    """DART's exit of AlexNet and VGG: 3x3 convolution to half the channels, pooled to at most 4 x 4, two fully connected layers."""
    half, grid = max(4, channels // 2), min(4, size)
    pool, wide = [nn.AvgPool2d(size // grid)] if size > grid else [], scaled(width)(256)
    return nn.Sequential(convolution(channels, half), *pool, nn.Flatten(), *hidden(half * grid * grid, wide), nn.Linear(wide, classes))


def alexnet(width=1.0, classes=10):
    """AlexNet for 32 x 32 images as DART's code has it: exits after each of five convolutions and after the classifier."""
    w = scaled(width)
    plan = [(64, True), (192, True), (384, False), (256, False), (256, True)]  # channels, halved by a pool
    segments, heads, inputs, size = [], [], 3, 32
    for channels, halved in plan:
        segments.append(nn.Sequential(convolution(inputs, w(channels)), *([nn.MaxPool2d(2)] if halved else [])))
        inputs, size = w(channels), size // 2 if halved else size
        heads.append(convolution_head(inputs, size, width, classes))
    segments.append(nn.Sequential(nn.Flatten(), *hidden(inputs * 16, w(1024), w(1024))))
    return MultiExit(segments, [*heads, nn.Linear(w(1024), classes)])


def vgg16(width=1.0, classes=10):
    """VGG-16 for 32 x 32 images as DART's code has it: exits after each of five blocks and after the classifier."""
    w = scaled(width)
    segments, heads, inputs, size = [], [], 3, 32
    for channels, repeats in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        layers = []
        for _ in range(repeats):
            layers.append(convolution(inputs, w(channels)))
            inputs = w(channels)
        size //= 2
        segments.append(nn.Sequential(*layers, nn.MaxPool2d(2)))
        heads.append(convolution_head(inputs, size, width, classes))
    segments.append(nn.Sequential(nn.Flatten(), *hidden(inputs, w(4096), w(1024))))
    return MultiExit(segments, [*heads, nn.Linear(w(1024), classes)])


def resnet18(width=1.0, classes=10):
    """ResNet-18 for 32 x 32 images as DART's code has it: exits after each of four stages, and the classifier.

    The fourth exit and the classifier stand on the same features; what the last segment adds is the pooling.
    """
    w = scaled(width)
    segments, heads, inputs = [], [], w(64)
    for stage, channels in enumerate((64, 128, 256, 512)):
        blocks = [Residual(inputs, w(channels), 2 if stage else 1), Residual(w(channels), w(channels), 1)]
        segments.append(nn.Sequential(*([] if stage else [convolution(3, inputs)]), *blocks))
        inputs = w(channels)
        size, grid = 32 >> stage, 8 >> stage  # 8 x 8, 4 x 4, 2 x 2 and 1 x 1 of maps 32, 16, 8 and 4 wide
        pool = [nn.AvgPool2d(size // grid)]
        heads.append(nn.Sequential(*pool, nn.Flatten(), *hidden(inputs * grid * grid, w(256)), nn.Linear(w(256), classes)))
    segments.append(nn.Sequential(nn.AvgPool2d(4), nn.Flatten()))
    return MultiExit(segments, [*heads, nn.Linear(inputs, classes)])
