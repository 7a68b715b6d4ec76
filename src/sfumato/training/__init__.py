"""Training: levels to train at, one loss, averages of the weights, and `fit`, a generator of steps."""
