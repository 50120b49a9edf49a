"""Groups of commands, declared: one file each."""
