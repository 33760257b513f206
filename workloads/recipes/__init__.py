"""What the recipes of several workloads share: raw data, multi-exit networks in torch, their training, export and cards."""
