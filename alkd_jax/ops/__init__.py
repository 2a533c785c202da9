"""Array operations that exist for a machine's sake: tiles, batches, caches, platforms."""
