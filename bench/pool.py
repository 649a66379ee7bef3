#!/usr/bin/env python3
"""Time one draw per image for a batch: ours, a loop over the batch, and a multinomial over padded rows.

No batch comes twice, so that nothing is in a cache just because it was drawn before. All run in one process, in a new
order each round. The table shows the median and the fastest tenth of the calls, in microseconds. Ends with status 1 if ours
is above the limit on a CPU even in its fastest tenth, when nothing else was running."""
import argparse, platform, random, statistics, sys, time

import numpy as np, torch

from hmix_nb.data.images import SoftDL, SoftSet
from hmix_nb.data.pool import LabelPool
from hmix_nb.softlabels.pool import DrawnSet

def made_pool(n, per, classes, seed=0):
    "Labels of `per` people for each of `n` images."
    g = np.random.default_rng(seed)
    rows = torch.as_tensor(g.dirichlet(np.full(classes, .3), size=n*per)).float()
    return LabelPool(rows/rows.sum(1, keepdim=True), np.repeat(np.arange(n), per))

def made_votes(n, classes, voters=51, seed=0):
    "As many votes per image as in CIFAR-10H."
    g = np.random.default_rng(seed)
    return LabelPool.from_counts(g.multinomial(voters, g.dirichlet(np.full(classes, .1), size=n)))

def loop(pool, idx, g): # as the released code of CIFAR-10S does
    stretches = zip(pool.start[idx].tolist(), pool.count[idx].tolist())
    return torch.stack([pool.rows[random.randrange(s, s+c)] for s, c in stretches])

def multinomial(pool, idx, g, padded):
    return pool.rows.index_select(0, torch.multinomial(padded[idx], 1, generator=g)[:, 0] + pool.start[idx])

def rivals(pool, g, device):
    "Each takes a batch of positions; the first one is ours."
    w = torch.zeros(len(pool), int(pool.count.max()), device=device)
    at = torch.as_tensor(pool.image, device=device)
    w[at, torch.arange(len(at), device=device) - pool.start[at]] = torch.as_tensor(pool.row_weights, device=device).float()
    return {'LabelPool.draw': lambda idx: pool.draw(idx, g),
            'multinomial over padded rows': lambda idx: multinomial(pool, idx, g, w),
            'loop over the batch': lambda idx: loop(pool, idx, g)}

def times_of(fs, rounds, sync):
    "Microseconds of each call, sorted; in each round everybody has the same batches, in a row."
    times = {k: [] for k in fs}
    for batches in rounds:
        for k in random.sample(list(fs), len(fs)):
            for idx in batches:
                sync()
                start = time.perf_counter()
                fs[k](idx)
                sync()
                times[k].append((time.perf_counter() - start)*1e6)
    return {k: sorted(v) for k, v in times.items()}

def epoch(dataset, bs, g):
    dl = SoftDL(dataset, bs, shuffle=True, generator=g)
    start = time.perf_counter()
    for _ in dl: pass
    return (time.perf_counter() - start)*1e3

def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--images', type=int, nargs='+', default=[1000, 100_000])
    p.add_argument('--per', type=int, default=7, help='labels per image')
    p.add_argument('--classes', type=int, default=10)
    p.add_argument('--batch', type=int, default=128)
    p.add_argument('--rounds', type=int, default=20)
    p.add_argument('--calls', type=int, default=50, help='batches per round')
    p.add_argument('--threads', type=int, default=1)
    p.add_argument('--device', default='cpu')
    p.add_argument('--limit', type=float, default=30., help='microseconds that a draw may take on a CPU')
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    gpu = args.device.startswith('cuda')
    sync, g, slow = torch.cuda.synchronize if gpu else lambda: None, torch.Generator(args.device).manual_seed(0), []
    print(f'torch {torch.__version__}, {args.device}, {args.threads} thread(s), Python {platform.python_version()}')
    for n in args.images:
        batches = torch.randint(n, (args.rounds, args.calls, args.batch), device=args.device)
        for what, pool in dict(rows=made_pool(n, args.per, args.classes), votes=made_votes(n, args.classes)).items():
            pool = pool.to(args.device)
            result = times_of(rivals(pool, g, args.device), batches, sync)
            ours = statistics.median(result['LabelPool.draw'])
            fast = {k: v[len(v)//10] for k, v in result.items()}
            if fast['LabelPool.draw'] > args.limit and not gpu: slow.append(f"{n:,} images, {what}")
            title = f'{n:,} images, {len(pool.rows):,} {what}, batch {args.batch}'
            print(f"\n{title:52} {'median':>8} {'fast':>8} {'/ ours':>8}")
            for k, v in result.items():
                print(f'{k:52} {(mid := statistics.median(v)):8.1f} {fast[k]:8.1f} {mid/ours:8.2f}')
    x = torch.rand(10_000, 3, 32, 32, device=args.device)
    pool = made_pool(10_000, args.per, args.classes).to(args.device)
    sets = {'epoch of 10,000 32x32 images, mean labels': SoftSet(x, pool.mean()),
            '… one label drawn in each fetch': DrawnSet(x, pool, g)}
    for o in sets.values(): epoch(o, args.batch, g)
    ms = {k: [] for k in sets}
    for _ in range(9):
        for k in random.sample(list(sets), len(sets)): ms[k].append(epoch(sets[k], args.batch, g))
    print(f"\n{'loaders':52} {'ms':>8}")
    for k, v in ms.items(): print(f'{k:52} {statistics.median(v):8.1f}')
    if slow: print(f"\nabove {args.limit:g} µs: {'; '.join(slow)}")
    return int(bool(slow))

if __name__ == '__main__': sys.exit(main())
