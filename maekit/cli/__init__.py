"""The command line: parses words, calls what is below, prints results, sets exit codes."""
