"""Parts that break their contract, each in one way, and parts that keep it.

A fault is caught where the promise that it breaks is told by its name. ``§5`` marks those that the
review of plugins tried (20 maskers, 16 targets, 14 backbones, 6 decoders, 15 data sets); the others
came later.
"""
