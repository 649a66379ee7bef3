"Laws of mixing, on generated batches; the blends of H-Mix, where the released data is at hand."
import json
import numpy as np, pandas as pd, pytest, torch
from hypothesis import given, settings, strategies as st
from torchvision.transforms.v2 import MixUp
from hmix_nb.data.images import ImageSet, digits
from hmix_nb.labels import pair_rows, soft_cross_entropy
from hmix_nb.mixing.labels import LabelPolicy, Linear, PairLogistic, Smoothed, swap_gap
from hmix_nb.mixing.pixels import CutMix, DataPolicy, blend, draw_lam, identity, mix
from hmix_nb.mixing.transforms import HumanMix, MixCollate

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
        for k in ('x', 'y', 'lam_f', 'lam_g', 'idx'): assert torch.equal(getattr(o, k), getattr(m, k))
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
    slow = .123*x.to(dtype).double() + .877*x.to(dtype).flip(0).double()
    assert torch.allclose(m.x.double(), slow, atol=torch.finfo(dtype).eps + 1e-7)
    assert Linear()(.5, y.to(dtype), y.to(dtype)).dtype == dtype

def test_channels_last_gradients_and_flat_features():
    x, y = batch()
    m = mix(x.to(memory_format=torch.channels_last), y, lam=.4, idx=range(6))
    assert m.x.is_contiguous(memory_format=torch.channels_last)
    leaf = x.clone().requires_grad_()
    m = mix(leaf, y, lam=.25, idx=[1]*6)
    m.x.sum().backward()
    for i, grad in ((0, .25), (1, .25 + 6*.75)): assert torch.allclose(leaf.grad[i], torch.full_like(leaf[i], grad))
    assert mix(x.flatten(1), y, lam=.4).x.shape == (6, 75)

def test_fastai_tensors_pass():
    from fastai.torch_core import TensorCategory, TensorImage
    x, _ = batch()
    hard = torch.tensor([3, 0, 1, 1, 2, 3])
    kw = dict(n_classes=4, lam=.3, idx=range(6))
    a, b = mix(TensorImage(x), TensorCategory(hard), **kw), mix(x, hard, **kw)
    assert torch.equal(a.x.as_subclass(torch.Tensor), b.x) and torch.equal(a.y.as_subclass(torch.Tensor), b.y)

def test_extreme_alphas_stay_in_range():
    with pytest.raises(ValueError, match="alpha: found 0.001"): draw_lam(4, 1e-3)
    for alpha in (.01, 1, 1e3):
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
    (dict(lam=1.01), 'lam: found 1.01'), (dict(lam=float('nan')), 'lam: found nan'),
    (dict(lam=torch.rand(6, 1)), r'lam: found shape \(6, 1\)'), (dict(alpha=-1), 'alpha: found -1'),
    (dict(alpha=float('inf')), 'alpha: found inf'), (dict(per='epoch'), 'per: .epoch. is unknown'),
    (dict(idx=[0, 1, 2, 3, 4, -1]), r'idx: found -1 at position \(5,\)'), (dict(idx=torch.ones(6)), 'of torch.float32'),
    (dict(idx=torch.ones(6, dtype=torch.bool)), 'of torch.bool'),
    (dict(n_classes=5), 'rows have 4 classes; n_classes is 5')])
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

# Data policies, and people's labels

SURE = Smoothed(PairLogistic())

@quick
@given(st.sampled_from([(1, 32, 32), (3, 7, 20), (3, 20, 7), (2, 5, 1), (4, 4), (1, 2, 6, 9)]), st.integers(1, 6),
       st.sampled_from(['batch', 'sample']), st.integers(0, 99), st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64]))
