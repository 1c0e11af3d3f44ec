"""Fine-tuning a whole GAN, as each round of iterative pruning does."""
from torch import Tensor

from lipfw.errors import whole
from lipfw.fit.adversarial import Adversarial
from lipfw.prior.prior import Prior


class FineTuning(Adversarial):
    """`epochs` passes over the pictures on the network's last scale; a last smaller batch is kept.

    The defaults are those of the lottery image prior's script, but for its generator batch of 1.
    """

    length_by = "fit.epochs="

    def __init__(self, pixels: Tensor, prior: Prior, *, epochs: int = 30, lr: float = 2e-4, batch: int = 64,
                 generator_batch: int | None = None, penalty: float = 10.0, penalised: int | None = None,
                 drift: float = 1e-3, smoothing: float = 0.0, mirror: bool = False, judge_every: int = 1000,
                 seed: int = 0, log_every: int = 10, steps_per_batch: int = 10, precision: int | str = 32):
        whole("fit.batch", batch, least=1)
        steps = whole("fit.epochs", epochs, least=1) * -(-len(pixels) // batch)
        super().__init__(pixels, prior, steps=steps, lr=lr, batch=batch, generator_batch=generator_batch,
                         penalty=penalty, penalised=penalised, drift=drift, smoothing=smoothing, mirror=mirror,
                         judge_every=judge_every, seed=seed, log_every=log_every, steps_per_batch=steps_per_batch,
                         precision=precision)

    def where(self, step: int) -> tuple[int, float]:
        return len(self.prior.network.scale_layers), 0.0

    def steps_on(self) -> dict[int, int]:
        return {len(self.prior.network.scale_layers): self.steps}
