"What people call half and half: laws on made tables, awkward tables, and the published numbers."
import subprocess, sys
from fractions import Fraction
import numpy as np, pandas as pd, pytest
from hypothesis import given, settings, strategies as st
from hmix_nb.analysis.midpoint import (agreement, name_interfaces, pair_means, plot_pair_means, plot_relabelled,
    plot_selections, relabelled, reliability, repeat_consistency, response_times, selection_counts, selection_spread,
    start_effect)
from hmix_nb.data.simulated import SimulatedParticipants, draw_stimuli

COLUMNS = ['participant', 'interface', 'start', 'pair', 'class_a', 'id_a', 'class_b', 'id_b', 'lam_h', 'lam_raw',
           'repeat', 'position', 'rt_s']
Y = np.arange(2000) % 10

@pytest.fixture(scope='module')
def pairs(): return draw_stimuli(Y, 3)

@pytest.fixture(scope='module')
def made(pairs): return SimulatedParticipants(45, seed=1).midpoint(pairs, 9, n_repeats=2)

@pytest.fixture(scope='module')
def chosen(pairs): return SimulatedParticipants(25, seed=2).midpoint(pairs, 5, interface='select-shuffled', n_repeats=2)

@pytest.fixture(scope='module')
def both(made, chosen): return pd.concat([made, chosen], ignore_index=True)

@pytest.fixture(scope='module')
def rq1(hub):
    from hmix_nb.data.judgments import construct, select_shuffled
    return construct(hub), select_shuffled(hub)

def table(lam_h, interface='construct', **more):
    "Somebody's own table, with as few columns as can be."
    who = [f'p{i}' for i in range(len(lam_h))]
    return pd.DataFrame(dict(interface=interface, participant=who, pair='A_1_B_2', lam_h=lam_h) | more)

def test_no_torch():
    code = "import sys, hmix_nb.analysis.midpoint; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0

# ---- counts and spread

def test_counts_are_a_plain_count(both):
    counts = selection_counts(both)
    assert counts.index.tolist() == ['Construct from 0.1', 'Construct from 0.9', 'Select-Shuffled']
    assert counts.columns.tolist() == [i/10 for i in range(11)] and counts.to_numpy().sum() == len(both)
    some = both[(both.start == .9) & np.isclose(both.lam_h, .6)]
    assert counts.loc['Construct from 0.9', .6] == len(some)
    assert selection_counts(both, repeats=False).loc['Construct from 0.9', .6] == (~some['repeat']).sum()

@pytest.mark.parametrize('lam_h, n', [([.5, .45], 21), ([.37], 101), ([1/3, .5], 2), ([0, 1.], 11), ([.9-.1-.1], 11)])
def test_the_grid_follows_the_answers(lam_h, n):
    counts = selection_counts(table(lam_h))
    assert counts.shape == (1, n) and counts.index.tolist() == ['Construct'] and counts.to_numpy().sum() == len(lam_h)

def test_an_interface_without_starts_and_one_with_gaps():
    assert set(name_interfaces(table([.5, .6]))) == {'Construct'}
    assert set(name_interfaces(table([.5, .6], start=[np.nan, .25]))) == {'Construct', 'Construct from 0.25'}
    assert set(name_interfaces(table([.5, .6], start=[0, 1]), by='all')) == {'All interfaces'}
    no_repeats = selection_counts(table([.5, .6], repeat=[True, True]), repeats=False)
    assert no_repeats.to_numpy().sum() == 0 and no_repeats.shape == (1, 11)

def test_spread_of_a_known_crowd():
    df = table([.5, .5, .5, .7], participant=['a', 'a', 'b', 'b'])
    s = selection_spread(df).loc['Construct']
    assert s['mean'][.5] == .75 and s['max'][.5] == 1 and s.n[.5] == 3
    assert s.sd[.7] == pytest.approx(np.std([0, .5], ddof=1))
    assert (s.people == 2).all() and (s.low <= s['mean']).all() and (s['mean'] <= s.high).all()
    assert selection_spread(table([.5])).loc[('Construct', .5), 'low'] != 0 # one person: no interval

def test_spread_adds_up(both):
    s = selection_spread(both)
    assert np.allclose(s.groupby('interface')['mean'].sum(), 1) and s.n.sum() == len(both)

# ---- relabelled pairs

