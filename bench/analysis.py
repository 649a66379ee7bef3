#!/usr/bin/env python3
"""Time the tidy load and the fits of H-Mix's coefficient study against the plain scipy loop, and `hmix analyse` as a whole.

Both sides run in one process, in a new order each round; the table shows the median in milliseconds. It needs the released
files (HMIX_DATA); without them, the fits are timed on simulated answers of the same size and the loads are left out."""
import argparse, json, platform, random, statistics, subprocess, sys, tempfile, time
from pathlib import Path

import numpy as np, pandas as pd, scipy
from scipy.optimize import curve_fit

from hmix_nb.analysis.answers import load_answers
from hmix_nb.batchfit import fit_batch
from hmix_nb.curves import share, share_slopes
from hmix_nb.data.hub import DataHub
from hmix_nb.data.judgments import LAYOUTS, coefficient, construct, select_shuffled
from hmix_nb.mixing.fits import fit_pairs

def logistic(x, k, x0): return 1/(1+np.exp(-k*(x-x0)))

def plain_fits(df):
    "What most people would write."
    return {key: curve_fit(logistic, d.lam_f, d.lam_h, p0=[1, 1]) for key, d in df.groupby(['class_a', 'class_b'])}

def tuned_fits(df):
    "The same, with the columns taken out of pandas first."
    return {key: curve_fit(logistic, d.lam_f.to_numpy(), d.lam_h.to_numpy(), p0=[1, 1])
            for key, d in df.groupby(['class_a', 'class_b'])}

def batch_fits(df):
    "The same parameters and covariances, all pairs at once."
    return fit_batch(share, df.lam_f.to_numpy(), df.lam_h.to_numpy(), df.groupby(['class_a', 'class_b']).ngroup().to_numpy(),
                     [4., .5], jac=share_slopes)

def plain_load(hub):
    "The same three tables through pandas, without a check of any field."
    df = pd.read_csv(hub.path(LAYOUTS['coefficient'].file), low_memory=False)
    df = df[df.trial_type == LAYOUTS['coefficient'].trial_type]
    answers = df.responses.map(json.loads)
    out = [pd.DataFrame(dict(participant=df.subject, stimulus=df.filename, class_a=df.label1, class_b=df.label2, lam_f=df.mixtureCoeff,
                             lam_h=1-answers.map(lambda a: a['mixingcoeff'])/100, confidence=answers.map(lambda a: a['confidence'])/100))]
    for name in ('construct', 'select'):
        d = pd.read_csv(hub.path(LAYOUTS[name].file), low_memory=False)
        d = d[d.trial_type == LAYOUTS[name].trial_type]
        lam = d.final_value if name == 'construct' else d.response.map(lambda r: float(json.loads(r)['select'][len('select'):]))
        out.append(pd.DataFrame(dict(participant=d.subject, pair=d.class_pair, lam_h=lam.round(1))))
    return out

def once(f):
    start = time.perf_counter()
    f()
    return (time.perf_counter()-start)*1e3

def compare(what, fs, rounds):
    for f in fs.values(): f()
    times = {k: [] for k in fs}
    for _ in range(rounds):
        for k in random.sample(list(fs), len(fs)): times[k].append(once(fs[k]))
    first = statistics.median(next(iter(times.values())))
    print(f'\n{what}')
    for k, v in times.items(): print(f'  {k:60} {statistics.median(v):9.2f} ms   {statistics.median(v)/first:6.2f}x')

def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--rounds', type=int, default=15, help='how many times each is timed')
    p.add_argument('--root', help='data folder; default HMIX_DATA')
    args = p.parse_args()
    random.seed(0)
    a, hub = load_answers(root=args.root), DataHub(args.root)
    print(f'{a}\nPython {platform.python_version()}, numpy {np.__version__}, pandas {pd.__version__}, scipy {scipy.__version__}')
    df = a.coefficient
    ours, theirs = fit_pairs(df).table, plain_fits(df)
    worst = max(np.abs(ours.loc[k, ['k', 'x0']].to_numpy(float) - v[0]).max() for k, v in theirs.items())
    print(f'{len(ours)} fits; largest difference of a parameter: {worst:.1e}')
    compare(f'The fits of {len(ours)} pairs to {len(df)} answers', {
        'hmix_nb fit_batch: parameters and covariances': lambda: batch_fits(df),
        'plain loop: pandas groups and scipy curve_fit': lambda: plain_fits(df),
        'the same loop, on numpy arrays': lambda: tuned_fits(df),
        'hmix_nb fit_pairs: also robust, pooled, and confidence': lambda: fit_pairs(df)}, args.rounds)
    if a.source == 'released':
        compare('The load of three tables', {
            'hmix_nb readers, every field checked': lambda: (coefficient(hub), construct(hub), select_shuffled(hub)),
            'plain pandas and json, nothing checked': lambda: plain_load(hub)}, max(3, args.rounds//3))
    print('\nThe whole command, a new process each')
    root = ['--root', args.root] if args.root else []
    for label, more in {'hmix analyse --no-figures': ['--no-figures'], 'hmix analyse': []}.items():
        with tempfile.TemporaryDirectory() as d:
            start = time.perf_counter()
            subprocess.run([sys.executable, '-c', 'import sys; from hmix_nb.cli import main; sys.exit(main())', 'analyse', '--out', d, *root, *more], check=True, stdout=subprocess.DEVNULL)
            made = len([f for f in Path(d).rglob('*') if f.is_file()])
            print(f'  {label:60} {time.perf_counter()-start:9.2f} s   {made} files')

if __name__ == '__main__': main()
