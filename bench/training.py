#!/usr/bin/env python3
"""Time training with mixup as people do it, and as we do: images per second, in turns, in one process.

Rivals: a plain fastai `Learner` with its own `DataLoaders` (PIL images, workers) and its own MixUp; a plain PyTorch loop in
the style of the code behind mixup (loader with workers, mixed batch, loss against both labels, running counts); ours in the
exact form (float32, as published) and in the fast one. All train the same net on the same number of 32 x 32 images, on
batches of 128. The first batch of each epoch, for which others start their workers, is left out. The table has the median
over rounds, and the lowest and highest, or the second of them where there are enough. Goals are judged by the median of
ratios within a round on a GPU, and by the fastest rounds on a CPU, which may have other things to do. On a CPU the C library
is told to keep freed memory (`KEEP`), for all alike: to fetch it anew takes time, by chance; see --fetch.

Goals on a CPU: ours, exact, no slower than the loop (up to 3 % of noise), taking images below 2 % of a step. On a GPU: ours,
fast, at least 5 times the Learner, the 60 runs of UAI Table 2 in at most 15 minutes, one net scored on all sets within 3 s.
Ends with status 1 if one is missed. With --together, several nets are trained side by side: as processes, as threads with a
CUDA stream each, and as one net over stacked weights (torch.vmap)."""
import argparse, copy, os, platform, queue, random, statistics, sys, threading, time, warnings

import numpy as np, torch, torch.multiprocessing as mp
import torch.nn.functional as F
from fastai.callback.core import Callback
from fastai.callback.mixup import MixUp
from fastai.callback.progress import ProgressCallback
from fastai.data.block import CategoryBlock, DataBlock
from fastai.data.transforms import IndexSplitter
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.optimizer import OptimWrapper
from fastai.vision.augment import Normalize
from fastai.vision.data import ImageBlock
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from hmix_nb.data.images import CIFAR10_MEAN, CIFAR10_STD
from hmix_nb.evaluation.evaluate import EvalSet, evaluate
from hmix_nb.train.loop import fit, mixup
from hmix_nb.train.models import MODELS, mk_model
from hmix_nb.train.resident import Resident

TABLE2 = 5*(7000 + 5*9070)*200 # images that the 30 runs of one net see: 5 seeds, 6 labellings, 200 epochs
SGD = dict(lr=.1, momentum=.9, weight_decay=1e-4)
KEEP = dict(MALLOC_MMAP_MAX_='0', MALLOC_TRIM_THRESHOLD_=str(2**34)) # glibc reads them when a process starts

class Clock:
    "Images per second of an epoch, from the end of its first step on."
    def __init__(self, device, n, bs): self.cuda, self.n, self.bs = device.type == 'cuda', n, bs
    def now(self):
        if self.cuda: torch.cuda.synchronize()
        return time.perf_counter()
    def done(self, steps): # how many steps are over
        if steps == 1: self.start = self.now()
    def rate(self): return (self.n-1)*self.bs/(self.now()-self.start)

class Pictures(Dataset):
    "Arrays as PIL images, transformed one by one."
    def __init__(self, x, y, tfms): self.x, self.y, self.tfms = x, y, tfms
    def __len__(self): return len(self.x)
    def __getitem__(self, i): return self.tfms(self.x[i]), int(self.y[i])

class Pick: # `get_x` and `get_y` that workers can be sent
    def __init__(self, o): self.o = o
    def __call__(self, i): return self.o[i]

class Ticks(Callback):
    run_valid, order = False, 100
    def __init__(self, clock): self.clock = clock
    def after_batch(self): self.clock.done(self.iter+1)
    def after_train(self): self.rate = self.clock.rate()

def fastai_learner(o, x, y, clock):
    "One epoch a call, without validation or a progress bar."
    block = DataBlock((ImageBlock, CategoryBlock), get_x=Pick(x), get_y=Pick(y), splitter=IndexSplitter([0]),
                      batch_tfms=Normalize.from_stats(CIFAR10_MEAN, CIFAR10_STD))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        dls = block.dataloaders(range(len(x)), bs=o.bs, num_workers=o.workers, device=o.device, drop_last=False)
    def sgd(params, **kw): return OptimWrapper(params, torch.optim.SGD, momentum=.9, **kw)
    net, ticks = mk_model(o.model, seed=0, normalize=None, **o.options).to(o.device), Ticks(clock)
    learn = Learner(dls, net, CrossEntropyLossFlat(), sgd, lr=.1, wd=1e-4, wd_bn_bias=True, cbs=[ticks, MixUp(1.)])
    learn.remove_cb(ProgressCallback)
    def epoch():
        with learn.no_logging(): learn.fit(1)
        return ticks.rate
    dls.loaders[1] = dls.loaders[1].new([]) # nothing to validate on
    return epoch

