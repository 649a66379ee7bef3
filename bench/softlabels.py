#!/usr/bin/env python3
"""Time the construction of all soft labels of CIFAR-10S in one call against loops that build them one by one.

The rivals differ in where a row comes from (`df.iterrows()`, or dicts that were made before the clock starts) and in what a
label is until it is done (a numpy array, as in the released builder, or a list). All run in one process, on the same answers,
in a new order each round, as often in a row as fits into a tenth of a second; the table shows the median over rounds in
milliseconds, and whether one call is 50 times as fast. A second table has the same answers in other forms: a tuple per row that no
other row shares, lists as after JSON, shares and names as objects with None, categories; and answers that are made up, with four
times as many different sets of ticks. It needs the released answers (HMIX_DATA); without them, all are made up. Ends with status 1
if labels differ by more than 1e-12."""
import argparse, json, os, platform, random, statistics, sys, time

for name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'): os.environ.setdefault(name, '1')

import numpy as np, pandas as pd

from hmix_nb.core import CIFAR10
from hmix_nb.data.hub import DataHub
from hmix_nb.data.judgments import LAYOUTS, categorical
from hmix_nb.softlabels.construct import RULES, SPREADS, VARIETIES, similarity, soft_labels

GOAL = 50 # times as fast

def one_label(row, variety='T2', spread='clamp', gamma=.1, rule='cifar-10s', alike=None, classes=CIFAR10):
    "One answer, step by step, as the released builder does it: a row with names in, an array out; the reference of the tests too."
    where = {c: i for i, c in enumerate(classes)}
    first, second, q, impossible = row['first'], row['second'], row['second_prob'], row['impossible']
    named = isinstance(second, str) and q == q and variety == 'T2'
    if rule == 'clean' and second == first: named = False
    label = np.zeros(len(classes))
    label[where[first]] = row['first_prob']
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
            if rule == 'cifar-10s': empty = [where[c] for c in possible if label[where[c]] == 0] # at gamma = 1 these are all
            for k in empty if m > 0 else (): label[k] += rest/m
    elif total < 1:
        weights = {k: max(alike[where[first]][k], 0) for k in empty} if spread == 'semantic' else dict.fromkeys(empty, 1)
        if not sum(weights.values()): weights = dict.fromkeys(empty, 1)
        for k in empty: label[k] = (1-total)*weights[k]/sum(weights.values())
    return label/np.sum(label)

PLACE = {c: i for i, c in enumerate(CIFAR10)}

def lean_label(row, gamma=.1):
    "The default alone, T2 and clamp by the rule 'cifar-10s', without numpy: as little as one label can cost in Python."
    second, q, impossible = row['second'], row['second_prob'], row['impossible']
    label = [0.]*10
    label[PLACE[row['first']]] = row['first_prob']
    if isinstance(second, str) and q == q: label[PLACE[second]] = q
    total = sum(label)
    m = 10 - len(impossible) - sum(v > 0 for v in label)
    if abs(total-1) < 1e-9: total = 1.
    rest = 1 - total
    if total >= 1: rest, label = gamma, [v/total*(1 - gamma*(m > 0)) for v in label]
    if m > 0: label = [rest/m if not v and c not in impossible else v for v, c in zip(label, CIFAR10)]
    total = sum(label)
    return [v/total for v in label]

def loop(rows, label=one_label, **how): return np.array([label(r, **how) for r in rows])

def made_up(n=6723, seed=0):
    "As many answers as in CIFAR-10S."
    g, rows = np.random.default_rng(seed), []
    for _ in range(n):
        a, b = g.choice(10, 2, replace=False)
        p, q = g.integers(1, 101), g.integers(0, 101) if g.random() < .5 else None
        out = tuple(c for k, c in enumerate(CIFAR10) if k not in (a, b) and g.random() < .7)
        rows.append((CIFAR10[a], p/100, CIFAR10[b] if q is not None else None, np.nan if q is None else q/100, out))
    return pd.DataFrame(rows, columns=['first', 'first_prob', 'second', 'second_prob', 'impossible'])

