"Mixing callbacks in real `Learner`s, beside each partner, after each kind of interruption, and with what they refuse."
import copy, random, re, warnings
from contextlib import contextmanager
from functools import partial
import numpy as np, pytest, torch
import torch.nn.functional as F
from fastai.callback.channelslast import ChannelsLast
from fastai.callback.core import (Callback, CancelBatchException, CancelEpochException, CancelFitException,
                                  CancelStepException, CancelTrainException)
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.mixup import CutMix, MixUp
from fastai.callback.progress import CSVLogger, ProgressCallback
from fastai.callback.schedule import *
from fastai.callback.tracker import EarlyStoppingCallback, ReduceLROnPlateau, SaveModelCallback, TerminateOnNaNCallback
from fastai.callback.training import GradientAccumulation, GradientClip, ShortEpochCallback
from fastai.data.block import CategoryBlock, DataBlock, MultiCategoryBlock, RegressionBlock
from fastai.data.core import DataLoaders
from fastai.data.transforms import IntToFloatTensor, RandomSplitter, get_image_files
from fastai.learner import Learner, Metric, Recorder, load_learner
from fastai.losses import (BCEWithLogitsLossFlat, CrossEntropyLossFlat, FocalLossFlat, LabelSmoothingCrossEntropy,
                           LabelSmoothingCrossEntropyFlat)
from fastai.metrics import accuracy
from fastai.vision.augment import Normalize
from fastai.vision.core import PILImage
from fastai.vision.data import ImageBlock, ImageDataLoaders, MaskBlock
from PIL import Image
from torch import nn
from torchvision.transforms.v2 import MixUp as TorchvisionMixUp
import hmix_nb.train.callbacks as callbacks
from hmix_nb.core import CIFAR10
from hmix_nb.data.images import soft_dls
from hmix_nb.evaluation.scores import soft_accuracy
from hmix_nb.mixing import pixels
from hmix_nb.mixing.labels import LabelPolicy, Linear, PairLogistic
from hmix_nb.mixing.pixels import mix
from hmix_nb.mixing.show import show_mix
from hmix_nb.train.callbacks import EntropyWeightedMixUp, HumanMixUp, MixMaxEntCB, RegMixupCB
from hmix_nb.train.losses import EntropyWeighted, MixMaxEnt, RegMixup, SoftCrossEntropy

NAMES = ('cat', 'dog', 'ship')
gen = torch.Generator().manual_seed(0)
X, Y = torch.rand(40, 3, 8, 8, generator=gen), torch.randint(0, 3, (40,), generator=gen)
ROWS = torch.rand(40, 3, generator=gen).mul(4).softmax(1)

class Items(list):
    def new_empty(self): return Items() # what `export` asks for

@contextmanager
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield

def loaders(y=Y, vocab=NAMES, x=X, bs=8, **kw):
    sets = Items(zip(x[:28], y[:28])), Items(zip(x[28:], y[28:]))
    dls = DataLoaders.from_dsets(*sets, bs=bs, device='cpu', num_workers=0, drop_last=False, **kw)
    if vocab: dls.vocab = vocab
    return dls

class Net(nn.Module):
    def __init__(self, k=3):
        super().__init__()
        self.conv, self.bn, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, k)
    def forward(self, x): return self.head(self.bn(self.conv(x)).relu().mean((2, 3)))

def mk(cbs=None, loss=None, dls=None, model=None, seed=0, bar=False, **kw):
    torch.manual_seed(seed)
    learn = Learner(dls or loaders(), model or Net(), loss_func=loss or CrossEntropyLossFlat(), cbs=cbs, **kw)
    learn.logger = lambda *a: None
    if not bar: learn.remove_cb(ProgressCallback)
    return learn

class Steep(LabelPolicy):
    def weight(self, lam, ya, yb): return torch.sigmoid(6*(lam-.5))

MIXERS = dict(human=HumanMixUp, linear=lambda: HumanMixUp(g=Linear(), per='sample'), steep=lambda: HumanMixUp(g=Steep(), generator=3),
              ent_wc=EntropyWeightedMixUp, max_ent=MixMaxEntCB, regmixup=RegMixupCB)
every = pytest.mark.parametrize('mixer', MIXERS.values(), ids=MIXERS)

def as_found(learn, loss, reduction='mean'):
    assert learn.loss_func is loss and getattr(loss, 'reduction', 'mean') == reduction
    assert not {'all_batches', 'remove_cbs'} & set(vars(learn))

# ---- partners

PARTNERS = dict(
    precision=MixedPrecision, bf16=lambda: MixedPrecision('bf16'), clip=GradientClip, accumulate=lambda: GradientAccumulation(12),
    channels_last=ChannelsLast, early=lambda: EarlyStoppingCallback(patience=1), save=SaveModelCallback, nan=TerminateOnNaNCallback,
    plateau=ReduceLROnPlateau, short=lambda: ShortEpochCallback(.5), csv=CSVLogger)

@every
@pytest.mark.parametrize('partner', PARTNERS.values(), ids=PARTNERS)
@pytest.mark.filterwarnings('ignore')
def test_fits_beside(mixer, partner, tmp_path, capsys):
    loss = CrossEntropyLossFlat()
    learn = mk([mixer(), partner()], loss, path=tmp_path, metrics=accuracy)
    before = copy.deepcopy(learn.model.state_dict())
    learn.fit(2, 1e-2)
    as_found(learn, loss)
    assert len(learn.recorder.losses) and np.isfinite(np.array([float(o) for o in learn.recorder.losses])).all()
    assert any(not torch.equal(v, before[k]) for k, v in learn.model.state_dict().items() if v.is_floating_point())

