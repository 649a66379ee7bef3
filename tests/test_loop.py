"Resident sets against loaders, the loop against a real `Learner`, and what a page should not show."
import copy, importlib.util, math, pickle
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
import numpy as np, pytest, torch
from fastai.callback.core import Callback, CancelValidException
from fastai.callback.progress import ProgressCallback
from fastai.callback.schedule import *
from fastai.callback.training import GradientClip
from fastai.learner import Learner
from fastai.optimizer import OptimWrapper
from hypothesis import given, settings, strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
import hmix_nb.train.resident as resident
from hmix_nb.core import seed_for
from hmix_nb.data.images import SoftDL, as_floats, soft_dls
from hmix_nb.data.pool import LabelPool
from hmix_nb.mixing.labels import Linear, PairLogistic, Smoothed
from hmix_nb.mixing.pixels import CutMix
from hmix_nb.softlabels.pool import DrawnSet, pool_dls
from hmix_nb.train.callbacks import EntropyWeightedMixUp, HumanMixUp, MixMaxEntCB, RegMixupCB
from hmix_nb.train.loop import Diverged, ent_wc, fit, mix_maxent, mixup, plain, rates, regmixup
from hmix_nb.train.losses import MixMaxEnt, RegMixup, SoftCrossEntropy
from hmix_nb.train.models import mk_model
from hmix_nb.train.resident import Resident, one_thread

K, N = 4, 70
def gen(seed=0): return torch.Generator().manual_seed(seed)
NP = np.random.default_rng(0)
X8, Y = NP.integers(256, size=(N, 8, 8, 3), dtype=np.uint8), NP.integers(K, size=N)
ROWS = torch.as_tensor(NP.dirichlet(np.ones(K), N)).float()

class Net(nn.Module):
    def __init__(self, k=K, width=16):
        super().__init__()
        self.conv, self.bn, self.head = nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Linear(width, k)
    def forward(self, x): return self.head(self.bn(self.conv(x)).relu().mean((2, 3)))

def net(seed=0, **kw):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Net(**kw)

def pool_of(n=N, seed=0, weighted=False):
    g = np.random.default_rng(seed)
    image = np.concatenate([np.arange(n), g.integers(n, size=2*n)])
    return LabelPool(g.dirichlet(np.ones(K), len(image)), image, names=range(n), weights=g.random(len(image))+.01 if weighted else None)

# ---- resident sets

parts = st.lists(st.tuples(st.booleans(), st.integers(1, 9)), min_size=1, max_size=5)

@settings(max_examples=60, deadline=None)
@given(parts, st.booleans(), st.integers(0, 99), st.sampled_from(['rows', 'indices']))
def test_a_batch_is_what_the_parts_hold_to_the_last_bit(parts, channels_last, seed, kind):
    g = np.random.default_rng(seed)
    xs = [g.random((n, 3, 5, 6), dtype=np.float32) if floats else g.integers(256, size=(n, 5, 6, 3), dtype=np.uint8) for floats, n in parts]
    ys = [g.dirichlet(np.ones(K), n).astype(np.float32) if kind == 'rows' else g.integers(K, size=n) for _, n in parts]
    data = Resident(xs, ys, n_classes=K).to(channels_last=channels_last)
    x = torch.cat([as_floats(o) if o.dtype == np.uint8 else torch.as_tensor(o) for o in xs])
    y = torch.cat([torch.as_tensor(o) if kind == 'rows' else torch.eye(K)[o] for o in ys])
    i = torch.as_tensor(g.integers(len(x), size=12))
    assert torch.equal(data.fetch(i)[0], x[i]) and torch.equal(data.fetch(i)[1], y[i])
    kept = sum(o.nbytes for o in xs) # bytes stay bytes
    assert kept == sum(o.numel()*o.itemsize for o in (data._bytes, data._floats) if o is not None)
    back = data.to(channels_last=False).fetch(i)[0]
    assert torch.equal(back, x[i]) and back.is_contiguous() and (not channels_last or data.fetch(i)[0].is_contiguous(memory_format=torch.channels_last))