@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 10), min_size=1, max_size=16), st.sampled_from([10, 15, 20, 25]))
def test_relabelled_is_exact_arithmetic(tenths, hundredths):
    found = relabelled(table([t/10 for t in tenths]), threshold=hundredths/100)
    want = abs(Fraction(sum(tenths), 10*len(tenths)) - Fraction(1, 2)) >= Fraction(hundredths, 100)
    assert (found.in_any == ['A_1_B_2']) == (found.in_all == ['A_1_B_2']) == want

def test_stored_floats_miss_a_tie():
    df = table([.6, .7]).assign(lam_raw=[.6, .7])
    assert relabelled(df).in_any == ['A_1_B_2'] and relabelled(df, exact=False).in_any == []
    with pytest.raises(ValueError, match="construct: no column 'lam_raw'"): relabelled(table([.6]), exact=False)

def test_a_pair_that_an_interface_never_showed_is_not_in_all():
    c, s = table([.9]), table([.9, .9], 'select', pair=['A_1_B_2', 'A_3_B_4'])
    r = relabelled(c, s)
    assert r.in_all == ['A_1_B_2'] and r.in_any == ['A_1_B_2', 'A_3_B_4'] and not r.table.loc['A_3_B_4'].same_side

def test_sides_target_and_one_interface():
    c, s = table([.9]), table([.1], 'select')
    assert relabelled(c, s).in_all == ['A_1_B_2'] and not relabelled(c, s).table.same_side.any()
    assert relabelled(c).table.same_side.all() and relabelled(c, target=.9).in_any == []
    assert relabelled(table([.35]), target=.3, threshold=.05).in_all == ['A_1_B_2']
    assert '1 of 1 pairs in all interfaces' in repr(relabelled(c)) and '<table' in relabelled(c)._repr_html_()

# ---- agreement

def test_agreement_is_the_correlation_of_means(made, chosen, both):
    a = agreement(made, chosen, n_boot=100)
    for by, first, second in (('interface', 'Construct', 'Select-Shuffled'),
                              ('start', 'Construct from 0.1', 'Construct from 0.9')):
        m = pair_means(both, by=by)['mean'].unstack('interface')
        assert a.r[first, second] == pytest.approx(m[first].corr(m[second]))
        assert a.pairs[first, second] == m[[first, second]].notna().all(axis=1).sum()
    assert (a.low < a.r).all() and (a.r < a.high).all() and (a.low <= a.low_pairs).all() and (a.least <= a.most).all()
    pd.testing.assert_frame_equal(a, agreement(made, chosen, n_boot=100))
    without = both[both.participant != both.participant[0]]
    m = pair_means(without, by='interface')['mean'].unstack('interface')
    assert a.least.iloc[0] - 1e-9 <= m.corr().iloc[0, 1] <= a.most.iloc[0] + 1e-9

def test_agreement_without_anything_to_compare(chosen):
    assert agreement(chosen).empty
    few = agreement(table([.5]), table([.6], 'select'), n_boot=10)
    assert np.isnan(few.r).all() and np.isnan(few.low).all() and few.pairs.tolist() == [1]

def test_reliability_is_that_of_split_halves(made):
    df, g, r = made[~made['repeat']], np.random.default_rng(0), []
    for _ in range(50):
        d = df.sample(frac=1, random_state=g)
        halves = d.groupby([d.pair, d.groupby('pair').cumcount() % 2]).lam_h.mean().unstack()
        r.append(halves[0].corr(halves[1]))
    assert reliability(df) == pytest.approx(2*np.mean(r)/(1+np.mean(r)), abs=.03)
    noise = df.assign(lam_h=g.permutation(df.lam_h))
    assert abs(reliability(noise)) < .35 and np.isnan(reliability(table([.5])))

# ---- starts

def test_start_effect_finds_effect_and_outlier(made):
    e = start_effect(made.assign(lam_h=made.lam_h.where(made.participant != 'sim1-003', 1.)))
    assert e.left_out.tolist() == ['', 'sim1-003'] and e.people.tolist() == [45, 44]
    d = made[made.participant != 'sim1-003']
    assert e.estimate.iloc[1] == pytest.approx(d[d.start == .9].lam_h.mean() - d[d.start == .1].lam_h.mean())
    assert (e.low < e.estimate).all() and (e.se > 0).all()

