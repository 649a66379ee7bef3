"Laws of mixing, on generated batches; the blends of H-Mix, where the released data is at hand."
import json
import numpy as np, pandas as pd, pytest, torch
from hypothesis import given, settings, strategies as st
from torchvision.transforms.v2 import MixUp
from hmix_nb.data.images import ImageSet, digits
from hmix_nb.labels import soft_cross_entropy
from hmix_nb.mixing.labels import LabelPolicy, Linear, pair_rows, swap_gap
from hmix_nb.mixing.pixels import blend, draw_lam, mix

quick = settings(max_examples=60, deadline=None)
lams = st.floats(0, 1, width=32)

def batch(n=6, k=4, seed=0, size=5):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(n, 3, size, size, generator=g), torch.rand(n, k, generator=g).mul(4).softmax(1)

class Curve(LabelPolicy):
    "A policy that keeps the law, and is no line."
    def weight(self, lam, ya, yb): return torch.sigmoid(6*(lam-.5))

@quick
@given(st.integers(1, 9), st.integers(2, 12), lams, st.integers(0, 99))
def test_rows_sum_to_one_and_ends_are_kept(n, k, lam, seed):
    x, y = batch(n, k, seed)
    for g in (Linear(), Curve()):
        m = mix(x, y, lam=lam, g=g)
        assert torch.allclose(m.y.sum(1), torch.ones(n), atol=1e-5) and (m.y >= 0).all() and m.y.dtype == torch.float32
        assert m.lam_f.shape == m.lam_g.shape == m.idx.shape == (n,) and m.x.shape == x.shape
    assert torch.equal(mix(x, y, lam=1.).x, x) and torch.equal(mix(x, y, lam=1.).y, y)
    m = mix(x, y, lam=0.)
    assert torch.equal(m.x, x[m.idx]) and torch.equal(m.y, y[m.idx])

@quick
@given(st.integers(1, 9), st.sampled_from(['batch', 'sample']), st.floats(.05, 20), st.integers(0, 99))
def test_a_mix_replays_bit_for_bit_and_writes_to_nothing(n, per, alpha, seed):
    x, y = batch(n, seed=seed)
    before = x.clone(), y.clone()
    m = mix(x, y, per=per, alpha=alpha, g=Curve(), generator=torch.Generator().manual_seed(seed))
    again = mix(x, y, lam=m.lam_f, idx=m.idx, g=Curve())
    from_lists = mix(x, y, lam=m.lam_f.tolist(), idx=m.idx.tolist(), g=Curve())
    same_seed = mix(x, y, per=per, alpha=alpha, g=Curve(), generator=torch.Generator().manual_seed(seed))
    for o in (again, from_lists, same_seed):
        assert torch.equal(o.x, m.x) and torch.equal(o.y, m.y) and torch.equal(o.lam_f, m.lam_f) and torch.equal(o.lam_g, m.lam_g)
    assert torch.equal(x, before[0]) and torch.equal(y, before[1])
    assert sorted(m.idx.tolist()) == list(range(n)) and (len(m.lam_f.unique()) == 1 or per == 'sample')

@quick
@given(st.permutations(range(6)), lams)
def test_permuting_the_batch_permutes_the_result(order, lam):
    (x, y), idx = batch(), torch.tensor([3, 1, 0, 5, 4, 2])
    order = torch.tensor(order)
    where = order.argsort()
    a, b = mix(x, y, lam=lam, idx=idx), mix(x[order], y[order], lam=lam, idx=where[idx[order]])
    assert torch.equal(a.x[order], b.x) and torch.equal(a.y[order], b.y)

@quick
@given(lams)
def test_swapping_the_images_and_lam_changes_nothing(lam):
    x, y = batch()
    idx = torch.tensor([1, 0, 3, 2, 5, 4])
    for g in (Linear(), Curve()):
        a, b = mix(x, y, lam=lam, idx=idx, g=g), mix(x[idx], y[idx], lam=1-lam, idx=idx, g=g)
        assert torch.allclose(a.x, b.x, atol=1e-6) and torch.allclose(a.y, b.y, atol=1e-6)
        assert swap_gap(g, 3, 5) < 1e-6

def test_labels_from_indices_are_those_from_rows():
    x, _ = batch()
    hard = torch.tensor([3, 0, 1, 1, 2, 3])
    a, b = mix(x, hard, n_classes=4, lam=.3, idx=range(6)), mix(x, torch.eye(4)[hard], lam=.3, idx=range(6))
    assert torch.equal(a.y, b.y)

def test_the_original_recipe_with_its_two_losses():
    torch.manual_seed(0)
    x, y = batch(8)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(75, 4))
    m = mix(x, y)
    lam, other = float(m.lam_f[0]), y[m.idx]
    pred = net(lam*x + (1-lam)*x[m.idx])
    two = lam*soft_cross_entropy(pred, y) + (1-lam)*soft_cross_entropy(pred, other)
    grads = torch.autograd.grad(two, net.parameters())
    one = soft_cross_entropy(net(m.x), m.y)
    assert abs(float(one.detach() - two.detach())) < 1e-6
    for a, b in zip(grads, torch.autograd.grad(one, net.parameters())): assert torch.allclose(a, b, atol=1e-6)

