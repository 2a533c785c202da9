"""Array operations whose form depends on the machine: tiles, chunks, caches, shards and platforms."""