def test_rows_without_a_start_have_no_part(made, both):
    pd.testing.assert_frame_equal(start_effect(made), start_effect(both))
    three = start_effect(made.assign(start=made.start.where(made.participant != 'sim1-000', .5)))
    assert three.n.iloc[0] == len(made)

def test_a_stronger_pull_is_found(pairs):
    weak, strong = (start_effect(SimulatedParticipants(45, 1).midpoint(pairs, 9, pull=p)) for p in (0, 2.))
    assert strong.low['everybody'] > .07 > weak.estimate['everybody']

def test_two_people_are_too_few_to_leave_one_out():
    e = start_effect(table([.4, .5, .6, .7], participant=list('aabb'), start=[.1, .1, .9, .9], pair=list('xyxy')))
    assert e.index.tolist() == ['everybody'] and e.estimate.iloc[0] == pytest.approx(.2)

# ---- repeats and times

def test_repeat_consistency_by_hand():
    df = table([.5, .6, .4, .5, .8], participant=['a']*5, pair=['x', 'y', 'z', 'x', 'y'], position=range(5),
               repeat=[False, False, False, True, True])
    c = repeat_consistency(df).loc['Construct']
    assert c.n == 2 and [c.same, c.apart] == pytest.approx([.5, .1])
    assert c.same_chance == 0 and c.apart_chance == pytest.approx(((.1+.1)/2 + (.3+.4)/2)/2)

def test_repeats_that_have_no_first_answer_are_counted():
    df = table([.5, .6], participant=['a']*2, pair=['x', 'y'], position=range(2), repeat=[False, True])
    c = repeat_consistency(df).loc['Construct']
    assert c.n == 0 and c.unmatched == 1 and np.isnan(c.same)

def test_no_repeats_no_numbers(both):
    c = repeat_consistency(both[~both['repeat']])
    assert c.n.tolist() == [0]*3 and c[['same', 'apart', 'same_chance']].isna().all().all()

def test_response_times(both):
    t = response_times(both)
    assert t.loc['Select-Shuffled', 'median'] == both.rt_s[both.interface == 'select-shuffled'].median()
    gaps = response_times(both.assign(rt_s=both.rt_s.where(both.index % 2 == 0)))
    assert (gaps.n + gaps.missing).sum() == len(both) and gaps.missing.sum() == len(both)//2
    assert response_times(both.drop(columns='rt_s'))['median'].isna().all()
    last = both.position[both.interface == 'select-shuffled'].max()
    assert response_times(both, 'position').loc['Select-Shuffled'].index.tolist() == list(range(last+1))

# ---- bad tables

@pytest.mark.parametrize('f', [selection_counts, selection_spread, pair_means, relabelled, agreement, plot_selections,
                               plot_pair_means])
@pytest.mark.parametrize('change, message', [(dict(lam_h=[.5, 1.5]), "'lam_h' has 1.5 in row 1"),
                                             (dict(lam_h=[np.nan, .5]), "'lam_h' has nan in row 0"),
                                             (dict(interface=[None, 'x']), "'interface' has \\w+ in row 0")])
def test_bad_values_are_named(f, change, message):
    with pytest.raises(ValueError, match=message): f(table([.5, .6]).assign(**change))

def test_bad_tables_are_named(made):
    with pytest.raises(ValueError, match="no column 'lam_h'"): selection_counts(made.drop(columns='lam_h'))
    with pytest.raises(ValueError, match="'start' has 9.0 in row 1"): selection_counts(table([.5, .5], start=[.1, 9]))
    with pytest.raises(ValueError, match="select: column 'lam_h' has 2.0 in row 7"):
        relabelled(made, table([2.]).set_axis([7]))
    with pytest.raises(ValueError, match='empty'): selection_counts(made[:0])
    with pytest.raises(ValueError, match="'repeat' has 'maybe'"): repeat_consistency(made.assign(repeat='maybe'))
    with pytest.raises(ValueError, match='allowed are two or more'): start_effect(made[made.start == .9])
    with pytest.raises(ValueError, match='threshold'): relabelled(made, threshold=2)

# ---- figures

def texts(fig): return [t.get_text() for ax in fig.axes for t in ax.texts]

@pytest.fixture
def images(): return np.random.default_rng(0).integers(0, 255, (2000, 8, 8, 3), dtype=np.uint8)

