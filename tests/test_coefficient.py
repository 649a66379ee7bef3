"RQ2: what people infer, on made-up people, on odd tables, and on the released answers."
import numpy as np, pandas as pd, pytest
from hypothesis import given, settings, strategies as st
from scipy import stats
from sklearn.datasets import load_digits
from hmix_nb.analysis.coefficient import (EXAMPLES, confidence_by_coefficient, crossed_model, entropies, entropy_effect,
    example_relabellings, monotonicity, plot_boundary, plot_confidence, plot_entropy, plot_examples, plot_monotonicity,
    plot_recovery, recovery, repeat_consistency, untouched)
from hmix_nb.analysis.recovery import simulate_study
from hmix_nb.mixing.fits import PairFits, alphabetical
from hmix_nb.data.simulated import SimulatedParticipants, draw_stimuli
from hmix_nb.stats import two_way

CLASSES = tuple('0123456789')
Y = load_digits().target

@pytest.fixture(scope='module')
def df(): return SimulatedParticipants(40).judge(draw_stimuli(Y, 23, classes=CLASSES), 2, n_repeats=2)

@pytest.fixture(scope='module')
def probs():
    p = np.random.default_rng(0).dirichlet(np.full(10, .03), len(Y))
    return p/p.sum(1, keepdims=True)

@pytest.fixture(scope='module')
def real(hub):
    from hmix_nb.data.judgments import coefficient
    return coefficient(hub)

@pytest.fixture(scope='module')
def votes(hub): return np.load(hub.path('cifar-10h/cifar10h-probs.npy'))

def title(ax): return ax.get_title(loc='left').replace('\n', ' ')

# Made-up people

def test_recovery_is_pandas_with_intervals_around(df):
    r = recovery(df, n_boot=200)
    g = df.groupby('lam_f').lam_h
    for q, c in ((.5, 'median'), (.25, 'q25'), (.75, 'q75')):
        np.testing.assert_allclose(r[c], g.quantile(q))
        assert (r[f'{c}_low'] <= r[c] + 1e-12).all() and (r[c] <= r[f'{c}_high'] + 1e-12).all()
    assert r.n.tolist() == g.size().tolist() and (r.people <= 40).all() and r.stimuli.sum() == df.stimulus.nunique()
    shuffled, points = recovery(df.sample(frac=1, random_state=1), n_boot=20), ['median', 'q25', 'q75', 'n', 'people', 'stimuli']
    pd.testing.assert_frame_equal(r[points], shuffled[points])

def test_the_interval_of_the_median_covers_the_crowd_it_comes_from():
    truth = SimulatedParticipants(400, seed=99).judge(draw_stimuli(Y, 46, classes=CLASSES, seed=99), 4)
    at = truth.groupby('lam_f').lam_h.median()
    hits = []
    for s in range(8):
        d = SimulatedParticipants(40, seed=s).judge(draw_stimuli(Y, 23, classes=CLASSES, seed=s), 2)
        r = recovery(d, n_boot=200)
        hits += ((r.median_low - .005 <= at) & (at <= r.median_high + .005)).tolist()
    assert np.mean(hits) > .85

def test_confidence_is_a_mean_over_stimuli_and_folds(df):
    c = confidence_by_coefficient(df, n_boot=200)
    fold = np.minimum(df.lam_f, 1-df.lam_f).round(6)
    by_stimulus = df.groupby([fold, 'stimulus']).confidence.mean().groupby(level=0)
    by_person = df.groupby([fold, 'participant']).confidence.mean().groupby(level=0)
    np.testing.assert_allclose(c['mean'], by_stimulus.mean())
    np.testing.assert_allclose(c.sd_stimuli, by_stimulus.std())
    np.testing.assert_allclose(c.sd_participants, by_person.std())
    assert c.index.tolist() == [.1, .25, .5] and ((c.low < c['mean']) & (c['mean'] < c.high)).all()
    assert len(confidence_by_coefficient(df, fold=False, n_boot=20)) == 5

