"Curves per pair: the paper's numbers, the law of the swap, bad pairs that stay alone, tensors, files."
import copy, json, pickle
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.optimize import curve_fit
from scipy.special import expit
from hmix_nb.core import CIFAR10
from hmix_nb.curves import FORMS, NUMPY, band, of_one_kind, omega, share, share_slopes
from hmix_nb.mixing import fits as room
from hmix_nb.mixing.fits import PairFits, alphabetical, fit_pairs, ship
from hmix_nb.mixing.pairplots import plot_confidence, plot_pairs, plot_shrinkage

NAMES = 'ant', 'bee', 'cow', 'eel'
GRID = .1, .25, .5, .75, .9

def study(names=NAMES, n=80, seed=0, k=5., x0=.5, noise=.15, grid=GRID):
    "Judgments of other things than CIFAR-10's, in either order of the classes."
    g, rows = np.random.default_rng(seed), []
    for i, a in enumerate(names):
        for b in names[i+1:]:
            lam = g.choice(grid, n)
            h = np.clip(expit(k*(lam-x0)) + g.normal(0, noise, n), 0, 1).round(2)
            c = np.clip(expit(.5 + 1.2*(2*lam-1)**2) + g.normal(0, .1, n), 0, 1).round(2)
            d = pd.DataFrame(dict(class_a=a, class_b=b, lam_f=lam, lam_h=h, confidence=c, id_a=1, id_b=2))
            who, what = g.integers(0, 12, n), g.integers(0, 20, n)
            rows.append(d.assign(participant=who, stimulus=[f'{a}{b}{s}' for s in what]))
    return pd.concat(rows, ignore_index=True)

EXACT = dict(ftol=1e-14, xtol=1e-14, gtol=1e-14)
def floats(row, *names): return row[list(names)].astype(float)

def swap(df):
    other = dict(class_a='class_b', class_b='class_a', id_a='id_b', id_b='id_a')
    return df.rename(columns=other).assign(lam_f=1-df.lam_f, lam_h=1-df.lam_h)

@pytest.fixture(scope='module')
def df(): return study()
@pytest.fixture(scope='module')
def fits(df): return fit_pairs(df)

def test_each_pair_is_curve_fit(df, fits):
    for (a, b), d in df.groupby(['class_a', 'class_b']):
        p, cov = curve_fit(lambda x, k, x0: 1/(1+np.exp(-k*(x-x0))), d.lam_f, d.lam_h, p0=[1, 1], **EXACT)
        row = fits.table.loc[(a, b)]
        got = floats(row, 'k', 'x0', 'se_k', 'se_x0', 'cov_k_x0')
        np.testing.assert_allclose(got, [*p, *np.diag(cov)**.5, cov[0, 1]], rtol=1e-5)
        assert (row.n, row.n_people, row.n_stimuli) == (len(d), d.participant.nunique(), d.stimulus.nunique())
        assert row.sigma == pytest.approx(np.sqrt(((d.lam_h - expit(p[0]*(d.lam_f-p[1])))**2).sum()/(len(d)-2)))

@pytest.mark.parametrize('form', FORMS)
def test_scipy_one_by_one_gives_the_same(form):
    df = study(n=300)
    a, b = (fit_pairs(df, form=form, method=m).table for m in ('batch', 'curve_fit'))
    ok = (a.status == 'ok') & (b.status == 'ok')
    assert ok.sum() >= 4
    numbers = a.select_dtypes('number').columns
    np.testing.assert_allclose(a.loc[ok, numbers], b.loc[ok, numbers], rtol=1e-4, atol=1e-6)

@given(st.integers(0, 10**6))
@settings(max_examples=8, deadline=None)
def test_order_of_classes_and_rows_does_not_matter(seed):
    df, g = study(NAMES[:3], seed=seed), np.random.default_rng(seed)
    turn = g.random(len(df)) < .5
    other = pd.concat([df[~turn], swap(df[turn])]).sample(frac=1, random_state=seed)
    a, b = fit_pairs(df).table, fit_pairs(other).table
    numbers = a.select_dtypes('number').columns
    assert a.index.equals(b.index) and list(a.status) == list(b.status)
    np.testing.assert_allclose(a[numbers], b[numbers], rtol=1e-6, atol=1e-9)

