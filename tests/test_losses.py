"Losses against a slow second writing of them and finite differences, and inside a real `Learner`."
import copy, math, pickle
from functools import partial
import pytest, torch
import torch.nn.functional as F
from fastai.callback.schedule import *
from fastai.callback.training import GradientClip
from fastai.data.core import DataLoaders
from fastai.interpret import Interpretation
from fastai.learner import Learner, load_learner
from fastai.losses import (BCELossFlat, BCEWithLogitsLossFlat, CrossEntropyLossFlat, DiceLoss, FocalLossFlat, L1LossFlat,
                           LabelSmoothingCrossEntropy, LabelSmoothingCrossEntropyFlat, MSELossFlat)
from fastai.metrics import accuracy
from fastai.optimizer import Adam
from fastai.torch_core import TensorBase, TensorCategory
from hypothesis import given, settings, strategies as st
from torch import nn
from hmix_nb.data.images import soft_dls
from hmix_nb.evaluation.scores import cross_entropy, soft_accuracy
from hmix_nb.labels import reduced, soft_cross_entropy
from hmix_nb.train.losses import (ClassWeighted, EntropyWeighted, MixMaxEnt, RegMixup, SoftCrossEntropy, entropy_of_logits,
                                  entropy_weight, max_ent, soft_version)
from hmix_nb.train.metrics import AgainstPeople, ce_to_people, kl_to_people

LOSSES = [SoftCrossEntropy(), EntropyWeighted(), EntropyWeighted(0.), EntropyWeighted(.3, detach=True), MixMaxEnt(),
          MixMaxEnt(.5, towards='uniform'), RegMixup(), RegMixup(.3), ClassWeighted(torch.tensor([.5, 1, 2, 0, 3]))]