@settings(max_examples=40, deadline=None)
@given(st.integers(1, N), st.integers(0, 99), st.integers(1, N))
def test_batches_are_those_of_soft_dls(bs, seed, n):
    dls = soft_dls(X8[:n], ROWS[:n], X8[:1], ROWS[:1], bs, generator=seed, device='cpu')
    for data in (Resident(X8[:n], ROWS[:n]), Resident(as_floats(X8[:n]), ROWS[:n])):
        ours, theirs, g = [], [], gen(seed)
        for _ in range(2): ours += list(data.batches(bs, g))
        dls.train.generator = gen(seed)
        for _ in range(2): theirs += list(dls.train)
        assert all(torch.equal(a, b) and torch.equal(c, d) for (a, c), (b, d) in zip(ours, theirs, strict=True))
    assert [len(x) for x, _ in ours[:math.ceil(n/bs)]] == [bs]*(n//bs) + ([n % bs] if n % bs else [])
    plain = list(data.batches(bs, shuffle=False))
    assert torch.equal(torch.cat([x for x, _ in plain]), as_floats(X8[:n]))

@pytest.mark.parametrize('weighted', [False, True])
def test_draws_are_those_of_a_drawn_set(weighted):
    pool, g = pool_of(weighted=weighted), torch.arange(N)
    ours, theirs = Resident(X8, pool, draws=7), DrawnSet(as_floats(X8), pool, gen(7))
    for _ in range(3): assert torch.equal(ours.fetch(g)[1], theirs[g][1])

@pytest.mark.parametrize('weighted', [False, True])
def test_rows_beside_a_pool(weighted):
    pool, i = pool_of(weighted=weighted), torch.arange(3*N)
    data = Resident([X8, as_floats(X8), X8], [pool, ROWS, Y], draws=0)
    drawn = torch.stack([data.fetch(i)[1] for _ in range(2000)])
    assert torch.equal(drawn[:, N:2*N], ROWS.expand(2000, N, K)) and torch.equal(drawn[0, 2*N:], torch.eye(K)[Y])
    assert torch.allclose(drawn[:, :N].mean(0), pool.mean(), atol=.05)
    own = [{tuple(r.tolist()) for r in pool.rows[torch.as_tensor(pool.image) == j]} for j in range(N)]
    assert all(tuple(r.tolist()) in own[j] for r in drawn[:20, :N].unbind() for j, r in enumerate(r))

def test_labels_may_change():
    data = Resident([X8, as_floats(X8)], [Y, ROWS], n_classes=K)
    data.relabel([ROWS, Y])
    assert torch.equal(data.y, torch.cat([ROWS, torch.eye(K)[Y]]))
    data.relabel([pool_of(), Y])
    assert data.y is None and data.pool.n_classes == K
    for bad, why in ((ROWS, 'sets; x has 2'), ([ROWS], 'found 1 sets'), ([ROWS, ROWS[1:]], 'y[1] has 69'), ([ROWS, ROWS[:, :3].softmax(1)], 'y[1]: rows have 3')):
        with pytest.raises(ValueError) as e: data.relabel(bad)
        assert why in str(e.value)
    assert data.pool is not None # as before

def test_pools_with_unlabelled_images_and_other_classes_are_refused():
    bare = LabelPool(np.eye(K), [0, 1, 2, 4], names=range(5))
    with pytest.raises(ValueError, match='no label for 3'): Resident(X8[:5], bare)
    with pytest.raises(ValueError, match='classes; allowed are 4'): Resident([X8[:5], X8[:3]], [np.arange(5) % 3, LabelPool(np.eye(3), [0, 1, 2])], n_classes=4)

@pytest.mark.parametrize('x, y, kw, why', [
    (X8.astype(np.int64), Y, {}, 'x: found'), (X8[..., :2], Y, {}, 'allowed is (N, H, W, C)'), (as_floats(X8)+1, ROWS, {}, 'x: found'),
    (X8, Y[:5], dict(n_classes=K), 'y has 5'), (X8, Y, {}, 'n_classes'), (X8, ROWS, dict(n_classes=3), 'n_classes is 3'),
    ([X8, X8[:, :4]], [ROWS, ROWS], {}, 'one size'), (X8[:0], Y[:0], dict(n_classes=K), 'empty'), ([], [], {}, 'empty'), (X8, ROWS, dict(draws='a'), 'generator')])
def test_what_is_no_training_set(x, y, kw, why):
    with pytest.raises(ValueError) as e: Resident(x, y, **kw)
    assert why in str(e.value)

class Asked(TorchDispatchMode):
    "Which operations run that a GPU would have to wait for."
    def __init__(self):
        super().__init__()
        self.seen = []
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero, torch.ops.aten.masked_select): self.seen.append(str(func))
        return func(*args, **kwargs or {})

