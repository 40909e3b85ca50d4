"""Where tensors live: `auto` takes a CUDA device where there is one."""

import torch

from alloop.errors import MachineError


def resolve_device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:N` as a device that can be used. Raises `MachineError` for one that cannot."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise MachineError("a device: auto, cpu, cuda or cuda:N", repr(name), "say auto (ALLOOP_DEVICE=auto)") from None
    if device.type == "cpu":
        return device
    if device.type != "cuda" or (device.index or 0) >= torch.cuda.device_count():
        found = f"{torch.cuda.device_count()} CUDA devices here, torch {torch.__version__}"
        raise MachineError(f"the device {name!r}", found, "take auto or cpu, or install a build of torch that sees it")
    return device


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch gave up for lack of memory; on a CPU it has no exception of its own for this."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