def plain_loop(o, x, y, clock):
    "One epoch a call."
    tfms = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(CIFAR10_MEAN, CIFAR10_STD)])
    loader = DataLoader(Pictures(x, y, tfms), o.bs, shuffle=True, num_workers=o.workers)
    net, device = mk_model(o.model, seed=0, normalize=None, **o.options).to(o.device), o.device
    opt = torch.optim.SGD(net.parameters(), **SGD)
    def epoch():
        net.train()
        total = right = 0
        for b, (xb, yb) in enumerate(loader):
            xb, yb = xb.to(device), yb.to(device)
            lam, idx = np.random.beta(1., 1.), torch.randperm(len(xb)).to(device)
            pred = net(lam*xb + (1-lam)*xb[idx])
            loss = lam*F.cross_entropy(pred, yb) + (1-lam)*F.cross_entropy(pred, yb[idx])
            total += loss.item()
            best = pred.argmax(1)
            right += lam*best.eq(yb).sum().item() + (1-lam)*best.eq(yb[idx]).sum().item()
            opt.zero_grad()
            loss.backward()
            opt.step()
            clock.done(b+1)
        return clock.rate()
    return epoch

class Timed(Resident):
    "Tells a clock whenever a batch is taken, which is when the one before is over."
    def order(self, generator=None):
        self.clock.taken = 0
        return super().order(generator)
    def fetch(self, i):
        self.clock.done(self.clock.taken)
        self.clock.taken += 1
        return super().fetch(i)

def ours(o, x, y, clock, form, engine=None):
    "One epoch a call; what records or compiles a step does so in an epoch before, which does not count."
    data = Timed(x, y, n_classes=10, device=o.device)
    data.clock, net = clock, mk_model(o.model, seed=0, **o.options)
    passes = 2 if form == 'fast' and (engine or o.device.type == 'cuda') else 1
    def epoch():
        rates = []
        h = fit(net, data, mixup(), epochs=passes, batch_size=o.bs, form=form, engine=engine, generator=0, threads=None,
                on_epoch=lambda e, h: rates.append(clock.rate()))
        epoch.share, epoch.notes, epoch.first = h.data_seconds[-1]/h.epoch_seconds[-1], h.notes, h.epoch_seconds[0]
        return rates[-1]
    return epoch

def rivals(o, x, y):
    "Name to what trains for an epoch and gives images per second."
    clock = lambda: Clock(o.device, o.batches, o.bs)
    out = {LEARNER: fastai_learner(o, x, y, clock()), LOOP: plain_loop(o, x, y, clock()),
           EXACT: ours(o, x, y, clock(), 'exact'), FAST: ours(o, x, y, clock(), 'fast')}
    for k in o.engines: out[f'ours, fast, {k}'] = ours(o, x, y, clock(), 'fast', k)
    return out

LEARNER, LOOP, EXACT, FAST = 'fastai Learner', 'plain loop', 'ours, exact', 'ours, fast'

def spread(t): # the median, and the second from either end
    t = sorted(t)
    k = 1 if len(t) > 4 else 0
    return statistics.median(t), t[k], t[-1-k]

def compare(o, x, y):
    "Print a table; name to images per second of each round."
    fs, rates = rivals(o, x, y), {}
    for i in range(o.rounds+1): # the first warms up
        for k in random.Random(i).sample(list(fs), len(fs)):
            rate = fs[k]()
            if i: rates.setdefault(k, []).append(rate)
    print(f"{'':24}{'images/s':>10}{'from .. to':>20}{'to Learner':>12}{'to loop':>10}{'taking images':>15}")
    for k in fs:
        mid, lo, hi = spread(rates[k])
        to = [statistics.median(a/b for a, b in zip(rates[k], rates[other])) for other in (LEARNER, LOOP)]
        share = f'{fs[k].share:.2%}' if hasattr(fs[k], 'share') else ''
        print(f"{k:24}{mid:10,.1f}{f'{lo:,.1f} .. {hi:,.1f}':>20}{to[0]:12.2f}{to[1]:10.2f}{share:>15}",
              *getattr(fs[k], 'notes', ()))
    return fs, rates

# ---- several nets side by side

def one_of(o, seed, x, y, wait, out):
    "Train one net, together with others, and say from when to when."
    times = []
    def on_epoch(e, h):
        if o.device.type == 'cuda': torch.cuda.synchronize()
        if e == 0: wait() # all have warmed up
        times.append(time.perf_counter())
    data = Resident(x, y, n_classes=10, device=o.device)
    fit(mk_model(o.model, seed=seed, **o.options), data, mixup(), epochs=3, batch_size=o.bs, form='fast',
        generator=seed, on_epoch=on_epoch)
    out.put((times[0], times[-1]))

