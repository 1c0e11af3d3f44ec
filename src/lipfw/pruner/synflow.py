"""SynFlow: pruning without data that conserves synaptic flow (Tanaka, Kunin, Yamins and Ganguli, NeurIPS 2020)."""
import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lipfw.errors import whole
from lipfw.mask import Mask, keep_top, prunable
from lipfw.pruner.pruner import Fit, Pruner, check_scores


class SynFlow(Pruner):
    """Keep the weights that carry most of R, the sum of the outputs of the network of absolute values for ones.

    In `steps` steps from dense to a round's density d: step k of them keeps d^(k / steps) of the weights, by scores
    |dR/dtheta * theta| of the network that the step before left, so that no layer is emptied before the others. R is
    taken before the sigmoid, in float64 (the flow of a deep network overflows what float32 resolves), on a copy of the
    network whose batch norms are in evaluation mode.
    """

    # not `blind`, though it could be: a look ahead costs a pruning, and emptied layers are what this one avoids

    def __init__(self, steps: int = 100, **options):
        super().__init__(**options)
        self.steps = whole("pruner.steps", steps, least=1)

    def score(self, network: nn.Module, fit: Fit) -> Mapping[str, Tensor]:
        """Return |dR/dtheta * theta| of the network as it is."""
        network = absolute(network)
        return flow(network, ones(network, fit.code_shape()))

    def prune(self, network: nn.Module, fit: Fit, count: int, within: Mask | None, round_: int) -> Mask:
        """Return the mask that the last step leaves."""
        mask, network = within or Mask.ones(network), absolute(network)
        first, code = mask.count, ones(network, fit.code_shape())
        for step in range(1, self.steps + 1):
            mask.apply(network)
            scores, left = flow(network, code), round(first * (count / first) ** (step / self.steps))
            # a unit that a step cut off leaves weights that carry nothing: until they go they only fill up the count
            carrying = sum(int((s != 0).sum()) for s in scores.values())
            check_scores(scores, min(left, max(1, carrying)), mask)
            mask = keep_top(scores, left, mask)
        return mask


def absolute(network: nn.Module) -> nn.Module:
    """Return a copy in float64 and evaluation mode with all parameters replaced by their absolute values.

    Batch norms have the statistics they are made with (0, 1): a mean left by a fit would be subtracted, and maps no
    longer be positive.
    """
    network = copy.deepcopy(network).double().eval()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.reset_running_stats()
    with torch.no_grad():
        for t in [*network.parameters(), *network.buffers()]:
            if t.is_floating_point():
                t.abs_()
    return network


def flow(network: nn.Module, code: Tensor) -> dict[str, Tensor]:
    """Return |dR/dtheta * theta| for each prunable weight, with R the sum of the network's outputs."""
    weights = prunable(network)
    grads = torch.autograd.grad(network(code).sum(), list(weights.values()), materialize_grads=True)
    return {n: (g * w.detach()).abs() for (n, w), g in zip(weights.items(), grads, strict=True)}


@torch.no_grad()
def ones(network: nn.Module, shape: torch.Size) -> Tensor:
    """Return a code of ones that scores as one of a shape (1, C, H, W) does, and is smaller if it can be.

    Where ones give constant maps throughout, as with reflection padding and 1x1 convolutions, each score is the number
    of output pixels times what does not depend on the size: the first of 2, 3, 5, 9, 17, ... pixels a side that the
    network takes will do. Where its output is not constant (zero padding) the code has the whole size.
    """
    device = next(network.parameters()).device
    side = 2
    while side < max(shape[2:], default=0):
        code = torch.ones(*shape[:2], *(min(side, s) for s in shape[2:]), dtype=torch.float64, device=device)
        try:
            output = network(code)
        except (RuntimeError, ValueError):      # too small for the paddings or strides
            side = 2 * side - 1
            continue
        if torch.allclose(output, output[..., :1, :1].expand_as(output), rtol=1e-9, atol=0):
            return code
        break
    return torch.ones(shape, dtype=torch.float64, device=device)