def test_cutmix_is_a_box_of_the_size_that_it_says(shape, n, per, seed, dtype):
    g = torch.Generator().manual_seed(seed)
    x, y = torch.rand(n, *shape, generator=g).to(dtype), torch.eye(10)[torch.randint(10, (n,), generator=g)]
    before = x.clone()
    m = mix(x, y, f=CutMix(), g=SURE, per=per, generator=g)
    again = mix(x, y, f=CutMix(), g=SURE, lam=m.lam_f, idx=m.idx)
    for k in ('x', 'y', 'lam_f', 'lam_g', 'idx'): assert torch.equal(getattr(again, k), getattr(m, k))
    assert torch.equal(x, before) and m.x.dtype == dtype
    assert torch.allclose(m.y, SURE(m.lam_f, y, y[m.idx]), atol=1e-6)
    h, w = shape[-2:]
    for i in range(n): # a box of whole pixels, the second image inside and the first outside
        inside = (m.x[i] != x[i]).reshape(-1, h, w).any(0)
        assert torch.equal(torch.where(inside, x[m.idx[i]], x[i]), m.x[i])
        if m.idx[i] == i: continue
        a, b = inside.any(1).nonzero()[:, 0], inside.any(0).nonzero()[:, 0]
        area = 0 if not len(a) else (a.max()-a.min()+1)*(b.max()-b.min()+1)
        assert area == inside.sum() or dtype != torch.float64 # two float16 pixels may be alike
        if dtype == torch.float64: assert m.lam_f[i].item() == pytest.approx(1 - float(area)/(h*w), abs=1e-6)

def test_cutmix_takes_the_nearest_share_and_keeps_the_ends():
    x, y = torch.rand(64, 3, 32, 32), torch.eye(10)[torch.arange(64) % 10]
    lam = torch.linspace(0, 1, 64)
    m = mix(x, y, f=CutMix(), lam=lam, idx=range(63, -1, -1))
    assert (m.lam_f - lam).abs().max() <= .5*(32*32-31*31)/32**2 + 1e-6
    assert torch.equal(m.x[0], x[63]) and torch.equal(m.x[63], x[63]) and m.lam_f[[0, 63]].tolist() == [0, 1]

def test_cutmix_puts_the_box_everywhere():
    x, y = torch.rand(4000, 1, 8, 8), torch.eye(2)[torch.arange(4000) % 2]
    m = mix(x, y, f=CutMix(), lam=1-16/64) # a box of 4 x 4 has 25 places
    inside = (m.x != x)[m.idx != torch.arange(4000), 0].float()
    rows, cols = inside.amax(2).argmax(1), inside.amax(1).argmax(1)
    counts = torch.bincount(rows*5 + cols, minlength=25)
    assert len(counts) == 25 and ((counts - 160)**2/160).sum() < 60 # chi squared, 24 degrees of freedom
    order = torch.randperm(4000)
    b = mix(x[order], y[order], f=CutMix(), lam=m.lam_f[order], idx=order.argsort()[m.idx[order]])
    assert torch.equal(b.x, m.x[order]) # also here, permuting the batch permutes the result

def test_identity_and_policies_that_change_lam():
    x, y = batch(k=10)
    m = mix(x, y, f=identity, g=Linear(), lam=.3)
    assert torch.equal(m.x, x) and m.x.data_ptr() != x.data_ptr() and torch.equal(m.y, y) and m.lam_f.tolist() == [1]*6
    half = lambda lam, xa, xb: (torch.lerp(xb, xa, .5), torch.full_like(lam, .5))
    m = mix(x, y, f=half, lam=.9, idx=range(6))
    assert m.lam_f.tolist() == [.5]*6
    class Max(DataPolicy):
        def apply(self, lam, xa, xb): return torch.maximum(xa, xb), lam
    assert torch.equal(Max()(.3, x, x.flip(0)), torch.maximum(x, x.flip(0))) and repr(Max()) == 'Max()'
    with pytest.raises(ValueError, match=r'xa: found shape \(6, 75\); allowed for CutMix'): mix(x.flatten(1), y, f=CutMix())
    with pytest.raises(ValueError, match='lam: found 1.5'): mix(x, y, f=lambda lam, a, b: (a, lam*0+1.5))