@every
def test_lr_find_one_cycle_validate_preds_progress(mixer, tmp_path, capsys):
    loss = CrossEntropyLossFlat()
    cb = mixer()
    learn = mk(cb, loss, path=tmp_path, metrics=accuracy, bar=True)
    weights = copy.deepcopy(learn.model.state_dict())
    with quiet(): learn.lr_find(num_it=12, stop_div=False, show_plot=False)
    as_found(learn, loss)
    assert all(torch.equal(v, weights[k]) for k, v in learn.model.state_dict().items())
    learn.fit_one_cycle(1, 1e-3)
    as_found(learn, loss)
    alone = mk(None, loss, model=learn.model, metrics=accuracy)
    assert list(learn.validate()) == pytest.approx(list(alone.validate()), abs=1e-6)
    for a, b in zip(learn.get_preds(with_loss=True), alone.get_preds(with_loss=True)): assert torch.equal(a, b)
    assert torch.equal(learn.get_preds(with_decoded=True)[2], alone.get_preds(with_decoded=True)[2])
    as_found(learn, loss)

@every
def test_validation_inside_fit_is_that_of_a_run_without(mixer):
    "With a learning rate of 0, the same net is validated."
    losses, model = [], nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    for cbs in (mixer(), None):
        learn = mk(cbs, model=model, metrics=accuracy)
        learn.fit(1, 0.)
        losses.append(list(learn.recorder.values[0][1:]))
    assert losses[0] == losses[1]

@every
def test_export_and_load(mixer, tmp_path):
    learn = mk(mixer(), path=tmp_path)
    learn.fit(1)
    learn.export('l.pkl')
    with quiet(): again = load_learner(tmp_path/'l.pkl')
    cb = again.cbs[-1]
    assert repr(cb) == repr(learn.cbs[-1]) and cb.mixed is None and isinstance(again.loss_func, CrossEntropyLossFlat)
    again.dls, again.logger = loaders(), lambda *a: None
    again.fit(1)
    x = X[:4]
    learn.model.eval()
    assert cb.mixed is not None and torch.isfinite(again.model.eval()(x)).all()

@every
@pytest.mark.parametrize('loss', [CrossEntropyLossFlat(weight=torch.tensor([1., 2., .5])), SoftCrossEntropy(label_smoothing=.1)])
def test_inside_autocast_in_bfloat16(mixer, loss):
    learn = mk(mixer(), loss)
    with torch.autocast('cpu', torch.bfloat16): learn.fit(1)
    assert np.isfinite([float(o) for o in learn.recorder.losses]).all() and learn.model.head.weight.dtype == torch.float32
    as_found(learn, loss)

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU at hand')

@cuda
@every
def test_mixed_precision_on_a_gpu(mixer):
    dls = loaders()
    dls.to('cuda')
    loss = CrossEntropyLossFlat(weight=torch.tensor([1., 2., .5]))
    learn = mk(mixer(), loss, dls=dls).to_fp16()
    learn.fit(2)
    as_found(learn, loss)
    assert np.isfinite([float(o) for o in learn.recorder.losses]).all()

@cuda
@every
def test_no_host_sync_on_a_gpu(mixer):
    class Watch(Callback): # the first batch of an epoch is looked at
        order = -5
        def before_batch(self): torch.cuda.set_sync_debug_mode('error' if self.training and self.iter else 'default')
        def after_backward(self): torch.cuda.set_sync_debug_mode('default')
    dls = loaders()
    dls.to('cuda')
    mk([mixer(), Watch()], SoftCrossEntropy(), dls=dls).fit(2)

@pytest.mark.parametrize('soft', [False, True])
@every
def test_labels_elsewhere_than_on_the_cpu_are_not_looked_at(mixer, soft, monkeypatch):
    "A tensor on 'meta' has no values: whoever looks at one fails, as a GPU would stall."
    monkeypatch.setattr(torch, 'is_autocast_enabled', lambda *a: False) # which does not know the device
    cb, loss = mixer(), SoftCrossEntropy()
    learn = mk(cb, loss)
    learn.iter, learn.xb, learn.yb = 0, (X[:8],), ((ROWS if soft else Y)[:8],)
    cb.clean_batch()
    learn.xb, learn.yb = (learn.xb[0].to('meta'),), (learn.yb[0].to('meta'),)
    learn.model.to('meta')
    learn.loss_func = cb.mixing_loss(loss)
    cb.before_batch()
    learn.pred = learn.model(*learn.xb)
    if hasattr(cb, 'after_pred'): cb.after_pred()
    learn.loss_grad = learn.loss_func(learn.pred, *learn.yb)
    if hasattr(cb, 'after_loss'): cb.after_loss()
    assert learn.loss_grad.device.type == 'meta' and learn.loss_grad.shape == ()

# ---- what is computed

LOSSES = dict(flat=CrossEntropyLossFlat(), torchs=nn.CrossEntropyLoss(), weighted=CrossEntropyLossFlat(weight=torch.tensor([.3, 2., 1.])),
              smooth=CrossEntropyLossFlat(label_smoothing=.2), both=nn.CrossEntropyLoss(weight=torch.tensor([.3, 2., 1.]), label_smoothing=.2),
              fastais=LabelSmoothingCrossEntropy(), fastais_flat=LabelSmoothingCrossEntropyFlat(eps=.3), sum=CrossEntropyLossFlat(reduction='sum'),
              soft=SoftCrossEntropy(label_smoothing=.1), function=F.cross_entropy)

class Record(Callback):
    order = 5
    def __init__(self): self.seen = []
    def before_batch(self):
        if self.training: self.net = copy.deepcopy(self.learn.model)
    def after_backward(self):
        grads = [p.grad.clone() for p in self.learn.model.parameters()]
        self.seen.append((self.net, self.learn.xb[0], float(self.learn.loss.detach()), grads))

