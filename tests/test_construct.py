"Answers to soft labels: the laws, the two releases, a step-by-step reference, and answers that nobody can read."
import importlib.util, json, subprocess, sys, time
from pathlib import Path
import numpy as np, pandas as pd, pytest
from hypothesis import given, settings, strategies as st
from hmix_nb.core import CIFAR10
from hmix_nb.data.judgments import categorical
from hmix_nb.softlabels.construct import (RULES, SPREADS, VARIETIES, check_similarity, glove, match_labels, rule_changes,
                                          ship_confusions, similarity, smooth_hard, soft_labels)

spec = importlib.util.spec_from_file_location('bench_softlabels', Path(__file__).parent.parent/'bench'/'softlabels.py')
bench = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bench)

def table(rows): return pd.DataFrame(rows, columns=['first', 'first_prob', 'second', 'second_prob', 'impossible'])
names, shares = st.sampled_from(CIFAR10), st.one_of(st.integers(0, 100).map(lambda k: k/100), st.floats(0, 1))
ticks = st.sets(names).map(lambda s: tuple(c for c in CIFAR10 if c in s))
one = st.tuples(names, shares.filter(lambda p: p > 1e-6), st.none() | names, st.just(np.nan) | shares.filter(lambda p: p > 1e-6), ticks)
answers = st.lists(one, min_size=1, max_size=60).map(table) # a share of 0 and all ruled out is refused, see below
options = st.tuples(st.sampled_from(VARIETIES), st.sampled_from(SPREADS), st.floats(0, 1), st.sampled_from(RULES))
many = settings(max_examples=150, deadline=None) # of up to 60 answers each

def masks(df):
    "Named, ruled out, both (N, K)."
    named = np.array([[c == f or (c == s and q == q) for c in CIFAR10] for f, s, q in zip(df['first'], df.second, df.second_prob)])
    return named, np.array([[c in t for c in CIFAR10] for t in df.impossible])

@many
@given(answers, options)
def test_every_label_is_a_distribution(df, how):
    y = soft_labels(df, *how)
    assert y.shape == (len(df), 10) and y.dtype == np.float64
    assert (y >= 0).all() and np.abs(y.sum(1) - 1).max() < 1e-12

@many
@given(answers, options)
def test_as_the_reference_does_it(df, how):
    variety, spread, gamma, rule = how
    want = bench.loop(df.to_dict('records'), variety=variety, spread=spread, gamma=gamma, rule=rule, alike=similarity())
    np.testing.assert_allclose(soft_labels(df, *how), want, rtol=0, atol=1e-12)

@many
@given(answers, st.sampled_from(VARIETIES), st.floats(0, 1), st.sampled_from(RULES))
def test_clamp_gives_nothing_to_what_was_ruled_out(df, variety, gamma, rule):
    named, out = masks(df)
    assert (soft_labels(df, variety, 'clamp', gamma, rule)[out & ~named] == 0).all()

@many
@given(answers, answers, options)
def test_uniform_and_semantic_do_not_look_at_the_ticks(df, other, how):
    variety, spread, gamma, rule = how
    if spread == 'clamp': spread = 'uniform'
    swapped = df.assign(impossible=(list(other.impossible)*len(df))[:len(df)])
    np.testing.assert_array_equal(soft_labels(df, variety, spread, gamma, rule), soft_labels(swapped, variety, spread, 1-gamma, rule))

@many
@given(answers, options)
def test_t1_ignores_the_second_class(df, how):
    alone = df.assign(second=None, second_prob=np.nan)
    np.testing.assert_array_equal(soft_labels(df, 'T1', *how[1:]), soft_labels(alone, 'T1', *how[1:]))
    np.testing.assert_array_equal(soft_labels(alone, 'T2', *how[1:]), soft_labels(alone, 'T1', *how[1:]))

@many
@given(st.lists(st.tuples(names, st.integers(1, 100), names, ticks), min_size=1, max_size=60), st.sampled_from(RULES))
def test_without_gamma_what_is_complete_stays(rows, rule):
    df = table([(f, p/100, s if s != f and p < 100 else None, (100-p)/100 if s != f and p < 100 else np.nan, t) for f, p, s, t in rows])
    df = df[(df.second.notna()) | (df.first_prob == 1)]
    if not len(df): return
    want = np.zeros((len(df), 10))
    for i, r in enumerate(df.itertuples()):
        want[i, CIFAR10.index(r.first)] += r.first_prob
        if isinstance(r.second, str): want[i, CIFAR10.index(r.second)] += r.second_prob
    for spread in SPREADS: np.testing.assert_array_equal(soft_labels(df, 'T2', spread, 0, rule), want)

