"""Devices that a study may run on, with the rates that their manufacturer publishes."""
from collections.abc import Iterable
from dataclasses import dataclass

from lipfw.errors import choice


@dataclass(frozen=True)
class Device:
    """Peak rates in TFLOP/s of dense products: of float32, and of TF32 and bfloat16 where there are units for them.

    With trainer.precision=32 torch rounds the factors of convolutions to TF32 where it can, and so does lipfw.
    """

    name: str
    fp32: float
    tf32: float | None = None
    bf16: float | None = None

    def rate(self, precision: str) -> tuple[float, str]:
        """Return the peak in TFLOP/s for a run's trainer.precision, and the name of the arithmetic."""
        if precision == "bf16" and self.bf16:
            return self.bf16, "bf16"
        return (self.tf32, "TF32") if self.tf32 else (self.fp32, "fp32")


# NVIDIA's data sheets give tensor cores with structured sparsity from A100 on: what stands here is the half of it.
DEVICES = {d.name: d for d in (
    Device("V100", 15.7),                       # V100 Tensor Core GPU data sheet, SXM2: 15.7; neither TF32 nor bf16
    Device("A100", 19.5, 156, 312),             # A100 80GB data sheet, SXM: 19.5, TF32 156 | 312*, BF16 312 | 624*
    Device("RTX4090", 82.6, 82.6, 165.2),       # Ada architecture whitepaper: 82.6, TF32 82.6 | 165.2*, BF16 with
                                                # sums in fp32 165.2 | 330.4*
    Device("H100", 67, 494.5, 989.5),           # H100 data sheet, SXM: 67, TF32 989*, BF16 1,979*
    Device("H200", 67, 494.5, 989.5),           # H200 data sheet, SXM: as H100, with more and faster memory
)}      # *: with sparsity


def named(names: Iterable[str] | None) -> list[Device]:
    """Return the devices of these names, capitals or not; None: all. Raises InputError for one that is not there."""
    known = {n.lower(): n for n in DEVICES}
    return [DEVICES[choice("--device", known.get(n.strip().lower(), n.strip()), tuple(DEVICES))] for n in names or
            DEVICES]
