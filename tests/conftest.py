"""One thread per test process: the suite runs on two processes, and small tensors lose by sharing out."""

import torch

torch.set_num_threads(1)