@pytest.mark.parametrize('loss', LOSSES.values(), ids=LOSSES)
def test_linear_policy_is_the_original_recipe(loss):
    cb, rec = HumanMixUp(g=Linear(), per='batch'), Record()
    cleans, mixed = [], []
    def keep(self): cleans.append((self.learn.xb[0], self.learn.yb[0]))
    def after(self): mixed.append(cb.mixed)
    first, last = Callback(before_batch=keep), Callback(after_backward=after)
    first.order, first.run_valid, last.run_valid = -3, False, False
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.Tanh(), nn.Linear(16, 3))
    mk([first, cb, rec, last], loss, model=net).fit(2)
    assert len(rec.seen) == len(cleans) == 8
    for (net, xm, value, grads), (x, y), m in zip(rec.seen, cleans, mixed):
        lam = float(m.lam_f[0])
        assert torch.allclose(xm, lam*x + (1-lam)*x[m.idx], atol=1e-6) and len(m.lam_f.unique()) == 1
        pred = net(lam*x + (1-lam)*x[m.idx])
        want = lam*loss(pred, y) + (1-lam)*loss(pred, y[m.idx])
        want.backward()
        assert abs(value-float(want)) < 1e-6*max(1, abs(value))
        for a, p in zip(grads, net.parameters()): assert (a-p.grad).abs().max() < 1e-6*max(1, float(p.grad.abs().max()))

def test_linear_policy_is_torchvisions_mixup(monkeypatch):
    theirs, lam, rec = TorchvisionMixUp(num_classes=3), .3, Record()
    monkeypatch.setattr(callbacks, 'mix', lambda x, y, **kw: mix(x, y, **kw | dict(lam=lam, idx=(torch.arange(len(x))-1) % len(x))))
    kept = []
    first = Callback(before_batch=lambda self: kept.append((self.learn.xb[0], self.learn.yb[0])))
    first.order, first.run_valid = -3, False
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    mk([first, HumanMixUp(g=Linear()), rec], SoftCrossEntropy(), model=net).fit(1)
    for (net, xm, value, grads), (x, y) in zip(rec.seen, kept):
        params = dict(labels=y, batch_size=len(x), lam=lam)
        xt, yt = theirs.transform(x, params), theirs.transform(y, params)
        assert torch.allclose(xm, xt, atol=1e-6)
        want = F.cross_entropy(net(xt), yt)
        want.backward()
        assert abs(value-float(want)) < 1e-6
        for a, p in zip(grads, net.parameters()): assert (a-p.grad).abs().max() < 1e-6

def test_entropy_weighted_is_the_formula():
    cb, rec, seen = EntropyWeightedMixUp(kappa=.5, alpha=1.), Record(), []
    last = Callback(after_backward=lambda self: seen.append(cb.mixed))
    last.run_valid = False
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    mk([cb, rec, last], CrossEntropyLossFlat(label_smoothing=.1), model=net).fit(1)
    for (net, xm, value, grads), m in zip(rec.seen, seen):
        pred = net(m.x)
        p = pred.softmax(1)
        w = (np.log(2)/-(p*p.log()).sum(1)).clamp(.5, 1)
        want = (w*F.cross_entropy(pred, m.y, reduction='none', label_smoothing=.1)).mean()
        want.backward()
        assert abs(value-float(want)) < 1e-5
        for a, q in zip(grads, net.parameters()): assert (a-q.grad).abs().max() < 1e-5

@pytest.mark.parametrize('own', [False, True])
@pytest.mark.parametrize('which', ['max_ent', 'regmixup'])
def test_clean_and_mixed_parts(which, own):
    "The same numbers, whether the coefficient is the callback's or the loss's."
    cls, loss = dict(max_ent=(MixMaxEntCB, MixMaxEnt), regmixup=(RegMixupCB, RegMixup))[which]
    cb, seen = (cls() if own else cls(coef=.7)), []
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    def keep(self): seen.append((copy.deepcopy(net), cb.mixed, cb._held[1][0], cb._held[2][0], self.learn.loss.detach(), self.learn.yb))
    last = Callback(after_loss=keep)
    last.order, last.run_valid = 3, False
    learn = mk([cb, last], loss(.7) if own else CrossEntropyLossFlat(), model=net, metrics=accuracy)
    learn.remove_cb(Recorder)
    learn.add_cb(Recorder(train_metrics=True))
    learn.fit(1)
    for net, m, x, y, value, yb in seen:
        assert len(yb) == 1 and torch.equal(yb[0], y)
        a, b = net(x), net(m.x)
        p, other = b.softmax(1), y != y[m.idx]
        if which == 'max_ent': want = F.cross_entropy(a, y) + .7*((p*p.log()).sum(1)[other].mean() if other.any() else 0.)
        else: want = (F.cross_entropy(a, y) + .7*F.cross_entropy(b, m.y))/1.7
        assert abs(float(value)-float(want)) < 1e-5

def test_the_policy_makes_the_labels_and_the_images_are_those_of_f():
    cb = HumanMixUp(f=lambda lam, xa, xb: torch.maximum(xa, xb), g=Steep(), generator=5)
    def look(self):
        m, (x, y) = cb.mixed, (cb._held[1][0], cb._held[2][0])
        assert torch.equal(self.learn.xb[0], torch.maximum(x, x[m.idx])) and self.learn.yb[0].shape == (len(x), 3)
        assert torch.allclose(m.lam_g, torch.sigmoid(6*(m.lam_f-.5)))
    last = Callback(after_pred=look)
    last.run_valid = False
    mk([cb, last]).fit(1)

