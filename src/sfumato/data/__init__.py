"""Everything about data: from a folder of pictures to batches, and distributions with known answers."""