def test_figures_say_what_they_find(both):
    axs = plot_selections(both)
    off = (both.lam_h != .5).mean()
    assert len(axs) == 3 and axs[0].figure._suptitle.get_text().startswith(f'{off:.0%} of {len(both)} picks')
    axs = plot_pair_means(both)
    drawn = [sum(p.get_height() for p in ax.patches) for ax in axs]
    assert drawn == [pair_means(both).loc[n].shape[0] for n in sorted(set(name_interfaces(both)))]

@pytest.mark.parametrize('plot', [plot_selections, plot_pair_means])
def test_figures_of_small_tables(plot):
    for df in (table([.5]), table([.35, .4]), table([1/3, .5], pair=['x', 'y'])): plot(df)[0].figure._repr_png_()

def test_light_bars_are_the_relabelled_pairs(both):
    from matplotlib.colors import same_color
    from hmix_nb.figures import MIXUP
    far = relabelled(both).table
    for ax, name in zip(plot_pair_means(both), sorted(set(name_interfaces(both)))):
        light = sum(p.get_height() for p in ax.patches if same_color(p.get_facecolor(), MIXUP))
        assert light == ((far[name]-.5).abs() >= .15 - 1e-9).sum()

def test_outlines(images):
    def outlines(lam_h):
        df = table(lam_h).assign(class_a='a', id_a=0, class_b='b', id_b=1)
        ax = plot_relabelled(df, images=images)[0]
        return [(round(p.get_x()/12 + .2), p.get_linestyle() in ('-', 'solid')) for p in ax.patches], texts(ax.figure)
    assert outlines([.7, .7, .8])[0] == [(7, True), (8, False)]
    found, said = outlines([.7, .7, .8, .8, .9])
    assert found == [(7, True), (8, True)] and said.count('2 tie') == 2 and '1' in said
    assert outlines([.7, .7, .8, .9])[0] == [(7, True), (8, False), (9, False)]

def test_relabelled_figure_checks_its_images(made, chosen, images):
    from types import SimpleNamespace
    axs = plot_relabelled(made, chosen, images, n=2)
    assert len(axs) == 2 and str(len(relabelled(made, chosen).in_all)) in axs[0].figure._suptitle.get_text()
    labels = SimpleNamespace(x=images, y=Y, classes=['x']*10)
    with pytest.raises(ValueError, match="is of class 'x'"): plot_relabelled(made, chosen, labels)
    with pytest.raises(ValueError, match='id_a, id_b'): plot_relabelled(made, chosen, images[:5])
    with pytest.raises(ValueError, match='pairs:'): plot_relabelled(made, chosen, images, pairs=['Cat_1_Dog_2'])

# ---- simulated people

def test_simulated_answers_have_the_columns_of_the_real_ones(made, chosen):
    for df in (made, chosen):
        assert list(df) == COLUMNS and df.notna().drop(columns='start').all().all() and df['repeat'].dtype == bool
        assert df.id_a.dtype == df.position.dtype == np.int64 and (df.lam_h == df.lam_raw).all()
        assert set(df.lam_h) <= {i/10 for i in range(11)}
        assert not df[~df['repeat']].duplicated(['participant', 'pair']).any()
    assert made.groupby('participant').start.nunique().eq(1).all() and chosen.start.isna().all()
    assert made.groupby('start').participant.nunique().tolist() == [23, 22]

def test_simulated_like_the_real_table(rq1):
    df = SimulatedParticipants(3).midpoint(draw_stimuli(Y, 1), None)
    assert list(df) == list(rq1[0]) and (df.dtypes == rq1[0].dtypes).all()

def test_simulated_answers_do_not_depend_on_what_else_was_asked(pairs):
    people = SimulatedParticipants(6, seed=4)
    whole, part = people.midpoint(pairs, None), people.midpoint(pairs[10:20], None)
    m = part.merge(whole, on=['participant', 'pair'])
    assert len(m) == 60 and (m.lam_h_x == m.lam_h_y).all() and (m.start_x == m.start_y).all()
    pd.testing.assert_frame_equal(part, SimulatedParticipants(6, seed=4).midpoint(pairs[10:20], None))

