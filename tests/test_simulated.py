"Simulated participants: who sees what, answers that do not depend on the order, and the published aggregates."
import subprocess, sys, time
import numpy as np, pandas as pd, pytest
from hypothesis import given, settings, strategies as st
from sklearn.datasets import load_digits
from hmix_nb.core import Stimulus
from hmix_nb.data.simulated import (Population, SimulatedParticipants, ambiguity, clean_stimuli, draw_stimuli,
                                    name_stimuli)

COLUMNS = ['participant', 'stimulus', 'class_a', 'id_a', 'class_b', 'id_b', 'lam_f', 'lam_h', 'confidence', 'repeat',
           'position', 'rt_s', 'round']
CLASSES = tuple('0123456789')

@pytest.fixture(scope='module')
def blends(): return draw_stimuli(load_digits().target, 10, classes=CLASSES)

@pytest.fixture(scope='module')
def crowds():
    "H-Mix ten times, by other people each time."
    hmix = draw_stimuli(np.arange(7000) % 10, 46)
    return [SimulatedParticipants(81, seed=i).judge(hmix, n_repeats=2) for i in range(10)]

def test_no_torch():
    code = "import sys, hmix_nb.data.simulated; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0

def test_answers_look_like_those_of_people(blends):
    df = SimulatedParticipants(30, seed=2).judge(blends, n_repeats=2)
    assert list(df) == COLUMNS and not df.isna().any().any()
    assert df.id_a.dtype == df.position.dtype == np.int64 and df['repeat'].dtype == bool
    for o in ('lam_h', 'confidence'):
        assert df[o].between(0, 1).all() and np.allclose(df[o]*100, (df[o]*100).round(), atol=1e-9)
    assert (df.rt_s > 0).all()
    for _, g in df.groupby('participant'):
        assert g.position.tolist() == list(range(len(g))) and g['repeat'].tolist() == [False]*(len(g)-2) + [True]*2
        assert g.stimulus.iloc[-2:].tolist() == g.stimulus.iloc[[15, 20]].tolist()
        assert g.stimulus[~g['repeat']].is_unique

@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 90), st.integers(1, 6), st.integers(0, 9))
def test_everybody_gets_a_fair_share(n, n_stimuli, per, seed):
    per = min(per, n)
    stimuli = name_stimuli(pd.DataFrame(dict(class_a='cat', id_a=range(n_stimuli), class_b='dog', id_b=0, lam_f=.5)))
    df = SimulatedParticipants(n, seed).judge(stimuli, per)
    assert len(df) == n_stimuli*per and not df.duplicated(['participant', 'stimulus']).any()
    assert (df.groupby('stimulus').size() == per).all()
    loads = df.groupby('participant').size().reindex([f'sim{seed}-{i:03d}' for i in range(n)], fill_value=0)
    assert loads.max() - loads.min() <= per

def test_a_panel_is_everybody(blends):
    df = SimulatedParticipants(4).judge(blends, per_stimulus=None)
    assert len(df) == 4*len(blends) and (df.groupby('stimulus').participant.nunique() == 4).all()

def test_same_seed_same_answers_and_other_seed_other_people(blends):
    a, b, c = (SimulatedParticipants(6, seed=i).judge(blends) for i in (0, 0, 1))
    pd.testing.assert_frame_equal(a, b)
    assert not set(a.participant) & set(c.participant) and not np.array_equal(a.lam_h, c.lam_h)

def test_an_answer_depends_on_nothing_but_the_look(blends):
    people = SimulatedParticipants(12, seed=3)
    table = people.judge(blends, n_repeats=2)
    few = table.sample(25, random_state=0).to_dict('records') + table[table['repeat']].head(5).to_dict('records')
    for r in few:
        one = blends[blends.stimulus == r['stimulus']]
        how = {k: r[k] for k in ('participant', 'repeat', 'position')}
        alone = SimulatedParticipants(12, seed=3).judge(one, **how)
        assert alone.iloc[0].to_dict() == r
    turned = people.judge(blends[::-1], per_stimulus=None)
    whole = SimulatedParticipants(5, seed=3).judge(blends, per_stimulus=None)
    both = turned.merge(whole, on=['participant', 'stimulus'])
    assert len(both) == len(whole)
    assert (both.lam_h_x == both.lam_h_y).all() and (both.confidence_x == both.confidence_y).all()