def batch(b=6, k=5, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    pred, mixed, a, c = (2*torch.randn(b, k, generator=g, dtype=dtype) for _ in range(4))
    return pred, a.softmax(1), torch.rand(b, generator=g, dtype=dtype), mixed, c.softmax(1)

def more(loss, mixed, rows): # what a loss of two passes takes besides
    different = torch.tensor([1, 0, 1, .5, 1, 0]).to(mixed)[:len(mixed)]
    return {MixMaxEnt: (mixed, different), RegMixup: (mixed, rows)}.get(type(loss), ())

def slow(loss, pred, targ, mixed, rows): # one sample at a time, in plain Python
    def logp(z):
        z = z.tolist()
        total = math.log(sum(math.exp(v-max(z)) for v in z)) + max(z)
        return [v-total for v in z]
    ce = [-sum(t*l for t, l in zip(t, logp(p))) for p, t in zip(pred, targ.tolist())]
    h = lambda z: -sum(math.exp(l)*l for l in logp(z))
    if isinstance(loss, EntropyWeighted): return [max(min(math.log(2)/h(p), 1), loss.kappa)*c for p, c in zip(pred, ce)]
    if isinstance(loss, MixMaxEnt):
        d = more(loss, mixed, rows)[1].tolist()
        r = [-h(z) if loss.towards == 'entropy' else -sum(logp(z))/len(z) for z in mixed]
        return [c + loss.coef*o*w*len(d)/sum(d) for c, o, w in zip(ce, r, d)]
    if isinstance(loss, RegMixup):
        blended = [-sum(t*l for t, l in zip(t, logp(z))) for z, t in zip(mixed, rows.tolist())]
        return [(c + loss.coef*b)/(1+loss.coef) for c, b in zip(ce, blended)]
    if isinstance(loss, ClassWeighted):
        return [-sum(w*t*l for w, t, l in zip(loss.class_weight.tolist(), t, logp(p))) for p, t in zip(pred, targ.tolist())]
    return ce

def with_reduction(loss, reduction):
    loss = copy.deepcopy(loss)
    loss.reduction = reduction
    return loss

@pytest.mark.parametrize('loss', LOSSES, ids=repr)
def test_a_slow_second_writing_agrees(loss):
    pred, targ, weight, mixed, rows = batch()
    each = torch.tensor(slow(loss, pred, targ, mixed, rows), dtype=torch.float64)
    got = with_reduction(loss, 'none')(pred, targ, weight, *more(loss, mixed, rows))
    torch.testing.assert_close(got, weight*each)

@pytest.mark.parametrize('loss', LOSSES, ids=repr)
@settings(max_examples=15, deadline=None)
@given(b=st.integers(1, 6), seed=st.integers(0, 99), weighted=st.booleans())
def test_none_mean_sum(loss, b, seed, weighted):
    pred, targ, weight, mixed, rows = batch(b, seed=seed)
    args = (pred, targ, weight if weighted else None, *more(loss, mixed, rows))
    none, mean, total = (with_reduction(loss, r)(*args) for r in ('none', 'mean', 'sum'))
    assert none.shape == (b,) and mean.shape == total.shape == ()
    torch.testing.assert_close(total, none.sum())
    divisor = (targ*loss.class_weight).sum() if isinstance(loss, ClassWeighted) else b
    torch.testing.assert_close(mean, none.sum()/divisor)

@pytest.mark.parametrize('loss', LOSSES, ids=repr)
@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
def test_gradients_are_those_of_finite_differences(loss, reduction):
    pred, targ, weight, mixed, rows = batch()
    loss = with_reduction(loss, reduction)
    if getattr(loss, 'detach', False): # the weight counts as a constant
        w = entropy_weight(pred, loss.kappa)
        f = lambda z: reduced(w*soft_cross_entropy(z, targ, reduction='none'), weight, reduction)
        z = pred.clone().requires_grad_()
        got, = torch.autograd.grad(loss(z, targ, weight).sum(), z)
        want, = torch.autograd.grad(f(z).sum(), z)
        torch.testing.assert_close(got, want)
        return
    pred.requires_grad_()
    mixed.requires_grad_()
    assert torch.autograd.gradcheck(lambda p, m: loss(p, targ, weight, *more(loss, m, rows)), (pred, mixed))
    hard = targ.argmax(1)
    assert torch.autograd.gradcheck(lambda p, m: loss(p, hard, None, *more(loss, m, rows)), (pred, mixed))

def test_the_weight_of_ent_wc():
    z = torch.tensor([[50., 0, 0, 0, 0], [9, 9, -90, -90, -90], [0, 0, 0, 0, 0]], dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(entropy_weight(z, 0.), torch.tensor([1, 1, math.log(2)/math.log(5)], dtype=torch.float64))
    assert entropy_weight(z, .7)[2] == .7 and not entropy_weight(z, 0., detach=True).requires_grad
    for extreme in (torch.tensor([[1e4, -1e4, 0.]]), torch.tensor([[0., -torch.inf, -torch.inf]]), torch.zeros(1, 3)):
        extreme.requires_grad_()
        grad, = torch.autograd.grad(entropy_weight(extreme, 0.).sum() + entropy_of_logits(extreme).sum(), extreme)
        assert grad.isfinite().all()

@pytest.mark.parametrize('loss', LOSSES, ids=repr)
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast(loss, dtype):
    pred, targ, weight, mixed, rows = batch(dtype=torch.float32)
    want = loss(pred.to(dtype).float(), targ, weight, *more(loss, mixed.to(dtype).float(), rows))
    p, m = pred.to(dtype).requires_grad_(), mixed.to(dtype).requires_grad_()
    got = loss(p, targ, weight, *more(loss, m, rows))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, want)
    got.backward()
    assert p.grad.dtype == dtype and p.grad.isfinite().all()
    with torch.autocast('cpu', torch.bfloat16):
        torch.testing.assert_close(loss(p, targ.to(torch.bfloat16), weight, *more(loss, m, rows)), want, rtol=.02, atol=.02)

@pytest.mark.parametrize('loss', LOSSES, ids=repr)
def test_hard_targets_are_one_hot_rows(loss):
    pred, targ, weight, mixed, rows = batch(dtype=torch.float32)
    hard = targ.argmax(1)
    for y in (hard, hard.int(), hard.to(torch.uint8), TensorCategory(hard)):
        got = loss(TensorBase(pred), y, weight, *more(loss, mixed, rows))
        assert type(got) is torch.Tensor
        torch.testing.assert_close(got, loss(pred, F.one_hot(hard, 5).float(), weight, *more(loss, mixed, rows)))

@pytest.mark.parametrize('call,message', [
    (lambda p, t: SoftCrossEntropy()(p, t, torch.ones(2)), 'weight: found shape (2,)'),
    (lambda p, t: SoftCrossEntropy()(p, t, -torch.ones(6)), 'weight: found -1'),
    (lambda p, t: SoftCrossEntropy()(p, 2*t), 'targ: row 0'), (lambda p, t: SoftCrossEntropy()(p, t.argmax(1)+3), 'targ: found'),
    (lambda p, t: EntropyWeighted(kappa=-.1), 'kappa: found -0.1'), (lambda p, t: MixMaxEnt(coef=-1), 'coef: found -1'),
    (lambda p, t: MixMaxEnt(towards='up'), 'towards:'), (lambda p, t: MixMaxEnt()(p.requires_grad_(), t), 'missing while training'),
    (lambda p, t: RegMixup()(p.requires_grad_(), t), 'missing while training'), (lambda p, t: RegMixup()(p, t, None, p), 'targ_mixed: missing'),
    (lambda p, t: RegMixup()(p, t, None, p[:3], t), 'pred_mixed: found shape (3, 5)'),
    (lambda p, t: max_ent(p, torch.ones(2)), 'different: found shape (2,)'),
    (lambda p, t: EntropyWeighted(reduction='avg'), 'reduction:'), (lambda p, t: SoftCrossEntropy()(p[:0], t[:0]), 'empty')])
def test_refusals(call, message):
    with pytest.raises(ValueError) as e: call(*batch()[:2])
    assert message in str(e.value)

def test_regmixup_is_the_mean_over_both_batches_and_mixmaxent_counts_only_what_differs():
    pred, targ, _, mixed, rows = batch()
    both = F.cross_entropy(torch.cat([pred, mixed]), torch.cat([targ, rows]))
    torch.testing.assert_close(RegMixup()(pred, targ, None, mixed, rows), both)
    none = torch.zeros(6)
    torch.testing.assert_close(MixMaxEnt()(pred, targ, None, mixed, none), F.cross_entropy(pred, targ))
    for o in (MixMaxEnt(), RegMixup()): torch.testing.assert_close(o(pred, targ), F.cross_entropy(pred, targ)) # validation

@pytest.mark.parametrize('own', [CrossEntropyLossFlat(), nn.CrossEntropyLoss(), F.cross_entropy, CrossEntropyLossFlat(reduction='sum'),
    CrossEntropyLossFlat(weight=torch.tensor([.5, 1, 2, .1, 3])), nn.CrossEntropyLoss(torch.tensor([.5, 1, 2, .1, 3]), label_smoothing=.2),
    nn.CrossEntropyLoss(torch.tensor([.5, 1, 2, .1, 3]), label_smoothing=.2, reduction='none'),
    LabelSmoothingCrossEntropy(.3), LabelSmoothingCrossEntropyFlat(eps=.3), LabelSmoothingCrossEntropy(.3, torch.tensor([.5, 1, 2, .1, 3])),
    LabelSmoothingCrossEntropy(.3, reduction='sum')])
def test_soft_version_equals_the_loss_on_hard_labels(own):
    pred, targ = (o.float() for o in batch()[:2])
    y = targ.argmax(1)
    grads = []
    for f, t in ((own, y), (soft_version(own), y), (soft_version(own), F.one_hot(y, 5).float())):
        z = pred.clone().requires_grad_()
        out = f(z, t)
        grads.append((out.detach(), *torch.autograd.grad(out.sum(), z)))
    for o in grads[1:]: torch.testing.assert_close(o, grads[0], rtol=1e-5, atol=1e-6)

@pytest.mark.parametrize('own', [BCEWithLogitsLossFlat(), BCELossFlat(), MSELossFlat(), L1LossFlat(), FocalLossFlat(), DiceLoss(),
                                 nn.MSELoss(), nn.NLLLoss(), nn.CrossEntropyLoss(ignore_index=2)])
def test_soft_version_refuses_other_losses(own):
    with pytest.raises(ValueError, match='loss_func: found'): soft_version(own)

def test_soft_version_leaves_what_is_someones_own():
    class Half(CrossEntropyLossFlat):
        def __call__(self, *args): return super().__call__(*args)/2
    class Twice(nn.CrossEntropyLoss):
        def forward(self, *args): return super().forward(*args)*2
    def mine(pred, targ): return (pred*targ).sum()
    class Smoother(LabelSmoothingCrossEntropy):
        def __call__(self, *args): return super().__call__(*args)/2
    class Renamed(CrossEntropyLossFlat): pass
    class Mild(nn.CrossEntropyLoss):
        def __init__(self): super().__init__(label_smoothing=.1)
    patched, hooked, flat = nn.CrossEntropyLoss(), nn.CrossEntropyLoss(), CrossEntropyLossFlat()
    patched.forward = mine
    hooked.register_forward_hook(lambda f, args, out: out/2)
    flat.func.register_forward_hook(lambda f, args, out: out/2)
    for o in (Half(), Twice(), Smoother(), patched, hooked, flat, mine, *LOSSES): assert soft_version(o) is o
    assert repr(soft_version(Renamed())) == repr(SoftCrossEntropy())
    assert repr(soft_version(Mild())) == repr(SoftCrossEntropy(label_smoothing=.1))

def net(): return nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.ReLU(), nn.Linear(16, 4))

