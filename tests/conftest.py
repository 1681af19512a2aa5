"""Settings that hold for every test."""

import torch

# The tensors of the tests are small: threads cost more than they give, and far more than that
# where other work shares the cores.
torch.set_num_threads(1)
