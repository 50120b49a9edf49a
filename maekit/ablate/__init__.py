"""Tables of ablations: rows over a base recipe, run, measured, and put beside the paper's."""
