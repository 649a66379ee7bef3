"Many fits at once agree with one at a time; what cannot be fitted stays alone with its reason."
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from scipy.optimize import curve_fit
from scipy.special import expit
from statsmodels.regression.linear_model import OLS, WLS
from statsmodels.stats.sandwich_covariance import cov_cluster, cov_cluster_2groups
from hmix_nb.batchfit import fit_batch, sandwich
from hmix_nb.shrinkage import shrink

def logistic(x, k, x0): return expit(k*(x-x0))
def line(x, a, b): return a + b*x
EXACT = dict(ftol=1e-14, xtol=1e-14, gtol=1e-14)

def made(seed=0, n_groups=12, n=110, grid=(.1, .25, .5, .75, .9)):
    g = np.random.default_rng(seed)
    group, x = np.repeat(np.arange(n_groups), n), g.choice(grid, n_groups*n)
    true = np.c_[g.normal(4.6, .6, n_groups), g.normal(.52, .05, n_groups)]
    return x, np.clip(logistic(x, *true[group].T) + g.normal(0, .22, len(x)), 0, 1).round(2), group

@given(st.integers(0, 10**6), st.integers(2, 6), st.integers(8, 60))
@settings(max_examples=25, deadline=None)
def test_same_optimum_as_curve_fit(seed, n_groups, n):
    x, y, group = made(seed, n_groups, n)
    fit = fit_batch(logistic, x, y, group, [4, .5])
    for i in np.flatnonzero(fit.ok):
        m = group == i
        p, cov = curve_fit(logistic, x[m], y[m], p0=fit.params[i]*1.01, **EXACT)
        off = (fit.params[i]-p)/np.sqrt(np.diag(cov)) # eight rows may leave a slope with an error of a thousand
        assert np.abs(off).max() < 1e-5 or np.abs(fit.params[i]-p).max() < 1e-6
        np.testing.assert_allclose(fit.cov[i], cov, rtol=1e-2, atol=1e-8)

def test_order_of_rows_and_company_do_not_matter():
    x, y, group = made()
    fit, order = fit_batch(logistic, x, y, group, [1, 1]), np.random.default_rng(1).permutation(len(x))
    other = fit_batch(logistic, x[order], y[order], group[order], [1, 1])
    np.testing.assert_allclose(other.params, fit.params, rtol=1e-9)
    m = group == 7
    np.testing.assert_allclose(fit_batch(logistic, x[m], y[m], 0*group[m], [1, 1]).params[0], fit.params[7], rtol=1e-9)

def test_continuous_x_and_uneven_groups():
    g = np.random.default_rng(3)
    group = np.repeat([0, 1, 2], [300, 20, 60])
    x = g.random(380)
    y = logistic(x, 5, .5) + g.normal(0, .1, 380)
    fit = fit_batch(logistic, x, y, group, [1, 1])
    for i in range(3):
        alone = curve_fit(logistic, x[group == i], y[group == i], **EXACT)[0]
        np.testing.assert_allclose(fit.params[i], alone, rtol=1e-6)

@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_a_weight_is_a_number_of_copies(seed):
    x, y, group = made(seed, 3, 40)
    w = np.random.default_rng(seed).integers(0, 4, len(x))
    a = fit_batch(logistic, x, y, group, [4, .5], weight=w)
    b = fit_batch(logistic, *(np.repeat(o, w) for o in (x, y, group)), [4, .5], n_groups=3)
    np.testing.assert_allclose(a.params, b.params, rtol=1e-7)
    np.testing.assert_allclose(a.cov, b.cov, rtol=1e-6, atol=1e-12)
    assert a.n.tolist() == b.n.tolist()