@every
def test_same_seed_same_run(mixer):
    def losses(seed):
        learn = mk(mixer(), seed=seed, dls=loaders())
        learn.dls.train.rng.seed(seed)
        learn.fit(1)
        return [float(o) for o in learn.recorder.losses]
    assert losses(4) == losses(4) != losses(5)

def test_a_generator_leaves_torchs_own_alone():
    def lams(cb):
        seen = []
        last = Callback(after_batch=lambda self: seen.append(float(cb.mixed.lam_f[0])))
        last.run_valid = False
        mk([cb, last], model=nn.Sequential(nn.Flatten(), nn.Linear(192, 3))).fit(1)
        return seen
    assert lams(HumanMixUp(generator=1)) == lams(HumanMixUp(generator=torch.Generator().manual_seed(1))) != lams(HumanMixUp(generator=2))
    cb = HumanMixUp(generator=1)
    learn = mk(cb)
    learn.iter, learn.xb, learn.yb = 0, (X[:8],), (Y[:8],)
    state = torch.get_rng_state()
    cb.before_batch()
    assert torch.equal(torch.get_rng_state(), state)

def test_soft_rows_batches_of_one_and_channels_last():
    dls = loaders(ROWS, x=X.to(memory_format=torch.channels_last), bs=9)
    for cb in (HumanMixUp(), EntropyWeightedMixUp(), MixMaxEntCB()): mk(cb, SoftCrossEntropy(), dls=dls).fit(1)
    one = DataLoaders.from_dsets([*zip(X[:9], Y[:9])], [*zip(X, Y)], bs=4, device='cpu', num_workers=0, drop_last=False)
    one.vocab = NAMES
    for cb in (HumanMixUp(), MixMaxEntCB(), RegMixupCB()):
        learn = mk(cb, dls=one, model=nn.Sequential(nn.Flatten(), nn.Linear(192, 3)))
        learn.fit(1)
        assert np.isfinite([float(o) for o in learn.recorder.losses]).all()

# ---- interruptions

EVENTS = 'before_epoch before_train before_batch after_pred after_loss before_backward after_backward before_step after_step after_batch'.split()

def stopper(event, error, order):
    "Raises once it is the second batch, or sooner where there is no batch yet."
    early = event in ('before_epoch', 'before_train')
    def stop(self):
        if early or (self.learn.training and self.learn.iter == 1): raise error('stop')
    cb = Callback(**{event: stop})
    cb.order, cb.run_valid = order, False
    return cb

@pytest.mark.parametrize('error', [KeyboardInterrupt, RuntimeError, CancelBatchException, CancelTrainException, CancelEpochException, CancelFitException])
@pytest.mark.parametrize('mixer', [HumanMixUp, EntropyWeightedMixUp, MixMaxEntCB])
def test_learner_is_as_it_was_after(mixer, error):
    raw, dls = error in (KeyboardInterrupt, RuntimeError), loaders()
    for event in EVENTS:
        if error is CancelBatchException and event in ('before_epoch', 'before_train', 'after_batch'): continue # only inside a batch
        if error in (CancelTrainException, CancelEpochException) and event == 'before_epoch': continue # only after it
        for order in (-5, 20):
            loss, stop = CrossEntropyLossFlat(), stopper(event, error, order)
            learn = mk([mixer(), stop], loss, dls, nn.Sequential(nn.Flatten(), nn.Linear(192, 3)))
            try: learn.fit(1)
            except (KeyboardInterrupt, RuntimeError) as e: assert type(e) is error
            as_found(learn, loss)
            if raw and event not in ('before_epoch', 'before_train'):
                (x,), (y,) = learn.xb, learn.yb
                assert len(x) == 8 and y.shape == (8,) and any(torch.equal(x[0], o) for o in X), (event, order)
            elif not raw: assert learn.xb == learn.yb == (None,)
            learn.remove_cb(stop)
            learn.fit(1)
            as_found(learn, loss)
            assert np.isfinite(list(learn.validate())).all()

@every
@pytest.mark.parametrize('where', ['model', 'loss', 'loader'])
@pytest.mark.parametrize('error', [KeyboardInterrupt, ZeroDivisionError])
@pytest.mark.parametrize('in_fit', [False, True])
def test_after_an_error_in(where, mixer, error, in_fit):
    class Fails(nn.Module):
        on = True
        def __init__(self): super().__init__(); self.net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
        def forward(self, x):
            if self.on and where == 'model': raise error
            return self.net(x)
    class FailingLoss(SoftCrossEntropy):
        def __call__(self, *args):
            if net.on and where == 'loss': raise error
            return super().__call__(*args)
    class Data(list):
        def __getitem__(self, i):
            if net.on and where == 'loader' and Data.n > 10: raise error
            Data.n += 1
            return super().__getitem__(i)
    Data.n = 0
    net, loss = Fails(), FailingLoss()
    dls = DataLoaders.from_dsets(Data(zip(X[:28], Y[:28])), [*zip(X[28:], Y[28:])], bs=8, device='cpu', num_workers=0)
    dls.vocab = NAMES
    learn = mk(None if in_fit else mixer(), loss, dls=dls, model=net)
    kw = dict(cbs=mixer()) if in_fit else {}
    with pytest.raises((KeyboardInterrupt, ZeroDivisionError, ValueError)): learn.fit(1, **kw)
    as_found(learn, loss)
    net.on = False
    learn.fit(1, **kw)
    as_found(learn, loss)