@pytest.mark.parametrize('y', ['rows', 'pool'])
def test_nobody_looks_at_values_while_taking_a_batch(y):
    data = Resident([X8, as_floats(X8)], [ROWS if y == 'rows' else pool_of(), ROWS])
    with Asked() as asked: data.fetch(torch.arange(40, 100))
    assert not asked.seen

# ---- the loop against a Learner

class Silent(Callback):
    def before_validate(self): raise CancelValidException()

def learner(cbs=None, loss=None, *, epochs=3, bs=16, lr=.1, wd=5e-4, mom=.9, dls=None, how=None, seed=0):
    dls = dls or soft_dls(X8, ROWS, X8[:1], ROWS[:1], bs, generator=1, device='cpu')
    sgd = partial(OptimWrapper, opt=partial(torch.optim.SGD, momentum=mom))
    learn = Learner(dls, net(seed), loss_func=loss or SoftCrossEntropy(), opt_func=sgd, lr=lr, wd=wd, wd_bn_bias=True, cbs=[Silent()])
    learn.remove_cb(ProgressCallback)
    with learn.no_logging(): how(learn) if how else learn.fit(epochs, cbs=cbs)
    return learn

def ours(objective=None, *, data=None, epochs=3, batch_size=16, seed=0, **kw):
    o = net(seed)
    return o, fit(o, data or Resident(X8, ROWS), objective, epochs=epochs, batch_size=batch_size, weight_decay=5e-4,
                  **dict(generator=gen(1), mixing=gen(2)) | kw)

def same(learn, ours, atol=1e-6):
    o, history = ours
    for a, b in zip(learn.model.state_dict().values(), o.state_dict().values(), strict=True): torch.testing.assert_close(a, b, atol=atol, rtol=0)

curves = PairLogistic(unknown='pooled').bind('abcd')
PAIRS = dict(
    plain=(None, None, plain), mixup=(partial(HumanMixUp, g=Linear()), None, mixup),
    curves=(partial(HumanMixUp, g=curves, alpha=.4, per='sample'), None, partial(mixup, curves, alpha=.4, per='sample')),
    smoothed=(partial(HumanMixUp, g=Smoothed(curves, .1)), None, partial(mixup, Smoothed(curves, .1))),
    cutmix=(partial(HumanMixUp, f=CutMix(), g=Linear()), None, partial(mixup, f=CutMix())),
    ent_wc=(EntropyWeightedMixUp, None, ent_wc), ent_wc_detached=(partial(EntropyWeightedMixUp, kappa=.2, detach=True, alpha=1.), None, partial(ent_wc, kappa=.2, detach=True, alpha=1.)),
    max_ent=(MixMaxEntCB, None, mix_maxent), max_ent_coef=(partial(MixMaxEntCB, .3, alpha=5.), None, partial(mix_maxent, coef=.3, alpha=5.)),
    max_ent_uniform=(partial(MixMaxEntCB, per='sample'), lambda: MixMaxEnt(.5, 'uniform'), partial(mix_maxent, coef=.5, towards='uniform', per='sample')),
    regmixup=(RegMixupCB, None, regmixup), regmixup_loss=(partial(RegMixupCB, g=curves), lambda: RegMixup(.5), partial(regmixup, curves, coef=.5)))

@pytest.mark.parametrize('cb, loss, objective', PAIRS.values(), ids=PAIRS)
def test_weights_are_those_of_a_learner(cb, loss, objective):
    "70 images in batches of 16: the last one has 6."
    same(learner(cb and cb(generator=gen(2)), loss and loss()), ours(objective()))

