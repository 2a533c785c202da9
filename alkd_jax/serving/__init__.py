"""What a shipped student is made of: its folder, its forward pass in NumPy, its ONNX graph. Loads without JAX."""
