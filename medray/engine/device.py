"""What the device of a run can do."""

from __future__ import annotations

import torch

from medray.engine.run import StopRun


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """None means fp32. A V100 has no bf16 units: torch would emulate it slowly."""
    if precision == "auto":
        if device.type == "cpu":
            return None
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    return {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]


def check_gpu(device: torch.device) -> None:
    """Raise StopRun where this build of torch has no code for the GPU."""
    major, minor = torch.cuda.get_device_capability(device)
    built = torch.cuda.get_arch_list()
    if not any(arch.startswith(f"sm_{major}") and int(arch[4:].rstrip("a")[-1]) <= minor for arch in built):
        raise StopRun(
            f"{torch.cuda.get_device_name(device)} is sm_{major}{minor}, this torch {torch.__version__} is built for "
            f"{' '.join(built)}; torch 2.10.0 from the default index serves sm_70 to sm_120"
        )