def test_losses_are_those_of_a_learner():
    seen = []
    learner([HumanMixUp(g=Linear(), generator=gen(2)), Callback(after_loss=lambda self: seen.append(self.learn.loss.item()))])
    _, history = ours(mixup())
    assert np.concatenate(history.batch_losses).tolist() == seen
    sizes = np.array([16]*4+[6])
    assert np.allclose(history.losses, (np.reshape(seen, (3, 5))*sizes).sum(1)/70) and len(history.epoch_seconds) == 3

def test_one_generator_for_order_and_mixing():
    g = gen(5)
    dls = soft_dls(X8, ROWS, X8[:1], ROWS[:1], 16, generator=g, device='cpu')
    same(learner(HumanMixUp(g=Linear(), generator=g), dls=dls), ours(mixup(), generator=gen(5), mixing=None))
    torch.manual_seed(3)
    theirs = learner(HumanMixUp(g=Linear()), dls=soft_dls(X8, ROWS, X8[:1], ROWS[:1], 16, device='cpu'), how=lambda l: (torch.manual_seed(3), l.fit(2, cbs=HumanMixUp(g=Linear()))))
    torch.manual_seed(3)
    same(theirs, ours(mixup(), epochs=2, generator=None, mixing=None))

@pytest.mark.parametrize('kw, cbs', [
    (dict(drops=(1, 2)), lambda: [ParamScheduler({'lr': lambda pos: .1*.1**sum(pos*3 >= d-1e-6 for d in (1, 2))})]),
    (dict(clip=.1), lambda: [GradientClip(.1)]), (dict(clip=100.), lambda: [GradientClip(100.)])], ids=['drops', 'clip', 'loose clip'])
def test_schedule_and_clipping(kw, cbs): same(learner(cbs()), ours(**kw))

def test_one_cycle():
    same(learner(how=lambda l: l.fit_one_cycle(3, .1, moms=(.9,)*3)), ours(schedule='one-cycle'))
    hps = learner(how=lambda l: l.fit_one_cycle(3, .1, moms=(.9,)*3)).recorder.hps['lr']
    assert np.allclose(np.ravel(hps), rates(.1, 3, 5, 'one-cycle').ravel(), rtol=1e-12)

@pytest.mark.parametrize('weighted', [False, True])
def test_drawn_labels(weighted):
    pool = pool_of(weighted=weighted)
    dls = pool_dls(X8, pool, X8[:1], ROWS[:1], 16, generator=gen(1), draws=gen(9), device='cpu')
    same(learner(HumanMixUp(g=Linear(), generator=gen(2)), dls=dls), ours(mixup(), data=Resident(X8, pool, draws=gen(9))))

def test_images_and_blends():
    blends = as_floats(X8)*.25 + as_floats(X8[::-1].copy())*.75
    x, y = torch.cat([as_floats(X8), blends]), torch.cat([torch.eye(K)[Y], ROWS])
    dls = soft_dls(x, y, X8[:1], ROWS[:1], 16, generator=gen(1), device='cpu')
    same(learner(dls=dls), ours(data=Resident([X8, blends], [Y, ROWS])))

def test_a_net_of_the_package_keeps_its_memory_format():
    def one(): return mk_model('preact_small', seed=0, n_classes=K)
    a, b = one(), one()
    fit(a, Resident(X8, ROWS), epochs=1, generator=0)
    assert a.stem.weight.stride() == b.stem.weight.stride() and not a.training and all(p.grad is None for p in a.parameters())

# ---- forms

def test_equal_seeds_give_equal_nets_whatever_the_threads():
    nets = []
    for n in (1, 2):
        with one_thread('cpu', n): nets.append(ours(mixup())[0])
    assert all(torch.equal(a, b) for a, b in zip(nets[0].parameters(), nets[1].parameters()))

