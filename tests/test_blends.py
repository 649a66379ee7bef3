"Simulated judges of blends: the mean is what is asked for, people stay themselves, constants are found again."
import json, subprocess, sys
from dataclasses import asdict, fields, replace
import numpy as np, pandas as pd, pytest
from hypothesis import given, settings, strategies as st
from scipy.special import expit
from hmix_nb.core import rng
from hmix_nb.data.judgments import repeats
from hmix_nb.data.simulated import SimulatedParticipants, draw_stimuli, name_stimuli
from hmix_nb.mixing.fits import PairFits
from hmix_nb.softlabels.blendcheck import (ANSWERS, blend_statistics, distances, hold_out, plot_answers, plot_hold_out,
                                           recover_crowd)
from hmix_nb.softlabels.blends import (Crowd, FittedParticipants, Variation, _Asked, _mean, _share_law, _sure_law, blend_answers,
                                       blend_curves, fit_crowd, share_answers, ship_crowd)

BLENDS = draw_stimuli(np.arange(7000) % 10, 46)
STILL = dict(end=-30., middle=-30., focus=9., focus_gain=0., stray=-30.) # everybody alike, no heaps

def alone(n, lam=.5): # everybody once, each to a blend of their own
    i = np.arange(n)
    return pd.DataFrame(dict(participant=i, class_a='a', id_a=i, class_b='b', id_b=0, lam_f=lam, repeat=False))

def turned(df): return df.rename(columns=dict(class_a='class_b', class_b='class_a', id_a='id_b', id_b='id_a')).assign(lam_f=1-df.lam_f)