def test_a_pick_is_what_the_same_person_sees_as_half(pairs):
    "Whoever sees much of the first image in a blend of little of it, in `judge`, picks a blend with less of it."
    people = SimulatedParticipants(10, seed=5)
    from hmix_nb.data.simulated import name_stimuli
    picks = people.midpoint(pairs[:20], None, pull=0)
    stated = people.judge(name_stimuli(pairs[:20].assign(lam_f=.1)), None)
    picked = picks.merge(stated, on=['participant', 'id_a', 'id_b'])
    low, high = picked[picked.lam_h_y <= .1], picked[picked.lam_h_y >= .3]
    assert low.lam_h_x.mean() > high.lam_h_x.mean() + .02

@pytest.mark.parametrize('change, message', [
    (dict(interface='select'), "interface: 'select' is unknown"), (dict(start=9), 'start: found 9'),
    (dict(pull=-1), 'pull: found -1'), (dict(per_pair=99), 'found 99; allowed is 1 to 5'),
    (dict(pairs=pd.DataFrame(dict(class_a=['a']))), "no column 'id_a'")])
def test_bad_questions_are_named(pairs, change, message):
    with pytest.raises(ValueError, match=message): SimulatedParticipants(5).midpoint(**dict(pairs=pairs) | change)
    twice = pd.concat([pairs, pairs])
    with pytest.raises(ValueError, match='is listed twice'): SimulatedParticipants(5).midpoint(twice)

# ---- the released study: numbers counted independently from its files

def test_the_published_counts(rq1):
    con, sel = rq1
    df = pd.concat(rq1, ignore_index=True)
    assert [df.participant.nunique(), con.participant.nunique(), sel.participant.nunique()] == [70, 45, 25]
    assert con.groupby('start').participant.nunique().to_dict() == {.1: 22, .9: 23}
    assert df.pair.nunique()*11 == 2739 and set(con.pair) == set(sel.pair)
    counts = selection_counts(df)
    assert counts.to_numpy().tolist() == [[1, 3, 5, 50, 157, 232, 170, 76, 9, 0, 1],
                                          [1, 1, 9, 39, 127, 286, 173, 49, 15, 3, 33],
                                          [1, 5, 15, 71, 159, 236, 213, 68, 21, 8, 3]]
    assert selection_counts(df, repeats=False).sum(axis=1).tolist() == [660, 690, 750]
    n = pair_means(df).n.unstack()
    assert n.to_numpy().min() >= 2
    n = pair_means(df, by='interface').n.groupby('interface')
    assert [n.min().tolist(), n.max().tolist()] == [[4, 2], [16, 11]]

@pytest.mark.parametrize('how, want', [(dict(), (11, 107)), (dict(exact=False), (9, 101)),
                                       (dict(by='interface'), (15, 69))])
def test_the_published_relabelled_pairs(rq1, how, want):
    r = relabelled(*rq1, **how)
    assert (len(r.in_all), len(r.in_any)) == want and set(r.in_all) <= set(r.in_any)
    if how.get('exact') is False:
        assert set(r.in_all) < set(relabelled(*rq1).in_all)
        m = pd.concat(rq1, ignore_index=True)
        modes = m[m.pair.isin(r.in_all)].groupby('pair').lam_h.agg(lambda v: len(v.mode()))
        assert (modes > 1).sum() == 4 # rows of Fig. 4 that are split

def test_the_published_agreement(rq1):
    df, a = pd.concat(rq1, ignore_index=True), agreement(*rq1, n_boot=200)
    assert a.r['Construct', 'Select-Shuffled'] == pytest.approx(.572, abs=5e-4)
    assert a.r['Construct from 0.1', 'Construct from 0.9'] == pytest.approx(.427, abs=5e-4)
    assert df.groupby(name_interfaces(df)).lam_h.median().tolist() == [.5]*3
    assert (a.pairs == 249).all() and a.ceiling['Construct', 'Select-Shuffled'] == pytest.approx(.64, abs=.03)

def test_one_person_makes_the_start_effect(rq1):
    e = start_effect(rq1[0])
    assert e.estimate.round(3).tolist() == [.025, .004] and e.n.tolist() == [1440, 1408]
    assert (e.low < 0).all() and (e.high > 0).all()

def test_the_published_repeats(rq1):
    c = repeat_consistency(pd.concat(rq1, ignore_index=True))
    assert c.n.tolist() == [44, 46, 50] and c.unmatched.sum() == 0
    assert c.same.round(3).tolist() == [.477, .391, .36] and c.apart.round(3).tolist() == [.059, .087, .092]
    assert (c.same > c.same_chance).all() and (c.apart < c.apart_chance).all()
