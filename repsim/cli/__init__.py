"""The commands."""

from repsim.cli.commands import main as main