def test_alphabetical_keeps_every_row(df):
    pd.testing.assert_frame_equal(alphabetical(swap(df))[sorted(df)], df[sorted(df)])
    pd.testing.assert_frame_equal(alphabetical(df), df)

@pytest.mark.parametrize('pooling', ['none', 'partial'])
def test_one_class_twice_has_no_curve_and_harms_nobody(df, pooling):
    alone = df[df.index < 5].assign(class_a='cow', class_b='cow')
    f, want = fit_pairs(pd.concat([df, alone]), pooling=pooling), fit_pairs(df, pooling=pooling)
    assert f.table.status[('cow', 'cow')] == f.table.confidence_status[('cow', 'cow')] == 'one class: nothing to tell apart'
    assert np.isnan(f.table.k[('cow', 'cow')]) and f.table.n[('cow', 'cow')] == 0
    pd.testing.assert_frame_equal(f.table.drop(('cow', 'cow')), want.table, check_dtype=False)
    assert f.pooled.k == want.pooled.k and f.pooled.c0 == want.pooled.c0

@pytest.mark.parametrize('column, bad', dict(lam_f=2., lam_h=np.nan, confidence=70., participant=None).items())
def test_bad_tables_name_the_column(df, column, bad):
    with pytest.raises(ValueError, match=column): fit_pairs(df.assign(**{column: bad}))

@pytest.mark.parametrize('option, bad, says', [('form', 'logit', 'logistic'), ('pooling', 'full', 'partial'),
                                               ('method', 'fast', 'batch')])
def test_options_are_checked(df, option, bad, says):
    with pytest.raises(ValueError, match=f'{option}: .*{says}'): fit_pairs(df, **{option: bad})

def spoilt(df):
    df = df.copy()
    at = lambda a, b: (df.class_a == a) & (df.class_b == b)
    df.loc[at('ant', 'bee'), 'lam_f'] = .5
    df.loc[at('ant', 'cow'), 'lam_h'] = .7
    df.loc[at('ant', 'eel'), 'lam_h'] = (df.lam_f > .4).astype(float)
    df.loc[df.index[at('bee', 'cow')][:3], 'confidence'] = np.nan
    return df

@pytest.mark.parametrize('pooling', ['none', 'partial'])
def test_bad_pairs_say_why_and_harm_nobody(df, pooling):
    f = fit_pairs(spoilt(df), pooling=pooling)
    t = f.table
    assert t.k.isna().tolist() == [True]*3 + [False]*3 == t.x0.isna().tolist() == t.robust_se_k.isna().tolist()
    assert t.status.iloc[:2].tolist() == ['fewer than 2 distinct lam_f', 'constant lam_h']
    assert t.status.iloc[2].startswith('not determined by the data: k (went to')
    assert t.confidence_status[('bee', 'cow')] == 'ok, confidence is missing in 3 of 80 rows'
    if pooling == 'none': # the curve is that of the rows that have one
        assert t.c0[('bee', 'cow')] == pytest.approx(fit_pairs(spoilt(df).dropna()).table.c0[('bee', 'cow')])
    assert t.confidence_status[('bee', 'eel')] == 'ok' and t.c0.isna().sum() == 1
    assert f.pooled.status == 'ok' and f.pooled.confidence_status == 'ok, confidence is missing in 3 of 480 rows'
    if pooling == 'none': pd.testing.assert_frame_equal(t.iloc[4:], fit_pairs(df).table.iloc[4:])

def test_pooled_says_why(df):
    f = fit_pairs(df.assign(lam_f=.5))
    assert f.pooled.status == 'fewer than 2 distinct lam_f' and f.table.k.isna().all()
    with pytest.raises(ValueError, match='no fit for ant-bee: fewer than 2 distinct lam_f$'):
        f.weight(.5, 0, 1, NAMES, 'pooled')
    assert '0 of 6' in repr(f) and 'table' in f._repr_html_()

