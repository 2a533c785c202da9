"""Steps of training: dense, exact Adam on the rows that a batch reads, and lazy optimizers of rows."""