@quick
@given(st.integers(1, 9), st.sampled_from(['batch', 'sample']), st.integers(0, 99), st.booleans(), st.sampled_from([blend, CutMix(), identity]))
def test_labels_of_people_replay_bit_for_bit(n, per, seed, hard, f):
    g = torch.Generator().manual_seed(seed)
    x, y = batch(n, 10, seed)
    if hard: y = torch.randint(10, (n,), generator=g)
    m = mix(x, y, f=f, g=SURE, per=per, generator=g)
    for lam, idx in ((m.lam_f, m.idx), (m.lam_f.tolist(), m.idx.tolist()), (m.lam_f.clone(), m.idx.clone())):
        again = mix(x, y, f=f, g=SURE, lam=lam, idx=idx)
        for k in ('x', 'y', 'lam_f', 'lam_g', 'idx'): assert torch.equal(getattr(again, k), getattr(m, k))
    assert m.lam_f.is_contiguous() and m.lam_g.shape == (n,) and ((m.lam_g >= 0) & (m.lam_g <= 1)).all()

def test_records_are_pickled_and_their_own():
    import copy, pickle
    x, y = batch(k=10)
    for g in (SURE, Linear(), PairLogistic()):
        m = mix(x, y, g=g)
        twin = pickle.loads(pickle.dumps(copy.deepcopy(m)))
        assert torch.equal(twin.lam_g, m.lam_g) and torch.equal(twin.y, m.y)
        assert m.lam_g is m.lam_g and m.lam_g.data_ptr() != m.lam_f.data_ptr()
        m.lam_f.zero_() # a tensor like any other

def test_labels_other_than_the_policy_has():
    x, y = batch(k=4)
    with pytest.raises(ValueError, match=r'ya: rows have 4 classes; PairLogistic\(45 pairs, 10 classes\) has 10'): mix(x, y, g=PairLogistic())
    hard = torch.tensor([3, 0, 1, 1, 2, 9])
    assert mix(x, hard, g=SURE).y.shape == (6, 10) # it knows how many there are
    with pytest.raises(ValueError, match='found 12'): mix(x, hard+3, g=SURE)

def test_nets_as_policies():
    class F2(torch.nn.Module):
        def forward(self, lam, xa, xb): return xa
    x, y = batch()
    assert torch.equal(mix(x, y, f=F2(), g=F2(), idx=range(6)).x, x) and torch.equal(mix(x, y, f=F2(), g=F2()).y, y)
    for kw, match in ((dict(f=CutMix), 'f: found the class CutMix itself'), (dict(g=Linear), 'g: found the class Linear'), (dict(g=None), 'g: found None'),
                      (dict(g=lambda lam, a, b: 3*a), 'returned rows of which: row 0')):
        with pytest.raises(ValueError, match=match): mix(x, y, **kw)

def test_boxes_depend_on_all_channels():
    x = torch.rand(200, 3, 12, 12)
    x[:, 0] = 0
    for o in (x, x.flip(1)):
        inside = (mix(o, torch.eye(2)[[0, 1]*100], f=CutMix(), lam=.7, idx=[*range(1, 200), 0]).x != o).any(1).flatten(1)
        assert len(inside.float().argmax(1).unique()) > 20

# Transforms

def test_a_saved_model_has_no_batch_in_it():
    import copy, pickle
    model = torch.nn.Sequential(HumanMix(g=SURE))
    model[0](*batch(64, 10))
    assert model[0].mixed.x.shape == (64, 3, 5, 5)
    before = len(pickle.dumps(torch.nn.Sequential(HumanMix(g=SURE))))
    assert len(pickle.dumps(model)) < before + 20000
    for twin in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert twin[0].mixed is None and twin[0](*batch(2, 10))[1].shape == (2, 10)