def test_missing_pairs_are_named(df):
    f = fit_pairs(spoilt(df))
    with pytest.raises(ValueError, match='no fit for ant-bee: fewer than 2'): f.weight(.3, [3, 1], [2, 0], NAMES)
    assert np.isfinite(f.weight(.3, [3, 2], [2, 1], NAMES)).all()
    none = fit_pairs(df.assign(confidence=df.confidence.where((df.class_a != 'bee') | (df.class_b != 'cow'))))
    with pytest.raises(ValueError, match='no fit for bee-cow: fewer than 3 distinct lam_f, confidence is missing in 80'):
        none.confidence(.3, 1, 2, NAMES)
    assert np.isnan(none.matrices(NAMES)['c0'][1, 2]) and np.isfinite(none.matrices(NAMES)['k'][1, 2])
    with pytest.raises(ValueError, match='no judgments of this pair'): f.weight(.3, 0, 1)
    pooled = f.weight(.3, 0, 1, NAMES, 'pooled')
    assert pooled == pytest.approx(expit(f.pooled.k*(.3-f.pooled.x0)))
    assert f.weight(.7, 1, 0, NAMES, 'pooled') == 1 - f.weight(1-.7, 0, 1, NAMES, 'pooled')
    for fn in (f.matrices, lambda c: f.curve('ant', 'bee')):
        with pytest.raises(ValueError, match='no fit for ant-bee'): fn(NAMES)
    complete = fit_pairs(spoilt(df).dropna())
    assert np.isfinite(complete.matrices(NAMES, 'pooled')['k'][~np.eye(4, dtype=bool)]).all()

def test_small_studies():
    one = study(('ant', 'bee'))
    f = fit_pairs(one)
    assert len(f.table) == 1 and f.table.k.iloc[0] == pytest.approx(f.pooled.k, rel=1e-8)
    p = fit_pairs(one, pooling='partial')
    assert p.table.status.tolist() == ['ok, not pooled: its own estimate stands']
    assert p.table.k.iloc[0] == pytest.approx(f.pooled.k)
    single = fit_pairs(study(('ant', 'bee')).assign(participant='me'))
    assert single.table.robust.tolist() == ['stimuli only'] and np.isfinite(single.table.robust_se_k).all()
    bare = fit_pairs(one.drop(columns=['confidence', 'id_a', 'id_b']))
    assert 'c0' not in bare.table
    with pytest.raises(ValueError, match='confidence'): bare.confidence(.5, 0, 1, ('ant', 'bee'))
    two = fit_pairs(study(('ant', 'bee'), grid=(.2, .8)))
    assert two.table.status.tolist() == ['ok']
    assert two.table.confidence_status.tolist() == ['fewer than 3 distinct lam_f']

def test_a_falling_curve_is_fitted_but_not_pooled():
    df = study()
    falls = (df.class_a == 'ant') & (df.class_b == 'bee')
    df.loc[falls, 'lam_h'] = 1 - df.lam_h
    t = fit_pairs(df, pooling='partial').table
    assert t.k.iloc[0] == t.k_own.iloc[0] < 0 and 'not pooled' in t.status.iloc[0] and (t.status.iloc[1:] == 'ok').all()

def test_partial_pooling_shrinks_and_is_surer(df):
    own, p = fit_pairs(df).table, fit_pairs(df, pooling='partial').table
    np.testing.assert_array_equal(p.k_own, own.k)
    for o in ('k', 'x0', 'c0', 'c1', 'c2'): assert p[o].std() < own[o].std()
    assert (p.robust_se_x0 < own.robust_se_x0).mean() > .5

def test_lapse_is_recovered_and_shared():
    df, g = study(n=600, grid=np.linspace(0, 1, 21), k=9, noise=.02), np.random.default_rng(1)
    df['lam_h'] = np.where(g.random(len(df)) < .2, .5, df.lam_h)
    f = fit_pairs(df, form='lapse')
    assert (f.table.status == 'ok').all() and f.pooled.lapse == pytest.approx(.2, abs=.03)
    p = fit_pairs(df, form='lapse', pooling='partial')
    assert (p.table.lapse == f.pooled.lapse).all() and (p.table.status == 'ok').all() and p.table.se_lapse.isna().all()
    none = fit_pairs(study(n=400, k=4), form='lapse').table
    held = none.lapse == 0
    assert held.any() and (none.status[held] == 'ok, lapse at its bound 0').all() and np.isfinite(none.se_k[held]).all()
    own = fit_pairs(study(n=400, k=4)).table
    np.testing.assert_allclose(none.k[held], own.k[held], rtol=1e-5)

