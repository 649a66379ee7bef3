#!/usr/bin/env python3
"""Time a training step with `DirectionCB` beside one without, in turns, in one process, on the same batch.

The net is a CNN of three convolutions, batch norm and SiLU, or `preact_small` (`--preact`), on batches of 128 x 3 x 32 x 32, in a
fastai `Learner`; a step is all that `fit` does for a batch. Goals: at most 2.0 times a plain step when every sample is annotated, and below 1.1
times with one arrow. The callback draws a quarter of a batch's arrows for each step (`n`), so that every arrow has its turn in
four steps; the rows with n = 128 show what it costs to draw as many arrows as samples, of which no goal is judged. The ratio
is that within a round, in random order; its median counts. On a CPU it is one of processor time, all threads together. Ends
with status 1 if a goal is missed.

`--desk` serves a desk (moons, 100 points, ten arrows, five nets, map of 100 x 100) and counts epochs and redraws while it trains as
fast as it goes: with nothing painted, painted but with nobody there, and with a page that takes each frame, in a process of its own:
chromium where there is one, else a client that only fetches. Goals: at least 5 redraws a second on the page, and no more than .1 s
between two epochs in 99 of 100 cases, so that training is not blocked."""
import argparse, math, platform, random, shutil, statistics, subprocess, sys, threading, time

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

REDRAWS, WAIT = 5, .1 # a second at least; seconds at most, 99 % of the time

FETCH = '''
import json, struct, sys, httpx
n, last = 0, ''
with httpx.Client(timeout=30) as client:
    while True:
        r = client.get(sys.argv[1] + f'/frame?after={last}')
        if r.status_code == 200:
            size, = struct.unpack_from('<I', r.content)
            n, last = n+1, json.loads(r.content[4:4+size])['frame']
        print(n, flush=True)'''

BROWSE = '''
import sys
from playwright.sync_api import sync_playwright
with sync_playwright() as p, p.chromium.launch(executable_path=sys.argv[2], args=['--no-sandbox']) as browser:
    page = browser.new_page(viewport=dict(width=1280, height=860))
    page.goto(sys.argv[1])
    page.wait_for_function("() => document.querySelector('[data-directions]')?.desk?.frame")
    while True:
        page.wait_for_timeout(100)
        print(page.evaluate("document.querySelector('[data-directions]').desk.drawn"), flush=True)'''

class Viewer:
    "A page in another process, and how often it has drawn."
    def __init__(self, url):
        self.browser = next((p for o in ('chromium', 'chromium-browser', 'google-chrome') if (p := shutil.which(o))), None)
        try: import playwright
        except ImportError: self.browser = None
        code = [BROWSE, url, self.browser] if self.browser else [FETCH, url]
        self.p, self.n = subprocess.Popen([sys.executable, '-c', *code], stdout=subprocess.PIPE, text=True), 0
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()
        limit = time.monotonic() + 60
        while self.n < 1 and time.monotonic() < limit: time.sleep(.05)
    def read(self):
        for line in self.p.stdout: self.n = int(line)
    def __enter__(self): return self
    def __exit__(self, *_):
        self.p.terminate()
        self.p.wait(20)

def desk(o):
    from hmix_nb.directions.space import Oracle, Session
    from hmix_nb.directions.ui import serve
    torch.set_num_threads(o.threads)
    s = Session()
    s.do('load', dataset='moons', n=100, biased=True)
    for a in Oracle('moons').annotate(s.points)[:10]: s.do('arrow_commit', point=a.point, d=a.d, r=a.r)
    with serve(s, pace=o.pace, quiet=True) as handle:
        t, times = handle.desk.trainer, []
        one, every = t.one, t.every
        def timed():
            one()
            times.append(time.perf_counter())
        t.one = timed
        handle.desk.act(dict(do='play'))
        def rate(page=None):
            time.sleep(.5)
            del times[:-1]
            n, shown, at = t.painter.n, page.n if page else 0, time.perf_counter()
            time.sleep(o.seconds)
            past, done = time.perf_counter()-at, list(times)
            gaps = sorted(b-a for a, b in zip(done, done[1:]))
            if not gaps: sys.exit('the desk did not train')
            return len(gaps)/past, (t.painter.n-n)/past, ((page.n if page else 0)-shown)/past, gaps[int(.99*len(gaps))], gaps[-1]
        found = {}
        for _ in range(o.rounds):
            t.every = math.inf
            found.setdefault('nothing painted', []).append(rate())
            t.every = every
            found.setdefault('painted, nobody there', []).append(rate())
            with Viewer(handle.url) as page:
                found.setdefault('a page in chromium' if page.browser else 'a client that fetches', []).append(rate(page))
    print(f'desk, {platform.machine()}, torch with {torch.get_num_threads()} threads; {o.rounds} rounds of {o.seconds:g} s, medians')
    print(f"{'':24}{'epochs/s':>10}{'frames/s':>10}{'redraws/s':>11}{'wait 99 %, ms':>15}{'longest, ms':>13}")
    for k, rows in found.items():
        e, f, r, w, longest = map(statistics.median, zip(*rows))
        print(f'{k:24}{e:10.1f}{f:10.1f}{r:11.1f}{1000*w:15.1f}{1000*longest:13.1f}')
    _, _, r, w, _ = map(statistics.median, zip(*list(found.values())[-1])) # with a page
    missed = [f'{r:.1f} redraws a second']*(r < REDRAWS) + [f'{w:.2f} s between two epochs']*(w > WAIT)
    print(f"goals {'not met: ' + '; '.join(missed) if missed else 'met'}")
    return int(bool(missed))

def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    p.add_argument('--rounds', type=int, help='default 15, at the desk 3')
    p.add_argument('--batches', type=int, default=5, help='per round and callback, of which the first does not count')
    p.add_argument('--act', choices=ACTS, default='silu')
    p.add_argument('--width', type=int, default=32, help='channels of the first convolution; the others have twice as many')
    p.add_argument('--preact', action='store_true', help='preact_small: many layers of little work, so that one arrow weighs more')
    p.add_argument('--no-norm', action='store_true', help='without batch norm')
    p.add_argument('--threads', type=int, default=1, help='of torch, on a CPU')
    p.add_argument('--desk', action='store_true', help='redraws and epochs of the desk instead')
    p.add_argument('--seconds', type=float, default=4, help='of a round at the desk')
    p.add_argument('--pace', type=float, default=0, help='epochs a second at most, at the desk; 0 is as fast as it goes')
    o = p.parse_args(argv)
    o.rounds = o.rounds or (3 if o.desk else 15)
    if o.desk: return desk(o)
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