@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([0., .2, 1/3, .6, .95, 1.]), min_size=4, max_size=12), st.integers(0, 99))
def test_any_grid_of_coefficients(lams, seed):
    g = np.random.default_rng(seed)
    d = pd.DataFrame(dict(participant=g.integers(0, 3, len(lams)), stimulus=[f's{i}' for i in range(len(lams))], class_a='x',
                          class_b='y', lam_f=lams, lam_h=g.random(len(lams)).round(2), confidence=g.random(len(lams))))
    assert recovery(d, n_boot=20).n.sum() == confidence_by_coefficient(d, n_boot=20).n.sum() == len(lams)
    m = monotonicity(d, n_boot=20)
    means = d.groupby('lam_f').lam_h.mean()
    assert m.table.judgment_mean.iloc[0] == bool((np.diff(means) < -1e-9).any())
    assert (m.table.status.iloc[0] == 'ok') == (len(means) > 1) and len(m.steps) == len(means)-1

def test_a_table_without_what_is_not_needed(df, probs):
    least = df[['participant', 'stimulus', 'class_a', 'id_a', 'class_b', 'id_b', 'lam_f', 'lam_h']]
    assert len(recovery(least, n_boot=20)) == 5
    assert untouched(least).index.tolist() == ['all'] and 'seconds' not in untouched(least)
    assert entropy_effect(least, probs).slopes.index.get_level_values(0).unique().tolist() == ['relabelling']
    assert len(example_relabellings(least)) == 3
    for f in (confidence_by_coefficient, plot_confidence):
        with pytest.raises(ValueError, match="no column 'confidence'"): f(least)
    with pytest.raises(ValueError, match="no column 'repeat'"): repeat_consistency(least)
    none = repeat_consistency(least.assign(repeat=False))
    assert none.pairs['same person'] == 0 and np.isnan(none.mean_difference['same person'])

def test_one_person_has_no_intervals(df, probs):
    one = df[df.participant == df.participant.iloc[0]].assign(x=lambda d: d.lam_f)
    r = recovery(one, n_boot=20)
    assert r['median'].notna().all() and r.median_low.isna().all()
    assert confidence_by_coefficient(one, n_boot=20).low.isna().all()
    e = entropy_effect(one, probs)
    assert e.slopes.estimate.notna().all() and e.slopes.low.isna().all()
    m = crossed_model(one, 'lam_h', 'x')
    assert m.table.estimate.notna().all() and m.table.se.isna().all() and m.variances.share.isna().all()
    assert repeat_consistency(one).mean_difference_low.isna().all()
    for ax in (plot_recovery(one, n_boot=20), plot_confidence(one, n_boot=20), plot_entropy(one, probs)[0]): assert title(ax)

def test_bad_tables_are_named(df, probs):
    with pytest.raises(ValueError, match="column 'lam_h' has"): recovery(df.assign(lam_h=df.lam_h*100))
    gap = df.assign(confidence=df.confidence.where(df.index != 7))
    one, two = confidence_by_coefficient(gap), entropy_effect(gap, probs)
    assert one.missing.sum() == 1 and one.n.sum() == len(df)-1
    pd.testing.assert_frame_equal(one.drop(columns='missing'), confidence_by_coefficient(df.drop(7)).drop(columns='missing'))
    assert two.slopes.n['confidence'].tolist() == [len(df)-1]*3 and two.slopes.n['relabelling'].tolist() == [len(df)]*3
    with pytest.raises(ValueError, match='confidence is missing in all'): confidence_by_coefficient(df.assign(confidence=np.nan))
    assert untouched(gap).answers['all'] == len(df)
    with pytest.raises(ValueError, match='id_b|id_a'): entropies(df, probs[:100])
    with pytest.raises(ValueError, match=r'probs: found shape \(10,\)'): entropies(df, probs[0])
    with pytest.raises(ValueError, match='probs: sum of a row'): entropies(df, probs/2)
    with pytest.raises(ValueError, match='low: found 0.9'): entropy_effect(df, probs, low=.9)
    with pytest.raises(ValueError, match="class_b: 'deer' is unknown"): plot_boundary(df, '1', 'deer')
    with pytest.raises(ValueError, match='is the same in all'): crossed_model(df.assign(y=1.), 'y')
    with pytest.raises(ValueError, match='empty'): monotonicity(df[:0])

