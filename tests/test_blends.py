"Simulated judges of blends: the mean is the curve, people stay themselves, and constants are found again."
import json, subprocess, sys
from dataclasses import asdict, replace
import numpy as np, pandas as pd, pytest
from hypothesis import given, settings, strategies as st
from scipy.special import expit
from hmix_nb.core import CIFAR10
from hmix_nb.data.judgments import repeats
from hmix_nb.data.simulated import SimulatedParticipants, draw_stimuli
from hmix_nb.mixing.fits import PairFits
from hmix_nb.softlabels.blends import (Crowd, FittedParticipants, Variation, _answer, _centre, _curves, _heap, _lots, _spread,
                                       blend_statistics, fit_crowd, ship_crowd)
from hmix_nb.softlabels.goodness import compare, plot_compare

BLENDS = draw_stimuli(np.arange(7000) % 10, 46)
STILL = Crowd(*[0.]*7, end=-30., end_sd=0., middle=-30., middle_sd=0., untouched=-30., untouched_sd=0., sure_shift=0., sure_gain=1.,
              sure_link=0., sure_person_sd=0., sure_image_sd=0., sure_blend_sd=0., sure_view_sd=0., sure_look_sd=0.,
              sure_end=-30., sure_end_sd=0., sure_end_link=0., sure_middle=-30., sure_middle_sd=0.)

def alone(n): # everybody once, each to a blend of their own
    i = np.arange(n)
    return pd.DataFrame(dict(participant=i, stimulus=i, class_a='a', id_a=i, class_b='b', id_b=0, repeat=False))

@settings(max_examples=30, deadline=None)
@given(st.floats(.01, .99), st.floats(0, 1), st.floats(0, 1), st.integers(0, 9))
def test_the_mean_is_the_curve(tau, slope, sd, seed):
    v, g = replace(Variation(*[0.]*7), slope_sd=slope, look_sd=sd), np.random.default_rng(seed)
    z = np.exp(slope*g.normal(size=40_000))*_centre(np.array([tau]), v) + sd*g.normal(size=40_000)
    heaped = _heap(expit(z), *g.random((2, 40_000)), (.5, .1), (.7, 2.))
    assert expit(z).mean() == pytest.approx(tau, abs=.012) and heaped.mean() == pytest.approx(tau, abs=.015)
    assert ((heaped >= 0) & (heaped <= 1)).all() and np.allclose(heaped*100, np.round(heaped*100))

@pytest.mark.parametrize('tau', [.09, .3, .5, .74, .9])
def test_shipped_people_are_right_on_average(tau):
    h, c = _answer(_lots(alone(40_000)), np.full(40_000, tau), np.full(40_000, .7), Crowd.shipped())
    assert h.mean() == pytest.approx(tau, abs=.008) and .55 < c.mean() < .85
    assert set(np.round(h*100, 6) % 1) == {0} and set(np.round(c*100, 6) % 1) == {0}

def test_confidence_follows_the_pair_and_the_answer():
    z, omega = _lots(alone(40_000)), np.repeat([.6, .7, .8], [10_000, 10_000, 20_000])
    h, c = _answer(z, np.full(40_000, .5), omega, Crowd.shipped())
    assert c[:10_000].mean() + .05 < c[10_000:20_000].mean() < c[20_000:].mean() - .05
    ends = (h == 0) | (h == 1)
    assert c[ends].mean() > c[~ends].mean() + .1 and (c[ends] == 1).mean() > 5*(c[~ends] == 1).mean()

def test_without_variation_answers_are_the_curves():
    people, fits = FittedParticipants(10, crowd=STILL), PairFits.shipped('partial')
    df = people.judge(BLENDS)
    tau, omega = _curves(df, fits)
    assert (df.lam_h - tau).abs().max() <= .0101 and (df.confidence - omega).abs().max() <= .0051