def test_what_is_hard_about_a_blend_is_hard_for_other_people_too(blends):
    half = blends.assign(lam_f=.5)
    a, b = (SimulatedParticipants(40, seed=i).judge(half, None).groupby('stimulus').lam_h.mean() for i in (0, 1))
    assert np.corrcoef(a, b)[0, 1] > .7

def test_two_looks_are_closer_than_two_people(crowds):
    df = pd.concat(crowds)
    twice = df[df['repeat']].merge(df[~df['repeat']], on=['participant', 'stimulus'])
    two = df[~df['repeat']].merge(df[~df['repeat']], on='stimulus')
    two = two[(two.participant_x < two.participant_y) & (two.participant_x.str[:5] == two.participant_y.str[:5])]
    looks, people = ((o.lam_h_x - o.lam_h_y).abs().mean() for o in (twice, two))
    assert abs(looks - .107) < .025 and abs(people - .188) < .03 # both as in H-Mix
    assert np.corrcoef(twice.lam_h_x, twice.lam_h_y)[0, 1] == pytest.approx(.855, abs=.05)

def test_the_published_aggregates(crowds):
    "Tolerances: medians .04, quartiles .08 (one of them sits at the edge of the pile at one half), confidence .03."
    published = np.array([[0, .08, .21], [.03, .14, .34], [.30, .50, .62], [.50, .83, .99], [.77, .92, 1]])
    found = np.mean([c.groupby('lam_f').lam_h.quantile([.25, .5, .75]).unstack() for c in crowds], 0)
    assert np.abs(found - published)[:, 1].max() < .04 and np.abs(found - published).max() < .08
    assert np.mean([(c.lam_h == .5).mean() for c in crowds]) == pytest.approx(.136, abs=.02)
    stats = []
    for c in crowds:
        fold = np.minimum(c.lam_f, 1-c.lam_f).round(2)
        by_blend = c.groupby([fold, 'stimulus']).confidence.mean().groupby(level=0)
        by_person = c.groupby([fold, 'participant']).confidence.mean().groupby(level=0)
        stats.append([by_blend.mean(), by_blend.std(), by_person.std(), c.groupby(fold).confidence.std()])
    targets = [[.79, .72, .63], [.17, .20, .20], [.121, .136, .143], [.23, .27, .27]]
    assert np.abs(np.mean(stats, 0) - targets).max() < .03

def test_the_shape_of_the_answers(crowds):
    from scipy.optimize import curve_fit
    df = pd.concat(crowds)
    (k, x0), _ = curve_fit(lambda x, k, x0: 1/(1 + np.exp(-k*(x-x0))), df.lam_f, df.lam_h, p0=(4, .5))
    assert k == pytest.approx(4.586, abs=.4) and x0 == pytest.approx(.522, abs=.012)
    ends = df.lam_h.isin([0, 1]).groupby(df.participant).mean()
    assert ends.min() < .02 and ends.max() > .8 and ends.mean() == pytest.approx(.232, abs=.05)
    assert ((df.lam_h == .5) & (df.confidence == .5)).mean() == pytest.approx(.033, abs=.012)
    assert df.confidence.corr((df.lam_h - .5).abs()) > .45
    assert df.rt_s.median() == pytest.approx(8.4, abs=.8)
    assert df.rt_s[df.position == 0].median() > 1.5*df.rt_s[df.position > 40].median()

def test_real_people_and_simulated_ones(hub, crowds):
    from hmix_nb.data.judgments import coefficient
    real, df = coefficient(hub), pd.concat(crowds)
    for o in ('lam_h', 'confidence'):
        gap = real.groupby('lam_f')[o].mean() - df.groupby('lam_f')[o].mean()
        assert gap.abs().max() < .04
    share = lambda d: d.lam_h.isin([0, 1]).groupby(d.lam_f).mean()
    assert (share(real) - share(df)).abs().max() < .09

@pytest.mark.parametrize('lam, end', [(0., 0.), (1., 1.)])
def test_unblended_images_are_clear(blends, lam, end):
    df = SimulatedParticipants(81).judge(blends.assign(lam_f=lam), 4)
    near = (df.lam_h - end).abs()
    assert (near < .05).mean() > .85 and near.median() == 0 and df.confidence.mean() > .9