@every
@pytest.mark.parametrize('in_fit', [False, True])
@pytest.mark.parametrize('event', ['before_epoch', 'before_train'])
def test_an_exported_learner_knows_nothing_of_an_interruption(mixer, event, in_fit, tmp_path):
    stop = stopper(event, KeyboardInterrupt, 20)
    learn = mk([stop] if in_fit else [stop, mixer()], loss := CrossEntropyLossFlat(), path=tmp_path)
    before = set(vars(learn)) | {'opt_func', 'dl', 'xb', 'yb', 'pred', 'loss'} # what fastai itself leaves
    with pytest.raises(KeyboardInterrupt): learn.fit(1, cbs=mixer() if in_fit else None)
    as_found(learn, loss)
    learn.remove_cb(stop)
    learn.export('l.pkl')
    with quiet(): again = load_learner(tmp_path/'l.pkl')
    assert not {'all_batches', 'remove_cbs'} & set(vars(again))

def test_others_may_add_callbacks_for_a_while_before_the_loop():
    "As `validate(cbs=...)` and `get_preds` do, in another callback."
    class Peek(Callback):
        order, run_valid = 30, False
        def before_train(self): self.learn.get_preds(dl=self.dls.valid, inner=True)
        def before_epoch(self):
            with self.learn.added_cbs(Callback()): pass
    learn = mk([HumanMixUp(), Peek()], loss := CrossEntropyLossFlat())
    learn.fit(2)
    as_found(learn, loss)
    assert learn.human_mix_up.mixed is None or learn.human_mix_up.mixed.y.ndim == 2

def test_a_callback_that_was_taken_away_leaves_nothing():
    stop = stopper('before_train', KeyboardInterrupt, 20)
    learn = mk(stop, loss := CrossEntropyLossFlat())
    with pytest.raises(KeyboardInterrupt): learn.fit(1, cbs=HumanMixUp())
    as_found(learn, loss)
    learn.remove_cb(stop)
    for _ in range(2): learn.validate()
    as_found(learn, loss)
    seen = []
    last = Callback(after_pred=lambda self: seen.append(self.learn.yb[0].ndim))
    learn.fit(1, cbs=last)
    assert set(seen) == {1}

# ---- what is refused, before the first step

def refuses(learn, *parts, error=ValueError):
    before = copy.deepcopy(learn.model.state_dict())
    loss = learn.loss_func
    with pytest.raises(error) as e: learn.fit(1)
    for o in parts: assert o in str(e.value), str(e.value)
    assert all(torch.equal(v, before[k]) for k, v in learn.model.state_dict().items() if 'running' not in k and 'num_' not in k)
    as_found(learn, loss)

@pytest.mark.parametrize('call, part', [
    (lambda: HumanMixUp(alpha=0), 'alpha: found 0'), (lambda: HumanMixUp(alpha=-1.), 'alpha: found -1'), (lambda: HumanMixUp(per='epoch'), 'per:'),
    (lambda: HumanMixUp(PairLogistic()), 'f: found a label policy; write g='), (lambda: HumanMixUp(Steep()), 'f: found a label policy; write g='),
    (lambda: show_mix((X, ROWS), f=Linear()), 'f: found a label policy; write g='), (lambda: HumanMixUp(f=3), 'f: found 3'), (lambda: HumanMixUp(f=CutMix()), 'f: found the callback CutMix()'),
    (lambda: HumanMixUp(g=MixUp()), 'g: found the callback MixUp()'), (lambda: HumanMixUp(f=CutMix), 'f: found the class CutMix itself'),
    (lambda: HumanMixUp(f=pixels.CutMix), 'f: found the class CutMix itself'), (lambda: show_mix((X, ROWS), MixUp()), 'g: found the callback MixUp()'),
    (lambda: show_mix((X, ROWS), f=CutMix()), 'f: found the callback CutMix()'), (lambda: HumanMixUp(generator=True), 'generator: found True'), (lambda: HumanMixUp(generator='1'), "generator: found '1'"), (lambda: HumanMixUp(g='linear'), "g: found 'linear'"), (lambda: EntropyWeightedMixUp(kappa=2), 'kappa: found 2'),
    (lambda: MixMaxEntCB(coef=-1), 'coef: found -1'), (lambda: RegMixupCB(alpha=0), 'alpha: found 0'), (lambda: MixMaxEntCB(alpha=float('nan')), 'alpha')])
def test_options(call, part):
    with pytest.raises(ValueError, match=re.escape(part)): call()

def test_classes():
    refuses(mk(HumanMixUp(), dls=loaders(vocab=('cat', 'dgo', 'qux'))), 'dgo', 'qux', "unknown='pooled'")
    mk(HumanMixUp(g=PairLogistic(unknown='pooled')), dls=loaders(vocab=('cat', 'dgo', 'qux'))).fit(1)
    refuses(mk(HumanMixUp(), dls=loaders(vocab=None)), 'from hmix_nb.core import CIFAR10; dls.vocab = CIFAR10', "g=PairLogistic(unknown='pooled')")
    refuses(mk(HumanMixUp(g=Linear()), dls=loaders(vocab=None)), 'neither vocab nor c')
    dls = loaders(vocab=None)
    dls.c = 3
    mk(HumanMixUp(g=Linear()), dls=dls).fit(1)
    refuses(mk(HumanMixUp(g=PairLogistic()), SoftCrossEntropy(), dls=loaders(ROWS, vocab=None)), 'labels have 3 classes')
    refuses(mk(HumanMixUp(g=PairLogistic(classes=NAMES)), SoftCrossEntropy(), dls=loaders(ROWS[:, :2]+.5*ROWS[:, 2:], vocab=None), model=Net(2)), 'y: the labels have 2 classes', 'PairLogistic', 'has 3')
    refuses(mk(HumanMixUp(), dls=loaders(Y+1)), 'y: found 3')
    refuses(mk(HumanMixUp(), SoftCrossEntropy(), dls=loaders(ROWS, vocab=NAMES[:2])), 'rows have 3 classes')
    refuses(mk(HumanMixUp(), model=Net(5)), 'the model gives shape (8, 5)')
    refuses(mk(MixMaxEntCB(), model=Net(5)), 'pred: found shape (16, 5)')

