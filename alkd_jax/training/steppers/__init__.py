"""Training steps: dense with any loss and optimizer, row-sparse with Adam's numbers, and lazy for large catalogues."""
