"""Groups -> CSV, all digits."""
import csv
import io
from collections.abc import Sequence

from lipfw.report.read import METRICS
from lipfw.report.stats import Group


def to_csv(groups: Sequence[Group]) -> str:
    """Return one header and one line a group and round, all digits, empty where there is no value.

    PSNR in dB, MSE in the range [-1, 1], swd in 1/1000, accuracies in percent, seconds of one round; `chosen` counts
    the runs that chose the round without the clean picture; `sd_over` says whether _sd columns are over seeds or, of a
    single run of a generator, over pictures; the degraded_ and lost_ columns (what `Group.lost` is) repeat in each line
    of a group. The last columns are the options that tell the groups apart.
    """
    options = list(dict.fromkeys(k for g in groups for k in g.options))
    names = [*METRICS, "degraded_psnr", "degraded_ssim", "lost_psnr"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["group", "round", "sparsity", "params_left", "n", "chosen", "sd_over",
                     *(f"{name}_{part}" for name in names for part in ("mean", "sd", "n")), *options])
    for g in groups:
        for r in g.rows:
            stats = [*(r.stats[m] for m in METRICS), g.degraded["psnr"], g.degraded["ssim"], g.lost]
            writer.writerow([g.label, r.round, r.sparsity, r.params_left, r.n, r.chosen,
                             "pictures" if g.over_pictures else "seeds",
                             *(v for s in stats for v in (s.mean, s.sd, s.n)), *(g.options.get(k) for k in options)])
    return text.getvalue()
