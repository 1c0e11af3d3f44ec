"""GraSP: pruning that preserves the gradient flow (Wang, Zhang and Grosse, ICLR 2020)."""
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from lipfw.errors import whole
from lipfw.mask import prunable
from lipfw.pruner.pruner import Fit, Pruner
from lipfw.pruner.snip import gradient, summed


class GraSP(Pruner):
    """Keep the weights without which the gradient's norm, and so the loss's first descent, would shrink most.

    To first order the removal of theta_q changes g'g / 2 by -theta_q (H g)_q, with gradient g and Hessian H of the loss
    in the prunable weights. The paper removes the largest of these, so the largest theta * (H g) are kept, of either
    sign. All at once, at the state that rounds start from, batch norm in training mode; g and H are averaged over the
    jitter of the first `draws` optimisation steps. (The paper's temperature is for logits: here it is 1.)
    """

    def __init__(self, draws: int = 1, **options):
        super().__init__(**options)
        self.draws = whole("pruner.draws", draws, least=1)

    def score(self, network: nn.Module, fit: Fit) -> Mapping[str, Tensor]:
        """Return theta * (H g), times `draws` squared."""
        g = summed(network, fit, self.draws, gradient)

        def product(term: Tensor, weights: Sequence[Tensor]) -> Sequence[Tensor]:
            """Return the product of g with the Hessian of one term: H g is the sum of them."""
            first = torch.autograd.grad(term, weights, create_graph=True, materialize_grads=True)
            return gradient(sum((a * b).sum() for a, b in zip(first, g.values(), strict=True)), weights)

        hg = summed(network, fit, self.draws, product)
        return {n: w.detach() * hg[n] for n, w in prunable(network).items()}
