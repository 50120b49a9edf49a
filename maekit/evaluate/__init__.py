"""What features are worth: fine-tuning, probes, embeddings, and how they are judged."""