def test_entropy_effect_sees_what_is_there_and_nothing_else(df, probs):
    e = entropies(df, probs)
    np.testing.assert_allclose(e.entropy_a, stats.entropy(probs[df.id_a], axis=1), atol=1e-12)
    made = df.assign(confidence=(.9 - .3*e.entropy + .05*(df.confidence-.5)).clip(0, 1))
    assert entropy_effect(made, probs).slopes.estimate['confidence', 'entropy'] == pytest.approx(-.3, abs=.03)
    r = entropy_effect(df, probs)
    np.testing.assert_allclose(r.slopes.loc['confidence'], two_way(e, 'confidence', ['entropy', 'off']))
    for (_, unit, test), o in r.table.iterrows():
        assert o.difference == pytest.approx(o.mean_high - o.mean_low)
        assert np.isnan(o.low) == (test != 'two-way robust t') and unit.split(',')[0] in ('answer', 'stimulus')
    none = entropy_effect(df, probs, high=2.2)
    assert set(none.table.n_high) == {0} and none.table.p.isna().all() and none.slopes.p.notna().all()

def test_two_way_slopes_find_ghosts_no_more_often_than_they_say():
    p, g = [], np.random.default_rng(3)
    for s in range(40):
        d = SimulatedParticipants(30, seed=s).judge(draw_stimuli(Y, 9, classes=CLASSES, seed=s), 2)
        made = g.dirichlet(np.full(10, .1), len(Y))
        p.append(entropy_effect(d, made/made.sum(1, keepdims=True)).slopes.p['relabelling', 'entropy'])
    assert np.mean(np.array(p) < .05) < .15

def test_curves_that_rise_are_not_said_to_fall():
    "Studies as large as H-Mix, on logistic curves: p is spread out, and the expected number is what is found."
    found = pd.DataFrame([monotonicity(simulate_study(PairFits.shipped(), seed=s), n_boot=200).summary.loc['judgment_mean'] for s in range(12)])
    assert abs(found.breaks.mean() - found.logistic_breaks.mean()) < 2.5
    assert (found.logistic_p < .05).sum() <= 2 and (found.logistic_depth_p < .05).sum() <= 2
    assert (found.flat_breaks > found.logistic_breaks).sum() >= 10 # flat stretches break more easily; few of them, not always

@pytest.mark.parametrize('spoil', [lambda d: d.assign(lam_h=1-d.lam_h), # all the wrong way round
                                   lambda d: d.assign(lam_h=d.lam_h.where((d.lam_f < .9) | (d.class_a > 'automobile'), (d.lam_h-.4).clip(0)))])
def test_curves_that_fall_are_seen(spoil):
    "The second: 17 of 45 pairs fall at the end."
    s = monotonicity(spoil(simulate_study(PairFits.shipped(), seed=3)), n_boot=200).summary.loc[['judgment_mean', 'image_mean']]
    assert (s.logistic_depth_p < .01).all() and (s.flat_depth_p < .05).all()

def test_pairs_are_the_same_in_either_order(df):
    turned = df.rename(columns=dict(class_a='class_b', class_b='class_a', id_a='id_b', id_b='id_a'))
    turned = turned.assign(lam_f=1-df.lam_f, lam_h=1-df.lam_h)
    pd.testing.assert_frame_equal(monotonicity(df, n_boot=50).table, monotonicity(turned, n_boot=50).table)
    assert (alphabetical(turned)[['id_a', 'id_b']].to_numpy() == df[['id_a', 'id_b']].to_numpy()).all()
    a, b = plot_boundary(df, '3', '7'), plot_boundary(df, '7', '3')
    assert len(a.lines[0].get_ydata()) == len(b.lines[0].get_ydata())