def mk_dls(**kw):
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(81, 3, 4, 4, generator=g), torch.rand(81, 4, generator=g).softmax(1)
    return soft_dls(x[:60], y[:60], x[60:], y[60:], bs=16, generator=0, device='cpu', valid_bs=8, **kw)

@pytest.mark.parametrize('loss', [o for o in LOSSES if type(o) in (SoftCrossEntropy, EntropyWeighted)] +
                                 [ClassWeighted(torch.tensor([1., 2, 3, 4]))], ids=repr)
def test_a_loss_lives_in_a_learner(loss, tmp_path):
    torch.manual_seed(0)
    learn = Learner(mk_dls(), net(), loss_func=copy.deepcopy(loss), opt_func=Adam, path=tmp_path, metrics=[soft_accuracy, ce_to_people])
    with learn.no_bar(), learn.no_logging():
        learn.lr_find(num_it=6, show_plot=False)
        learn.fit_one_cycle(2, 1e-2, cbs=GradientClip(1.))
        assert learn.recorder.values[-1][0] > 0
        probs, targ, said, each = learn.get_preds(with_loss=True, with_decoded=True)
        valid = learn.validate()[0]
    x, y = learn.dls.valid_ds.x, learn.dls.valid_ds.y
    with torch.no_grad(): pred = learn.model(x)
    torch.testing.assert_close(torch.as_tensor(probs), pred.softmax(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.as_tensor(each), with_reduction(loss, 'none')(pred, y), rtol=1e-4, atol=1e-5)
    assert torch.equal(torch.as_tensor(said), pred.argmax(1)) and learn.loss_func.reduction == 'mean'
    if not isinstance(loss, ClassWeighted): assert abs(valid-float(loss(pred, y))) < 1e-5
    learn.export('o.pkl')
    again = load_learner(tmp_path/'o.pkl')
    assert repr(again.loss_func) == repr(loss) == repr(pickle.loads(pickle.dumps(loss)))
    torch.testing.assert_close(again.loss_func(pred, y), loss(pred, y))
    losses, at = Interpretation.from_learner(learn).top_losses(3)
    want = with_reduction(loss, 'none')(pred, y).topk(3)
    torch.testing.assert_close(torch.as_tensor(losses), want[0], rtol=1e-4, atol=1e-5)
    assert at.tolist() == want[1].tolist()

@pytest.mark.parametrize('loss', [MixMaxEnt(), RegMixup()], ids=repr)
def test_a_loss_of_two_passes_validates_and_is_saved(loss, tmp_path):
    learn = Learner(mk_dls(), net(), loss_func=loss, path=tmp_path)
    with learn.no_bar(), learn.no_logging():
        with pytest.raises(ValueError, match='pred_mixed: missing while training'): learn.fit(1)
        *_, each = learn.get_preds(with_loss=True)
        assert abs(float(each.mean())-learn.validate()[0]) < 1e-5
    learn.export('o.pkl')
    assert repr(load_learner(tmp_path/'o.pkl').loss_func) == repr(loss)

def test_weights_come_with_the_batch():
    g = torch.Generator().manual_seed(0)
    x, y, w = torch.rand(32, 3, 4, 4, generator=g), torch.randint(4, (32,), generator=g), torch.rand(32, generator=g)
    dls = DataLoaders.from_dsets([*zip(x, y, w)], [*zip(x, y, w)], bs=8, device='cpu')
    dls.n_inp = 1
    learn = Learner(dls, net(), loss_func=SoftCrossEntropy(), metrics=ce_to_people)
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    with torch.no_grad(): pred = learn.model(x)
    with learn.no_bar(): loss, ce = learn.validate()
    each = F.cross_entropy(pred, y, reduction='none')
    assert abs(loss-float((each*w).mean())) < 1e-5 and abs(ce-float(each.mean())) < 1e-5

def test_metrics_average_over_images():
    learn = Learner(mk_dls(), net(), loss_func=SoftCrossEntropy(), metrics=[soft_accuracy, ce_to_people, kl_to_people,
                    AgainstPeople(mk_dls().valid_ds.y.flip(0))])
    with learn.no_bar(): loss, acc, ce, kl, other = learn.validate()
    x, y = learn.dls.valid_ds.x, learn.dls.valid_ds.y
    with torch.no_grad(): pred = learn.model(x)
    assert abs(acc-float((pred.argmax(1) == y.argmax(1)).float().mean())) < 1e-6 and abs(ce-loss) < 1e-5
    want = cross_entropy(pred, y)
    assert abs(ce-float(want)) < 1e-6 and abs(ce-kl-float(torch.special.entr(y.double()).sum(1).mean())) < 1e-6
    assert abs(other-float(cross_entropy(pred, y.flip(0)))) < 1e-6
    y = TensorCategory(y.argmax(1))
    assert float(soft_accuracy(TensorBase(pred), y)) == pytest.approx(float(accuracy(pred, y)))

@pytest.mark.parametrize('n', [20, 22])
def test_people_of_another_number_are_refused(n):
    learn = Learner(mk_dls(), net(), loss_func=SoftCrossEntropy(), metrics=AgainstPeople(torch.full((n, 4), .25)))
    with learn.no_bar(), pytest.raises(ValueError, match='people'): learn.validate()

def test_columns_of_metrics_have_names_of_their_own():
    "Also of a function with arguments bound, of which fastai knows the name."
    rows = mk_dls().valid_ds.y
    metrics = [soft_accuracy, AgainstPeople(rows, soft_accuracy), AgainstPeople(rows.flip(0), soft_accuracy, who='others'),
               AgainstPeople(rows, partial(ce_to_people))]
    learn = Learner(mk_dls(), net(), loss_func=SoftCrossEntropy(), metrics=metrics)
    names = [m.name for m in learn.metrics]
    assert names == ['soft_accuracy', 'people: soft_accuracy', 'others: soft_accuracy', 'people: ce_to_people']
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    assert learn.recorder.metric_names[3:7] == names
