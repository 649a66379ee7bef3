#!/usr/bin/env python3
"""Time the construction of all soft labels of CIFAR-10S in one call against a loop that builds them one by one.

Both sides run in one process, on the same table, in a new order each round; the table shows the median in milliseconds.
It needs the released answers (HMIX_DATA); without them, as many answers are made up. Ends with status 1 if the labels
differ by more than 1e-12."""
import argparse, os, platform, random, statistics, sys, time

for name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'): os.environ.setdefault(name, '1')

import numpy as np, pandas as pd

from hmix_nb.core import CIFAR10
from hmix_nb.data.hub import DataHub
from hmix_nb.data.judgments import LAYOUTS, categorical
from hmix_nb.softlabels.construct import SPREADS, VARIETIES, similarity, soft_labels

COLUMNS = ['first', 'first_prob', 'second', 'second_prob', 'impossible']

def one_label(first, p, second, q, impossible, variety='T2', spread='clamp', gamma=.1, rule='cifar-10s', alike=None, classes=CIFAR10):
    "One answer, step by step, as experiments with the released code would do it; the reference of the tests too."
    where = {c: i for i, c in enumerate(classes)}
    named = isinstance(second, str) and q == q and variety == 'T2'
    if rule == 'clean' and second == first: named = False
    label = np.zeros(len(classes))
    label[where[first]] = p
    if named: label[where[second]] = q
    possible = [c for c in classes if c not in impossible]
    if rule == 'clean': possible = [c for c in classes if c not in impossible or label[where[c]] > 0]
    n, total = int(np.sum(label > 0)), np.sum(label)
    if abs(total-1) < 1e-9: total = 1.
    empty = [where[c] for c in (possible if spread == 'clamp' else classes) if label[where[c]] == 0]
    m = len(possible) - n
    if spread == 'clamp':
        rest, full = (1-total, False) if total < 1 else (gamma, True)
        if full and rule != 'h-mix': label = label/total
        if m != 0:
            if full and rule == 'h-mix' and total > 1:
                for k in range(len(label)):
                    if label[k] > 0: label[k] = max(label[k] - gamma/n, 0)
            if full and rule != 'h-mix' and m > 0: label = label*(1-gamma)
            for k in empty if m > 0 else (): label[k] += rest/m
    elif total < 1:
        weights = {k: max(alike[where[first]][k], 0) for k in empty} if spread == 'semantic' else dict.fromkeys(empty, 1)
        if not sum(weights.values()): weights = dict.fromkeys(empty, 1)
        for k in empty: label[k] = (1-total)*weights[k]/sum(weights.values())
    return label/np.sum(label)

def plain_loop(df, **how):
    "What most people would write."
    return np.array([one_label(*(r[c] for c in COLUMNS), **how) for _, r in df.iterrows()])

def tuned_loop(df, **how):
    "The same, with the columns taken out of pandas first."
    return np.array([one_label(*r, **how) for r in zip(*(df[c].tolist() for c in COLUMNS))])

def made_up(n=6723, seed=0):
    "Answers of as many people as in CIFAR-10S."
    g, rows = np.random.default_rng(seed), []
    for _ in range(n):
        a, b = g.choice(10, 2, replace=False)
        p, q = g.integers(1, 101), g.integers(0, 101) if g.random() < .5 else None
        out = tuple(c for k, c in enumerate(CIFAR10) if k not in (a, b) and g.random() < .7)
        rows.append((CIFAR10[a], p/100, CIFAR10[b] if q is not None else None, np.nan if q is None else q/100, out))
    return pd.DataFrame(rows, columns=['first', 'first_prob', 'second', 'second_prob', 'impossible'])

def once(f):
    start = time.perf_counter()
    f()
    return (time.perf_counter()-start)*1e3

def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--rounds', type=int, default=9, help='how many times each is timed')
    p.add_argument('--root', help='data folder; default HMIX_DATA')
    args = p.parse_args()
    random.seed(0)
    hub = DataHub(args.root)
    real = hub.has(LAYOUTS['cifar_10s'].file)
    df, alike = categorical(hub, 'cifar-10s') if real else made_up(), similarity()
    print(f"{len(df)} {'released' if real else 'made up'} answers; Python {platform.python_version()}, numpy {np.__version__}, "
          f'pandas {pd.__version__}, one thread')
    worst = max(np.abs(soft_labels(df, v, s, rule=r) - tuned_loop(df, variety=v, spread=s, rule=r, alike=alike)).max()
                for v in VARIETIES for s in SPREADS for r in ('cifar-10s', 'clean'))
    print(f'largest difference between the two, over all varieties: {worst:.1e}')
    sides = {'hmix_nb soft_labels: all answers in one call, checked': lambda: soft_labels(df),
             'plain loop: iterrows, one answer at a time': lambda: plain_loop(df), 'the same loop, on plain lists': lambda: tuned_loop(df)}
    times = {k: [] for k in sides}
    for f in sides.values(): f()
    for _ in range(args.rounds):
        for k in random.sample(list(sides), len(sides)): times[k].append(once(sides[k]))
    first = statistics.median(next(iter(times.values())))
    for k, v in times.items(): print(f'  {k:60} {statistics.median(v):9.2f} ms  {statistics.median(v)/first:7.1f}x')
    return int(worst > 1e-12)

if __name__ == '__main__': sys.exit(main())