def test_repeats_are_paired_with_the_own_first_answer():
    d = pd.DataFrame([('p', 's', .2, False, 0), ('p', 's', .5, True, 9), ('q', 's', .9, False, 0), ('r', 't', .1, False, 0)],
                     columns=['participant', 'stimulus', 'lam_h', 'repeat', 'position'])
    c = repeat_consistency(d)
    assert c.pairs.tolist() == [1, 1] and c.mean_difference.tolist() == pytest.approx([.3, .7])

@pytest.mark.parametrize('n_people, n_stimuli', [(12, 60), (60, 12)])
def test_crossed_model_agrees_with_statsmodels(n_people, n_stimuli):
    from statsmodels.regression.mixed_linear_model import MixedLM
    g, n = np.random.default_rng(1), 240
    d = pd.DataFrame(dict(participant=g.integers(0, n_people, n), stimulus=g.integers(0, n_stimuli, n), x=g.normal(size=n)))
    d['y'] = .5*d.x + g.normal(size=n_people)[d.participant]*.6 + g.normal(size=n_stimuli)[d.stimulus]*.5 + g.normal(size=n)*.7
    parts = {o: f'0 + C({o})' for o in ('participant', 'stimulus')}
    theirs = MixedLM.from_formula('y ~ x', d, groups=np.ones(n), vc_formula=parts, re_formula='0').fit()
    ours = crossed_model(d, 'y', 'x')
    np.testing.assert_allclose(ours.table.estimate, theirs.fe_params, atol=1e-3)
    np.testing.assert_allclose(ours.table.se, theirs.bse_fe, rtol=.01)
    np.testing.assert_allclose(ours.variances.variance, np.r_[theirs.vcomp, theirs.scale], atol=.01)
    assert ours.loglik == pytest.approx(theirs.llf, abs=1e-3)

def test_figures_refuse_other_images(df):
    class Images:
        x, y, classes = np.zeros((len(Y), 4, 4, 3), np.uint8), (Y+1) % 10, CLASSES
        def __len__(self): return len(self.y)
    with pytest.raises(ValueError, match='images: .* is of class'): plot_examples(df, Images())

# The released answers

def test_recovery_of_hmix(real):
    r = recovery(real)
    assert r.index.tolist() == [.1, .25, .5, .75, .9] and r.n.sum() == 4950
    np.testing.assert_allclose(r[['q25', 'median', 'q75']], [[0, .08, .21], [.03, .14, .34], [.3, .5, .62], [.5, .83, .99],
                                                             [.77, .92, 1]], atol=1e-9)

def test_table_1(real):
    for d, told in ((real, [.790, .722, .630]), (real[~real['repeat']], [.789, .721, .629])):
        c = confidence_by_coefficient(d, n_boot=20)
        np.testing.assert_allclose(c['mean'], told, atol=6e-4)
        assert c.sd_stimuli.round(2).tolist() == [.17, .20, .20]
    np.testing.assert_allclose(confidence_by_coefficient(real, n_boot=20).sd_participants, [.121, .136, .143], atol=6e-4)
    c = confidence_by_coefficient(real, fold=False, n_boot=20)
    assert c['mean'].idxmin() == .5

def test_fig_6(real):
    ex = example_relabellings(real, EXAMPLES)
    np.testing.assert_allclose(ex.lam_h, [1.75/3, .99, .865], atol=1e-9)
    assert ex.answers.tolist() == [(.47, .5, .78), (.98, 1.), (.74, .88, .88, .96)]