@many
@given(answers, st.sampled_from(VARIETIES), st.sampled_from(RULES))
def test_alike_to_all_is_uniform(df, variety, rule):
    semantic = soft_labels(df, variety, 'semantic', rule=rule, similarity=np.full((10, 10), .3))
    np.testing.assert_allclose(semantic, soft_labels(df, variety, 'uniform', rule=rule), rtol=0, atol=1e-12)
    np.testing.assert_allclose(soft_labels(df, variety, 'semantic', similarity=-np.ones((10, 10))), soft_labels(df, variety, 'uniform'), atol=1e-12)

@many
@given(answers, options, st.permutations(range(10)))
def test_the_order_of_classes_and_answers_does_not_matter(df, how, order):
    mixed, alike = [CIFAR10[k] for k in order], similarity()
    y = soft_labels(df.iloc[::-1], *how, classes=mixed, similarity=alike[np.ix_(order, order)])
    np.testing.assert_allclose(y[::-1], soft_labels(df, *how)[:, order], rtol=0, atol=1e-12)

def test_by_hand():
    df = table([('cat', .5, 'dog', .2, ('ship',)), ('cat', 1., None, np.nan, CIFAR10[2:]), ('cat', .9, 'dog', .6, CIFAR10[:8])])
    rest = .3/7
    np.testing.assert_allclose(soft_labels(df)[0], [rest, rest, rest, .5, rest, .2, rest, rest, 0, rest])
    # the cat is ruled out: two classes possible, one named, so γ is for one, but two are open
    np.testing.assert_allclose(soft_labels(df)[1], np.r_[.1, .1, 0, .9, [0]*6]/1.1)
    np.testing.assert_allclose(soft_labels(df, rule='clean')[1], [.05, .05, 0, .9] + [0]*6)
    # both are ruled out: as many possible as named, so nothing is spread although two classes are open
    np.testing.assert_allclose(soft_labels(df)[2, [3, 5, 8, 9]], [.6, .4, 0, 0])
    np.testing.assert_allclose(soft_labels(df, rule='clean')[2, [3, 5, 8, 9]], [.54, .36, .05, .05])

def test_a_class_named_twice():
    df = table([('cat', .9, 'cat', .3, CIFAR10[:3] + CIFAR10[4:])])
    assert soft_labels(df)[0, 3] == 1
    df = table([('cat', .9, 'cat', .3, CIFAR10[:3])])
    assert soft_labels(df)[0, 3] == pytest.approx(.3) and soft_labels(df, rule='clean')[0, 3] == pytest.approx(.9)

def test_more_than_all():
    df = table([('cat', 1., 'dog', .04, CIFAR10[6:])]) # h-mix: γ/2 is more than the dog has; the class stays named
    np.testing.assert_allclose(soft_labels(df, rule='h-mix')[0], np.r_[[.025]*3, .95, .025, 0, [0]*4]/1.05)
    np.testing.assert_allclose(soft_labels(df)[0], np.r_[[.025]*3, .9/1.04, .025, .036/1.04, [0]*4])

def test_nothing_negative_where_both_classes_are_ruled_out_and_one_is_open():
    df = table([('cat', .5, 'dog', .2, tuple(c for c in CIFAR10 if c != 'frog'))]) # one possible, two named
    np.testing.assert_allclose(soft_labels(df)[0, [3, 5, 6]], [5/7, 2/7, 0])
    np.testing.assert_allclose(soft_labels(df, rule='clean')[0, [3, 5, 6]], [.5, .2, .3])

