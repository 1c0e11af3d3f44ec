"""How near to the machine's limit is a step? Floating-point operations a second over the best matrix product's.

Operations of a step are those of its convolutions, forward and backward, at kept weights only: what an ideal kernel
would do. The limit is the fastest of the matrix products and convolutions below, measured in the same minutes.
"""
import itertools
from collections.abc import Iterator
from statistics import median

import torch
from torch import nn

from benchmarks import masks
from benchmarks.published import nested
from benchmarks.row import Row
from benchmarks.setting import Setting
from benchmarks.timing import in_turns, seconds_of
from lipfw.mask import Mask
from lipfw.ticket import Ticket


def measure(setting: Setting) -> Iterator[Row]:
    """Measure the limits of the machine, then the share that steps reach."""
    limits = {}
    for dtype in (torch.float32, torch.bfloat16):
        for name, best in (("matrix product", _product(setting, dtype)), ("convolution", _convolution(setting, dtype))):
            short = str(dtype).removeprefix("torch.")
            limits[short] = max(limits.get(short, 0), best)
            yield Row(f"best {name}, {short}", numbers={"GFLOP/s": best / 1e9})
    tickets, spec = masks.found(setting), setting.spec("bare", setting.sizes[0])
    network = nested(3, spec.channels, spec.depth)
    for size in setting.sizes:
        for label, kernel, percent in (("dense", "dense", 0), ("auto", "auto", 0), ("auto, IMP 89 %", "auto", 89),
                                       ("auto, IMP 97 %", "auto", 97)):
            ticket = tickets[masks.ROUNDS[percent]]
            samples, says = setting.compare({kernel: setting.spec(kernel, size, ticket)}, 3)
            work = operations(network, size, Ticket.load(ticket).mask)
            rate = work / median(samples[kernel])
            yield Row(f"a step, kernel={label}, {size} px",
                      numbers={"GFLOP": work / 1e9, "GFLOP/s": rate / 1e9, "share %": 100 * rate / limits["float32"]},
                      note=f"share of the float32 limit; kernel: {says[kernel]}")


def operations(network: nn.Module, size: int, mask: Mask) -> int:
    """Return the floating-point operations of a step's convolutions, forward and backward, at kept weights.

    A convolution makes 3 products of 2 operations for each weight and output pixel; 2 of them where it reads the code,
    whose gradient nobody wants. For a mask that keeps everything it is the number that torch's counter gives.
    """
    each = []

    def note(convolution: nn.Conv2d, inputs: tuple, output: torch.Tensor) -> None:
        each.append((convolution, (3 if inputs[0].requires_grad else 2) * 2 * output[0, 0].numel()))

    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    hooks = [c.register_forward_hook(note) for c in convolutions]
    network(torch.rand(1, convolutions[0].in_channels, size, size))
    for hook in hooks:
        hook.remove()
    kept = {c: int(m.sum()) for c, m in zip(convolutions, mask.values(), strict=True)}
    return sum(kept[c] * times for c, times in each)


def _best(works: dict, setting: Setting) -> float:
    """Return the operations a second of the best of several works: {name: (work, operations)}."""
    for work, _ in works.values():
        work()
    samples = in_turns({n: lambda w=w: seconds_of(w, setting.device) for n, (w, _) in works.items()},
                       setting.turns(9))
    return max(operations / min(samples[n]) for n, (_, operations) in works.items())


def _product(setting: Setting, dtype: torch.dtype) -> float:
    """Return the operations a second of the best square matrix product."""
    works = {}
    for n in (64, 128) if setting.quick else (1024, 2048, 4096) if setting.device == "cpu" else (4096, 8192):
        a, b = (torch.rand(n, n, device=setting.device).to(dtype) for _ in range(2))
        works[n] = (lambda a=a, b=b: a @ b, 2 * n ** 3)
    return _best(works, setting)


def _convolution(setting: Setting, dtype: torch.dtype) -> float:
    """Return the operations a second of the best 3x3 convolution of the hourglass's width."""
    works = {}
    channels = 8 if setting.quick else 128
    for n, layout in itertools.product((16,) if setting.quick else (64, 128, 256),
                                       (torch.contiguous_format, torch.channels_last)):
        x, w = (torch.rand(s, device=setting.device).to(dtype).contiguous(memory_format=layout)
                for s in ((1, channels, n, n), (channels, channels, 3, 3)))
        works[n, layout] = (lambda x=x, w=w: nn.functional.conv2d(x, w, padding=1), 2 * channels ** 2 * 9 * n ** 2)
    return _best(works, setting)