@pytest.mark.parametrize('objective', [plain, mixup, ent_wc, mix_maxent, regmixup])
@pytest.mark.parametrize('width', [16, 6]) # the second is not laid out channels last
def test_the_fast_form_is_near(objective, width):
    runs = {}
    for form in ('exact', 'fast'):
        o = net(width=width)
        runs[form] = fit(o, Resident([X8, as_floats(X8[:20])], [ROWS, ROWS[:20]]), objective(), epochs=2, batch_size=32, lr=.02, form=form, generator=4)
    a, b = (np.concatenate(runs[f].batch_losses) for f in ('exact', 'fast'))
    assert np.allclose(a, b, atol=.03) and runs['fast'].form == 'fast' and runs['fast'].engine == 'eager'
    assert any('channels last' in n for n in runs['fast'].notes) == (width == 6)

def test_a_seed_has_streams_of_its_own():
    seen = {}
    for name, objective in dict(plain=plain(), mixup=mixup()).items():
        def spy(o, x, y, g, objective=objective, kept=seen.setdefault(name, [])):
            kept.append(x.clone())
            return objective(o, x, y, g)
        fit(net(), Resident(X8, ROWS), spy, epochs=2, batch_size=16, generator=8)
    assert all(torch.equal(a, b) for a, b in zip(seen['plain'], seen['mixup'], strict=True)) # the same order for all arms
    g = torch.randperm(N, generator=gen(8))
    assert torch.equal(seen['plain'][0], as_floats(X8)[g[:16]])
    assert seed_for(8, 'mixing') != 8

def test_functions_of_ones_own_are_objectives():
    def own(o, x, y, g): return plain()(o, *mixup().prepare(x, y, g))
    same_as, (o, h) = ours(mixup())[0], ours(own)
    assert all(torch.equal(a, b) for a, b in zip(same_as.parameters(), o.parameters()))

def loss_half_on_meta(objective):
    "`loss` on tensors without values: who looked at one would fail, and so would stall a GPU."
    x, y = as_floats(X8[:8]), ROWS[:8]
    inputs = [o.to('meta') for o in objective.prepare(x, y, gen())]
    before = torch.get_rng_state()
    loss = objective.loss(net().to('meta'), *inputs)
    assert loss.shape == () and loss.device.type == 'meta' and torch.equal(before, torch.get_rng_state())

@pytest.mark.parametrize('objective', [plain(), mixup(), mixup(curves), ent_wc(), ent_wc(detach=True), mix_maxent(), mix_maxent(towards='uniform'), regmixup(curves)], ids=repr)
def test_what_a_gpu_records_looks_at_no_value_and_draws_nothing(objective): loss_half_on_meta(objective)

def test_a_whole_step_stalls_nothing():
    "Taking, mixing, forward, backward, clipping and SGD, on tensors without values."
    data = Resident([X8, as_floats(X8)], [ROWS, ROWS]).to('meta')
    o = net().to('meta')
    for objective in (plain(), mixup(), mixup(Smoothed(curves)), ent_wc(), mix_maxent(), regmixup(curves, per='sample')):
        plan = SimpleNamespace(engine='eager', amp=False, channels_last=False, fused=False, notes=[])
        step = resident.Step(o, objective, torch.optim.SGD(o.parameters(), .1, .9, weight_decay=1e-4, foreach=True), 1., plan, 16)
        for i in torch.arange(N).split(16): step(*data.fetch(i.to('meta')), gen(), .1)

# ---- graphs, as far as they go without a GPU

class FakeStream:
    def wait_stream(self, other): pass

@pytest.fixture
def fake_cuda(monkeypatch):
    "Records by running, as a GPU would not; replays by running again into the same gradients."
    made = []
    class FakeCUDAGraph:
        def replay(self):
            g = made[-1]
            keep = [p.grad for p in g.params]
            again = g.step.backward(g.step.net, g.inputs)
            g.loss.copy_(again)
            for p, static in zip(g.params, g.grads): static.copy_(p.grad)
            for p, k in zip(g.params, keep): p.grad = k
    class recording(nullcontext):
        def __init__(self, graph, **kw): super().__init__()
        def __enter__(self): self.kept = [b.clone() for b in self.net.buffers()]
        def __exit__(self, *exc):
            for b, k in zip(self.net.buffers(), self.kept): b.copy_(k) # recording computes nothing
    class Graph(resident._Graph):
        def __init__(self, step, inputs):
            self.step = step
            recording.net = step.net
            made.append(self)
            super().__init__(step, inputs)
    for k, v in dict(Stream=FakeStream, stream=lambda s: nullcontext(), current_stream=FakeStream, CUDAGraph=FakeCUDAGraph, graph=recording).items():
        monkeypatch.setattr(torch.cuda, k, v)
    monkeypatch.setattr(resident, '_Graph', Graph)
    return made

