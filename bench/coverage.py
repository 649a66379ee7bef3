#!/usr/bin/env python3
"""Count how often 95 % intervals have the truth inside: 200 simulated studies as large as H-Mix, on known curves.

The known curves are the fits that ship with the package, the variation is that of the people and blends of H-Mix; no data
is needed. Ends with status 1 if a band of the robust or the partially pooled fits is outside 90 to 98 %."""
import argparse, os, platform, sys, time

for name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'): os.environ.setdefault(name, '1')

from hmix_nb.analysis.recovery import coverage

def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--studies', type=int, default=200, help='how many studies')
    p.add_argument('--seed', type=int, default=0)
    args = p.parse_args()
    start = time.perf_counter()
    result = coverage(args.studies, seed=args.seed)
    print(f'{result}\n{time.perf_counter()-start:.1f} s on one thread, Python {platform.python_version()}')
    band = result.table.covered[:, 'band'].loc[['two-way robust', 'partially pooled']]
    return int(not band.between(.9, .98).all())

if __name__ == '__main__': sys.exit(main())
