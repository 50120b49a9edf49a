"""From files to batches, without torch: order, plans, reading, and the pool of workers."""