def in_process(o, seed, x, y, barrier, out): one_of(o, seed, x, y, lambda: barrier.wait(180), out)

def gathered(o, n, found): # both epochs of all nets, over the time from the first start to the last end
    return 2*n*o.batches*o.bs/(max(b for _, b in found)-min(a for a, _ in found))

def processes(o, x, y, n):
    context = mp.get_context('spawn')
    barrier, out = context.Barrier(n), context.Queue()
    ps = [context.Process(target=in_process, args=(o, i, x, y, barrier, out), daemon=True) for i in range(n)]
    for p in ps: p.start()
    try: found = [out.get(timeout=240) for _ in ps]
    finally:
        for p in ps: p.join(1) or p.kill()
    return gathered(o, n, found)

def streams(o, x, y, n):
    if o.device.type != 'cuda': return None
    barrier, out = threading.Barrier(n), []
    class Out: put = staticmethod(out.append)
    def work(i):
        with torch.cuda.stream(torch.cuda.Stream()): one_of(o, i, x, y, lambda: barrier.wait(180), Out)
    ts = [threading.Thread(target=work, args=(i,)) for i in range(n)]
    for t in ts: t.start()
    for t in ts: t.join()
    if len(out) < n: raise RuntimeError('a thread failed')
    return gathered(o, n, out)

def stacked(o, x, y, n):
    "All nets as one, whose weights have one more axis; each has its own images."
    data = Resident(x, y, n_classes=10, device=o.device)
    nets = [mk_model(o.model, seed=i, **o.options).to(o.device) for i in range(n)]
    params, buffers = torch.func.stack_module_state(nets)
    base, amp = copy.deepcopy(nets[0]).to('meta'), o.device.type
    opt = torch.optim.SGD(params.values(), fused=True, **SGD)
    def one(p, b, xb, yb):
        with torch.autocast(amp, torch.bfloat16): pred = torch.func.functional_call(base, (p, b), (xb,))
        return F.cross_entropy(pred.float(), yb)
    def epoch():
        for batches in zip(*(data.order(torch.Generator().manual_seed(i)).split(o.bs) for i in range(n))):
            xb, yb = zip(*(mixup().prepare(*data.fetch(i), None) for i in batches))
            loss = torch.vmap(one)(params, buffers, torch.stack(xb), torch.stack(yb)).sum()
            opt.zero_grad()
            loss.backward()
            opt.step()
        if o.device.type == 'cuda': torch.cuda.synchronize()
        return time.perf_counter()
    return gathered(o, n, [(epoch(), (epoch(), epoch())[1])])

def side_by_side(o, x, y):
    "Print images per second of n nets together; the best."
    best = 0
    print(f"\n{'nets together':24}" + ''.join(f'{k:>14}' for k in ('processes', 'streams', 'stacked')))
    for n in o.together:
        row = []
        for f in (processes, streams, stacked):
            try: rate = f(o, x, y, n)
            except (RuntimeError, queue.Empty) as e: rate = f'{type(e).__name__}'
            row.append('-' if rate is None else rate)
        print(f'{n:<24}' + ''.join(f'{r:>14}' if isinstance(r, str) else f'{r:14,.1f}' for r in row), flush=True)
        best = max([best, *(r for r in row if not isinstance(r, str))])
    return best

# ---- what a table of the paper takes