def test_the_call_is_that_of_made_up_people():
    mine, theirs = FittedParticipants(12, seed=3), SimulatedParticipants(12, seed=3)
    for how in (dict(), dict(per_stimulus=3, n_repeats=2), dict(participant='sim3-004', position=5), dict(participant=4, repeat=True)):
        a, b = mine.judge(BLENDS[:40], **how), theirs.judge(BLENDS[:40], **how)
        pd.testing.assert_frame_equal(a.drop(columns=['lam_h', 'confidence']), b.drop(columns=['lam_h', 'confidence']))
        assert (a.dtypes == b.dtypes).all() and a.lam_h.between(0, 1).all() and a.confidence.between(0, 1).all()
    for wrong, says in ((BLENDS.drop(columns='lam_f'), 'lam_f'), (BLENDS.assign(lam_f=2.), 'lam_f: found 2')):
        with pytest.raises(ValueError, match=says): mine.judge(wrong)
    with pytest.raises(ValueError, match='per_stimulus: found 13'): mine.judge(BLENDS, 13)

def test_an_answer_does_not_depend_on_what_else_is_asked():
    people = FittedParticipants(20, seed=1)
    df = people.judge(BLENDS[:300], 3, n_repeats=2)
    for row in (df.iloc[7], df[df['repeat']].iloc[3]):
        again = people.judge(BLENDS[BLENDS.stimulus == row.stimulus], participant=row.participant, repeat=row['repeat'], position=row.position)
        assert again.iloc[0].to_dict() == row.to_dict()
    pd.testing.assert_frame_equal(df, FittedParticipants(20, seed=1).judge(BLENDS[:300], 3, n_repeats=2))
    assert not df.lam_h.equals(FittedParticipants(20, seed=2).judge(BLENDS[:300], 3, n_repeats=2).lam_h)

def test_people_are_themselves_and_second_looks_alike():
    df = FittedParticipants(60).judge(BLENDS, 4, n_repeats=5)
    r = repeats(df)
    assert r.differ.mean() < .2 and r.lam_h.corr(r.lam_h_again) > .7
    ends = df.lam_h.isin([0, 1]).groupby(df.participant).mean()
    assert ends.std() > .15 and ends.max() > .6

def test_other_classes_ends_and_blends_within_a_class():
    fits, plum = PairFits.shipped('partial'), draw_stimuli(np.arange(900) % 3, 100, classes=('pear', 'plum', 'quince'))
    tau, _ = _curves(plum, fits)
    assert tau == pytest.approx(expit(fits.pooled.k*(plum.lam_f - fits.pooled.x0)))
    one = pd.DataFrame(dict(class_a='cat', class_b=['dog', 'dog', 'dog', 'cat'], lam_f=[0, 1, .05, .3]))
    tau, omega = _curves(one, fits)
    assert tau[[0, 1, 3]].tolist() == [0, 1, .3] and 0 < tau[2] < fits.weight(.1, 3, 5) and (omega < 1).all()
    same = pd.DataFrame(dict(stimulus=['x'], class_a='plum', id_a=1, class_b='plum', id_b=2, lam_f=.5))
    assert FittedParticipants(5).judge(same, None).lam_h.between(0, 1).all()

def test_the_order_of_the_two_images_is_turned():
    fits, a = PairFits.shipped('partial'), BLENDS[:200]
    b = a.rename(columns=dict(class_a='class_b', class_b='class_a')).assign(lam_f=1-a.lam_f)
    np.testing.assert_allclose(_curves(a, fits)[0], 1 - _curves(b, fits)[0], atol=1e-12)