def test_the_transform_is_mix():
    x, y = batch(k=10)
    t = HumanMix(g=SURE, alpha=.4, per='sample', generator=torch.Generator().manual_seed(3))
    m = mix(x, y, g=SURE, alpha=.4, per='sample', generator=torch.Generator().manual_seed(3))
    xm, ym = t((x, y))
    assert torch.equal(xm, m.x) and torch.equal(ym, m.y) and torch.equal(t.mixed.idx, m.idx)
    assert repr(HumanMix()) == "HumanMix(f=blend, g=PairLogistic(45 pairs, 10 classes), alpha=1, per='batch')"
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    model.mix = HumanMix()
    assert model.eval().mix(x, y) == (x, y) and model.train().mix(x, y)[0] is not x and not model.mix.state_dict()

def test_workers_do_not_draw_the_same():
    from torch.utils.data import DataLoader, TensorDataset
    x, y = torch.zeros(32, 1, 2, 2), torch.eye(10)[:1].repeat(32, 1)
    x[:, 0, 0, 0] = torch.arange(32)
    for generator in (None, torch.Generator().manual_seed(1)):
        dl = DataLoader(TensorDataset(x, y), 8, num_workers=2, generator=torch.Generator().manual_seed(7),
                        collate_fn=MixCollate(HumanMix(g=Linear(), generator=generator)))
        first, second = ([xb.flatten().tolist() for xb, _ in dl] for _ in range(2))
        shift = [[v-8*i if v else v for v in b[::4]] for i, b in enumerate(first)] # batches differ by 8 all over
        assert len({tuple(np.round(o, 4)) for o in shift}) == 4 and first != second

# Stimuli

def answers(**kw):
    d = digits()
    i, j = 0, 4
    a, b = d.classes[d.y[i]], d.classes[d.y[j]]
    df = pd.DataFrame(dict(participant=['p', 'q'], stimulus='b', class_a=a, id_a=i, class_b=b, id_b=j,
                           lam_f=.25, lam_h=[.2, .4], confidence=[.5, 1.]))
    return df.assign(**kw)

def test_stimuli_average_answers_and_rebuild_pixels():
    from hmix_nb.mixing.stimuli import KINDS, Stimuli
    d = digits()
    more = answers(stimulus='a', lam_f=1., lam_h=1.), answers(lam_h=.9, participant='r')
    stim = Stimuli(pd.concat([answers(), *more]), d)
    assert stim.names == ['a', 'b'] and stim.table.n.tolist() == [2, 4] and '3 people' in repr(stim)
    assert np.allclose(stim.images()[0].permute(1, 2, 0), d.x[0]/255, atol=1e-7)
    assert np.allclose(stim.images()[1].permute(1, 2, 0), .25*(d.x[0]/255) + .75*(d.x[4]/255), atol=1e-6)
    assert stim.labels('relabel')[1, [0, 4]].tolist() == pytest.approx([.6, .4]) and stim.labels('mixup')[1, 0] == .25
    assert torch.equal(stim.labels('uniform'), torch.full((2, 10), .1))
    s = .005**.75
    smoothed = (1-s)*stim.labels('relabel')[1] + s/10
    assert torch.allclose(stim.labels('relabel+omega')[1], smoothed, atol=1e-6)
    assert stim.labels('relabel+omega', gamma=1.)[1].tolist() == pytest.approx([.1]*10)
    for y in map(stim.labels, KINDS): assert y.dtype == torch.float32 and torch.allclose(y.sum(1), torch.ones(2))
    alone = Stimuli(answers(), d)
    assert torch.equal(alone.labels('random')[0], stim.labels('random')[1]) # a stimulus keeps its label in a subset
    assert not torch.equal(stim.labels('random')[0], stim.labels('random')[1])

def test_an_image_blended_with_itself_is_that_image():
    from hmix_nb.mixing.stimuli import Stimuli
    d = digits()
    clean = Stimuli(answers(id_b=0, class_b='8', lam_f=.7), d)
    assert np.allclose(clean.images()[0].permute(1, 2, 0), d.x[0]/255, atol=1e-7)
    assert clean.labels('relabel')[0, [0, 8]].tolist() == pytest.approx([.3, .7])

