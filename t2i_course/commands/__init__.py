"""The command line: a file for each command, with a function `run`."""
