#!/usr/bin/env python3
"""Time the mixing of one batch: ours with the linear policy, torchvision's MixUp, and the arithmetic of fastai's MixUp.

All run on the same tensors, in one process, in a new order each round. The table shows the median of the rounds in
milliseconds, and the ratio to ours."""
import argparse, platform, random, statistics, time

import torch
from torch.distributions.beta import Beta
from torchvision.transforms.v2 import MixUp

from hmix_nb.mixing.labels import Linear
from hmix_nb.mixing.pixels import mix

def fastai_mixup(x, y, distrib):
    "What fastai's `MixUp.before_batch` computes for a loss without `y_int`: a lambda per sample, folded to [.5, 1]."
    lam = distrib.sample((len(y),)).squeeze().to(x.device)
    lam = torch.stack([lam, 1-lam], 1).max(1)[0]
    order = torch.randperm(len(y)).to(x.device)
    return torch.lerp(x[order], x, lam.view(-1, 1, 1, 1)), torch.lerp(y[order], y, lam.view(-1, 1))

def rivals(x, y, hard, n_classes):
    tv, beta = MixUp(alpha=1., num_classes=n_classes), Beta(torch.tensor(1.), torch.tensor(1.))
    return {'hmix_nb mix, Linear, one lambda': lambda: mix(x, y, g=Linear()),
            'hmix_nb mix, Linear, per sample': lambda: mix(x, y, g=Linear(), per='sample'),
            'hmix_nb mix, from class indices': lambda: mix(x, hard, g=Linear(), n_classes=n_classes),
            'torchvision v2 MixUp, one lambda': lambda: tv(x, y),
            'fastai MixUp arithmetic, per sample': lambda: fastai_mixup(x, y, beta)}

def once(f, n, sync):
    sync()
    start = time.perf_counter()
    for _ in range(n): f()
    sync()
    return (time.perf_counter()-start)/n*1e3

def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--batch', type=int, nargs='+', default=[128, 512], help='batch sizes')
    p.add_argument('--size', type=int, default=32, help='height and width of the images')
    p.add_argument('--classes', type=int, default=10)
    p.add_argument('--rounds', type=int, default=40, help='how many times each is timed')
    p.add_argument('--calls', type=int, default=5, help='calls per timing')
    p.add_argument('--threads', type=int, default=1)
    p.add_argument('--device', default='cpu')
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    random.seed(0)
    sync = torch.cuda.synchronize if args.device.startswith('cuda') else lambda: None
    print(f'torch {torch.__version__}, {args.device}, {args.threads} thread(s), Python {platform.python_version()}')
    for bs in args.batch:
        x = torch.rand(bs, 3, args.size, args.size, device=args.device)
        hard = torch.randint(args.classes, (bs,), device=args.device)
        y = torch.nn.functional.one_hot(hard, args.classes).float()
        fs = rivals(x, y, hard, args.classes)
        for f in fs.values(): once(f, args.calls, sync)
        rounds = {k: [] for k in fs}
        for _ in range(args.rounds):
            for k in random.sample(list(fs), len(fs)): rounds[k].append(once(fs[k], args.calls, sync))
        ms = {k: statistics.median(v) for k, v in rounds.items()}
        ours = next(iter(ms.values()))
        print(f"\n{f'batch {bs} of 3x{args.size}x{args.size}':38} {'ms':>8} {'/ ours':>8}")
        for k, v in ms.items(): print(f'{k:38} {v:8.3f} {v/ours:8.2f}')

if __name__ == '__main__': main()
