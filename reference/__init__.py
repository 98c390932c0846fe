"""The paper in NumPy, float64: every equation as a function, and the oracle of everything fast or trainable."""