GOOD = ('cat', .8, 'dog', .1, ('ship',))
@pytest.mark.parametrize('change, reason', [
    (dict(first_prob=-.1), 'first_prob: found -0.1'), (dict(first_prob=1.5), 'first_prob: found 1.5'), (dict(first_prob=80), 'found 80'),
    (dict(first_prob=np.nan), 'first_prob: missing'), (dict(first_prob=np.inf), 'first_prob: found inf'), (dict(first_prob='.8'), "found '.8'"),
    (dict(first_prob=True), 'found True'), (dict(second_prob=-1.), 'second_prob: found -1.0'), (dict(second_prob=2.), 'second_prob: found 2.0'),
    (dict(second_prob=-np.inf), 'second_prob: found -inf'), (dict(second_prob='ten'), "second_prob: found 'ten'"),
    (dict(first='doge'), "Did you mean 'dog'"), (dict(first=None), 'first: missing'), (dict(first=3), 'first: 3 is unknown'),
    (dict(first=['cat']), 'first:'), (dict(first=np.array(['cat', 'dog'])), 'first:'), (dict(second='none'), "second: 'none' is unknown"), (dict(second=['dog']), 'second:'),
    (dict(impossible=('ship', 'boat')), "impossible: 'boat' is unknown"), (dict(impossible='ship'), "impossible: found 'ship'"),
    (dict(impossible=None), 'impossible: missing'), (dict(impossible=np.nan), 'impossible: missing'),
    (dict(impossible=[['ship']]), "impossible: found"), (dict(first_prob=0., second=None, impossible=CIFAR10), 'no class has a share')])
def test_an_answer_that_cannot_be_read(change, reason):
    bad = dict(zip(['first', 'first_prob', 'second', 'second_prob', 'impossible'], GOOD)) | change
    df = table([GOOD, tuple(bad.values()), GOOD]).set_axis(['x', 'y', 'z'])
    with pytest.raises(ValueError, match="answers: row 'y': ") as e: soft_labels(df)
    assert reason in str(e.value) and '1 of 3 answers are unreadable' in str(e.value)
    built = soft_labels(df, errors='collect')
    labels, left_out = built
    assert left_out.index.tolist() == ['y'] and reason in left_out.reason.item() and list(left_out)[:-1] == list(df)
    assert built.kept.tolist() == [0, 2] and '2 labels, 1 answers left out' in repr(built)
    np.testing.assert_array_equal(labels, soft_labels(df.loc[['x', 'z']]))

def test_what_is_accepted():
    df = table([('cat', 1., 'dog', .9, CIFAR10), ('cat', .8, 'dog', np.nan, ()), ('cat', .8, None, .3, ()), ('cat', 0., 'dog', .4, ())])
    y = soft_labels(df)
    np.testing.assert_allclose(y[0, [3, 5]], [1/1.9, .9/1.9])
    np.testing.assert_array_equal(y[1], y[2]) # a share without a class, or a class without a share, says nothing
    assert y[3, 5] == pytest.approx(.4) and y[3, 3] == pytest.approx(.6/9)
    for same in (df.assign(impossible=df.impossible.map(list)), df.assign(impossible=df.impossible.map(set)),
                 df.assign(first=df['first'].astype('category')), df.astype(dict(first_prob='Float64', second_prob='Float64', second=object))):
        np.testing.assert_array_equal(soft_labels(same), y)

def test_all_forms_of_a_table():
    df = bench.made_up(400)
    want, rows = soft_labels(df), dict(arrays=df.assign(impossible=[np.array(t, dtype=str) for t in df.impossible]),
        sets=df.assign(impossible=df.impossible.map(set)), frozen=df.assign(impossible=df.impossible.map(frozenset)))
    arrow = pd.array(df.impossible.map(list), dtype=pd.ArrowDtype(pa.list_(pa.string()))) if (pa := arrow_or_none()) else df.impossible
    for name, same in (bench.forms(df) | rows | dict(arrow=df.assign(impossible=arrow))).items():
        np.testing.assert_array_equal(soft_labels(same), want, err_msg=name)

def arrow_or_none():
    try: import pyarrow
    except ImportError: return None
    return pyarrow

def test_fast_whatever_form_the_table_has(): # in processor time, so that other work on the machine does not count
    def ms(f, n):
        times = []
        for _ in range(n):
            start = time.process_time()
            f()
            times.append(time.process_time() - start)
        return min(times)*1e3
    df = bench.made_up()
    rows = df.to_dict('records')
    slow = ms(lambda: bench.loop(rows), 2)
    for name, same in bench.forms(df).items():
        assert slow > 12*ms(lambda: soft_labels(same), 20), name # bench/softlabels.py has the figures; a loop over rows is found

def test_shares_as_objects():
    from hmix_nb.core import as_floats64
    values = [.5, None, np.nan, pd.NA, pd.NaT, 1, np.float32(.25), np.int64(1), True, np.True_, '.5', 1j, [.5], np.inf, 10**400]
    want = [.5, *[np.nan]*4, 1, .25, 1, *[np.inf]*7]
    np.testing.assert_array_equal(as_floats64(pd.Series(values, dtype=object)), want)
    np.testing.assert_array_equal(as_floats64(pd.Series(values[:3] + values[5:8], dtype=object)), want[:3] + want[5:8])
    np.testing.assert_array_equal(as_floats64(pd.Series([True, False])), [np.inf]*2)
    np.testing.assert_array_equal(as_floats64(pd.Series([.5, np.nan, .25]).astype('category')), [.5, np.nan, .25])

