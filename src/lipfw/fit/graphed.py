"""The optimisation step on a GPU as one CUDA graph: the host gives a seed and says go."""
import logging
import threading

import torch
from torch import Tensor

from lipfw.fit.eager import Eager, Objective
from lipfw.mask import Mask

_log = logging.getLogger(__name__)
_WARM = 3                       # steps before the capture: they make Adam's state, cuDNN's choices and the memory pools
_capturing = threading.Lock()   # torch allows one capture at a time in a process


class Graphed(Eager):
    """The eager step's body, captured once a round as a CUDA graph and replayed.

    The first steps are done eagerly and count like any other; a capture itself runs nothing, so that it disturbs
    nothing. Jitter of each code and noise on the weights are drawn inside the graph by a generator each, seeded on the
    host before each step as the eager step seeds its own: the same noise. Where the step can't be captured it stays
    eager, and the log says why.

    What `step` returns is overwritten by the next step. The graph's memory is freed with the last reference to this
    object and to the gradients, which the next round's first step drops.
    """

    name = "graphed"
    warm_up = _WARM + 2             # the capture, and the first replay

    def __init__(self, fit: Objective, optimizer: torch.optim.Adam, mask: Mask | None):
        super().__init__(fit, optimizer, mask)
        device = self.device
        self.generators = [torch.Generator(device) for _ in self.seeds(0)]
        self.warm = 0                                           # eager steps done
        self.graph: torch.cuda.CUDAGraph | None = None
        self.made: tuple[list[Tensor], Tensor] | None = None    # what the graph writes: outputs and loss
        self.stream = side_stream(device)

    def step(self, step: int) -> tuple[list[Tensor], Tensor]:
        if self.warm == _WARM and self.stream is not None:
            self.capture()
        for generator, seed in zip(self.generators, self.seeds(step), strict=True):
            generator.manual_seed(seed)
        if self.graph is not None:
            self.graph.replay()
            return self.made
        self.warm += 1
        return self.aside()

    def aside(self) -> tuple[list[Tensor], Tensor]:
        """Do a step eagerly on the stream of the capture: autograd remembers the stream that it first ran on."""
        if self.stream is None:
            return self.body(self.generators)
        now = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(now)
        with torch.cuda.stream(self.stream):
            made = self.body(self.generators)
        now.wait_stream(self.stream)
        return made

    def capture(self) -> None:
        """Record the body as a graph; where that fails, say why and go on eagerly for this round."""
        groups, stream, self.stream = self.optimizer.param_groups, self.stream, None
        graph = torch.cuda.CUDAGraph()
        try:
            # a failed capture leaves its stream behind as the current one; the outer block does not
            with _capturing, torch.cuda.stream(torch.cuda.current_stream(stream.device)):
                for generator in self.generators:
                    graph.register_generator_state(generator)
                self.optimizer.zero_grad(set_to_none=True)      # the graph makes gradients of its own
                for group in groups:
                    group["capturable"] = True      # fused Adam is; saying so only here keeps state dicts the same
                # thread_local: fits in other threads may allocate meanwhile
                with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                    made = self.body(self.generators)
        except (RuntimeError, AttributeError, TypeError) as e:      # what torch can't capture, or is too old for
            reason = next((line for line in str(e).splitlines() if line.strip()), type(e).__name__)
            _log.warning("the step can't be captured as a CUDA graph and is done eagerly: %s", reason[:200])
            # what the failed capture has touched belongs to nobody
            self.generators = [torch.Generator(g.device) for g in self.generators]
            self.optimizer.zero_grad(set_to_none=True)
            return
        finally:
            for group in groups:
                group["capturable"] = False
        self.graph, self.made = graph, made


def side_stream(device: torch.device) -> "torch.cuda.Stream | None":
    """Return a new stream of a GPU; None for another device, where nothing can be captured."""
    return torch.cuda.Stream(device) if device.type == "cuda" else None
