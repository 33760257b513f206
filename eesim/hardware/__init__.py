"""Devices: what a layer costs on them in time and energy, their memories, operating points and power states."""

from eesim.hardware.profile import OperatingPoint, Profile, load_profile

__all__ = ["OperatingPoint", "Profile", "load_profile"]