def test_failures_stay_alone():
    x, y, group = made(n_groups=2)
    step = (x[group == 0] > .5).astype(float)
    bad = [([.5]*6, [.1, .2, .9, .4, .5, .6]), ([.1, .9]*3, [.3]*6), (x[group == 0], step)]
    xs, ys = (np.concatenate([v, *(o[i] for o in bad)]) for i, v in enumerate((x, y)))
    gs = np.concatenate([group, *(np.full(len(o[0]), 2+i) for i, o in enumerate(bad))])
    names = dict(params=('k', 'x0'), names=('lam_f', 'lam_h'))
    few = 'fewer than 2 distinct lam_f'
    for method in ('batch', 'curve_fit'):
        fit = fit_batch(logistic, xs, ys, gs, [1, 1], n_groups=6, method=method, **names)
        assert fit.ok.tolist() == [True]*2 + [False]*4
        assert fit.status[[2, 3, 5]].tolist() == [few, 'constant lam_h', few]
        assert 'not determined' in fit.status[4] and 'k (went to' in fit.status[4]
        assert np.isnan(fit.params[2:]).all() and np.isnan(fit.cov[2:]).all()
        np.testing.assert_allclose(fit.params[:2], fit_batch(logistic, x, y, group, [1, 1]).params, rtol=1e-6)

def test_answers_that_do_not_depend_on_x():
    fit = fit_batch(logistic, [.1, .5, .9]*2, [.4]*3 + [.6]*3, [0]*6, [1, 1])
    assert not fit.ok[0] and 'not determined' in fit.status[0]

def test_too_few_steps_is_said():
    x, y, group = made()
    assert set(fit_batch(logistic, x, y, group, [1, 1], max_iter=2).status) == {'no convergence'}

def test_bounds_are_kept_and_said():
    x, y, group = made()
    free = fit_batch(logistic, x, y, group, [4, .5])
    fit = fit_batch(logistic, x, y, group, [4, .5], hi=[4, np.inf], params=('k', 'x0'))
    over = free.params[:, 0] > 4
    assert over.any() and not over.all() and (fit.params[over, 0] == 4).all()
    assert set(fit.status[over]) == {'ok, k at its bound 4'} and set(fit.status[~over]) == {'ok'}
    np.testing.assert_allclose(fit.params[~over], free.params[~over], rtol=1e-6)
    m = group == np.flatnonzero(over)[0]
    alone = curve_fit(lambda x, x0: logistic(x, 4, x0), x[m], y[m], p0=[.5], **EXACT)
    np.testing.assert_allclose(fit.params[over][0, 1], alone[0][0], rtol=1e-6)
    np.testing.assert_allclose(fit.cov[over][0], [[0, 0], [0, alone[1][0, 0]]], rtol=1e-5, atol=1e-12)

def test_a_given_parameter_is_no_news():
    x, y, group = made()
    assert set(fit_batch(logistic, x, y, group, [4, .5], lo=[4, -9], hi=[4, 9]).status) == {'ok'}

@pytest.mark.parametrize('bad, says', [(dict(x=[1, 2]), 'lengths differ'), (dict(y=[np.nan]*3), 'y: found'),
                                       (dict(group=[-1, 0, 0]), 'group: found'), (dict(method='fast'), 'method: '),
                                       (dict(weight=[1, -1, 1]), 'weight: found')])
def test_bad_input_names_the_argument(bad, says):
    kw = dict(x=[.1, .5, .9], y=[.1, .5, .8], group=[0, 0, 0], p0=[1, 1]) | bad
    with pytest.raises(ValueError, match=says): fit_batch(logistic, **kw)

def clustered(seed):
    g = np.random.default_rng(seed)
    n = int(g.integers(40, 200))
    who, what, x = g.integers(0, 12, n), g.integers(0, 15, n), g.normal(size=n)
    return x, 1 + x + g.normal(size=12)[who] + g.normal(size=15)[what]*x + g.normal(size=n), who, what