@pytest.mark.parametrize('form', FORMS)
@given(lam=st.floats(0, 1), a=st.integers(0, 3), b=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_law_of_the_swap(form, lam, a, b):
    f = _FITS.setdefault(form, fit_pairs(study(n=200), form=form)) if form not in _FITS else _FITS[form]
    g, other = f.weight(lam, a, b, NAMES, 'pooled'), f.weight(1-lam, b, a, NAMES, 'pooled')
    assert 0 <= g <= 1
    if a == b: assert g == lam
    elif a > b: assert g == 1 - other # bit for bit: it is computed so
    else: # as exact as 1-(1-lam) is; log odds stop at those of 1e-6
        stopped = form == 'anchored' and (0 < lam < 1e-6 or 1-1e-6 < lam < 1)
        assert g == pytest.approx(1 - other, abs=1e-4 if stopped else 1e-12)
    c = f.confidence(lam, a, b, NAMES)
    assert c == pytest.approx(f.confidence(1-lam, b, a, NAMES), abs=1e-12) and (0 < c < 1 or a == b)
_FITS = {}

def test_anchored_ends(df):
    f = fit_pairs(df, form='anchored')
    assert (f.table.status == 'ok').all()
    for a, b in ((0, 1), (1, 0)): assert f.weight([0, 1], a, b, NAMES).tolist() == [0, 1]
    c = f.curve('ant', 'bee', [0, .5, 1])
    assert c.low.iloc[0] == c.high.iloc[0] == 0 and c.low.iloc[1] < c.fit.iloc[1] < c.high.iloc[1]

@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_tensors_as_numpy(form, dtype):
    f, g = fit_pairs(study(n=200), form=form), np.random.default_rng(0)
    lam, a, b = g.random(50), g.integers(0, 4, 50), g.integers(0, 4, 50)
    t = torch.tensor(lam, dtype=dtype)
    for fn in (f.weight, f.confidence):
        want, got = fn(lam, a, b, NAMES, 'pooled'), fn(t, torch.tensor(a), torch.tensor(b), NAMES, 'pooled')
        assert isinstance(want, np.ndarray) and got.dtype == dtype and got.shape == t.shape
        np.testing.assert_allclose(got.numpy(), want, atol=1e-5 if dtype == torch.float32 else 1e-12)

def test_broadcasting_and_scalars(fits):
    assert fits.weight(np.linspace(0, 1, 7)[:, None], [0, 1], [2, 3], NAMES).shape == (7, 2)
    a, b = torch.tensor([0, 1]), torch.tensor([2, 3])
    assert fits.weight(torch.linspace(0, 1, 7)[:, None], a, b, NAMES).shape == (7, 2)
    one = fits.weight(.3, a[0], b[0], NAMES)
    assert float(fits.weight(.3, 0, 2, NAMES)) == pytest.approx(float(one), abs=1e-6)
    assert fits.weight(torch.tensor([.3]), np.array([0]), 1, NAMES).shape == (1,)

@pytest.mark.parametrize('form', FORMS)
def test_gradient_goes_through_lam(form):
    f = fit_pairs(study(n=200), form=form)
    lam = torch.tensor([0., .1, .5, .9, 1., .4], dtype=torch.float64, requires_grad=True)
    a, b = torch.tensor([0, 2, 1, 0, 1, 3]), torch.tensor([1, 0, 2, 3, 0, 3])
    for fn in (f.weight, f.confidence):
        slope = torch.autograd.grad(fn(lam, a, b, NAMES, 'pooled').sum(), lam)[0]
        h = 1e-6
        inner = [1, 2, 3, 5]
        up, down = (fn(lam.detach()[inner] + s*h, a[inner], b[inner], NAMES, 'pooled') for s in (1, -1))
        assert slope.isfinite().all()
        torch.testing.assert_close(slope[inner], (up-down)/(2*h), atol=1e-6, rtol=1e-5)

def test_compiles_without_a_break(fits):
    fn = torch.compile(lambda l, a, b: fits.weight(l, a, b, NAMES), backend='eager', fullgraph=True)
    lam, a, b = torch.rand(8), torch.randint(0, 4, (8,)), torch.randint(0, 4, (8,))
    fits.weight(lam, a, b, NAMES) # the tables are made once, outside
    torch.testing.assert_close(fn(lam, a, b), fits.weight(lam, a, b, NAMES))

def test_tables_are_made_once(fits, monkeypatch):
    lam, a, b = torch.rand(4), torch.zeros(4, dtype=torch.long), torch.ones(4, dtype=torch.long)
    first = fits.weight(lam, a, b, NAMES)
    monkeypatch.setattr(PairFits, '_tables', None)
    assert torch.equal(fits.weight(lam, a, b, NAMES), first)

def test_no_value_is_looked_at_off_the_cpu(df):
    f, bad = fit_pairs(df), fit_pairs(spoilt(df))
    lam, a = torch.empty(4, device='meta'), torch.empty(4, dtype=torch.long, device='meta')
    assert f.weight(lam, a, a, NAMES).device.type == 'meta' # values there are none: looking at one would fail
    with pytest.raises(ValueError, match='no fit for ant-bee'): bad.weight(lam, a, a, NAMES)
    assert bad.weight(lam, a, a, NAMES, 'pooled').shape == (4,)

@pytest.mark.parametrize('lam, a, says', [(1.5, 0, 'lam'), (np.nan, 0, 'lam'), (.5, 4, 'a: found 4'),
                                          (.5, -1, 'a: found -1')])
def test_bad_arguments_are_named(fits, lam, a, says):
    with pytest.raises(ValueError, match=says): fits.weight(lam, a, 1, NAMES)
    tensors = torch.tensor([lam]), torch.tensor([a]), torch.tensor([1])
    with pytest.raises(ValueError, match=says): fits.weight(*tensors, NAMES)

def test_classes_are_checked(fits):
    with pytest.raises(ValueError, match='different names'): fits.weight(.5, 0, 1, ('ant', 'ant'))
    with pytest.raises(ValueError, match="unknown: 'ignore'"): fits.weight(.5, 0, 1, NAMES, 'ignore')

def test_matrices_say_what_weight_says(fits):
    names, lam = ('eel', 'ant', 'cow', 'bee'), .3 # not in the order of the alphabet
    m = fits.matrices(names)
    off = ~np.eye(4, dtype=bool)
    i, j = np.nonzero(off)
    np.testing.assert_allclose(expit(m['k']*(lam-m['x0']))[off], fits.weight(lam, i, j, names), atol=1e-12)
    sure = omega(lam, m['c0'], m['c1'], m['c2'])
    np.testing.assert_allclose(sure[off], fits.confidence(lam, i, j, names), atol=1e-12)
    assert all(np.isnan(np.diag(v)).all() for v in m.values())

@pytest.mark.parametrize('kw', [dict(), dict(pooling='partial'), dict(form='lapse')])
def test_saved_fits_are_the_same(df, kw, tmp_path):
    f = fit_pairs(spoilt(df), **kw)
    path = f.save(tmp_path/'a'/'fits.json')
    g = PairFits.load(path)
    pd.testing.assert_frame_equal(f.table, g.table)
    pd.testing.assert_series_equal(f.pooled, g.pooled, check_dtype=False)
    assert (f.form, f.pooling, f.meta) == (g.form, g.pooling, g.meta)
    json.loads(path.read_text(), parse_constant=lambda o: pytest.fail(f'{o} is no JSON'))

def test_curve_bands(df, fits):
    c = fits.curve('ant', 'bee')
    assert ((0 < c.low) & (c.low < c.fit) & (c.fit < c.high) & (c.high < 1)).all()
    back = fits.curve('bee', 'ant', 1-c.lam)
    np.testing.assert_allclose(back[['fit', 'low', 'high']], 1-c[['fit', 'high', 'low']], atol=1e-12)
    assert ((fits.curve('ant', 'bee', level=.5).high < c.high)).all()
    sure, mirrored = fits.curve('ant', 'bee', what='confidence'), fits.curve('bee', 'ant', 1-c.lam, what='confidence')
    np.testing.assert_allclose(sure[['fit', 'low', 'high']], mirrored[['fit', 'low', 'high']], atol=1e-12)
    np.testing.assert_allclose(sure.fit, fits.confidence(c.lam, 0, 1, NAMES), atol=1e-12)
    own = fits.curve(robust=False)
    g, p = expit(fits.pooled.k*(own.lam-fits.pooled.x0)), fits.pooled
    se = np.sqrt((own.lam-p.x0)**2*p.se_k**2 + p.k**2*p.se_x0**2 - 2*p.k*(own.lam-p.x0)*p.cov_k_x0)
    np.testing.assert_allclose(own.high, expit(np.log(g/(1-g)) + 1.965*se), atol=1e-4)
    with pytest.raises(ValueError, match='robust'): fit_pairs(df, pooling='partial').curve('ant', 'bee', robust=False)
    with pytest.raises(ValueError, match='no judgments'): fits.curve('ant', 'dog')

def test_bands_cover_the_curve_about_as_often_as_they_say():
    hits, grid = [], np.array([.1, .3, .5, .7, .9])
    true = expit(5*(grid-.5))
    for seed in range(60):
        f = fit_pairs(study(('ant', 'bee', 'cow'), seed=seed, noise=.1).drop(columns='confidence'))
        hits += [(c.low < true) & (true < c.high) for c in (f.curve(*p, grid) for p in f.table.index)]
    assert .9 < np.mean(hits) < .98

def test_shipped_needs_no_data(monkeypatch):
    monkeypatch.delenv('HMIX_DATA', raising=False)
    for pooling in ('none', 'partial'):
        f = PairFits.shipped(pooling)
        assert f.pooling == pooling and len(f.table) == 45 and (f.table.status == 'ok').all()
        assert set(f.meta) == {'version', 'date', 'n', 'source', 'sha256', 'licence', 'prior'} and f.meta['n'] == 4950
        i, j = np.nonzero(~np.eye(10, dtype=bool))
        w = f.weight(torch.rand(90), torch.tensor(i), torch.tensor(j))
        assert ((0 < w) & (w < 1)).all()
    with pytest.raises(ValueError, match='pooling'): PairFits.shipped('all')

def test_shipped_is_what_the_data_gives(hub, tmp_path):
    new = json.loads(ship(hub, tmp_path/'fits.json').read_text())
    for pooling in ('none', 'partial'):
        a, b = PairFits.from_dict(new[pooling]), PairFits.shipped(pooling)
        numbers = a.table.select_dtypes('number').columns
        assert a.table.index.equals(b.table.index) and list(a.table) == list(b.table)
        np.testing.assert_allclose(b.table[numbers], a.table[numbers], rtol=1e-4, atol=1e-6)
        assert all(a.meta[o] == b.meta[o] for o in ('n', 'source', 'sha256', 'licence'))

def test_the_numbers_of_the_paper(hub):
    from hmix_nb.data.judgments import coefficient
    df = coefficient(hub)
    f = fit_pairs(df)
    assert set(f.table.status) == {'ok'} and (f.table.k > 0).all() and len(f.table) == 45
    pooled = floats(f.pooled, 'k', 'se_k', 'x0', 'se_x0')
    np.testing.assert_allclose(pooled, [4.58561, .07878, .52198, .00376], atol=6e-6)
    np.testing.assert_allclose(floats(f.table.loc[('airplane', 'deer')], 'k', 'x0'), [4.05, .552], atol=5e-3)
    lam, (i, j) = np.linspace(0, 1, 1001)[:, None], np.triu_indices(10, 1)
    tau = f.weight(lam, i, j)
    np.testing.assert_allclose([tau[0].mean(), tau[-1].mean(), np.abs(tau-lam).mean()], [.085, .897, .062], atol=6e-4)
    assert f.table.n.between(103, 118).all() and f.table.n.sum() == 4950
    for form in ('anchored', 'lapse'): assert fit_pairs(df, form=form, pooling='partial').table.status.eq('ok').all()

def test_curves_on_arrays_of_either_kind():
    lam, a, b, lib, look = of_one_kind(.5, 0, 1)
    assert lib is NUMPY and look and lam.dtype == float
    assert not of_one_kind(torch.empty(2, device='meta'), 0, 1)[-1]
    assert of_one_kind(torch.tensor([1, 0]), 0, torch.tensor([1, 2], dtype=torch.uint8))[0].dtype == torch.float32

def test_a_band_without_error_is_the_curve():
    lam = np.linspace(0, 1, 5)
    curve = share(lam, 5., .4)
    for end in band(curve, share_slopes(lam, 5., .4), np.zeros((2, 2)), 2.): np.testing.assert_allclose(end, curve)

def test_plots(df, fits):
    from hmix_nb.data.images import ImageSet
    images = ImageSet(np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8), np.zeros(3, int), ('x',))
    axs = plot_pairs(fits, df, images)
    assert len([a for a in axs.flat if a.get_title('left')]) == 6
    assert '6 of 6 curves rise' in axs.flat[0].figure.get_suptitle()
    assert len(axs.flat[0].images) == 1
    assert plot_pairs(fit_pairs(spoilt(df)), swap(df), pairs=[('bee', 'ant'), ('cow', 'eel')]).shape == (1, 2)
    borrowed = fit_pairs(df, pooling='partial')
    assert 'less' in plot_shrinkage(borrowed).get_title('left').replace('\n', ' ')
    assert 'lowest' in plot_confidence(fit_pairs(spoilt(df).dropna())).get_title('left')
    with pytest.raises(ValueError, match='pooling'): plot_shrinkage(fits)