def test_statistics_of_a_table_by_hand():
    df = FittedParticipants(30, seed=2).judge(BLENDS, n_repeats=2)
    s = blend_statistics(df)
    assert s['λ_h: at 0'] == pytest.approx((df.lam_h == 0).mean())
    assert s['ω: median, λ 0.25'] == pytest.approx(df.confidence[df.lam_f == .25].median())
    r = repeats(df)
    assert s['λ_h: distance of a repeat'] == pytest.approx(r.differ.mean())
    assert s['λ_h: correlation with a repeat'] == pytest.approx(r.lam_h.corr(r.lam_h_again))
    assert s['λ_h: sd of people, at ½'] == pytest.approx((df.lam_h == .5).groupby(df.participant).mean().std(ddof=0))
    assert s['ω: mean, answer at ½'] == pytest.approx(df.confidence[df.lam_h == .5].mean())
    mixed = df.sample(frac=1, random_state=0)
    pd.testing.assert_series_equal(blend_statistics(mixed), s)
    without = blend_statistics(df[~df['repeat']])
    assert 'λ_h: distance of a repeat' not in without and without['λ_h: at 0'] > 0

def test_a_crowd_is_found_again():
    "In its numbers; constants that do much the same may take each other's place."
    truth = replace(Crowd.shipped(), view_sd=1.3, bias_sd=.6, sure_person_sd=1.3, end=-3., untouched=-3.)
    df = FittedParticipants(60, seed=5, crowd=truth).judge(BLENDS[::2], 5, n_repeats=2)
    found = fit_crowd(df, PairFits.shipped('partial'), n_crowds=2, max_steps=4)
    made = [FittedParticipants(60, seed=s, crowd=found).judge(BLENDS[::2], 5, n_repeats=2) for s in (6, 7)]
    off = (sum(blend_statistics(o) for o in made)/2 - blend_statistics(df)).abs()
    was = (blend_statistics(FittedParticipants(60, seed=6).judge(BLENDS[::2], 5, n_repeats=2)) - blend_statistics(df)).abs()
    assert off.mean() < .04 and off.mean() < .7*was.mean()
    assert found.bias_sd > Crowd.shipped().bias_sd + .1 and found.sure_person_sd > Crowd.shipped().sure_person_sd + .3

def test_comparing_tells_who_is_not_like_people():
    df = FittedParticipants(81, seed=4).judge(BLENDS, n_repeats=2)
    like, unlike = (compare(df, c, n_splits=2).filter(like='KS', axis=0).mean() for c in (None, STILL))
    assert like.distance < like.people_distance + .04 < unlike.distance
    table = compare(df, n_splits=1)
    pd.testing.assert_frame_equal(table, compare(df, n_splits=1))
    plot_compare(df, FittedParticipants(81, seed=5).judge(BLENDS, n_repeats=2), table)[0, 0].figure.canvas.draw()
    with pytest.raises(ValueError, match="no column 'confidence'"): compare(df.drop(columns='confidence'))

def test_no_torch():
    code = "import sys, hmix_nb.softlabels.blends as b; b.FittedParticipants(2); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0

def test_the_shipped_crowd_is_what_the_fit_finds(hub, tmp_path, monkeypatch):
    import hmix_nb.softlabels.blends as room
    monkeypatch.setattr(room, 'fit_crowd', lambda df, fits: Crowd(view_sd=float(len(df))))
    kept = json.loads(ship_crowd(hub, tmp_path/'b.json').read_text())
    assert kept['crowd'] == asdict(Crowd(view_sd=4950.)) and len(kept['meta']['sha256']) == 64
    assert Crowd.shipped() != Crowd() and all(np.isfinite(list(asdict(Crowd.shipped()).values())))

def test_like_the_people_of_hmix(hub):
    from hmix_nb.data.judgments import coefficient
    table = compare(coefficient(hub), n_splits=4)
    for tag in ('λ_h', 'ω'):
        ks = table[table.index.str.startswith(f'{tag}: KS')].mean()
        assert ks.distance < ks.people_distance + .04
    assert ((table.distance < 1.5*table.people_distance + .02).mean()) > .85
    main = table.loc[['λ_h: at 0', 'λ_h: at ½', 'λ_h: at 1', 'ω: at 1', 'λ_h: distance of a repeat', 'λ_h: sd around the curve']]
    assert (main.people - main.simulated).abs().max() < .04
