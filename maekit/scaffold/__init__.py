"""Parts to start from: what ``maekit plugins new`` copies under another name."""