def test_no_error_is_no_band(df):
    two = df[(df.class_a == 'ant') & (df.class_b == 'bee')].drop_duplicates('lam_f')[:2]
    f = fit_pairs(two.assign(participant=['p', 'q'], lam_h=[.3, .6]))
    assert f.table.status.iloc[0] == 'ok, too few rows for an error' and f.table.robust.iloc[0] == 'none'
    for robust in (True, False):
        c = f.curve('ant', 'bee', robust=robust)
        assert c.fit.notna().all() and c.low.isna().all() and c.high.isna().all()

def test_a_copy_looks_up_its_own_table(df):
    f = fit_pairs(df)
    before = f.weight(.3, 0, 1, NAMES)
    for other in (copy.deepcopy(f), pickle.loads(pickle.dumps(f))):
        assert other.weight(.3, 0, 1, NAMES) == before and len(f._cache) == 1
        other = copy.deepcopy(other)
        other.table.loc[('ant', 'bee'), 'k'] = 20.
        assert other.weight(.3, 0, 1, NAMES) != before

@pytest.mark.parametrize('a', [.7, 'ant', [0, 1.5], torch.tensor([0., 1])])
def test_a_class_is_a_whole_number(df, a):
    with pytest.raises(ValueError, match='a: found other than integers'): fit_pairs(df).weight(.3, a, 1, NAMES)