def steps(engine, objective, monkeypatch, n=12, clip=0., fail=None):
    plan = SimpleNamespace(engine=engine, amp=False, channels_last=False, fused=False, notes=[])
    o, data, order, g = net(), Resident(X8, ROWS), gen(1), gen(2)
    step = resident.Step(o, objective, torch.optim.SGD(o.parameters(), .1, .9, weight_decay=1e-4), clip, plan, 16)
    if engine != 'eager':
        fast = resident.Step._fast
        def on_gpu(self, inputs): # `_fast` as on a GPU
            cpu, self.device = self.device, SimpleNamespace(type='cuda')
            try: return fast(self, inputs)
            finally: self.device = cpu
        monkeypatch.setattr(resident.Step, '_fast', on_gpu)
        monkeypatch.setattr(resident.Step, 'backward', lambda self, n, inputs, f=resident.Step.backward: f(SimpleNamespace(**vars(self) | dict(device=torch.device('cpu'))), n, inputs))
    losses = [float(step(*data.fetch(i), g, .1)) for _ in range(3) for i in data.order(order).split(16)]
    return o, losses, plan

@pytest.mark.parametrize('objective', [plain, mixup, mix_maxent, regmixup])
@pytest.mark.parametrize('clip', [0., .1])
def test_replayed_steps_are_steps(objective, clip, fake_cuda, monkeypatch):
    "Full batches are replayed, the last one is not; batch norm has counted nothing twice."
    a, la, _ = steps('eager', objective(), monkeypatch, clip=clip)
    b, lb, plan = steps('graph', objective(), monkeypatch, clip=clip)
    assert len(fake_cuda) == 1 and plan.engine == 'graph' and not plan.notes and la == lb
    for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True): torch.testing.assert_close(p, q)

def test_what_cannot_be_recorded_runs_step_by_step_and_says_so(fake_cuda, monkeypatch):
    def broken(*args, **kw): raise RuntimeError('operation not permitted when stream is capturing')
    monkeypatch.setattr(torch.cuda, 'graph', broken)
    a, la, _ = steps('eager', mixup(), monkeypatch)
    b, lb, plan = steps('graph', mixup(), monkeypatch)
    assert plan.engine == 'eager' and len(plan.notes) == 1 and 'not permitted' in plan.notes[0]
    assert la == lb and all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values()))

def test_out_of_memory_is_no_reason_to_go_on(fake_cuda, monkeypatch):
    def full(*args, **kw): raise torch.OutOfMemoryError('CUDA out of memory')
    monkeypatch.setattr(torch.cuda, 'graph', full)
    with pytest.raises(torch.OutOfMemoryError): steps('graph', mixup(), monkeypatch)

def test_without_a_compiler(monkeypatch):
    def broken(o, **kw):
        def forward(x): raise RuntimeError('no C++ compiler')
        return forward
    monkeypatch.setattr(torch, 'compile', broken)
    o, h = ours(form='fast', engine='compile')
    assert h.engine == 'eager' and 'no C++ compiler' in h.notes[-1]
    assert all(torch.equal(a, b) for a, b in zip(o.parameters(), ours(form='fast')[0].parameters()))

# ---- the end of a fit, and bad input

