"""What a restoration leaves in its folder while it goes: its records and the restored pictures."""
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from pytorch_lightning.loggers import Logger
from torch import Tensor

from lipfw.fit.restoration import Restoration
from lipfw.fit.rounds import IterativePruning
from lipfw.folder import short
from lipfw.image.meaning import Meaning
from lipfw.image.picture import Picture
from lipfw.image.write import write_png
from lipfw.records import Records

_KINDS = ("peak", "picked", "final")


class Recorder(Records):
    """The records, and restored/round_NN.png, with _step_NNNNN for pictures of the way to it; `pictures` belong to the
    module's problems, one each.
    """

    reported = ("loss", *(f"{m}_{k}" for m in ("psnr", "ssim", "mse") for k in _KINDS), "step_peak", "step_picked")

    def __init__(self, folder: Path, pruning: IterativePruning, pictures: Sequence[Picture], about: Mapping[str, str]):
        super().__init__(folder, pruning, about)
        self.pictures = list(pictures)

    def picture_name(self, round_: int, index: int, step: int | None = None) -> str:
        """Return the name of a round's picture: restored/round_07.png, with the picture's name if there are several.

        A step's is restored/round_07_step_00500.png.
        """
        of_step = f"_step_{step:05d}" if step is not None else ""
        return f"restored/round_{round_:02d}{of_step}{self.suffix(index)}.png"

    def suffix(self, index: int) -> str:
        """Return what tells the files of several pictures apart: -NAME, cut where file systems would refuse it."""
        return f"-{short(self.pictures[index].name)}" if len(self.pictures) > 1 else ""

    def files(self, round_: Mapping, module: Restoration) -> list[Path]:
        steps = [None, *(s for s in sorted(module.keep) if round_["step_first"] <= s <= round_["step_last"])]
        return [self.folder / self.picture_name(round_["round"], i, s)
                for s in steps for i in range(len(self.pictures))]

    def on_train_batch_end(self, trainer, module: Restoration, outputs, batch, batch_idx) -> None:
        kept, module.kept = module.kept, []
        for step, pictures in kept:
            self._write_pictures(trainer.current_epoch, pictures, step)
        super().on_train_batch_end(trainer, module, outputs, batch, batch_idx)

    def write(self, round_: int, module: Restoration) -> None:
        self._write_pictures(round_, module.pictures("picked"))

    def _write_pictures(self, round_: int, pictures: Sequence[Tensor], step: int | None = None) -> None:
        (self.folder / "restored").mkdir(exist_ok=True)
        for i, (p, x) in enumerate(zip(self.pictures, pictures, strict=True)):
            write_png(self.folder / self.picture_name(round_, i, step), x.cpu(), alpha_like(p, x.shape), p.bits,
                      meaning_like(p, x.shape))

    def log_files(self, logger: Logger, record: Mapping) -> None:
        if not hasattr(logger, "log_image"):
            return
        each = record.get("images", {self.pictures[0].name: record})
        captions = []
        for p in self.pictures:
            psnr = each[p.name]["psnr_picked"]
            captions.append(f"round {record['round']}, sparsity {record['sparsity']:.2%}, {p.name}"
                            + (f", {psnr:.2f} dB" if psnr is not None else ""))
        paths = [str(self.folder / self.picture_name(record["round"], i)) for i in range(len(self.pictures))]
        logger.log_image("restored", paths, caption=captions)


def alpha_like(picture: Picture, shape: torch.Size) -> torch.Tensor | None:
    """Return the picture's transparency at the size of its restoration."""
    if picture.alpha is None or picture.alpha.shape[2:] == shape[2:]:
        return picture.alpha
    return torch.nn.functional.interpolate(picture.alpha, size=shape[2:], mode="bicubic").clamp(0, 1)


def meaning_like(picture: Picture, shape: torch.Size) -> Meaning:
    """Return what the file of a picture's restoration says: as large in print as the picture, of whatever size."""
    return picture.meaning.scaled(shape[3] / picture.size[1], shape[2] / picture.size[0])