def test_rows_and_arrays_are_told_as_they_are():
    df = table([GOOD, ('kat', *GOOD[1:])])
    for index, told in [(pd.MultiIndex.from_tuples([(1, 'a'), (2, 'b')]), r"row \(2, 'b'\): first"), ([3, 4], 'row 4: first'),
                        (pd.to_datetime(['2022-01-01', '2022-01-02']), r"row Timestamp\('2022-01-02 00:00:00'\)")]:
        with pytest.raises(ValueError, match=told): soft_labels(df.set_axis(index))
    with pytest.raises(ValueError, match=r"found \('ship', \['x'\]\); allowed is a tuple"): soft_labels(df.assign(impossible=[('ship', ['x'])]*2))
    for column in (np.array(['truck', 'ship']), [np.array('truck')]*2):
        with pytest.raises(ValueError, match="found 'truck'; allowed is a tuple, list, set or array of class names, also of one"): soft_labels(df.assign(impossible=column))

def test_gamma_of_one(): # the original adds to what is 0 after shares were shrunk
    df = table([('cat', .68, 'ship', .51, ()), ('cat', 1., None, np.nan, ('cat', 'dog')), ('cat', .6, 'dog', .4, ('cat',)), ('cat', .6, 'dog', .2, ())])
    y = soft_labels(df, gamma=1)
    np.testing.assert_allclose(y[0], np.full(10, .1))
    np.testing.assert_allclose(y[1], [1/8, 1/8, 1/8, 0, 1/8, 0, 1/8, 1/8, 1/8, 1/8]) # the cat is ruled out
    np.testing.assert_allclose(y[2], np.where(np.arange(10) == 3, 0, 1/9))
    np.testing.assert_allclose(y[3], soft_labels(df)[3]) # γ has no part in it
    np.testing.assert_allclose(soft_labels(df, gamma=1, rule='clean')[0], np.where(np.isin(np.arange(10), (3, 8)), 0, 1/8))
    np.testing.assert_allclose(soft_labels(df, gamma=1, rule='h-mix')[0, [3, 8, 0]], np.array([.18, .01, .125])/1.19)

def test_more_named_than_possible_at_any_gamma():
    df = table([('cat', .9, 'dog', .6, CIFAR10), ('cat', .9, 'dog', .6, tuple(c for c in CIFAR10 if c != 'frog'))])
    for gamma in (0, .1, 1):
        for rule in ('cifar-10s', 'h-mix'):
            y = soft_labels(df, gamma=gamma, rule=rule)
            if rule == 'cifar-10s': np.testing.assert_allclose(y[:, [3, 5, 6]], [[.6, .4, 0]]*2)
            assert (y >= 0).all()

def test_refusals():
    df, twice = table([GOOD]), table([GOOD])[['first', 'first', 'first_prob', 'second', 'second_prob', 'impossible']]
    for call, told in [(lambda: soft_labels(None), 'answers: found NoneType'), (lambda: soft_labels([1]), 'answers: found list'),
                       (lambda: soft_labels(df['first']), 'answers: found Series'), (lambda: soft_labels({}), 'answers: found dict'),
                       (lambda: soft_labels(twice), "answers: column 'first' twice"),
                       (lambda: soft_labels(df, gamma=np.full(1, .1)), r'gamma: found array\(\[0.1\]\); allowed is one number'),
                       (lambda: soft_labels(df, gamma=[.1, .2]), 'gamma: found'), (lambda: soft_labels(df, gamma='.1'), 'gamma: found'),
                       (lambda: soft_labels(df, gamma=None), 'gamma: found None'), (lambda: soft_labels(df, gamma=np.nan), 'gamma: found nan'),
                       (lambda: soft_labels(df, classes='cat'), "classes: found 'cat'"), (lambda: soft_labels(df, classes=None), 'classes: found None'),
                       (lambda: soft_labels(df, classes=()), 'classes: '), (lambda: soft_labels(df, 'T3'), 'variety'), (lambda: soft_labels(df, spread='glove'), 'spread'),
                       (lambda: soft_labels(df, gamma=1.1), 'gamma'), (lambda: soft_labels(df, rule='hmix'), "'h-mix'"),
                       (lambda: soft_labels(df, errors='ignore'), 'errors'), (lambda: soft_labels(df[:0]), 'empty'),
                       (lambda: soft_labels(df.drop(columns='first')), "no column 'first'"),
                       (lambda: soft_labels(df, classes=('cat', 'dog', 'ship', 'cat')), 'each once'),
                       (lambda: soft_labels(df, spread='semantic', classes=('cat', 'dog', 'ship', 'pie')), "'pie'"),
                       (lambda: soft_labels(df, spread='semantic', similarity=np.full((10, 10), np.nan)), 'similarity: found nan')]:
        with pytest.raises(ValueError, match=told): call()

