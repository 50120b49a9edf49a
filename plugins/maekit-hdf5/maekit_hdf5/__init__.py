"""HDF5 for maekit: pictures, stacks and clips of any channels, and spectrograms of signals."""