@every
def test_inputs_and_targets(mixer):
    soft = SoftCrossEntropy()
    refuses(mk(mixer(), dls=loaders(x=X.mul(255).byte()), model=nn.Sequential(nn.Flatten(), nn.Linear(192, 3))), 'x: found torch.uint8')
    refuses(mk(mixer(), soft, dls=loaders(torch.rand(40))), 'y: found Tensor of shape (8,)', 'plain numbers')
    hot = 1-F.one_hot(Y, 3) # two of three in every row, so that each batch is bad, the first one too
    refuses(mk(mixer(), soft, dls=loaders(hot.float())), 'sum to 1')
    refuses(mk(mixer(), soft, dls=loaders(hot)), 'y: found Tensor of shape (8, 3)')
    refuses(mk(mixer(), soft, dls=loaders(torch.randint(0, 3, (40, 8, 8)))), 'y: found Tensor of shape (8, 8, 8)', 'Masks')
    two = DataLoaders.from_dsets([*zip(X, Y, Y)], [*zip(X, Y, Y)], bs=8, device='cpu', num_workers=0)
    two.n_inp = 1
    refuses(mk(mixer(), dls=two), '2 targets')

@pytest.mark.parametrize('mixer', [HumanMixUp, MixMaxEntCB])
@pytest.mark.parametrize('other', [MixUp, CutMix, HumanMixUp, MixMaxEntCB])
@pytest.mark.parametrize('order', [-7, 0, 7])
def test_two_at_once(mixer, other, order):
    for cbs in ([mixer(), b := other()], [b := other(), mixer()]):
        b.order = order
        refuses(mk(cbs), 'cbs: found', other.__name__, mixer.__name__)
    learn = mk(mixer())
    with pytest.raises(ValueError, match='one mixing callback'): learn.fit(1, cbs=other())
    learn.fit(1)

@pytest.mark.parametrize('loss, parts', [
    (FocalLossFlat(), ['loss_func', 'FocalLoss']), (BCEWithLogitsLossFlat(), ['loss_func', 'BCEWithLogitsLoss']), (nn.NLLLoss(), ['loss_func', 'NLLLoss']),
    (CrossEntropyLossFlat(ignore_index=1), ['ignore_index']), (lambda p, t: F.nll_loss(p.log_softmax(1), t), ['loss_func: '])])
@pytest.mark.parametrize('mixer', [HumanMixUp, EntropyWeightedMixUp])
def test_losses(mixer, loss, parts): refuses(mk(mixer(), loss), *parts)

def test_a_loss_without_rows():
    def nll(pred, targ): return F.nll_loss(pred.log_softmax(1), targ)
    refuses(mk(HumanMixUp(), nll), 'nll does not take (B, K) rows')

def test_weights_of_samples_are_never_those_of_classes():
    def own(pred, targ, weight=None): return F.cross_entropy(pred, targ, weight)
    class OwnFlat(CrossEntropyLossFlat):
        def __call__(self, pred, targ, weight=None): return F.cross_entropy(pred, targ, weight)
    for loss in (own, OwnFlat(), partial(own), partial(F.cross_entropy, torch.zeros(3, 3))): # three classes, batches of three
        refuses(mk(EntropyWeightedMixUp(), loss, dls=loaders(bs=3)), 'not known to weigh samples one by one', 'SoftCrossEntropy')
    refuses(mk(EntropyWeightedMixUp(), partial(F.cross_entropy, ignore_index=1)), 'ignore_index')

@pytest.mark.parametrize('kw', [{}, dict(label_smoothing=.1), dict(weight=torch.tensor([.5, 1, 2])), dict(reduction='sum')], ids=str)
def test_entropy_weights_with_a_partial_cross_entropy(kw):
    def seen(loss):
        found = []
        random.seed(0) # orders fastai's loaders
        learn = mk([EntropyWeightedMixUp(generator=0), Callback(after_loss=lambda self: found.append(float(self.learn.loss)))], loss, dls=loaders(bs=3))
        learn.fit(1)
        as_found(learn, loss, kw.get('reduction', 'mean') if hasattr(loss, 'reduction') else 'mean')
        return found
    assert seen(partial(F.cross_entropy, **kw)) == pytest.approx(seen(nn.CrossEntropyLoss(**kw)), rel=1e-5)

def test_losses_that_take_rows_are_taken():
    def brier(pred, rows): return (pred.softmax(1)-rows).square().sum(1).mean()
    mk(HumanMixUp(), brier, dls=loaders(ROWS)).fit(1)
    mk(HumanMixUp(), EntropyWeighted()).fit(1)
    mk(HumanMixUp(), F.cross_entropy).fit(1)
    refuses(mk(EntropyWeightedMixUp(), EntropyWeighted()), 'has the weight already')
    def none(pred, targ): return F.cross_entropy(pred, targ)
    mk(MixMaxEntCB(), none).fit(1) # whatever the loss of the clean half

