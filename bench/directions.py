#!/usr/bin/env python3
"""Time a training step with `DirectionCB` beside one without, in turns, in one process, on the same batch.

The net is a CNN of three convolutions, batch norm and SiLU, or `preact_small` (`--preact`), on batches of 128 x 3 x 32 x 32, in a
fastai `Learner`; a step is all that `fit` does for a batch. Goals: at most 2.0 times a plain step when every sample is annotated, and below 1.1
times with one arrow. The callback draws a quarter of a batch's arrows for each step (`n`), so that every arrow has its turn in
four steps; the rows with n = 128 show what it costs to draw as many arrows as samples, of which no goal is judged. The ratio
is that within a round, in random order; its median counts. On a CPU it is one of processor time, all threads together. Ends
with status 1 if a goal is missed."""
import argparse, platform, random, statistics, sys, time

import torch
from fastai.callback.core import Callback
from fastai.callback.progress import ProgressCallback
from fastai.learner import Learner, Recorder
from torch import nn

from hmix_nb.core import CIFAR10
from hmix_nb.data.images import soft_dls
from hmix_nb.directions.loss import KINDS, DirectionCB, Directions
from hmix_nb.train.losses import SoftCrossEntropy
from hmix_nb.train.models import mk_model

ALL, ONE = 2., 1.1 # of a plain step
ACTS = dict(silu=nn.SiLU, gelu=nn.GELU, relu=nn.ReLU, tanh=nn.Tanh)

class Clock(Callback):
    "Milliseconds per step of each epoch, its first batch left out."
    order, run_valid = 100, False
    def now(self):
        if self.dls.device.type != 'cuda': return time.process_time() # others may use the processor meanwhile
        torch.cuda.synchronize()
        return time.perf_counter()
    def before_batch(self):
        if self.iter == 1: self.start = self.now()
    def after_train(self): self.ms = 1000*(self.now()-self.start)/(self.n_iter-1)

def cnn(act, width, norm=True):
    layers, c = [], 3
    for w in (width, 2*width, 2*width):
        layers += [nn.Conv2d(c, w, 3, padding=1, bias=not norm)] + [nn.BatchNorm2d(w)]*norm + [act(), nn.AvgPool2d(2)]
        c = w
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 10))

def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    p.add_argument('--rounds', type=int, default=15)
    p.add_argument('--batches', type=int, default=5, help='per round and callback, of which the first does not count')
    p.add_argument('--act', choices=ACTS, default='silu')
    p.add_argument('--width', type=int, default=32, help='channels of the first convolution; the others have twice as many')
    p.add_argument('--preact', action='store_true', help='preact_small: many layers of little work, so that one arrow weighs more')
    p.add_argument('--no-norm', action='store_true', help='without batch norm')
    p.add_argument('--threads', type=int, default=1, help='of torch, on a CPU')
    o = p.parse_args(argv)
    gpu = torch.device(o.device).type == 'cuda'
    if not gpu: torch.set_num_threads(o.threads)
    n, g = 128*o.batches, torch.Generator().manual_seed(0)
    x, y = torch.rand(n, 3, 32, 32, generator=g), torch.randint(10, (n,), generator=g)
    arrows = Directions(x, y, (y+1) % 10, torch.randn(x.shape, generator=g), torch.rand(n, generator=g)+.1)
    dls = soft_dls(x, y, x[:1], y[:1], bs=128, vocab=CIFAR10, generator=0, device=o.device)
    torch.manual_seed(0)
    net = cnn(ACTS[o.act], o.width, not o.no_norm) if not o.preact else mk_model('preact_small', seed=0)
    name = f'CNN of width {o.width}, {o.act}, {"no" if o.no_norm else "batch"} norm' if not o.preact else 'preact_small'
    clock = Clock()
    learn = Learner(dls, net.to(o.device), loss_func=SoftCrossEntropy(), lr=1e-3, cbs=clock)
    learn.remove_cbs([ProgressCallback, Recorder])
    learn.create_opt()
    judged = {f'{k}, every sample annotated': ALL for k in KINDS} | {f'{k}, one arrow': ONE for k in KINDS}
    cbs = {'plain': None} | {f'{k}, every sample annotated': DirectionCB(arrows, loss=k) for k in KINDS}
    cbs |= {f'{k}, one arrow': DirectionCB(arrows[:1], loss=k) for k in KINDS}
    cbs |= {f'{k}, n = 128': DirectionCB(arrows, loss=k, n=128) for k in ('softplus', 'cosine', 'tip')}
    where = torch.cuda.get_device_name() if gpu else f'{platform.machine()}, {torch.get_num_threads()} threads'
    print(f'{name} on {where}; {o.rounds} rounds of {o.batches-1} steps of 128')
    times = {k: [] for k in cbs}
    for i in range(o.rounds+1): # the first warms up
        for k in random.Random(i).sample(list(cbs), len(cbs)):
            learn.fit(1, cbs=cbs[k])
            if i: times[k].append(clock.ms)
    print(f"{'':34}{'ms':>8}{'to plain':>10}{'rounds from .. to':>20}{'goal':>8}")
    missed = []
    for k, t in times.items():
        ratios = sorted(a/b for a, b in zip(t, times['plain']))
        mid, cut = statistics.median(ratios), len(ratios)//10
        if k in judged and mid > judged[k]: missed.append(k)
        goal = f'{judged[k]:.1f}' if k in judged else ''
        print(f'{k:34}{statistics.median(t):8.2f}{mid:10.3f}{f"{ratios[cut]:.3f} .. {ratios[-1-cut]:.3f}":>20}{goal:>8}')
    print(f"goals {'not met: ' + '; '.join(missed) if missed else 'met'}")
    return int(bool(missed))

if __name__ == '__main__': sys.exit(main())