def scoring(o):
    "Seconds to score one net on all sets: the 3,000 and the 100 with attacks, 15 corruptions."
    g = np.random.default_rng(0)
    def made(name, n, **kw):
        x, y = g.integers(256, size=(n, 32, 32, 3), dtype=np.uint8), g.integers(10, size=n)
        return EvalSet(name, x, torch.eye(10)[y], y, 'noise', bin_size=max(n//30, 2), **kw).to(o.device)
    sets = [made('3,000', 3000), made('100', 100), *(made(f'c{i}', 3000, attack=False, group='c') for i in range(15))]
    net, seconds = mk_model(o.model, seed=0, **o.options).to(o.device), []
    for _ in range(3):
        start = time.perf_counter()
        evaluate(net, sets)
        seconds.append(time.perf_counter()-start)
    return min(seconds)

def table2(o, x, y):
    "Minutes for the 60 runs, from the speed of both nets: one run after another, and side by side."
    alone = together = 0
    for model in ('preact_resnet18', 'vgg11'):
        arch = argparse.Namespace(**vars(o) | dict(model=model))
        rate = ours(arch, x, y, Clock(o.device, o.batches, o.bs), 'fast')()
        best = rate
        for n in o.together:
            if n == 1: continue
            try: best = max(best, processes(arch, x, y, n) or 0)
            except (RuntimeError, queue.Empty) as e: print(f'{n} processes of {model}: {type(e).__name__}: {str(e).splitlines()[0] if str(e) else ""}')
        print(f'{model:24}{rate:10,.0f} images/s alone, {best:,.0f} at best side by side')
        alone, together = alone + TABLE2/rate/60, together + TABLE2/best/60
    return alone, together

def judge(o, fs, rates, x, y):
    "Print which goals are met; whether all are."
    def goal(ok, text):
        print(f"goal {'met' if ok else 'not met'}: {text}")
        return ok
    gpu = o.device.type == 'cuda'
    def ratio(a, b): # on a CPU, which others use too, the fastest rounds: nothing but the work itself slows these
        return statistics.median(p/q for p, q in zip(rates[a], rates[b])) if gpu else max(rates[a])/max(rates[b])
    share = max(fs[EXACT].share, fs[FAST].share)
    ok = [goal(share < .02, f'taking images is {share:.2%} of a step; allowed are 2 %'),
          goal(ratio(EXACT, LOOP) >= .97, f'exact, {ratio(EXACT, LOOP):.2f} times the loop; at least 0.97'),
          goal(ratio(FAST, LOOP) >= 1, f'fast, {ratio(FAST, LOOP):.2f} times the loop; at least 1')]
    if not gpu or o.model != 'preact_resnet18': return all(ok)
    alone, together = table2(o, x, y)
    seconds = scoring(o)
    alone, together = alone + seconds, together + seconds # sixty times that, in minutes
    ok += [goal(ratio(FAST, LEARNER) >= 5, f'fast, {ratio(FAST, LEARNER):.1f} times the Learner; at least 5'),
           goal(together <= 15, f'UAI Table 2, 60 runs with their scores, estimated: {alone:.0f} minutes one by one, {together:.0f} side by side; at most 15'),
           goal(seconds <= 3, f'scores of one net on all sets: {seconds:.2f} s; at most 3')]
    return all(ok)

def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu', type=torch.device)
    p.add_argument('--model', default='preact_resnet18', choices=list(MODELS))
    p.add_argument('--width', type=int, help='of its first stage, for a smaller net')
    p.add_argument('--bs', type=int, default=128)
    p.add_argument('--rounds', type=int, help='after one that warms up; 5 on a GPU, 3 on a CPU')
    p.add_argument('--batches', type=int, help='per round; 71 on a GPU, as in UAI Table 2, and 3 on a CPU')
    p.add_argument('--workers', type=int, help="of others' loaders; as many as cores, 16 at the most, as in fastai")
    p.add_argument('--engines', nargs='*', default=[], choices=['eager', 'graph', 'compile'], help='of the fast form, to compare')
    p.add_argument('--fetch', action='store_true', help='leave freed memory to the C library, as other programs do')
    p.add_argument('--together', nargs='*', type=int, help='how many nets side by side; 1 2 4 8 on a GPU, none on a CPU')
    o = p.parse_args(argv)
    gpu, cores = o.device.type == 'cuda', mp.cpu_count()
    o.rounds, o.batches = o.rounds or (5 if gpu else 3), o.batches or (71 if gpu else 3)
    o.workers, o.options = min(16, cores) if o.workers is None else o.workers, dict(width=o.width) if o.width else {}
    o.together = ([1, 2, 4, 8] if gpu else []) if o.together is None else o.together
    if o.batches < 2: p.error('--batches: at least 2, since the first is left out')
    where = torch.cuda.get_device_name() if gpu else f'{platform.machine()}, {torch.get_num_threads()} threads of {cores} cores'
    if KEEP.items() <= os.environ.items(): where += ', freed memory kept'
    print(f'{o.model} {o.options or ""} on {where}; torch {torch.__version__}; {o.workers} workers for others; '
          f'{o.rounds} rounds of {o.batches-1} steps of {o.bs} x 3 x 32 x 32')
    g = np.random.default_rng(0)
    x = g.integers(256, size=(o.batches*o.bs, 32, 32, 3), dtype=np.uint8)
    y = g.integers(10, size=len(x))
    fs, rates = compare(o, x, y)
    ok = judge(o, fs, rates, x, y)
    if o.together: side_by_side(o, x, y)
    return int(not ok)

if __name__ == '__main__':
    if platform.libc_ver()[0] == 'glibc' and '--fetch' not in sys.argv and not (torch.cuda.is_available() or KEEP.items() <= os.environ.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | KEEP)
    sys.exit(main())
