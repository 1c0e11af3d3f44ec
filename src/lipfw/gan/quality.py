import torch
def sliced_wasserstein(a, b, seed):
    g=torch.Generator().manual_seed(seed)
    d=torch.randn(a[0].numel(),128,generator=g); d/=d.norm(dim=0)
    return 1000*((a.flatten(1)@d).sort(0).values-(b.flatten(1)@d).sort(0).values).abs().mean()