def test_metrics_on_training_batches():
    learn = mk(HumanMixUp(), metrics=accuracy)
    learn.remove_cb(Recorder)
    learn.add_cb(Recorder(train_metrics=True))
    refuses(learn, 'metrics: accuracy does not take rows', 'scores.soft_accuracy')
    class Steps(Metric): # has no function
        def reset(self): self.n = 0
        def accumulate(self, learn): self.n += 1
        value = property(lambda self: self.n)
    learn = mk(HumanMixUp(), metrics=[Steps(), soft_accuracy])
    learn.remove_cb(Recorder)
    learn.add_cb(Recorder(train_metrics=True))
    learn.fit(1)
    assert learn.recorder.values[0][1] == 4
    def agreement(pred, rows): return (pred.argmax(1) == (rows if rows.ndim == 1 else rows.argmax(1))).float().mean()
    learn = mk(HumanMixUp(), metrics=agreement)
    learn.remove_cb(Recorder)
    learn.add_cb(Recorder(train_metrics=True))
    learn.fit(1)

# ---- fastai's own data blocks

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root, r = tmp_path_factory.mktemp('images'), np.random.RandomState(0)
    for c in NAMES:
        (root/c).mkdir()
        for i in range(6): Image.fromarray(r.randint(0, 256, (8, 8, 3), dtype=np.uint8)).save(root/c/f'{i}.png')
    return root

@every
def test_an_image_folder(mixer, folder):
    dls = ImageDataLoaders.from_folder(folder, valid_pct=.3, seed=0, bs=4, device='cpu', num_workers=0,
                                       batch_tfms=Normalize.from_stats([.5]*3, [.25]*3))
    loss = dls.train_ds.loss_func if hasattr(dls.train_ds, 'loss_func') else CrossEntropyLossFlat()
    learn = mk(mixer(), loss, dls=dls)
    learn.fit(1)
    as_found(learn, loss)
    item = PILImage.create(folder/'cat'/'0.png')
    assert learn.predict(item)[0] in NAMES

@every
@pytest.mark.parametrize('block, get_y, part', [
    (lambda: MultiCategoryBlock(), lambda o: [o.parent.name, 'cat'], 'TensorMultiCategory'),
    (lambda: MaskBlock(), lambda o: np.zeros((8, 8), np.uint8), 'TensorMask'), (lambda: RegressionBlock(), lambda o: float(len(o.name)), 'plain numbers')],
    ids=['labels', 'mask', 'number'])
def test_other_targets(mixer, block, get_y, part, folder):
    db = DataBlock((ImageBlock, block()), get_items=get_image_files, get_y=get_y, splitter=RandomSplitter(.3, seed=0))
    dls = db.dataloaders(folder, bs=4, device='cpu', num_workers=0)
    refuses(mk(mixer(), SoftCrossEntropy(), dls=dls), 'y: found', part)

def test_whole_numbers_for_pixels(folder):
    db = DataBlock((ImageBlock, CategoryBlock), get_items=get_image_files, get_y=lambda o: o.parent.name)
    dls = db.dataloaders(folder, bs=4, device='cpu', num_workers=0)
    for dl in dls.loaders: dl.after_batch = dl.after_batch.__class__([t for t in dl.after_batch.fs if not isinstance(t, IntToFloatTensor)])
    refuses(mk(HumanMixUp(), dls=dls), 'x: found torch.uint8', 'IntToFloatTensor')

def test_validating_in_the_midst_of_training_is_as_ever():
    class Peek(Callback):
        run_valid, seen = False, []
        def after_batch(self):
            if self.iter != 1: return
            loss, xb = CrossEntropyLossFlat(reduction='none'), X[28:]
            with torch.no_grad(), self.learn.loss_not_reduced(): self.seen.append((self.learn.loss_func(self.model(xb), Y[28:]), loss(self.model(xb), Y[28:])))
    learn = mk([HumanMixUp(), Peek()], loss := CrossEntropyLossFlat(), model=nn.Sequential(nn.Flatten(), nn.Linear(192, 3)))
    learn.fit(1)
    assert torch.equal(*Peek.seen[0]) and loss.reduction == 'mean'

@pytest.mark.parametrize('loss', [CrossEntropyLossFlat(), nn.CrossEntropyLoss(torch.tensor([.3, 2., 1.])), LabelSmoothingCrossEntropyFlat(),
                                  F.cross_entropy, SoftCrossEntropy()], ids=['flat', 'weighted', 'fastais', 'function', 'soft'])
@pytest.mark.parametrize('mixer', [HumanMixUp, EntropyWeightedMixUp])
def test_the_loss_per_sample_while_training(mixer, loss):
    "`loss_not_reduced` with gradients on: one number for each blend, of which the mean is the loss of training."
    class Each(Callback):
        run_valid, seen = False, []
        def after_loss(self):
            with self.learn.loss_not_reduced(): each = self.learn.loss_func(self.learn.pred, *self.learn.yb)
            again = self.learn.loss_func(self.learn.pred, *self.learn.yb)
            self.seen.append((each, again, self.learn.loss.detach(), len(self.learn.yb[0])))
    Each.seen.clear()
    learn = mk([mixer(), Each()], loss)
    learn.fit(1)
    weighted = getattr(loss, 'weight', None) is not None # the mean divides by them
    for each, again, mean, n in Each.seen:
        assert each.shape == (n,) and each.requires_grad and torch.allclose(again, mean)
        assert weighted or torch.allclose(each.mean(), mean, atol=1e-6)
    as_found(learn, loss)

@pytest.mark.parametrize('mixer', [MixMaxEntCB, RegMixupCB])
def test_a_loss_per_sample_stays_one_with_blends_beside(mixer):
    cb = mixer()
    learn = mk(cb, CrossEntropyLossFlat(reduction='none'))
    learn.iter, learn.xb, learn.yb = 0, (X[:8],), (Y[:8],)
    learn.loss_func = cb.mixing_loss(learn.loss_func)
    cb.before_batch()
    learn.pred = learn.model(*learn.xb)
    cb.after_pred()
    learn.loss_grad = learn.loss_func(learn.pred, *learn.yb)
    cb.after_loss()
    assert learn.loss_grad.shape == (8,)

