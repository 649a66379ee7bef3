"Model comparison: probabilities of slider positions, means that are kept, folds that leak nothing, other people's tables."
import numpy as np, pandas as pd, pytest
from hypothesis import given, settings, strategies as st
from scipy.stats import norm
from hmix_nb.analysis.prediction import (FAMILIES, MODELS, Gaussian, InflatedBeta, cross_validate, folds, free_means, per_pair,
                                         plot_comparison, pooled, positions)
from hmix_nb.data.simulated import SimulatedParticipants, draw_stimuli

CLASSES = tuple('xyz')
NEEDED = ['participant', 'stimulus', 'class_a', 'class_b', 'lam_f', 'lam_h']

@pytest.fixture(scope='module')
def crowd(): return SimulatedParticipants(24, seed=1).judge(draw_stimuli(np.arange(900) % 3, 60, classes=CLASSES), 4, n_repeats=2)

def law(family, mu): return np.exp(family.log_prob(np.arange(101), np.full(101, mu)))

@settings(max_examples=80, deadline=None)
@given(st.floats(0, 1), st.floats(.02, 1.))
def test_a_censored_normal_is_a_law_with_the_mean_asked_for(mu, sigma):
    p = law(Gaussian(sigma), mu)
    assert p.sum() == pytest.approx(1, abs=1e-9) and (p >= 0).all()
    assert p@np.arange(101)/100 == pytest.approx(np.clip(mu, .005, .995), abs=1e-4 + 2e-3*(sigma > .5))

def test_inside_the_slider_it_is_the_normal_of_scipy():
    at = np.arange(1, 100)
    found = Gaussian(.03).log_prob(at, np.full(99, .5))
    ref, near = norm.cdf((at+.5)/100, .5, .03) - norm.cdf((at-.5)/100, .5, .03), np.abs(at-50) < 15
    np.testing.assert_allclose(found[near], np.log(ref[near]), atol=1e-6)
    assert np.isfinite(found).all()

@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(.02, .98))
def test_heaps_and_beta_are_a_law_whose_mean_is_kept_where_it_can_be(seed, mu):
    g = np.random.default_rng(seed)
    m = g.uniform(.05, .95, 400)
    y = g.beta(4*m, 4-4*m)
    y = np.where(g.random(400) < .3, np.where(g.random(400) < np.minimum(2*y, 2-2*y), .5, np.round(y)), y) # keeps no mean exactly
    p = law(InflatedBeta.fit(positions(y), m), mu)
    assert p.sum() == pytest.approx(1, abs=1e-9)
    if .1 < mu < .9: assert p@np.arange(101)/100 == pytest.approx(mu, abs=.01)

def test_families_find_what_made_the_answers():
    g = np.random.default_rng(0)
    mu = g.choice([.2, .5, .8], 20_000)
    y = np.clip(mu + g.normal(0, .12, len(mu)), 0, 1)
    assert Gaussian.fit(positions(y), mu).sigma == pytest.approx(.12, abs=.01)
    rest = np.clip(g.beta(6*mu, 6-6*mu), .01, .99)
    heap = np.where((mu == .5) | (g.random(len(mu)) < .4), .5, mu > .5) # .2 goes to 0 or ½ so that its mean stays
    fit = InflatedBeta.fit(positions(np.where(g.random(len(mu)) < .2, heap, rest)), mu)
    assert fit.phi == pytest.approx(6, rel=.05)
    assert np.exp(fit.table(np.array([.5])))[0, 50] == pytest.approx(.2 + .8*.018, abs=.02)

def test_heaps_that_never_occur_do_no_harm():
    mu = np.repeat([.3, .6], 50)
    fit = InflatedBeta.fit(positions(mu + np.tile(np.linspace(-.15, .15, 50), 2)), mu)
    assert np.isfinite(fit.log_prob(np.array([0, 50, 100]), np.array([.3, .3, .3]))).all()

def test_folds_keep_people_together_and_do_not_mind_the_order(crowd):
    f = pd.Series(folds(crowd, 6), crowd.index)
    assert (f.groupby(crowd.participant).nunique() == 1).all() and (crowd.groupby(f).participant.nunique() == 4).all()
    mixed = crowd.sample(frac=1, random_state=0)
    assert (pd.Series(folds(mixed, 6), mixed.index).sort_index() == f).all()
    assert not (folds(crowd, 6, seed=1) == f).all()
    assert (pd.Series(folds(crowd, 6, by='stimulus')).groupby(crowd.stimulus).nunique() == 1).all()
    for n in (1, 25):
        with pytest.raises(ValueError, match=f"n_folds: found {n}; allowed is 2 to 24, the number of different 'participant'"):
            cross_validate(crowd, n_folds=n)

def test_nothing_of_the_held_out_people_is_seen(crowd):
    "Their answers may change; the curve that predicts them must not."
    seen = []
    def spy(train):
        seen.append((set(train.participant), train.lam_h.mean()))
        return lambda df: np.full(len(df), train.lam_h.mean())
    r = cross_validate(crowd, {'spy': spy}, baseline='spy', n_folds=6)
    f = folds(crowd, 6)
    for k in range(6):
        out = set(crowd.participant[f == k])
        assert any(not who & out and mean == crowd.lam_h[f != k].mean() for who, mean in seen)
    assert len(seen) == 7 and len(r.scores) == len(crowd)
    other = crowd.assign(lam_h=crowd.lam_h.where(f != 0, 1-crowd.lam_h)) # the people of fold 0 answer otherwise
    again = cross_validate(other, {'spy': spy}, baseline='spy', n_folds=6)
    sigma = Gaussian.fit(positions(crowd.lam_h[f != 0]), np.full((f != 0).sum(), crowd.lam_h[f != 0].mean()))
    mine = sigma.log_prob(positions(other.lam_h[f == 0]), np.full((f == 0).sum(), crowd.lam_h[f != 0].mean()))
    np.testing.assert_allclose(again.scores['gaussian', 'spy'][f == 0], mine, rtol=1e-9)

