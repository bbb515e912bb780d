"""The commands of the `lineside` program, a module for each group."""
