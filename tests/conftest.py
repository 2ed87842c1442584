import matplotlib as mpl
import torch
from hypothesis import settings

mpl.use("Agg")
torch.set_num_threads(1)  # tiny tensors: more threads only cost time
settings.register_profile("qunify", deadline=None, derandomize=True)
settings.load_profile("qunify")