def test_fig_8(real, votes):
    effect = entropy_effect(real, votes)
    t = effect.table
    get = lambda *k: t.loc[k, ['mean_high', 'mean_low', 'p']].astype(float).tolist()
    np.testing.assert_allclose(get('relabelling', 'stimulus, mean answer', 'Welch t'), [.1492, .1351, .671], atol=1e-3)
    np.testing.assert_allclose(get('relabelling', 'stimulus, mean answer', 'Mann-Whitney U')[2], .746, atol=1e-3)
    np.testing.assert_allclose(get('relabelling', 'answer', 'Welch t'), [.2018, .1657, .2308], atol=1e-4)
    np.testing.assert_allclose(get('relabelling', 'stimulus', 'Welch t'), [.1895, .1669, .4979], atol=1e-4)
    np.testing.assert_allclose(get('confidence', 'answer', 'Welch t')[:2], [.5121, .7626], atol=1e-4)
    np.testing.assert_allclose(get('confidence', 'stimulus', 'Welch t'), [.5195, .7660, .0002], atol=1e-4)
    assert t.p['confidence', 'answer', 'two-way robust t'] < .001 < .2 < t.p['relabelling', 'answer', 'two-way robust t']
    np.testing.assert_allclose(effect.slopes.loc[('relabelling', 'entropy'), ['estimate', 'low', 'high']],
                               [.0572, .0256, .0888], atol=1e-3)

def test_repeats_sliders_and_order_of_hmix(real):
    c = repeat_consistency(real, n_boot=50)
    assert c.pairs.tolist() == [162, 3483]
    np.testing.assert_allclose(c.loc['same person', ['mean_difference', 'correlation', 'within']], [.1072, .8547, .6790], atol=1e-4)
    u = untouched(real)
    assert u.untouched.tolist() == [163, 155, 8] and u.most['all'] == 18
    m = monotonicity(real, n_boot=100)
    assert m.summary.breaks.tolist() == [14, 14, 18]
    assert (m.summary[['flat_p', 'flat_depth_p']] > .05).all().all() and m.summary.logistic_p['image_mean'] < .05
    assert '14 of 45' in title(plot_monotonicity(m))

def test_crossed_model_of_hmix(real, votes):
    m = crossed_model(entropies(real, votes), 'confidence', ['off', 'entropy'])
    np.testing.assert_allclose(m.table.estimate, [.670, .379, -.239], atol=6e-4) # statsmodels' MixedLM, in six minutes
    np.testing.assert_allclose(m.variances.variance, [.012713, .011079, .040075], atol=2e-6)
    assert m.loglik == pytest.approx(297.3612, abs=1e-3)

def test_who_was_asked_what(real):
    assert (real.participant.nunique(), real.stimulus.nunique()) == (81, 2070)
    assert set(real.groupby(['class_a', 'class_b']).stimulus.nunique()) == {46} and real.groupby(['class_a', 'class_b']).ngroups == 45
    main = real[~real['repeat']]
    assert main.groupby('stimulus').participant.nunique().value_counts().to_dict() == {2: 1539, 3: 414, 4: 117}
    first = real[real['round'] == 1]
    assert (first.participant.nunique(), first.stimulus.nunique()) == (33, 810)
    assert set(first.groupby('participant').size()) == {59, 60} and set(real[real['round'] == 2].groupby('participant').size()) == {62}
    of = first.groupby(['class_a', 'id_a', 'class_b', 'id_b']).lam_f.agg(lambda v: tuple(sorted(set(v))))
    assert len(of) == 270 and set(of) == {(a, .5, b) for a in (.1, .25) for b in (.75, .9)}
    r = recovery(first, n_boot=20)
    np.testing.assert_allclose(r['median'], [.11, .155, .5, .76, .86], atol=1e-9)

def test_repeats_show_trials_15_and_20_again(real):
    d = real.sort_values('position')
    main, again = d[~d['repeat']], d[d['repeat']]
    place = main.assign(place=main.groupby('participant').cumcount()).merge(
        again.assign(nth=again.groupby('participant').cumcount())[['participant', 'stimulus', 'nth']], on=['participant', 'stimulus'])
    assert place.groupby(['nth', 'place']).size().to_dict() == {(0, 15): 81, (1, 20): 81}