def test_the_tables_are_means_of_the_scores(crowd):
    r = cross_validate(crowd, n_folds=5)
    assert list(r.table.loc['gaussian'].index) == list(MODELS) and set(r.table.index.levels[0]) == set(FAMILIES)
    np.testing.assert_allclose(r.table.held_out, r.scores.mean().reindex(r.table.index))
    base = r.table.held_out.xs('per-pair logistic', level='model').reindex(r.table.index.get_level_values(0)).to_numpy()
    np.testing.assert_allclose(r.differences.estimate, r.table.held_out - base, atol=1e-12)
    assert (r.differences.low <= r.differences.estimate).all() and (r.differences.estimate <= r.differences.high).all()
    np.testing.assert_allclose(r.table.optimism, r.table.in_sample - r.table.held_out)
    assert 'differences from per-pair logistic' in repr(r) and '<table' in r._repr_html_()
    axs = plot_comparison(r)
    assert len(axs) == 2 and [o.get_text() for o in axs[0].get_yticklabels()] == list(MODELS)
    axs[0].figure.canvas.draw()

def test_swapped_classes_give_the_same(crowd):
    "Which of the two is named first is a matter of notation."
    turn = np.random.default_rng(0).random(len(crowd)) < .5
    s = crowd.assign(class_a=crowd.class_a.where(~turn, crowd.class_b), class_b=crowd.class_b.where(~turn, crowd.class_a),
                     lam_f=crowd.lam_f.where(~turn, 1-crowd.lam_f), lam_h=crowd.lam_h.where(~turn, 1-crowd.lam_h))
    which = ('identity', 'per-pair logistic', 'free means')
    a, b = (cross_validate(o[NEEDED], which, 'inflated beta', n_folds=4).table for o in (crowd, s))
    pd.testing.assert_frame_equal(a, b, rtol=1e-5)

def test_a_pair_or_a_coefficient_that_nobody_else_judged_gets_the_pooled_curve(crowd):
    train = crowd[~((crowd.class_a == 'x') & (crowd.class_b == 'y'))]
    new = crowd[(crowd.class_a == 'x') & (crowd.class_b == 'y')].head(7)
    want = pooled(train)(new)
    for model in (per_pair, free_means, MODELS['partially pooled'], MODELS['lapse']):
        np.testing.assert_allclose(model(train)(new), want)
    lonely = pd.concat([crowd, new.assign(class_b='w', participant='one')], ignore_index=True)
    assert np.isfinite(cross_validate(lonely, n_folds=5).scores).all(axis=None)

def test_one_pair_two_coefficients_no_repeats():
    df = SimulatedParticipants(12).judge(draw_stimuli([0, 1]*30, 40, classes=('p', 'q'), lam_grid=(.2, .7)), 3)
    r = cross_validate(df[NEEDED], n_folds=3)
    assert 'lapse' in r.left_out['partially pooled lapse'] and 'left out: partially pooled lapse' in repr(r)
    assert np.isfinite(r.table).all(axis=None)
    np.testing.assert_allclose(r.table.held_out[:, 'per-pair logistic'], r.table.held_out[:, 'free means'], atol=1e-4)

@pytest.mark.parametrize('change, says', [(lambda d: d.drop(columns='lam_h'), 'lam_h'), (lambda d: d.assign(lam_h=d.lam_h*2), 'lam_h'),
    (lambda d: d.assign(lam_f=np.nan), 'lam_f'), (lambda d: d[:0], 'empty')])
def test_bad_tables(crowd, change, says):
    with pytest.raises(ValueError, match=says): cross_validate(change(crowd))

@pytest.mark.parametrize('how, says', [(dict(models='per pair logistic'), 'models'), (dict(families=['beta']), 'families'),
    (dict(baseline='identiy'), 'Did you mean'), (dict(models='identity'), 'baseline'), (dict(by='stimuli'), 'stimuli')])
def test_bad_arguments(crowd, how, says):
    with pytest.raises(ValueError, match=says): cross_validate(crowd, **how)

def test_hmix(hub):
    "Borrowing strength predicts other people better; curves of one's own look better only where they were fitted."
    from hmix_nb.data.judgments import coefficient
    r = cross_validate(coefficient(hub), ('identity', 'pooled logistic', 'per-pair logistic', 'partially pooled', 'free means'))
    d = r.differences.xs('partially pooled', level='model')
    assert (d.low > 0).all() and (d.in_sample < 0).all()
    assert (r.differences.xs('identity', level='model').high < -.01).all()
    assert (r.table.held_out.xs('per-pair logistic', level='model') > r.table.held_out.xs('free means', level='model')).all()
    assert r.table.held_out['inflated beta', 'partially pooled'] == pytest.approx(-3.538, abs=.02)
    assert r.table.held_out['gaussian', 'partially pooled'] == pytest.approx(-3.830, abs=.02)
    assert r.table.rmse['gaussian', 'partially pooled'] == pytest.approx(.2176, abs=.002)