def forms(df):
    "The same answers as tables come: from `categorical`, made row by row, read from JSON, of objects, of categories."
    cols = ['first', 'first_prob', 'second', 'second_prob', 'impossible']
    none = df[cols].astype(object).where(df[cols].notna(), None)
    text = json.dumps([dict(zip(cols, r)) for r in none.itertuples(index=False)])
    return {'as it is read': df, 'a tuple of its own in each row': df.assign(impossible=[tuple(list(t)) for t in df.impossible]),
            'lists and None, as after JSON': pd.DataFrame(json.loads(text)), 'all columns of type object, with None': none,
            'names as objects': df.assign(**{c: df[c].astype(object) for c in ('first', 'second')}),
            'names as categories': df.astype(dict(first='category', second='category'))}

def mean_ms(f, n):
    start = time.perf_counter()
    for _ in range(n): f()
    return (time.perf_counter()-start)/n*1e3

def time_all(sides, rounds):
    "Median time of each of `sides`, ms, in a new order each round."
    times, often = {k: [] for k in sides}, {k: max(1, int(100/mean_ms(f, 1))) for k, f in sides.items()}
    for _ in range(rounds):
        for k in random.sample(list(sides), len(sides)): times[k].append(mean_ms(sides[k], often[k]))
    return {k: statistics.median(v) for k, v in times.items()}

def goal(t, ours): return f'{t/ours:7.1f}x  goal of {GOAL}x {"met" if t >= GOAL*ours else "not met"}'

def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--rounds', type=int, default=9, help='how many times each is timed')
    p.add_argument('--root', help='data folder; default HMIX_DATA')
    args = p.parse_args()
    random.seed(0)
    hub = DataHub(args.root)
    real = hub.has(LAYOUTS['cifar_10s'].file)
    df, alike = categorical(hub, 'cifar-10s') if real else made_up(), similarity()
    dicts = df.to_dict('records')
    print(f"{len(df)} {'released' if real else 'made up'} answers; Python {platform.python_version()}, numpy {np.__version__}, "
          f"pandas {pd.__version__}, one thread; names are of type {df['first'].dtype}")
    worst = max(np.abs(soft_labels(df, v, s, rule=r) - loop(dicts, variety=v, spread=s, rule=r, alike=alike)).max()
                for v in VARIETIES for s in SPREADS for r in RULES)
    lean = np.abs(soft_labels(df) - loop(dicts, lean_label)).max()
    print(f'largest difference: {worst:.1e} from the loop with numpy, over all varieties and rules; {lean:.1e} from the lean one')
    ours = 'hmix_nb soft_labels: all answers in one call, checked'
    sides = {ours: lambda: soft_labels(df),
             'iterrows: a row of pandas at a time, labels are arrays': lambda: loop(r for _, r in df.iterrows()),
             'dicts: a dict at a time, labels are arrays': lambda: loop(dicts),
             'lean: a dict at a time, labels are lists, one rule only': lambda: loop(dicts, lean_label)}
    ms = time_all(sides, args.rounds)
    for k, t in ms.items(): print(f'  {k:58} {t:9.2f} ms' + ('' if k == ours else '  ' + goal(t, ms[ours])))
    print('one call on other forms of the table, against a dict at a time and against a row of pandas at a time, each from that table')
    tables, want = forms(df) | {'made up': made_up()}, soft_labels(df)
    for k, d in tables.items():
        rows = d.to_dict('records')
        worst = max(worst, np.abs(soft_labels(d) - (loop(rows) if k == 'made up' else want)).max())
        one = time_all(dict(ours=lambda: soft_labels(d), dicts=lambda: loop(rows), rows=lambda: loop(r for _, r in d.iterrows())),
                       args.rounds)
        print(f"  {k:58} {one['ours']:9.2f} ms  {goal(one['dicts'], one['ours'])}  {goal(one['rows'], one['ours'])}")
    return int(max(worst, lean) > 1e-12)

if __name__ == '__main__': sys.exit(main())