@given(st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_sandwich_is_that_of_statsmodels(seed):
    x, y, who, what = clustered(seed)
    fit, ols = fit_batch(line, x, y, 0*who, [0, 0]), OLS(y, np.c_[np.ones(len(x)), x]).fit()
    two, one, other = cov_cluster_2groups(ols, who, what)
    got, how, k = sandwich(fit, who, what)
    assert k.tolist() == [[len(set(who)), len(set(what))]]
    covs = {'a only': one, 'b only': other} | ({'two-way': two} if np.linalg.eigvalsh(two)[0] > 0 else {})
    size = {k: np.trace(ols.model.exog.T @ ols.model.exog @ v) for k, v in covs.items()}
    assert size[how[0]] == pytest.approx(max(size.values())) # the largest that is a covariance
    np.testing.assert_allclose(got[0], covs[how[0]], rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(sandwich(fit, who)[0][0], cov_cluster(ols, who), rtol=1e-5)

def test_sandwich_of_many_groups_is_that_of_each():
    parts = [clustered(s) for s in range(5)]
    x, y, who, what = (np.concatenate(o) for o in zip(*parts))
    group = np.repeat(range(5), [len(p[0]) for p in parts])
    fit = fit_batch(line, x, y, group, [0, 0])
    all_, how, _ = sandwich(fit, who, what)
    for i, (x, y, who, what) in enumerate(parts):
        one = sandwich(fit_batch(line, x, y, 0*who, [0, 0]), who, what)
        np.testing.assert_allclose(all_[i], one[0][0], rtol=1e-6)
        assert how[i] == one[1][0]

def test_one_person_is_clustered_by_stimuli_and_nobody_is_none():
    x, y, who, what = clustered(1)
    fit = fit_batch(line, x, y, 0*who, [0, 0])
    v, how, _ = sandwich(fit, 0*who, what, ('people', 'stimuli'))
    assert how.tolist() == ['stimuli only'] and np.isfinite(v).all()
    v, how, _ = sandwich(fit, 0*who, 0*what)
    assert how.tolist() == ['none'] and np.isnan(v).all()

def test_covariances_are_positive_also_where_two_ways_are_not():
    hows = set()
    for s in range(200):
        g = np.random.default_rng(s)
        fit = fit_batch(line, np.tile([0., 1], 4), g.integers(0, 9, 8)/10, np.zeros(8, int), [0, 0])
        if not fit.ok[0]: continue
        v, how, _ = sandwich(fit, np.repeat(range(4), 2), np.tile(range(4), 2))
        hows.add(how[0])
        assert np.linalg.eigvalsh(v[0])[0] > -1e-9
        turned, why, _ = sandwich(fit, np.tile(range(4), 2), np.repeat(range(4), 2))
        np.testing.assert_allclose(turned, v, atol=1e-12)
        assert why[0] == {'two-way': 'two-way', 'a only': 'b only', 'b only': 'a only'}[how[0]]
    assert 'two-way' in hows and len(hows) > 1

def draws(seed, n=40, spread=1.):
    g = np.random.default_rng(seed)
    a = g.normal(size=(2, 2))
    theta = g.multivariate_normal([1, .5], spread*a@a.T, n)
    s = np.stack([np.diag(o) for o in g.uniform(.1, .6, (n, 2))])
    return theta, theta + np.stack([g.multivariate_normal([0, 0], o) for o in s]), s

def restricted(sigma, t, s): # minus log-likelihood, from the textbook
    w = np.linalg.inv(sigma + s)
    mu = np.linalg.solve(w.sum(0), np.einsum('gpq,gq->p', w, t))
    logs = np.linalg.slogdet(sigma + s)[1].sum() + np.linalg.slogdet(w.sum(0))[1]
    return .5*(logs + np.einsum('gp,gpq,gq', t-mu, w, t-mu))

@given(st.integers(0, 10**6), st.sampled_from([0., .05, 1.]))
@settings(max_examples=25, deadline=None)
def test_nothing_near_is_more_likely_than_what_shrink_finds(seed, spread):
    _, t, s = draws(seed, spread=spread)
    got, g = shrink(t, s), np.random.default_rng(seed)
    assert np.linalg.eigvalsh(got.sigma)[0] > -1e-9
    for size in (1e-3, .03, .3):
        step = size*g.normal(size=(2, 2))
        root = np.linalg.cholesky(got.sigma + 1e-12*np.eye(2))
        assert restricted(got.sigma, t, s) <= restricted((root+step)@(root+step).T, t, s) + 1e-5

@given(st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_shrink_with_equal_errors_is_the_closed_form(seed):
    theta, _, _ = draws(seed)
    s = np.broadcast_to(.1*np.linalg.eigvalsh(np.cov(theta.T))[0]*np.eye(2), (40, 2, 2))
    got = shrink(theta, s)
    sigma = np.cov(theta.T) - s[0]
    np.testing.assert_allclose(got.sigma, sigma, rtol=1e-3, atol=1e-4*np.trace(sigma))
    keep = sigma@np.linalg.inv(np.cov(theta.T))
    np.testing.assert_allclose(got.mean, theta.mean(0) + (theta-theta.mean(0))@keep.T, rtol=1e-3, atol=1e-3)

def test_limits_of_shrink():
    theta, t, s = draws(5)
    np.testing.assert_allclose(shrink(t, 1e-9*s).mean, t, atol=1e-5)
    flat = shrink(t, 1e6*s)
    assert np.abs(flat.mean - flat.mu).max() < 1e-3*np.abs(t).max()
    alike = shrink(np.broadcast_to([1., 2.], (10, 2)), s[:10])
    np.testing.assert_allclose(alike.mean, np.broadcast_to([1., 2.], (10, 2)), atol=1e-6)

def test_scale_and_log():
    theta, t, s = draws(6)
    unit = np.array([1e3, 1e-3])
    a, b = shrink(t, s), shrink(t*unit, s*unit*unit[:, None])
    np.testing.assert_allclose(b.mean, a.mean*unit, rtol=1e-3, atol=1e-6)
    e = np.exp(t)
    logs = shrink(e, s*e[:, :, None]*e[:, None], log=[True, True])
    np.testing.assert_allclose(np.log(logs.mean), a.mean, rtol=1e-4, atol=1e-4)
    one = shrink(np.where(np.arange(40)[:, None] == 3, -1., e), s, log=[True, False])
    assert np.isnan(one.mean[3]).all() and np.isfinite(np.delete(one.mean, 3, 0)).all()

def test_posterior_covers_the_truth():
    hits = []
    for seed in range(60):
        theta, t, s = draws(seed, spread=.3)
        got = shrink(t, s)
        hits.append(np.abs(got.mean-theta) < 1.96*np.sqrt(np.einsum('gpp->gp', got.cov)))
    assert .93 < np.mean(hits) < .97 # of 4,800; 1.96 of a plain posterior would cover .917

def test_shrink_needs_two(): pytest.raises(ValueError, shrink, [[1., 2.]], [np.eye(2)])

def test_45_pairs_of_h_mix(hub):
    from hmix_nb.data.judgments import coefficient
    df = coefficient(hub)
    pairs = ['class_a', 'class_b']
    f = lambda x, k, x0: 1/(1+np.exp(-k*(x-x0)))
    def loop(): return np.array([curve_fit(f, d.lam_f, d.lam_h, p0=[1, 1])[0] for _, d in df.groupby(pairs)])
    def batch(): return fit_batch(f, df.lam_f, df.lam_h, df.groupby(pairs).ngroup(), [1, 1])
    exact = [curve_fit(f, d.lam_f, d.lam_h, p0=[1, 1], **EXACT)[0] for _, d in df.groupby(pairs)]
    np.testing.assert_allclose(batch().params, exact, rtol=1e-6)
    np.testing.assert_allclose(batch().params, loop(), atol=5e-4)
