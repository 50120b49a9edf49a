"""Declarations of the commands: their options and help.

A command names the function that it runs, which is imported when it is called: ``maekit --help``
costs no more than Typer. A function's parameters are those of its command (a test says so).
Annotations are no strings here: Typer would compile each of several hundred anew.
"""
