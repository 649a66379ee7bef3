#!/usr/bin/env python3
"""Time the mixing of one batch: ours, with mixup's labels and with people's, beside the mixers of four libraries.

All run on the same tensors, in one process, in a new order each round. The tables show the median of the calls in
milliseconds, the fastest tenth, and the ratio to ours with the linear policy. fastai's MixUp is its class, called as a
`Learner` calls it, on a loss without `y_int`, so that it mixes targets. timm's writes into its input and takes hard labels
only, so that its rows are no rivals for soft ones. torch-uncertainty's file is timed alone where the package is installed.
Labels come one-hot, for which ours has a shorter way, and as dense rows, as people give them.
Then the goals, on each of the two: is ours the fastest path for soft labels, and what do people's labels cost? On a machine
that does other work the medians are no one's (more than 1.25 times the fastest tenth): 'busy' is a goal that is then met by
the fastest tenth, 'unclear' one that is not. Ends with status 1 if a goal is missed on a quiet machine."""
import argparse, importlib.util, platform, random, statistics, sys, time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch
from fastai.callback.mixup import MixUp as FastaiMixUp
from torchvision.transforms.v2 import MixUp

from hmix_nb.mixing.labels import Linear, PairLogistic, Smoothed
from hmix_nb.mixing.pixels import mix

LINEAR, HUMAN, SURE = 'ours, Linear', 'ours, PairLogistic', 'ours, PairLogistic + confidence'
COST = {(128, 32): (.1, 'ms more'), (512, 32): (1.3, 'times'), (64, 224): (1.15, 'times')} # what people's labels may cost

class FastaiStep:
    "fastai's own `MixUp.before_batch`, with as much of a learner as it asks for."
    def __init__(self, x, y):
        self.cb, self.x, self.y = FastaiMixUp(alpha=1.), x, y
        self.cb.learn, self.cb.stack_y = SimpleNamespace(), False # as for a loss without `y_int`

    def __call__(self):
        learn = self.cb.learn
        learn.x, learn.y, learn.xb, learn.yb = self.x, self.y, (self.x,), (self.y,)
        self.cb.before_batch()
        return learn.xb[0], learn.yb[0]

def uncertainty_mixup():
    "torch-uncertainty's `Mixup`, from its file alone: the package itself asks for an older torch. `None`: not installed."
    spec = importlib.util.find_spec('torch_uncertainty')
    if spec is None: return None
    names = 'torch_uncertainty', 'torch_uncertainty.layers'
    sys.modules |= {n: ModuleType(n) for n in names}
    sys.modules[names[1]].Identity = torch.nn.Identity
    try:
        file = Path(spec.submodule_search_locations[0])/'transforms'/'mixup.py'
        one = importlib.util.spec_from_file_location('tu_mixup', file)
        module = importlib.util.module_from_spec(one)
        one.loader.exec_module(module)
    finally:
        for n in names: del sys.modules[n]
    return module.Mixup

def rivals(x, y, hard, k):
    "What is timed, which of it takes soft labels, and what is not here."
    human, sure, tv, missing = PairLogistic(), Smoothed(PairLogistic()), MixUp(alpha=1., num_classes=k), {}
    fs = {LINEAR: lambda: mix(x, y, g=Linear()), HUMAN: lambda: mix(x, y, g=human), SURE: lambda: mix(x, y, g=sure),
          'ours, Linear, per sample': lambda: mix(x, y, g=Linear(), per='sample'),
          'ours, PairLogistic + confidence, per sample': lambda: mix(x, y, g=sure, per='sample'),
          'torchvision v2 MixUp': lambda: tv(x, y), 'fastai MixUp, per sample': FastaiStep(x, y)}
    soft = list(fs)
    fs['ours, Linear, hard labels'] = lambda: mix(x, hard, g=Linear(), n_classes=k)
    fs['ours, PairLogistic + confidence, hard labels'] = lambda: mix(x, hard, g=sure)
    try: from timm.data.mixup import Mixup
    except ImportError: missing['timm Mixup'] = 'timm is not installed'
    else:
        def timm(mode):
            mixer, own = Mixup(mixup_alpha=1., label_smoothing=0., num_classes=k, mode=mode), x.clone()
            return lambda: mixer(own, hard) # in place; without the copy that who needs `x` again would make
        fs |= {f'timm Mixup, {mode}, in place, hard labels': timm(mode) for mode in ('batch', 'elem')}
    try: Uncertain = uncertainty_mixup()
    except ImportError as e: Uncertain, missing['torch-uncertainty Mixup'] = None, f'cannot be loaded: {e}'
    else:
        if Uncertain is None: missing['torch-uncertainty Mixup'] = 'torch-uncertainty is not installed'
    if Uncertain:
        for mode, iso in dict(batch=True, elem=False).items():
            tu = Uncertain(alpha=1., isobatch=iso, num_classes=k)
            fs[f'torch-uncertainty Mixup, {mode}, hard labels'] = lambda tu=tu: tu(x, hard)
    return fs, soft, missing

def measure(fs, rounds, calls, sync):
    "Milliseconds of each call: in each round everybody has a few in a row, of which the first is not counted."
    out = {k: [] for k in fs}
    for _ in range(rounds):
        for k in random.sample(list(fs), len(fs)):
            for i in range(calls+1):
                sync()
                start = time.perf_counter()
                fs[k]()
                sync()
                if i: out[k].append((time.perf_counter()-start)*1e3)
    return out

