#!/usr/bin/env python3
"""Time a training step of a fastai `Learner` with a mixing callback beside one without, in turns, in one process.

On a GPU: PreAct ResNet-18 on batches of 128 x 3 x 32 x 32; the goal is a step with `HumanMixUp` that is at most 3 % slower
than one without. On a CPU a small net is timed, and no goal judged. A step is all that `fit` does for a batch, callbacks
and all; the median over rounds counts. Ends with status 1 if the goal is missed."""
import argparse, platform, random, statistics, sys, time

import torch
from fastai.callback.core import Callback
from fastai.callback.mixup import MixUp
from fastai.callback.progress import ProgressCallback
from fastai.learner import Learner, Recorder

from hmix_nb.core import CIFAR10
from hmix_nb.data.images import soft_dls
from hmix_nb.mixing.labels import Linear, PairLogistic, Smoothed
from hmix_nb.train.callbacks import HumanMixUp
from hmix_nb.train.losses import SoftCrossEntropy
from hmix_nb.train.models import mk_model

GOAL = 1.03 # of a step without

class Clock(Callback):
    "Milliseconds per step of each epoch, its first `skip` batches left out."
    order, run_valid = 100, False
    def __init__(self, skip): self.skip = skip
    def now(self):
        if self.dls.device.type == 'cuda': torch.cuda.synchronize()
        return time.perf_counter()
    def before_train(self): self.start = None
    def before_batch(self): # the previous step is over, this one's mixing done: every interval holds one of each
        if self.iter == self.skip: self.start = self.now()
    def after_train(self): self.ms = 1000*(self.now()-self.start)/(self.n_iter-self.skip)

def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    p.add_argument('--rounds', type=int, default=15)
    p.add_argument('--batches', type=int, default=None, help='per round and callback; 100 on a GPU, 8 on a CPU')
    p.add_argument('--bf16', action='store_true', help='under torch.autocast with bfloat16')
    o = p.parse_args(argv)
    gpu = torch.device(o.device).type == 'cuda'
    n, arch = o.batches or (100 if gpu else 8), 'preact_resnet18' if gpu else 'preact_small'
    skip, g = max(1, n//5), torch.Generator().manual_seed(0)
    x, y = torch.rand(128*n, 3, 32, 32, generator=g), torch.randint(10, (128*n,), generator=g)
    dls = soft_dls(x, y, x[:1], y[:1], bs=128, vocab=CIFAR10, generator=0, device=o.device)
    without, human = 'without', 'HumanMixUp, PairLogistic'
    cbs = {without: None, 'fastai MixUp': MixUp(1.), 'HumanMixUp, Linear': HumanMixUp(g=Linear()), human: HumanMixUp(),
           'HumanMixUp, PairLogistic + confidence': HumanMixUp(g=Smoothed(PairLogistic()))}
    net, clock = mk_model(arch, seed=0).to(o.device), Clock(skip)
    learn = Learner(dls, net, loss_func=SoftCrossEntropy(), cbs=clock, lr=1e-3)
    learn.remove_cbs([ProgressCallback, Recorder])
    learn.create_opt()
    where = torch.cuda.get_device_name() if gpu else f'{platform.machine()}, {torch.get_num_threads()} threads'
    print(f"{arch} on {where}{', bf16' if o.bf16 else ''}; {o.rounds} rounds of {n-skip} steps of 128 x 3 x 32 x 32")
    times = {k: [] for k in cbs}
    for i in range(o.rounds+1): # the first warms up
        for k in random.Random(i).sample(list(cbs), len(cbs)):
            with torch.autocast(o.device.split(':')[0], torch.bfloat16, enabled=o.bf16): learn.fit(1, cbs=cbs[k])
            if i: times[k].append(clock.ms)
    base = statistics.median(times[without])
    print(f"{'':40}{'ms':>9}{'to without':>12}{'rounds from .. to':>20}")
    for k, t in times.items():
        ratios = sorted(a/b for a, b in zip(t, times[without]))
        spread = f'{ratios[len(ratios)//10]:.3f} .. {ratios[-1-len(ratios)//10]:.3f}'
        print(f'{k:40}{statistics.median(t):9.2f}{statistics.median(t)/base:12.3f}{spread:>20}')
    ratio = statistics.median(times[human])/base
    if not gpu:
        print(f'no GPU here: {ratio-1:+.1%} a step on a small net; the goal is for a GPU')
        return 0
    print(f"goal {'met' if ratio <= GOAL else 'not met'}: {ratio-1:+.1%} a step; allowed is {GOAL-1:+.0%}")
    return int(ratio > GOAL)

if __name__ == '__main__': sys.exit(main())
