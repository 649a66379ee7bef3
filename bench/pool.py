#!/usr/bin/env python3
"""Time one draw per image for a batch: ours, a loop over the batch, and a multinomial over padded rows.

Rows are alike, votes, or weighted; images have few rows or many, or one of them has 10,000. No batch comes twice, so that
nothing is in a cache just because it was drawn before. All run in one process, in a new order each round. The tables show
the median and the fastest tenth of the calls, in microseconds, and the time to make the pool and its mean. Says of each
pool whether the median is within the limit, and ends with status 1 if on a CPU even the fastest tenth is not."""
import argparse, platform, random, statistics, sys, time

import numpy as np, torch

from hmix_nb.data.images import SoftDL, SoftSet
from hmix_nb.data.pool import LabelPool
from hmix_nb.softlabels.pool import DrawnSet

def made_pool(n, per, classes, seed=0, weighted=False):
    "Labels of `per` people, a number or one for each of `n` images, who may be trusted more or less."
    g, image = np.random.default_rng(seed), np.repeat(np.arange(n), per)
    rows = torch.as_tensor(g.standard_exponential((len(image), classes), dtype=np.float32)**2)
    return LabelPool(rows/rows.sum(1, keepdim=True), image, weights=g.random(len(image)) if weighted else None)

def made_votes(n, classes, voters=51, seed=0):
    "As many votes per image as in CIFAR-10H."
    g = np.random.default_rng(seed)
    return LabelPool.from_counts(g.multinomial(voters, g.dirichlet(np.full(classes, .1), size=n)))

def kinds(args):
    "Name of each kind of pool to what makes it."
    few, k = args.per, args.classes
    for n in args.images:
        yield f'{n:,} images, {few} rows each', lambda n=n: made_pool(n, few, k)
        yield f'{n:,} images, {few} weighted rows each', lambda n=n: made_pool(n, few, k, weighted=True)
    yield '10,000 images, 51 votes each, as CIFAR-10H', lambda: made_votes(10_000, k)
    yield '10,000 images, 50 weighted rows each', lambda: made_pool(10_000, 50, k, weighted=True)
    yield '1 image, 10,000 weighted rows', lambda: made_pool(1, 10_000, k, weighted=True)
    wide = np.r_[10_000, np.full(9999, few)]
    yield f'1 image of 10,000 weighted rows, 9,999 of {few}', lambda: made_pool(10_000, wide, k, weighted=True)
    if args.large: yield '1,000,000 images, 5 weighted rows each', lambda: made_pool(1_000_000, 5, k, weighted=True)

def loop(pool, idx, g): # as the released code of CIFAR-10S does
    stretches = zip(pool.start[idx].tolist(), pool.count[idx].tolist())
    return torch.stack([pool.rows[random.randrange(s, s+c)] for s, c in stretches])

def multinomial(pool, idx, g, padded):
    return pool.rows.index_select(0, torch.multinomial(padded[idx], 1, generator=g)[:, 0] + pool.start[idx])

def rivals(pool, g, device):
    "Each takes a batch of positions; the first one is ours. The loop knows no weights; no padding above 100 MB."
    out = {'LabelPool.draw': lambda idx: pool.draw(idx, g), 'loop over the batch': lambda idx: loop(pool, idx, g)}
    if 4*len(pool)*int(pool.count.max()) > 1e8: return out
    w = torch.zeros(len(pool), int(pool.count.max()), device=device)
    at = torch.as_tensor(pool.image, device=device)
    w[at, torch.arange(len(at), device=device) - pool.start[at]] = torch.as_tensor(pool.row_weights, device=device).float()
    return out | {'multinomial over padded rows': lambda idx: multinomial(pool, idx, g, w)}

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

def seconds(f):
    start = time.perf_counter()
    return f(), time.perf_counter() - start

def epoch(dataset, bs, g):
    dl = SoftDL(dataset, bs, shuffle=True, generator=g)
    start = time.perf_counter()
    for _ in dl: pass
    return (time.perf_counter() - start)*1e3

def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--images', type=int, nargs='+', default=[1000, 100_000])
    p.add_argument('--large', action='store_true', help='a million images, too, of which a draw finds nothing in a cache')
    p.add_argument('--per', type=int, default=7, help='labels per image')
    p.add_argument('--classes', type=int, default=10)
    p.add_argument('--batch', type=int, default=128)
    p.add_argument('--rounds', type=int, default=10)
    p.add_argument('--calls', type=int, default=50, help='batches per round')
    p.add_argument('--threads', type=int, default=1)
    p.add_argument('--device', default='cpu')
    p.add_argument('--limit', type=float, default=30., help='microseconds that a draw may take on a CPU')
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    gpu = args.device.startswith('cuda')
    sync, g, ours = torch.cuda.synchronize if gpu else lambda: None, torch.Generator(args.device).manual_seed(0), {}
    print(f'torch {torch.__version__}, {args.device}, {args.threads} thread(s), Python {platform.python_version()}')
    for what, make in kinds(args):
        pool, making = seconds(make)
        _, averaging = seconds(pool.mean)
        pool = pool.to(args.device)
        result = times_of(rivals(pool, g, args.device),
                          torch.randint(len(pool), (args.rounds, args.calls, args.batch), device=args.device), sync)
        mid, fast = ({k: o(v) for k, v in result.items()} for o in (statistics.median, lambda v: v[len(v)//10]))
        ours[what] = mid['LabelPool.draw'], fast['LabelPool.draw']
        print(f"\n{what:52} {'median':>8} {'fast':>8} {'/ ours':>8}   made in {making:.2f} s, mean in {averaging:.2f} s")
        for k in result: print(f"{k:52} {mid[k]:8.1f} {fast[k]:8.1f} {mid[k]/mid['LabelPool.draw']:8.2f}")
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
    print(f'\ngoal: a draw of {args.batch} in less than {args.limit:g} µs on a CPU, median')
    for k, (mid, _) in ours.items(): print(f"{k:52} {mid:8.1f}   {'met' if mid < args.limit else 'NOT MET'}")
    return int(not gpu and any(fast > args.limit for _, fast in ours.values()))

if __name__ == '__main__': sys.exit(main())