def show(title, times, missing={}):
    print(f"\n{title:48} {'median ms':>10} {'fastest tenth':>14} {'/ ours':>7}")
    base = statistics.median(next(iter(times.values())))
    for k, v in times.items():
        mid, low = statistics.median(v), tenth(v)
        print(f'{k:48} {mid:10.3f} {low:14.3f} {mid/base:7.2f}')
    for k, v in missing.items(): print(f'{k:48} {v}')

def tenth(v): return sorted(v)[len(v)//10]

def goals(shape, times, soft):
    "Whether each goal is met: by the medians, and where the machine is too busy for these, by the fastest tenth."
    most, unit = COST.get(shape, (1.3, 'times'))
    rivals = [k for k in soft if not k.startswith('ours')]
    def judge(words, value, allowed):
        mid, low = ({k: f(v) for k, v in times.items()} for f in (statistics.median, tenth))
        busy = any(mid[k] > 1.25*low[k] for k in (LINEAR, HUMAN, SURE))
        a, b = value(mid), value(low)
        verdict = 'met' if a <= allowed(mid) else 'busy' if busy and b <= allowed(low) else 'unclear' if busy else 'MISSED'
        return verdict, f'{words}: {a:.3f} by the medians, {b:.3f} by the fastest tenth; allowed {allowed(mid):.3f}'
    yield judge('fastest path for soft labels, ms', lambda t: t[LINEAR], lambda t: min(t[k] for k in rivals))
    cost = (lambda t, g: t[g]-t[LINEAR]) if unit == 'ms more' else (lambda t, g: t[g]/t[LINEAR])
    for g in (HUMAN, SURE): yield judge(f'{g}, {unit} than Linear'.replace('times than', 'times'), lambda t, g=g: cost(t, g), lambda t: most)

def callbacks(bs, side, rounds, device, n_batches=4):
    "Milliseconds per batch inside each callback, all its events together, in a `Learner` with next to no model."
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.losses import CrossEntropyLossFlat
    from hmix_nb.train.callbacks import HumanMixUp
    g = torch.Generator().manual_seed(0)
    batches = [(torch.rand(bs, 3, side, side, generator=g).to(device), torch.randint(10, (bs,), generator=g).to(device))]*n_batches
    dls = DataLoaders(batches, batches[:1])
    dls.c = 10
    net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 10)).to(device)
    sync = torch.cuda.synchronize if str(device).startswith('cuda') else lambda: None
    made = {'ours, HumanMixUp(g=Linear())': lambda: HumanMixUp(g=Linear()),
            'ours, HumanMixUp(), the curves of the people': lambda: HumanMixUp(g=PairLogistic()),
            'ours, the same + confidence': lambda: HumanMixUp(g=Smoothed(PairLogistic())),
            'fastai MixUp': lambda: FastaiMixUp(alpha=1.)}
    def fit(make):
        cb, spent = make(), []
        for event in ('before_batch', 'after_pred', 'after_loss', 'before_backward', 'after_backward', 'after_batch'):
            if (f := getattr(cb, event, None)) is not None: setattr(cb, event, timed(f, spent, sync))
        learn = Learner(dls, net, loss_func=CrossEntropyLossFlat(), cbs=[cb])
        learn.remove_cbs([o for o in learn.cbs if type(o).__name__ in ('ProgressCallback', 'Recorder')])
        learn.fit(1, lr=1e-3)
        return sum(spent)/n_batches*1e3
    for make in made.values(): fit(make)
    out = {k: [] for k in made}
    for _ in range(rounds):
        for k in random.sample(list(made), len(made)): out[k].append(fit(made[k]))
    return out

def timed(f, spent, sync):
    def inner(*args):
        sync()
        start = time.perf_counter()
        f(*args)
        sync()
        spent.append(time.perf_counter()-start)
    return inner

def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--shapes', nargs='+', default=['128x32', '512x32', '64x224'], help='batch x side of the images')
    p.add_argument('--classes', type=int, default=10)
    p.add_argument('--rounds', type=int, default=60, help='how many times each is timed')
    p.add_argument('--threads', type=int, nargs='+', default=[1, 2])
    p.add_argument('--device', default='cpu')
    args = p.parse_args()
    torch.manual_seed(0)
    random.seed(0)
    sync = torch.cuda.synchronize if args.device.startswith('cuda') else lambda: None
    met = []
    for threads in args.threads:
        torch.set_num_threads(threads)
        print(f'\n== torch {torch.__version__}, {args.device}, {threads} thread(s), Python {platform.python_version()}')
        for shape in args.shapes:
            bs, side = map(int, shape.split('x'))
            x, hard = torch.rand(bs, 3, side, side, device=args.device), torch.randint(args.classes, (bs,), device=args.device)
            kinds = {'one-hot rows': torch.nn.functional.one_hot(hard, args.classes).float(),
                     'dense rows': (4*torch.rand(bs, args.classes, device=args.device)).softmax(1)}
            large = x.numel() > 5e6
            for kind, y in kinds.items():
                fs, soft, missing = rivals(x, y, hard, args.classes)
                if kind != 'one-hot rows': fs = {k: fs[k] for k in soft} # hard labels have been timed
                times = measure(fs, max(5, args.rounds//4) if large else args.rounds, 1 if large else 4, sync)
                show(f'{bs} of 3x{side}x{side}, {kind}', times, missing)
                for verdict, words in goals((bs, side), times, soft):
                    met.append(verdict)
                    print(f'  {verdict:8} {words}')
            show(f'the callback in a step, {bs} of 3x{side}x{side}', callbacks(bs, side, max(4, args.rounds//8), args.device))
    print('\n' + ', '.join(f'{met.count(o)} {o}' for o in dict.fromkeys(met)) + f', of {len(met)} goals')
    return int('MISSED' in met)

if __name__ == '__main__': sys.exit(main())
