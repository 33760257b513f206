"""One training loop for every recipe here: all exits at once (joint), or the heads alone on a frozen backbone.

Each epoch draws from its own seed, and the state after each is kept beside the recipe, so that a run which was stopped
goes on and ends where an uninterrupted one does.
"""

import sys
import time
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Plan:
    """How to train. `weights`: of each exit's cross-entropy in the sum; `peak` and `decay`: learning rate, weight decay."""

    epochs: int
    weights: tuple[float, ...]
    batch: int = 128
    peak: float = 0.1
    decay: float = 5e-4
    momentum: float = 0.9
    smoothing: float = 0.0
    optimiser: str = "sgd"
    warm: float = 0.2


def train(network, plan, samples, draw, seed, state_file, frozen=False):
    """Train in place and leave the network in evaluation mode.

    samples: rows of an epoch. draw(rows, rng) -> (tuple of float32 input arrays, int64 labels, weights or None).
    frozen: only the heads learn, and the backbone's batch statistics stay as they are.
    """
    import torch
    from torch.nn import functional

    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network.to(device, memory_format=torch.channels_last) if plan.optimiser == "sgd" else network.to(device)
    learning = list(network.heads.parameters() if frozen else network.parameters())
    if plan.optimiser == "sgd":
        optimiser = torch.optim.SGD(learning, plan.peak, plan.momentum, weight_decay=plan.decay, nesterov=True)
    else:
        optimiser = torch.optim.AdamW(learning, plan.peak, weight_decay=plan.decay)
    steps = samples // plan.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, plan.peak, total_steps=plan.epochs * steps, pct_start=plan.warm)
    done = 0
    if state_file.is_file():
        state = torch.load(state_file, weights_only=True, map_location=device)
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        done = state["epochs"]
        print(f"goes on after epoch {done} of {state_file.name}", file=sys.stderr, flush=True)
    for epoch in range(done, plan.epochs):
        torch.manual_seed(seed * 1000 + epoch)
        rng = np.random.default_rng([seed, epoch])
        network.train()
        if frozen:
            network.segments.eval()
        order, total, begun = rng.permutation(samples), 0.0, time.monotonic()
        for step in range(steps):
            inputs, labels, weights = draw(order[step * plan.batch : (step + 1) * plan.batch], rng)
            inputs = [torch.from_numpy(part).to(device) for part in inputs]
            wanted = torch.from_numpy(labels).to(device)
            losses = [functional.cross_entropy(out, wanted, reduction="none", label_smoothing=plan.smoothing) for out in network(*inputs)]
            if weights is not None:
                weights = torch.from_numpy(weights).to(device)
                losses = [loss * weights for loss in losses]
            loss = sum(share * loss.mean() for share, loss in zip(plan.weights, losses))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}/{plan.epochs}: loss {total / steps:.4f}, {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
        state = {"network": network.state_dict(), "optimiser": optimiser.state_dict(), "schedule": schedule.state_dict(), "epochs": epoch + 1}
        unfinished = state_file.with_suffix(".part")
        torch.save(state, unfinished)
        unfinished.replace(state_file)
    network.eval().to("cpu")