def test_names_may_come_with_the_loaders(tmp_path):
    y = Y % 3
    dls = soft_dls(X[:28], y[:28], X[28:], y[28:], bs=8, vocab=NAMES, device='cpu')
    learn = mk(HumanMixUp(), SoftCrossEntropy(), dls=dls, path=tmp_path)
    learn.fit(1)
    learn.export('l.pkl')
    with quiet(): assert load_learner(tmp_path/'l.pkl').dls.vocab == NAMES == dls.vocab
    ten = soft_dls(X, Y, X, Y, bs=8, n_classes=10, device='cpu')
    refuses(mk(HumanMixUp(), SoftCrossEntropy(), dls=ten, model=Net(10)), 'dls.vocab = CIFAR10')
    ten.vocab = CIFAR10
    mk(HumanMixUp(), SoftCrossEntropy(), dls=ten, model=Net(10)).fit(1)
    for kw, why in ((dict(vocab=NAMES[:2]), 'y: rows have 3 classes'), (dict(vocab=NAMES, n_classes=4), 'vocab: 3 names; n_classes is 4')):
        with pytest.raises(ValueError, match=why): soft_dls(X, ROWS, X, ROWS, device='cpu', **kw)

# ---- the picture

@pytest.mark.parametrize('k', [2, 10, 1000])
@pytest.mark.parametrize('kind', ['bars', 'text'])
def test_show_mix(k, kind):
    y = F.one_hot(torch.arange(40) % k, k).float()
    axs = show_mix((X, y), Steep(), n=3, kind=kind, generator=torch.Generator().manual_seed(0))
    assert axs.shape == (2, 3)
    first = [ax.get_title() for ax in axs[0]]
    assert [o.split(': ')[1] for o in first] == ['λ = .17', 'λ = .50', 'λ = .83'] and 'of these blends' in axs[0, 0].figure.get_suptitle()
    for ax, title in zip(axs[1], first): # the λ is that of the class beside it
        lines = [t.get_text() for t in ax.texts]
        lines = lines[0].split('\n')[1:] if kind == 'text' else lines
        name, share = title.split(': λ = ')
        share = float(share)
        if kind == 'text': assert f'{name} {share:.2f}'.replace('0.', '.') in lines
        else: assert (lines.index(name) < lines.index(next(o for o in lines if o not in (name,) and o.isdigit()))) == (share >= .5) or share == .5
    texts = [t.get_text() for t in axs[1, 0].texts]
    assert any('.83' in t for t in texts) and any('.17' in t for t in texts) # mixup's
    steep = 1/(1+np.exp(-6*(1/6-.5)))
    assert any(f'{steep:.2f}'[1:] in t for t in texts)

def test_show_mix_of_a_folder_undoes_normalising(folder):
    dls = ImageDataLoaders.from_folder(folder, valid_pct=.3, seed=0, bs=12, device='cpu', num_workers=0,
                                       batch_tfms=Normalize.from_stats([.5]*3, [.25]*3))
    learn = mk(HumanMixUp(), dls=dls)
    axs = show_mix(dls, learn.human_mix_up, n=20)
    assert axs.shape == (2, 12) # of a batch of twelve, which has more than one class
    for ax in axs[0]:
        a = ax.images[0].get_array()
        assert 0 <= a.min() and a.max() <= 1 and a.std() > .1
    texts = {t.get_text() for t in axs[1, 0].texts}
    assert len(texts & set(NAMES)) == 2

def test_show_mix_of_one_loader(folder):
    dls = ImageDataLoaders.from_folder(folder, valid_pct=.5, seed=0, bs=6, device='cpu', num_workers=0)
    for dl in (dls, dls.train, dls.valid):
        axs = show_mix(dl, n=2)
        assert axs.shape == (2, 2) and any(o in axs[0, 0].get_title() for o in NAMES)
    with pytest.raises(ValueError, match='classes: found none'): show_mix(loaders().train)
    assert show_mix(loaders().valid, classes=NAMES, n=2).shape == (2, 2)
    assert show_mix(soft_dls(X, ROWS, X, ROWS, device='cpu').valid, Linear(), n=2).shape == (2, 2)

@pytest.mark.parametrize('part', ['all', 'train', 'valid'])
def test_show_mix_refuses_several_labels(folder, part):
    db = DataBlock((ImageBlock, MultiCategoryBlock()), get_items=get_image_files, get_y=lambda o: [o.parent.name], splitter=RandomSplitter(.3, seed=0))
    dls = db.dataloaders(folder, bs=4, device='cpu', num_workers=0)
    with pytest.raises(ValueError, match='y: found TensorMultiCategory'): show_mix(dls if part == 'all' else getattr(dls, part), Linear())

def test_show_mix_refuses_other_batches():
    with pytest.raises(ValueError, match='batches of 3 parts'): show_mix((X, X, ROWS))

@pytest.mark.parametrize('make', [MixMaxEntCB, RegMixupCB])
def test_clean_rows_are_labels_as_good_as_classes(make):
    losses = []
    for y in (Y, F.one_hot(Y, 3).float()):
        dls = DataLoaders(loaders(y).train, loaders().valid) # fastai's own loss validates on classes alone
        dls.vocab, dls.train.shuffle = NAMES, False
        learn = mk(make(generator=0), dls=dls)
        own = learn.loss_func
        with learn.no_bar(): learn.fit(1, 1e-2)
        losses.append(torch.stack(list(learn.recorder.losses)))
        assert learn.loss_func is own
    torch.testing.assert_close(*losses)
