"""Steps by the sparse kernels: a ticket's step takes less time the fewer weights it keeps."""
import torch
from torch import Tensor

from lipfw.fit.eager import Eager, Objective, pictures_and_loss
from lipfw.kernel.graph import Unsupported
from lipfw.kernel.interface import library
from lipfw.kernel.network import SparseNetwork
from lipfw.mask import Mask


class Sparse(Eager):
    """The step over kept weights alone, on a CPU in float32; Adam too works on those only.

    Raises Unavailable without a kernel library, Unsupported for a network that the kernels don't know.

    The same step as `Eager` up to rounding. Where a weight has no effect, its gradient is exactly zero here and
    rounding noise there, which Adam turns into steps: biases before batch norm, weights that nothing reads or that read
    a constant. And a constant channel sits on the kink of its activation while its shift is 0, at the first step:
    rounding decides on which side of it torch sees the channel.
    """

    name = "sparse"

    def __init__(self, fit: Objective, optimizer: torch.optim.Adam, mask: Mask | None):
        self.fit, self.optimizer = fit, optimizer
        prior = fit.prior
        self.parameters = dict(prior.network.named_parameters())
        self.codes = range(len(prior.pictures_of))
        codes = [prior.code(i).shape for i in self.codes]
        self.network = SparseNetwork(library(), prior.network, mask or {}, codes)
        self.counters = [b for n, b in prior.network.named_buffers() if n.endswith("num_batches_tracked")]
        self.packed = self.network.packed
        self.packed.pack(self.parameters, self.network.weights)
        self.unknowns = torch.nn.Parameter(self.network.weights)
        options = {k: v for k, v in optimizer.param_groups[0].items() if k != "params"}
        self.adam = torch.optim.Adam([self.unknowns], **options)
        self._take_state()
        self.unsettled = 0
        self.weight_noise = fit.weight_noise(prior.network, mask)
        self.order = None if self.weight_noise is None else self._order()

    def step(self, step: int) -> tuple[list[Tensor], Tensor]:
        outputs, losses, gradient = [], [], None
        for code in self.codes:
            raw = self.network.forward(self.fit.prior.code(code, step)).requires_grad_()
            made, loss = pictures_and_loss(self.fit, raw, code)
            (back,) = torch.autograd.grad(loss, raw)
            one = self.network.backward(back)
            gradient = one if len(self.codes) == 1 else one.clone() if gradient is None else gradient.add_(one)
            outputs += made
            losses.append(loss.detach())
        self.unknowns.grad = gradient
        self.adam.step()
        if self.weight_noise is not None:
            drawn = self.weight_noise.draw(torch.Generator().manual_seed(self.weight_noise.seed(step)))
            self.network.weights.index_add_(0, self.order, drawn)
        self.unsettled += 1
        loss = sum(losses)
        self.fit.follow(outputs, loss)
        return outputs, loss

    def settle(self) -> None:
        """Copy weights and Adam's state back to the network and its optimiser."""
        if not self.unsettled:
            return
        self.packed.unpack(self.network.weights, self.parameters)
        for counter in self.counters:
            counter += self.unsettled * len(self.codes)
        self.unsettled = 0
        own = self.adam.state[self.unknowns]
        states = {n: self.optimizer.state[p] for n, p in self.parameters.items()}
        for name, state in states.items():
            state["step"] = own["step"].clone()
            for moment in ("exp_avg", "exp_avg_sq"):
                if moment not in state:
                    state[moment] = torch.zeros_like(self.parameters[name])
        for moment in ("exp_avg", "exp_avg_sq"):
            self.packed.unpack(own[moment], {n: s[moment] for n, s in states.items()})

    def _order(self) -> Tensor:
        """Return the place in the packed vector of each weight that noise is drawn for, in the order of the draw."""
        numbers = {n: torch.zeros_like(p) for n, p in self.parameters.items()}
        count = self.weight_noise.number(numbers)
        if count > 1 << 24:     # float32 has no larger whole numbers one by one
            raise Unsupported(f"{count:,} weights that noise is added to")
        packed = torch.zeros_like(self.network.weights)
        self.packed.pack(numbers, packed)
        return packed.argsort()[len(packed) - count:]

    def _take_state(self) -> None:
        """Start from the state of the fit's optimiser, if it has made steps."""
        states = {n: self.optimizer.state.get(p) for n, p in self.parameters.items()}
        if not all(states.values()):
            return
        own = self.adam.state[self.unknowns]
        own["step"] = next(iter(states.values()))["step"].clone()
        for moment in ("exp_avg", "exp_avg_sq"):
            own[moment] = torch.zeros_like(self.network.weights)
            self.packed.pack({n: s[moment] for n, s in states.items()}, own[moment])