def test_torchvision_given_the_same_lambda_and_pairs():
    x, y = batch(7)
    tv = MixUp(alpha=1., num_classes=4)
    tv.make_params = lambda *args: dict(lam=.3)
    tx, ty = tv(x, y)
    m = mix(x, y, lam=.3, idx=torch.arange(7).roll(1))
    assert torch.allclose(m.x, tx, atol=1e-6) and torch.allclose(m.y, ty, atol=1e-6)

@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_keep_lambda(dtype):
    x, y = batch()
    m = mix(x.to(dtype), y.to(dtype), lam=.123, idx=range(5, -1, -1))
    assert m.x.dtype == dtype and m.y.dtype == torch.float32
    assert torch.allclose(m.x.double(), .123*x.to(dtype).double() + .877*x.to(dtype).flip(0).double(), atol=torch.finfo(dtype).eps + 1e-7)
    assert Linear()(.5, y.to(dtype), y.to(dtype)).dtype == dtype

def test_channels_last_gradients_and_flat_features():
    x, y = batch()
    m = mix(x.to(memory_format=torch.channels_last), y, lam=.4, idx=range(6))
    assert m.x.is_contiguous(memory_format=torch.channels_last)
    leaf = x.clone().requires_grad_()
    m = mix(leaf, y, lam=.25, idx=[1]*6)
    m.x.sum().backward()
    assert torch.allclose(leaf.grad[0], torch.full_like(leaf[0], .25)) and torch.allclose(leaf.grad[1], torch.full_like(leaf[0], .25 + 6*.75))
    assert mix(x.flatten(1), y, lam=.4).x.shape == (6, 75)

def test_fastai_tensors_pass():
    from fastai.torch_core import TensorCategory, TensorImage
    x, _ = batch()
    hard = torch.tensor([3, 0, 1, 1, 2, 3])
    a, b = mix(TensorImage(x), TensorCategory(hard), n_classes=4, lam=.3, idx=range(6)), mix(x, hard, n_classes=4, lam=.3, idx=range(6))
    assert torch.equal(a.x.as_subclass(torch.Tensor), b.x) and torch.equal(a.y.as_subclass(torch.Tensor), b.y)

def test_extreme_alphas_stay_in_range():
    for alpha in (1e-3, .01, 1, 1e3):
        lam = draw_lam(5000, alpha, 'sample', torch.Generator().manual_seed(0))
        assert torch.isfinite(lam).all() and (lam >= 0).all() and (lam <= 1).all() and abs(float(lam.mean()) - .5) < .03
    one = torch.stack([draw_lam(3) for _ in range(2000)])
    assert (one == one[:, :1]).all() and .2 < float((one[:, 0] < .25).float().mean()) < .3 # uniform, and not folded

def test_a_policy_of_any_kind():
    x, y = batch()
    assert mix(x, y, g=lambda lam, ya, yb: ya).lam_g is None
    with pytest.raises(ValueError, match=r'g: returned shape \(6,\)'): mix(x, y, g=lambda lam, ya, yb: lam)
    assert torch.equal(mix(x, y, f=lambda lam, xa, xb: xa, lam=.2).x, x)
    assert repr(Linear()) == 'Linear()'
    with pytest.raises(NotImplementedError): LabelPolicy()(.5, y, y)

@pytest.mark.parametrize('kw, message', [
    (dict(lam=1.01), 'lam: found 1.01'), (dict(lam=float('nan')), 'lam: found nan'), (dict(lam=torch.rand(6, 1)), r'lam: found shape \(6, 1\)'),
    (dict(alpha=-1), 'alpha: found -1'), (dict(alpha=float('inf')), 'alpha: found inf'), (dict(per='epoch'), 'per: .epoch. is unknown'),
    (dict(idx=[0, 1, 2, 3, 4, -1]), r'idx: found -1 at position \(5,\)'), (dict(idx=torch.ones(6)), 'of torch.float32'),
    (dict(idx=torch.ones(6, dtype=torch.bool)), 'of torch.bool'), (dict(n_classes=5), 'rows have 4 classes; n_classes is 5')])
def test_bad_arguments_are_named(kw, message):
    with pytest.raises(ValueError, match=message): mix(*batch(), **kw)

def test_bad_batches_are_named():
    x, y = batch()
    with pytest.raises(ValueError, match='x: found torch.uint8'): mix((x*255).byte(), y)
    with pytest.raises(ValueError, match='x has 6, y has 5'): mix(x, y[:5])
    with pytest.raises(ValueError, match='y: row 2'): mix(x, torch.cat([y[:2], y[2:]*1.1]))
    with pytest.raises(ValueError, match='B, K > 0'): mix(x[:0], y[:0])
    with pytest.raises(ValueError, match='xb: found shape'): blend(.5, x, x[:3])
    with pytest.raises(ValueError, match='xa: found torch.int64'): blend(.5, x.long(), x.long())

def test_pair_rows_of_one_class_is_that_class():
    assert torch.equal(pair_rows([.3, 1.], [1, 0], [1, 2], 3), torch.tensor([[0, 1., 0], [1, 0, 0]]))
    with pytest.raises(ValueError, match='weight has 1, a has 2'): pair_rows([.3], [1, 0], [1, 2], 3)