def test_all_left_out():
    built = soft_labels(table([GOOD]).assign(first='x'), errors='collect')
    assert built.labels.shape == (0, 10) and len(built.left_out) == 1 and not len(built.kept)

def test_kept_are_positions_whatever_the_index():
    df = table([GOOD, ('kat', *GOOD[1:]), GOOD, ('cat', 0., None, np.nan, CIFAR10), ('dog', 1., None, np.nan, ())]).set_axis([7]*5)
    built = soft_labels(df, errors='collect')
    assert built.kept.tolist() == [0, 2, 4] and len(built.left_out) == 2
    np.testing.assert_array_equal(built.labels, soft_labels(df.iloc[built.kept]))
    everything = soft_labels(df.iloc[[0, 2]], errors='collect')
    assert everything.kept.tolist() == [0, 1] and everything.left_out.columns.tolist() == [*df, 'reason']

def test_two_classes(): # nothing may be left to give to
    df = table([('cat', .6, 'dog', .2, ()), ('cat', .6, None, np.nan, ('dog',))])
    for spread in SPREADS:
        y = soft_labels(df, spread=spread, classes=('cat', 'dog'), similarity=np.eye(2))
        np.testing.assert_allclose(y, [[.75, .25], [1., 0] if spread == 'clamp' else [.6, .4]])

def test_input_is_left_alone():
    df = table([GOOD, GOOD])
    before = df.copy()
    soft_labels(df, spread='semantic'), rule_changes(df)
    pd.testing.assert_frame_equal(df, before)

def test_semantic_goes_where_it_is_alike():
    y = soft_labels(table([('cat', .7, None, np.nan, ('dog',))]), spread='semantic')[0]
    alike = np.delete(similarity()[3], 3)
    np.testing.assert_allclose(np.delete(y, 3), .3*alike/alike.sum())
    assert CIFAR10[np.argsort(-y)[1]] == 'dog' # ruled out or not

def test_glove_files(tmp_path):
    f = tmp_path/'v.txt'
    def vectors(text, *classes):
        f.write_bytes(text if isinstance(text, bytes) else text.encode())
        return glove(f, classes).tolist()
    assert vectors('3 2\ncat 1 0\nDog 0 2\nnew york 1 1\nDOG 5 5\n', 'dog', 'cat') == [[0, 2], [1, 0]] # other capitals; the first
    assert vectors('Cat 7 7\ncat 1 0\nCAT 8 8\ncat 9 9\n', 'cat', 'Cat', 'cAT') == [[1, 0], [7, 7], [7, 7]] # as spelled, if there
    assert vectors('400000 2\n2 1 0\n400000 0 1\n', '400000', '2') == [[0, 1], [1, 0]] # word2vec's first line is no word
    assert vectors('400000\t2\r\n2\t1\t0\r\nnew york\t0\t1\r\n', '2', 'new york') == [[1, 0], [0, 1]] # tabs, lines of Windows
    assert vectors('cat  1   0 \n', 'cat') == [[1, 0]]
    assert vectors('\ufeffcat 1 0\n', 'cat') == [[1, 0]]
    assert vectors(b'caf\xe9 3 3\n\xff\xfe 4 4\nca\xf1t 5 5\ncat 1 0\n', 'cat') == [[1, 0]] # bytes that are not UTF-8
    assert vectors('cat x y\n\xa0cat 2 2\ncat\xa0food 3 3\ndog 1 1\n', 'dog') == [[1, 1]] # odd lines of other words do no harm
    for text, classes, told in [('cat 1 0\n', ('ship', 'cat', 'truck'), 'v.txt: no vector for ship, truck'), ('', ('cat',), 'no vector for cat'),
                                ('cat 1 0\ndog 1\n', ('dog', 'cat'), 'differ in length'), ('cat 1 x\n', ('cat',), "found '1 x' after 'cat'"),
                                ('cat 1 nan\n', ('cat',), 'v.txt: found nan'), (b'caf\xe9 3 3\n', ('caf\xe9',), 'no vector for caf')]:
        with pytest.raises(ValueError, match=told): vectors(text, *classes)