@pytest.mark.parametrize('change, message', [
    (dict(class_a='7'), 'names other classes than its images have; found in 1 of 1'),
    (dict(class_a='ten'), "class: 'ten' is unknown"), (dict(id_a=-1), 'id_a: found -1'),
    (dict(lam_h=[.2, np.nan]), r'lam_h: found nan at position \(1,\)'), (dict(confidence=60), 'confidence: found 60'),
    (dict(id_b=[4, 14]), "'b' is described in two ways")])
def test_bad_judgments_are_named(change, message):
    from hmix_nb.mixing.stimuli import Stimuli
    with pytest.raises(ValueError, match=message): Stimuli(answers(**change), digits())

def test_missing_columns_and_empty_tables():
    from hmix_nb.mixing.stimuli import Stimuli
    with pytest.raises(ValueError, match="no column 'confidence'"):
        Stimuli(answers().drop(columns='confidence'), digits())
    with pytest.raises(ValueError, match='judgments: empty'): Stimuli(answers().iloc[:0], digits())
    other = ImageSet(digits().x[::-1].copy(), digits().y[::-1].copy(), digits().classes)
    with pytest.raises(ValueError, match='Is this the right image set'): Stimuli(answers(), other)

def test_the_blends_of_hmix(hub):
    from hmix_nb.mixing.stimuli import hmix_stimuli
    hmix, thesis = hmix_stimuli(hub), hmix_stimuli(hub, 'thesis')
    released = json.loads(hub.path('h-mix/processed_hmix_inferences.json').read_text())
    names = [k.removesuffix('.png') for k in released]
    assert sorted(names) == hmix.names and len(thesis) == 810 and set(thesis.names) < set(hmix.names)
    means = pd.Series([np.mean(v['Predicted Mixing Factor']) for v in released.values()], names)[hmix.names]
    omega = pd.Series([np.mean(v['Predicted Confidence']) for v in released.values()], names)[hmix.names]
    assert np.allclose(hmix.table.lam_h, means, atol=1e-12) and np.allclose(hmix.table.confidence, omega, atol=1e-12)
    assert np.allclose(hmix.labels('relabel')[range(2070), hmix.a], means, atol=1e-6)
    w = .005**omega.to_numpy()
    assert np.median(w) == pytest.approx(.0176, abs=5e-5) and w.mean() == pytest.approx(.0418, abs=5e-5)
    i, row = hmix.names.index('mixed_0.75_Airplane_74_Dog_3610'), [.546655] + [.007589]*4 + [.392636] + [.007589]*4
    assert hmix.labels('relabel+omega')[i].tolist() == pytest.approx(row, abs=1e-6)
    x = hmix.images()
    assert x.shape == (2070, 3, 32, 32) and x.dtype == torch.float32 and 0 <= x.min() and x.max() <= 1
    assert thesis.table.n.sum() == 33*60 - 6 # 27 people gave 60 answers, 6 gave 59

def test_seeds_are_generators_and_alpha_is_a_number():
    from hmix_nb.mixing.transforms import HumanMix
    x, y = torch.rand(6, 3, 4, 4), torch.randint(10, (6,))
    one, two = (mix(x, y, n_classes=10, generator=g) for g in (3, torch.Generator().manual_seed(3)))
    assert torch.equal(one.x, two.x) and torch.equal(one.y, two.y)
    assert torch.equal(HumanMix(generator=3)(x, y)[0], HumanMix(generator=torch.Generator().manual_seed(3))(x, y)[0])
    for bad in (None, '1'):
        with pytest.raises(ValueError, match='alpha: found'): mix(x, y, n_classes=10, alpha=bad)
    with pytest.raises(ValueError, match='generator: found'): mix(x, y, n_classes=10, generator='3')