@pytest.mark.parametrize('bad', [math.nan, math.inf])
@pytest.mark.parametrize('at', [0, 7, 14])
def test_a_diverging_net_says_where(bad, at):
    seen = []
    def objective(o, x, y, g):
        seen.append(0)
        return plain()(o, x, y)*(bad if len(seen) == at+1 else 1)
    with pytest.raises(Diverged) as e: ours(objective)
    assert (e.value.epoch, e.value.batch) == (at//5+1, at % 5+1) and len(seen) == at+1 # on a CPU, at once
    assert f'epoch {at//5+1}, batch {at % 5+1} of 5' in str(e.value) and isinstance(e.value, ArithmeticError)
    again = pickle.loads(pickle.dumps(e.value))
    assert str(again) == str(e.value)

def test_what_was_set_is_put_back():
    def fail(o, x, y, g): raise KeyError('x')
    for n in (1, 2):
        with one_thread('cpu', n):
            for objective in (None, fail):
                try: ours(objective)
                except KeyError: pass
                assert torch.get_num_threads() == n
    state = torch.get_rng_state()
    ours(mixup(), generator=0, mixing=None)
    assert torch.equal(state, torch.get_rng_state())

@pytest.mark.parametrize('form', ['exact', 'fast'])
def test_labels_that_change_between_epochs(form):
    seen, epochs = [], []
    data = Resident(X8, np.zeros(N, int), n_classes=K)
    def objective(o, x, y, g):
        seen.append(y.argmax(1).unique().tolist())
        return plain()(o, x, y)
    def on_epoch(e, history):
        epochs.append((e, len(history.losses)))
        data.relabel(np.full(N, e+1))
    fit(net(), data, objective, epochs=3, batch_size=64, form=form, generator=0, on_epoch=on_epoch)
    assert seen == [[0], [0], [1], [1], [2], [2]] and epochs == [(0, 1), (1, 2), (2, 3)]

@pytest.mark.parametrize('kw, why', [
    (dict(epochs=0), 'epochs: found 0'), (dict(batch_size=.5), 'batch_size'), (dict(lr=-1), 'lr: found -1'), (dict(clip=-1), 'clip'), (dict(weight_decay=-1), 'weight_decay'),
    (dict(momentum=1.5), 'momentum'), (dict(schedule='one-cicle'), 'one-cycle'), (dict(schedule='one-cycle', drops=(1,)), 'drops'), (dict(drops=(0,)), 'drops'),
    (dict(form='quick'), 'form'), (dict(engine='graf'), 'graph'), (dict(engine='compile'), "form='fast'"), (dict(form='fast', engine='graph'), 'needs a GPU'),
    (dict(generator='a'), 'generator'), (dict(mixing='a'), 'mixing'), (dict(objective=3), 'objective')])
def test_bad_options_are_refused_before_the_first_step(kw, why):
    o = net()
    before = copy.deepcopy(o.state_dict())
    with pytest.raises(ValueError) as e: fit(o, Resident(X8, ROWS), **dict(epochs=1) | kw)
    assert why in str(e.value)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), o.state_dict().values()))

@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 7), st.lists(st.integers(1, 45), max_size=4))
def test_rates_drop_after_epochs(epochs, n, drops):
    r = rates(.5, epochs, n, drops=tuple(drops))
    assert r.shape == (epochs, n) and all(np.allclose(r[e], .5*.1**sum(d <= e for d in drops)) for e in range(epochs))

# ---- benchmarks

def bench(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent.parent/'bench'/f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

def test_the_benchmark_compares_all_rivals(capsys):
    module = bench('training')
    module.main(['--device', 'cpu', '--model', 'preact_small', '--batches', '2', '--rounds', '1', '--workers', '0', '--bs', '16', '--together'])
    out = capsys.readouterr().out
    assert all(k in out for k in (module.LEARNER, module.LOOP, module.EXACT, module.FAST)) and out.count('goal') == 3

def test_intervals_of_paired_differences():
    module = bench('equivalence')
    mid, half = module.interval([1., 2., 3.])
    assert mid == 2 and half == pytest.approx(4.302653*1/math.sqrt(3), rel=1e-6)
    import pandas as pd
    scores = {k: 1. for k in module.MARGINS}
    def table(shift, noise):
        g = np.random.default_rng(0)
        return module.compared(pd.DataFrame([dict(seed=s, form=f, **{k: 1 + (f == 'fast')*(shift+noise*g.standard_normal()) for k in scores}) for s in range(12) for f in ('exact', 'fast')]))
    assert table(0, .001).inside.all()
    assert not table(.1, .001).inside.any() # a difference
    assert not table(0, .5).inside.any() # no difference found, and nothing shown