def test_similarity_is_checked():
    with pytest.raises(ValueError, match='row 1 is zero'): similarity([[1, 0], [0, 0]])
    with pytest.raises(ValueError, match=r'found shape \(2,\)'): similarity([1, 0])
    np.testing.assert_array_equal(check_similarity(None), similarity())
    np.testing.assert_array_equal(check_similarity(None, 10), similarity())
    np.testing.assert_array_equal(check_similarity(None, ('cat', 'dog')), similarity()[np.ix_([3, 5], [3, 5])])
    np.testing.assert_array_equal(check_similarity([[1, 0], [0, 1]], 2), np.eye(2))
    for table, classes, told in [(np.eye(3), CIFAR10, r'shape \(3, 3\); allowed is \(10, 10\)'), (np.ones((2, 3)), 2, r'shape \(2, 3\)'),
                                 (None, 3, r'shape \(10, 10\); allowed is \(3, 3\)'), ([[np.inf]], 1, 'similarity: found inf')]:
        with pytest.raises(ValueError, match=told): check_similarity(table, classes)

def test_smoothing():
    y = smooth_hard([2, 0, 1], .4, 4)
    np.testing.assert_allclose(y, .6*np.eye(4)[[2, 0, 1]] + .1)
    np.testing.assert_allclose(smooth_hard(np.arange(10), .05, bug_2022=True).sum(1), 1.45)
    np.testing.assert_array_equal(smooth_hard([1], 0), smooth_hard([1], 0, bug_2022=True))
    for bad, told in [(dict(y=[[1.]]), 'y: found shape'), (dict(y=[11]), 'y: found 11'), (dict(y=[1], beta=2), 'beta')]:
        with pytest.raises(ValueError, match=told): smooth_hard(**bad)

def test_no_torch():
    code = "import sys, hmix_nb.softlabels.construct; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0

def released(hub, name):
    lists = json.loads(hub.path(name).read_text())
    return pd.DataFrame([r for v in lists.values() for r in v], [k.removesuffix('.png') for k, v in lists.items() for _ in v])

@pytest.mark.parametrize('study, rule, file, n, want', [
    ('cifar-10s', 'cifar-10s', 'cifar-10s/cifar10s_t2clamp_redist10.json', 6723, {'cifar-10s': 0, 'h-mix': 1524, 'clean': 39}),
    ('h-mix', 'h-mix', 'h-mix/hmix_individ_soft_labels.json', 216, {'cifar-10s': 59, 'h-mix': 0, 'clean': 61})])
def test_the_releases(hub, study, rule, file, n, want):
    df, theirs = categorical(hub, study), released(hub, file)
    key = df.id_a.astype(str) if study == 'cifar-10s' else df.stimulus
    apart = {r: match_labels(pd.DataFrame(soft_labels(df, rule=r), key), theirs) for r in RULES}
    assert len(apart[rule]) == n and apart[rule].max() < 1e-12
    assert (apart['clean'] > 1e-9).sum() == want['clean'] and all(apart[r].max() > 1e-3 for r in RULES if r != rule)
    for other, n_changed in want.items(): assert rule_changes(df, other, rule).changed['all'] == n_changed # without matching, too

def test_all_varieties_of_the_releases(hub):
    for study in ('cifar-10s', 'h-mix'):
        df = categorical(hub, study)
        for v in VARIETIES:
            for s in SPREADS:
                for r in RULES:
                    want = bench.loop(df.to_dict('records'), variety=v, spread=s, rule=r, alike=similarity())
                    np.testing.assert_allclose(soft_labels(df, v, s, rule=r), want, rtol=0, atol=1e-12)

def test_the_shipped_counts_are_those_of_the_training_images(hub, tmp_path):
    kept = json.loads(ship_confusions(hub, tmp_path/'c.json').read_text())
    votes, train = np.load(hub.path('cifar-10h/cifar10h-counts.npy')), np.load(hub.path('splits/train_indices.npy'))
    assert np.sum(kept['votes']) == votes[train].sum() < votes.sum()
    v = np.array(kept['votes'], float)
    np.testing.assert_allclose(similarity(), (v@v.T)/np.outer(*[np.linalg.norm(v, axis=1)]*2))