def thrice(n=28): # as in H-Mix: some images are in three blends
    once = draw_stimuli(np.arange(7000) % 10, n)
    some = once[once.lam_f == .5].groupby(['class_a', 'class_b']).head(n//5)
    more = [name_stimuli(some.assign(lam_f=rng(i).choice(l, len(some)))) for i, l in enumerate(([.1, .25], [.75, .9]))]
    return pd.concat([once, *more], ignore_index=True)

@settings(max_examples=25, deadline=None)
@given(st.floats(.005, .995), st.floats(0, .9), st.floats(0, 1), st.floats(0, 1), st.integers(0, 9))
def test_the_mean_is_what_is_asked_for(m, end, image, view, seed):
    v = Variation(end_person=end, image=image, view=view)
    h = share_answers(alone(40_000), np.full(40_000, m), v, f'/{seed}')
    assert h.mean() == pytest.approx(m, abs=.008)
    assert ((h >= 0) & (h <= 1)).all() and np.allclose(h*100, np.round(h*100))

@pytest.mark.parametrize('m', [.14, .5, .8])
def test_all_together_keep_the_law(m):
    "Also when each person answers twenty times, and images come back."
    df, law = alone(60_000), _share_law(Crowd.shipped())
    h = share_answers(df.assign(participant=df.participant//20, id_a=df.id_a % 9000), np.full(len(df), m), Crowd.shipped())
    i = np.searchsorted(law.mean, m) - 1
    w = (m-law.mean[i])/(law.mean[i+1]-law.mean[i])
    expected = (1-w)*law.table[i] + w*law.table[i+1]
    assert np.abs(np.cumsum(np.bincount(np.rint(h*100).astype(int), minlength=101)/len(h)) - np.cumsum(expected)).max() < .02

def test_the_law_is_its_own_mirror_and_grows():
    for p in (Variation(), Crowd.shipped(), Variation(end=-1., middle=1., focus=3.)):
        law = _share_law(p)
        np.testing.assert_allclose(law.table, law.table[::-1, ::-1], atol=1e-12)
        np.testing.assert_allclose(law.table.sum(1), 1)
        assert (np.diff(law.mean) > 0).all() and law.mean[0] < 1e-3
    with pytest.raises(ValueError, match='variation: with .* do not follow'): share_answers(alone(3), [.2]*3, Variation(end_slope=-3., end=2.))

def test_without_variation_answers_are_the_curve():
    df = FittedParticipants(10, crowd=Crowd(**STILL, end_gain=1.)).judge(BLENDS)
    assert (df.lam_h - blend_curves(df, PairFits.shipped('partial'))[0]).abs().max() < .05
    h = share_answers(alone(2000), np.linspace(0, 1, 2000), Variation(**STILL))
    assert np.abs(h - np.linspace(0, 1, 2000)).max() < .05

def test_shares_are_what_is_shared():
    "Without heaps, answers around ½ are nearly normal, so that correlations are the shares."
    i = np.arange(40_000)
    df = pd.DataFrame(dict(participant=i//4 % 2, class_a='a', id_a=i//8, class_b='b', id_b=0, lam_f=.3 + .2*(i//2 % 2), repeat=i % 2 == 1))
    v = Variation(**STILL | dict(focus=4.), image=.2, blend=.3, view=.6)
    h = share_answers(df, np.full(len(df), .5), v).reshape(-1, 2, 2, 2) # images, people, blends, looks
    r = lambda a, b: np.corrcoef(a.ravel(), b.ravel())[0, 1]
    assert r(h[:, :, :, 0], h[:, :, :, 1]) == pytest.approx(.2 + .3 + .5*.6, abs=.03)
    assert r(h[:, 0], h[:, 1]) == pytest.approx(.5, abs=.03)
    assert r(h[:, 0, 0], h[:, 1, 1]) == r(h[:, 0, 0], h[:, 1, 1]) == pytest.approx(.2, abs=.03)

def test_confidence_follows_the_pair_and_the_answer():
    fits, n = PairFits.shipped('partial'), 40_000
    df = blend_answers(alone(n), fits=fits)
    ends, mid = df.lam_h.isin([0, 1]), df.lam_h == .5
    sure = df.confidence
    assert sure[ends].mean() > sure[~ends].mean() + .2 and (sure[ends] == 1).mean() > 5*(sure[~ends] == 1).mean()
    assert (sure[mid] == .5).mean() > 3*(sure[~mid & ~ends] == .5).mean()
    pairs = FittedParticipants(300).judge(draw_stimuli(np.arange(7000) % 10, 300)).query('lam_f == .5')
    cells = pairs.groupby(['class_a', 'class_b']).confidence.mean()
    known = blend_curves(cells.reset_index().assign(lam_f=.5), fits)[1]
    assert np.corrcoef(cells, known)[0, 1] > .6
    law = _sure_law(Crowd.shipped())
    assert (np.diff(law.mean.reshape(3, -1)) > 0).all() and np.allclose(law.table.sum(1), 1)

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

@settings(max_examples=20, deadline=None)
@given(st.sampled_from(['cat', 'dog', 'plum', 'Cat']), st.sampled_from(['cat', 'dog', 'ape']), st.integers(0, 3), st.integers(0, 3),
       st.floats(0, 1), st.booleans())
def test_the_other_order_is_the_mirrored_answer(a, b, i, j, lam, again):
    df = pd.DataFrame(dict(participant=['p', 'q'], class_a=a, id_a=i, class_b=b, id_b=[j, float(j)], lam_f=lam, repeat=again))
    if (a, i) == (b, j): return # the same image twice has no order
    one, other = blend_answers(df), blend_answers(turned(df))
    np.testing.assert_allclose(one.lam_h, 1-other.lam_h, atol=1e-9)
    assert one.confidence.tolist() == other.confidence.tolist()

def test_both_orders_through_judge():
    one, other = (FittedParticipants(9, seed=4).judge(o, None) for o in (BLENDS[:200], turned(BLENDS[:200])))
    one, other = (o.sort_values(['participant', 'stimulus']) for o in (one, other))
    np.testing.assert_allclose(one.lam_h, 1-other.lam_h, atol=1e-9)
    assert one.confidence.tolist() == other.confidence.tolist() and one.lam_h.std() > .2

def test_people_are_themselves_and_second_looks_alike():
    df = FittedParticipants(60).judge(BLENDS, 4, n_repeats=5)
    r = repeats(df)
    assert r.differ.mean() < .2 and r.lam_h.corr(r.lam_h_again) > .7
    ends = df.lam_h.isin([0, 1]).groupby(df.participant).mean()
    assert ends.std() > .15 and ends.max() > .6
    untouched = ((df.lam_h == .5) & (df.confidence == .5)).groupby(df.participant).mean()
    assert untouched.std() > .02 and untouched.median() < .05 < untouched.max()

def test_other_classes_ends_and_blends_within_a_class():
    fits, plum = PairFits.shipped('partial'), draw_stimuli(np.arange(900) % 3, 100, classes=('pear', 'plum', 'quince'))
    tau, _ = blend_curves(plum, fits)
    assert tau == pytest.approx(expit(fits.pooled.k*(plum.lam_f - fits.pooled.x0)))
    one = pd.DataFrame(dict(class_a='cat', class_b=['dog', 'dog', 'dog', 'cat'], lam_f=[0, 1, .05, .3]))
    tau, omega = blend_curves(one, fits)
    assert tau[[0, 1, 3]].tolist() == [0, 1, .3] and 0 < tau[2] < fits.weight(.1, 3, 5) and (omega < 1).all()
    np.testing.assert_allclose(tau, 1-blend_curves(one.rename(columns=dict(class_a='class_b', class_b='class_a')).assign(lam_f=1-one.lam_f), fits)[0])
    same = pd.DataFrame(dict(stimulus=['x'], class_a='plum', id_a=1, class_b='plum', id_b=2, lam_f=.5))
    assert FittedParticipants(5).judge(same, None).lam_h.between(0, 1).all()
    clean = alone(50).assign(class_a='cat', class_b='dog')
    assert (blend_answers(clean.assign(lam_f=0.)).lam_h == 0).all() and (blend_answers(clean.assign(lam_f=1.)).lam_h == 1).all()

def test_five_thousand_answers_are_fast():
    people, asked = FittedParticipants(81), BLENDS
    people.judge(asked[:10])
    code = lambda: people.judge(asked, 3)
    import time
    took = []
    for _ in range(3):
        start = time.process_time()
        code()
        took.append(time.process_time() - start)
    assert min(took) < 1

def test_statistics_of_a_table_by_hand():
    df = FittedParticipants(30, seed=2).judge(thrice(), n_repeats=2)
    s = blend_statistics(df)
    assert s['λ_h: at 0'] == pytest.approx((df.lam_h == 0).mean())
    assert s['ω: median, λ 0.25'] == pytest.approx(df.confidence[df.lam_f == .25].median())
    r = repeats(df)
    assert s['λ_h: distance of a repeat'] == pytest.approx(r.differ.mean())
    assert s['λ_h: correlation with a repeat'] == pytest.approx(r.lam_h.corr(r.lam_h_again))
    assert s['λ_h: sd of people, at ½'] == pytest.approx((df.lam_h == .5).groupby(df.participant).mean().std())
    assert s['ω: mean, answer at ½'] == pytest.approx(df.confidence[df.lam_h == .5].mean())
    assert s['ω: both ½'] == pytest.approx(((df.lam_h == .5) & (df.confidence == .5)).mean())
    mixed = df.sample(frac=1, random_state=0)
    pd.testing.assert_series_equal(blend_statistics(mixed), s)
    without = blend_statistics(df[~df['repeat']])
    assert 'λ_h: distance of a repeat' not in without and without['λ_h: at 0'] > 0

def test_distances_tell_who_is_not_like_people():
    df, like = (FittedParticipants(300, seed=i).judge(BLENDS) for i in (4, 5))
    unlike = FittedParticipants(300, seed=5, crowd=Crowd(**STILL)).judge(BLENDS)
    near, far = distances(like, df), distances(unlike, df)
    assert (near.ks < .09).all() and (far.ks['λ_h'] > .2).all() and (near.wasserstein < far.wasserstein)['λ_h'].all()
    pd.testing.assert_frame_equal(near, distances(df, like))
    with pytest.raises(ValueError, match="made: no column 'confidence'"): distances(df.drop(columns='confidence'), df)
    for a in ANSWERS: plot_answers(df, like, a)[0].figure.canvas.draw()
    with pytest.raises(ValueError, match='answer'): plot_answers(df, like, 'lam_f')

def test_holding_out():
    df = FittedParticipants(24, seed=4).judge(thrice(10), n_repeats=2)
    held = hold_out(df, 1, 30, 2)
    assert held.index.names == ['split', 'who', 'answer', 'lam_f'] and len(held) == 4*2*5 and held.notna().to_numpy().all()
    plot_hold_out(held)[0].figure.canvas.draw()
    with pytest.raises(ValueError, match="no column 'repeat'"): hold_out(df.drop(columns='repeat'))
    with pytest.raises(ValueError, match='n_splits: found 0'): hold_out(df, 0)

def test_what_ships_is_of_a_piece():
    "Without the data: all constants are there, are the documented defaults rounded, and give laws that follow their mean."
    kept = json.loads((__import__('importlib.resources').resources.files('hmix_nb.softlabels')/'blends.json').read_text(encoding='utf-8'))
    assert list(kept['crowd']) == [f.name for f in fields(Crowd)] and kept['meta']['n'] == 4950
    assert len(kept['meta']['sha256']) == 64 and kept['meta']['source'].startswith('https://') and kept['meta']['licence']
    shipped = Crowd.shipped()
    assert all(abs(getattr(shipped, f.name) - f.default) <= .011 for f in fields(Crowd))
    tau = np.linspace(.001, .999, 99)
    assert (np.diff(_mean(tau, np.full(99, .9), shipped)) > 0).all()

def test_a_crowd_is_found_again():
    truth = replace(Crowd.shipped(), view=.8, sure_person=.5, end=-3.6, end_person=.3, one=-2., sure_link=2.5, middle_person=.6)
    df = FittedParticipants(60, seed=5, crowd=truth).judge(thrice(), 5, n_repeats=5)
    found, was = fit_crowd(df, PairFits.shipped('partial'), n_crowds=6), Crowd.shipped()
    for n, near in dict(view=.25, sure_person=.15, end=.4, end_person=.15, one=.5, sure_link=.3, middle_person=.2).items():
        assert abs(getattr(found, n) - getattr(truth, n)) < near < abs(getattr(was, n) - getattr(truth, n)), n

def test_the_order_of_the_answers_does_not_count():
    df = FittedParticipants(30, seed=5).judge(thrice(10), 3, n_repeats=3)
    a, b = (pd.Series(asdict(fit_crowd(o, PairFits.shipped('partial'), n_crowds=1, n_steps=2))) for o in (df, df.sample(frac=1, random_state=0)))
    assert (a-b).abs().max() < .03

def test_all_constants_are_found_again():
    t = recover_crowd(FittedParticipants(81).judge(thrice(), 2, n_repeats=4), n_studies=4, n_crowds=4)
    assert list(t.index) == [f.name for f in fields(Crowd)]
    assert ((t['mean'] - t.truth).abs() < 2.5*t['sd'] + .06).all(), t

def test_what_the_answers_do_not_tell_stays():
    df = FittedParticipants(30).judge(BLENDS[::4], 3) # no repeats, no images in two blends
    start = replace(Crowd.shipped(), image=.11, view=.44)
    found = fit_crowd(df, PairFits.shipped('partial'), start, n_crowds=1, n_steps=2)
    assert (found.image, found.view) == (.11, .44) and found.blend != start.blend
    plain = fit_crowd(df.assign(lam_h=df.lam_h.replace(.5, .51), confidence=.7), PairFits.shipped('partial'), n_crowds=1, n_steps=2)
    assert all(np.isfinite(list(asdict(plain).values()))) and plain.middle < -1.5

def test_wrong_constants():
    with pytest.raises(ValueError, match='sure_person: found -0.1'): Crowd(sure_person=-.1)
    with pytest.raises(TypeError, match='vew'): Variation(vew=1)
    with pytest.raises(ValueError, match="no column 'confidence'"): fit_crowd(alone(9).assign(lam_h=.5, stimulus='x'))

def test_no_torch():
    code = "import sys, hmix_nb.softlabels.blends as b; b.FittedParticipants(2); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0

def test_the_shipped_crowd_is_what_the_fit_finds(hub, tmp_path):
    kept = json.loads(ship_crowd(hub, tmp_path/'b.json').read_text(encoding='utf-8'))
    shipped = asdict(Crowd.shipped())
    assert {k: round(abs(v - shipped[k]), 3) for k, v in kept['crowd'].items() if abs(v - shipped[k]) > .01} == {}
    assert kept['meta']['sha256'] == hub.files['h-mix/hmix_infer_mixing_factor.csv'].sha256

def test_like_the_people_of_hmix(hub):
    from hmix_nb.data.judgments import coefficient
    real = coefficient(hub)
    many = FittedParticipants(10_000, seed=7).judge(real.drop_duplicates('stimulus'), 5)
    apart = distances(many, real)
    assert (apart.ks < .085).all() and (apart.wasserstein < .03).all() and (apart.ks.groupby('answer').mean() < .06).all()
    made = pd.concat([blend_statistics(blend_answers(real, salt=f'/test {i}')) for i in range(8)], axis=1)
    off = (blend_statistics(real) - made.mean(axis=1)).abs()
    assert off[[f'{t}: at {o}' for t in ('λ_h', 'ω') for o in ('0', '½', '1')]].max() < .03
    assert off[off.index.str.contains('share of|sd ')].max() < .07 and off[off.index.str.contains('mean, λ')].max() < .03

def test_as_near_to_those_held_out_as_people_are(hub):
    from hmix_nb.data.judgments import coefficient
    mean = hold_out(coefficient(hub), 3, n_crowds=4).groupby(['answer', 'who']).mean()
    for tag in ('λ_h', 'ω'): assert mean.ks[tag, 'fitted'] < 1.2*mean.ks[tag, 'other half'] + .01
