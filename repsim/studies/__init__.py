"""Conditions × seeds → recordings → analyses → one report, resumable."""
