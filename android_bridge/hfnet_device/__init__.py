"""Runs jobs on this machine, on an emulated ARM processor, and on a device over adb."""