def test_no_spread_no_difference(blends):
    calm = {f: 0. for f in vars(Population()) if f.endswith('_sd')}
    df = SimulatedParticipants(5, population=Population(untouched=1e-9, **calm)).judge(blends.assign(lam_f=.75), None)
    assert df.lam_h.unique().tolist() == [.8] and df.confidence.nunique() == 1

def test_stimuli_are_balanced_named_and_drawn_from_the_ids():
    y = load_digits().target
    df = draw_stimuli(y, 46, classes=CLASSES, ids=range(900), seed=4)
    assert len(df) == 45*46 and df.stimulus.is_unique and max(df.id_a.max(), df.id_b.max()) < 900
    assert (df.groupby(['class_a', 'class_b']).size() == 46).all() and not df.duplicated(['id_a', 'id_b']).any()
    counts = df.groupby(['class_a', 'class_b', 'lam_f']).size().unstack()
    assert counts.to_numpy().min() >= 9 and counts.to_numpy().max() <= 10
    assert [CLASSES[y[i]] for i in df.id_a] == df.class_a.tolist()
    for r in df.head(50).itertuples():
        assert Stimulus.parse(r.stimulus, classes=None) == Stimulus(r.lam_f, r.class_a, r.id_a, r.class_b, r.id_b)
    pd.testing.assert_frame_equal(df, draw_stimuli(y, 46, classes=CLASSES, ids=range(900), seed=4))
    assert not df.equals(draw_stimuli(y, 46, classes=CLASSES, ids=range(900), seed=5))

def test_clean_images():
    d = load_digits()
    p = ambiguity(d.data, d.target)
    assert p.shape == (1797, 10) and np.allclose(p.sum(1), 1) and (p.argmax(1) == d.target).mean() > .95
    df = clean_stimuli(d.target, p, classes=CLASSES, ids=[5, 9])
    assert df.id_a.tolist() == df.id_b.tolist() == [5, 9]
    made = clean_stimuli([0, 0, 1], np.array([[.6, .3, .1], [1, 0, 0], [.2, .8, 0]]), classes='abc')
    assert made.class_a.tolist() == ['a', 'a', 'b'] and made.class_b.tolist() == ['b', 'b', 'a']
    assert made.lam_f.tolist() == [.667, 1., .8]
    with pytest.raises(ValueError, match='y has 2, p has 1'): clean_stimuli([0, 1], p[:1])

def test_a_panel_answers_everything_once():
    people, stimuli = SimulatedParticipants(20), draw_stimuli(load_digits().target, 23, classes=CLASSES)[:1000]
    answers = people.judge(stimuli, None)
    assert len(answers) == 20_000 and not answers.duplicated(['participant', 'stimulus']).any()

@pytest.mark.parametrize('change, message', [
    (dict(lam_f=1.2), 'lam_f: found 1.2'), (dict(lam_f=np.nan), 'lam_f: found nan'),
    (dict(stimulus='x'), "'x' is listed twice")])
def test_bad_stimuli_are_named(blends, change, message):
    with pytest.raises(ValueError, match=message): SimulatedParticipants(5).judge(blends.assign(**change))

def test_bad_arguments_are_named(blends):
    people = SimulatedParticipants(5)
    with pytest.raises(ValueError, match='stimuli: empty'): people.judge(blends[:0])
    with pytest.raises(ValueError, match="no column 'id_b'"): people.judge(blends.drop(columns='id_b'))
    with pytest.raises(ValueError, match='per_stimulus: found 6; allowed is 1 to 5'): people.judge(blends, 6)
    with pytest.raises(ValueError, match='n_repeats: found 3; allowed is up to'): people.judge(blends[:2], n_repeats=3)
    with pytest.raises(ValueError, match='participant: found 5'): people.judge(blends, participant=5)
    with pytest.raises(ValueError, match="participant: 'sim1-000' is unknown"):
        people.judge(blends, participant='sim1-000')
    with pytest.raises(ValueError, match='n: found 0'): SimulatedParticipants(0)
    with pytest.raises(ValueError, match='n_per_pair: found 9'): draw_stimuli([0, 1], 9)
    with pytest.raises(ValueError, match='y: found 10'): draw_stimuli([0, 10], 1)
    with pytest.raises(ValueError, match='lam_grid: found 2'): draw_stimuli([0, 1], 1, lam_grid=(.5, 2))