@pytest.mark.parametrize('ends', [('ant',), (None, 'bee')])
def test_a_curve_is_of_two_classes_or_of_none(df, ends):
    with pytest.raises(ValueError, match='class_a, class_b: give both or none'): fit_pairs(df).curve(*ends)

@pytest.mark.parametrize('level', [0, 1, 1.5])
def test_level_of_a_band(df, level):
    with pytest.raises(ValueError, match='level'): fit_pairs(df).curve(level=level)

def test_both_orders_of_a_pair_have_the_same_coefficients(df):
    t = alphabetical(pd.concat([df, swap(df)]))
    assert sorted(t.lam_f.unique()) == sorted(df.lam_f.round(9).unique())

def test_a_lapse_that_is_hard_to_find(hub):
    from hmix_nb.data.judgments import coefficient
    df = coefficient(hub)
    ours, scipy = (fit_pairs(df, form='lapse', method=m).table for m in ('batch', 'curve_fit'))
    assert ours.status[('bird', 'deer')] == 'ok'
    assert (ours.status.str[:3] == scipy.status.str[:3]).all()
    ok = ours.k.notna()
    np.testing.assert_allclose(ours[ok][['k', 'x0', 'lapse']], scipy[ok][['k', 'x0', 'lapse']], rtol=1e-4, atol=1e-4)
