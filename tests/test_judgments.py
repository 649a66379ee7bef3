"Each trap of the released exports in a small made file; the released files where `HMIX_DATA` is set."
import csv, json, re
from collections import Counter
import numpy as np, pandas as pd, pytest
from hypothesis import given, strategies as st
from hmix_nb.core import CIFAR10
from hmix_nb.data import judgments
from hmix_nb.data.judgments import (LAYOUTS, categorical, coefficient, construct, drop_as_released, drop_inconsistent,
                                    drop_untouched, processed, repeats, select_shuffled, short_id)

ME, YOU = 'qz7k1m2n3b4v5c6', 'x9w8e7r6t5y4u3i'
EVERY = dict(trial_index=6, subject=ME, rt=2500.5, study_id='aaaa')
BLEND = dict(filename='mixed_0.25_Dog_12_Frog_345.png', mixtureCoeff=.25,
             label1='Dog', id1=12., label2='Frog', id2=345.)
FORM = dict(classSelect='mostProbDog', prob='80', classSelect2='secondProbFrog', prob2='20')

def soft(**form): return dict(response=json.dumps({k: v for k, v in (FORM | form).items() if v is not None}))

ROWS = dict(
    construct=EVERY | dict(trial_type='reconstruction', task='select_create', class_pair='Dog_12_Frog_345',
                           final_value=.6, start_value=.1, starting_value=.1, response=''),
    select=EVERY | dict(trial_type='survey-html-form', task='select_shuffled', class_pair='Dog_12_Frog_345',
                        response='{"select":"select0.4"}'),
    coefficient=EVERY | BLEND | dict(trial_type='multiple-slider', task='rate_mixture', response='', subj_id='',
                                     responses='{"mixingcoeff":30,"confidence":80}',
                                     class_pair='Dog_12_Frog_345.png'),
    categorical=EVERY | BLEND | soft() | dict(trial_type='survey-html-form', task='spec_conf', subj_id=''),
    cifar_10s=EVERY | soft() | dict(trial_type='survey-html-form', task='spec_conf', label='Dog', img_id=12.,
                                    filename='cifar10_train_12_Dog.png'))
READ = dict(construct=construct, select=select_shuffled, coefficient=coefficient, categorical=categorical,
            cifar_10s=lambda source, **kw: categorical(source, 'cifar-10s', **kw))
KINDS = list(READ)
NUMBERS = ('lam_f', 'lam_h', 'lam_raw', 'confidence', 'start', 'first_prob', 'second_prob')

@pytest.fixture
def write(tmp_path):
    "Write rows of a kind, each the standard row with some changes, as pandas would."
    def write(kind, *changes):
        pd.DataFrame([ROWS[kind] | c for c in changes]).to_csv(tmp_path/'export.csv')
        return tmp_path/'export.csv'
    return write

@pytest.fixture
def read(write): return lambda kind, *changes, **kw: READ[kind](write(kind, *changes), **kw)

# --- what every reader does

@pytest.mark.parametrize('kind', KINDS)
def test_standard_row(read, kind):
    row = read(kind, {}).iloc[0]
    assert (row.participant, row['repeat'], row.position, row.rt_s) == (short_id(ME), False, 0, 2.5005)
    assert (row.class_a, row.id_a) == ('dog', 12)
    if kind != 'cifar_10s': assert (row.class_b, row.id_b) == ('frog', 345)

@pytest.mark.parametrize('kind', KINDS)
def test_types(read, kind):
    t = read(kind, {}, dict(task=f'rerun_{LAYOUTS[kind].task}', trial_index=7)).dtypes
    assert t['repeat'] == bool and t['position'] == t['id_a'] == np.int64 and t['rt_s'] == float
    for c in NUMBERS: assert c not in t or t[c] == float

@pytest.mark.parametrize('kind', KINDS)
def test_repeats_and_positions(read, kind):
    t = LAYOUTS[kind].task
    df = read(kind, dict(trial_index=9), dict(trial_index=8), dict(trial_index=10, task=f'rerun_{t}'),
              dict(subject=YOU, trial_index=30))
    assert df.repeat.tolist() == [False, False, True, False] and df.position.tolist() == [1, 0, 2, 0]

@pytest.mark.parametrize('kind', KINDS)
def test_participants_are_stable_and_hidden(read, kind):
    df = read(kind, {}, dict(subject=YOU))
    assert df.participant.tolist() == [short_id(ME), short_id(YOU)] == ['pa7dc4a30', 'p493624a2']
    assert ME not in df.to_csv() and 'subject' not in df

@pytest.mark.parametrize('kind', KINDS)
def test_non_trial_rows(read, kind):
    empty = dict.fromkeys(ROWS[kind], '') | dict(subject=ME)
    types = ('pavlovia', 'instructions', 'survey-multi-choice', 'preload')
    others = [empty | dict(trial_type=t, trial_index=i) for i, t in enumerate(types)]
    assert len(read(kind, *others, {})) == 1
    with pytest.raises(ValueError, match='export.csv: no trials'): read(kind, *others)

@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('change, says', [
    (dict(subject=''), 'subject: empty'), (dict(subject=np.nan), 'subject: empty'),
    (dict(task='other'), "task: 'other' is unknown"), (dict(task=''), "task: '' is unknown"),
    (dict(trial_type='something'), "trial_type: 'something' is unknown"),
    (dict(rt=-1), "rt: found '-1.0'"), (dict(rt='soon'), "rt: found 'soon'"),
    (dict(trial_index='x'), "trial_index: found 'x'")])
def test_malformed_everywhere(read, kind, change, says):
    with pytest.raises(ValueError, match='export.csv, row 3: ') as e: read(kind, {}, change, {})
    assert says in str(e.value) and '1 of 3 trials' in str(e.value) and ME not in str(e.value)
    table, left_out = read(kind, {}, change, {}, errors='collect')
    assert len(table) == 2 and left_out[['file', 'row']].values.tolist() == [['export.csv', 3]]
    assert says in left_out.reason[0]
    assert ME not in left_out.to_csv()

@pytest.mark.parametrize('kind', KINDS)
def test_missing_column(write, kind):
    for column in ('trial_type', 'trial_index', 'subject', 'task', 'rt', *LAYOUTS[kind].columns):
        path = write(kind, {})
        pd.read_csv(path, dtype=str).drop(columns=column).to_csv(path)
        for errors in ('raise', 'collect'):
            with pytest.raises(ValueError, match=f'export.csv: no column {column};'): READ[kind](path, errors=errors)

@pytest.mark.parametrize('kind', KINDS)
def test_all_left_out(read, kind):
    table, left_out = read(kind, dict(rt=-1), errors='collect')
    assert len(table) == 0 and len(left_out) == 1 and list(table) == list(read(kind, {}))

@pytest.mark.parametrize('kind', KINDS)
def test_cut_off_file(write, kind):
    path = write(kind, {}, {})
    text = path.read_text()
    start = text.rindex('\n', 0, -1)
    for n in (3, 10, 20): # in the middle of a field, but not of a quoted one
        path.write_text(text[:start+n])
        with pytest.raises(ValueError, match='row 3: .* fields; the header has|no CSV'): READ[kind](path)
    path.write_text(text[:start] + '\n1,"never closed')
    with pytest.raises(ValueError, match='row 3: no CSV: unexpected end of data'): READ[kind](path)
    kept = READ[kind](path, errors='collect')
    assert len(kept.table) == 1 and kept.left_out.row.tolist() == [3]

def test_one_bad_byte_or_quote_spoils_one_row(write):
    path = write('coefficient', dict(subj_id='one'), dict(subj_id='two'), dict(subj_id='three'))
    path.write_bytes(path.read_bytes().replace(b'two', b'\xe9').replace(b',Dog,', b',D\xe9g,', 1))
    kept = coefficient(path, errors='collect')
    assert len(kept.table) == 2 and kept.left_out.reason.tolist() == ['label1: a byte that is not UTF-8']
    path = write('coefficient', {}, {})
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(''.join([lines[0], lines[1].replace(ME, f'"{ME}"x', 1), lines[2].replace(',Frog,', ',"Frog,', 1), lines[2]]))
    kept = coefficient(path, errors='collect')
    assert len(kept.table) == 1 and kept.left_out.row.tolist() == [2, 3]
    assert kept.left_out.reason.str.startswith('no CSV').all() and not kept.left_out.reason.str.contains(ME).any()

def test_a_trial_of_another_name_is_refused_and_not_lost(write):
    blank = dict(task='', filename='')
    kept = coefficient(write('coefficient', {}, blank | dict(trial_type='multiple-slidr'), blank | dict(trial_type='')), errors='collect')
    assert len(kept.table) == 1 and kept.left_out.row.tolist() == [3, 4]

@pytest.mark.parametrize('column', ['rt', 'trial_index', 'id1', 'mixtureCoeff', 'task', 'label1', 'filename', 'responses'])
def test_no_column_shows_a_platform_id(write, column):
    prolific = '5f3c1d2e9a8b7c6d5e4f3a2b'
    value = '{"mixingcoeff":"%s","confidence":80}' % prolific if column == 'responses' else prolific
    for subject in (prolific, ME, 'ab1'):
        with pytest.raises(ValueError) as e: coefficient(write('coefficient', {}, {'subject': subject, column: value}))
        assert prolific[:7] not in str(e.value)
    kept = categorical(write('categorical', soft(classSelect2='secondProbNo', prob2=prolific)))
    assert prolific[:7] not in kept.repairs[0] and kept.repaired[0]

def test_doubled_column_is_refused(write):
    path = write('coefficient', {})
    head, rest = path.read_text().split('\n', 1)
    path.write_text(head.replace('subj_id', 'subject') + '\n' + rest)
    with pytest.raises(ValueError, match='column subject twice'): coefficient(path)

def test_no_table_at_all(tmp_path):
    path = tmp_path/'export.csv'
    for data in (b'', b'\n', b'\xff\xfe\x00', b'{"a": 1}'):
        path.write_bytes(data)
        with pytest.raises(ValueError, match='export.csv'): coefficient(path)
    with pytest.raises(FileNotFoundError): coefficient(tmp_path/'absent.csv')

def test_text_stays_text(write):
    path = write('coefficient', dict(subject='NA'), dict(subject='007'), dict(subject='1e5'))
    assert coefficient(path).participant.tolist() == [short_id(s) for s in ('NA', '007', '1e5')]
    path.write_bytes(b'\xef\xbb\xbf' + path.read_bytes()) # as Excel saves it
    assert len(coefficient(str(path))) == 3

def test_errors_argument(read):
    with pytest.raises(ValueError, match="errors: 'ignore' is unknown"): read('coefficient', {}, errors='ignore')

def test_shifted_row_does_not_show_a_platform_id(read):
    with pytest.raises(ValueError) as e: read('coefficient', {}, dict(rt=ME))
    assert 'rt: found' in str(e.value) and ME not in str(e.value) and short_id(ME) in str(e.value)

def test_same_short_id_is_noticed(read, monkeypatch):
    monkeypatch.setattr(judgments, 'short_id', lambda s: 'p0')
    with pytest.raises(ValueError, match='two participants have the same short id'):
        read('select', {}, dict(subject=YOU))

@given(st.sets(st.text('abcdefghijklmnopqrstuvwxyz0123456789', min_size=15, max_size=15), max_size=50))
def test_short_ids_differ(ids): assert len({short_id(i) for i in ids}) == len(ids)

# --- first study

def test_float_noise(read):
    noisy = [.1+.1+1e-16, .30000000000000004, .7999999999999999, 1., 0.]
    df = read('construct', *[dict(final_value=repr(v), trial_index=i) for i, v in enumerate(noisy)])
    assert df.lam_h.tolist() == [.2, .3, .8, 1., 0.] and df.lam_raw.tolist() == noisy
    assert (df.start == .1).all() and (df.interface == 'construct').all()

@pytest.mark.parametrize('value', ['.55', '1.1', '-.1', 'inf', 'nan', ''])
def test_off_the_grid(read, value):
    with pytest.raises(ValueError, match='row 2: final_value: found'): read('construct', dict(final_value=value))

def test_start(read):
    assert read('construct', dict(start_value=.9)).start[0] == .9
    with pytest.raises(ValueError, match='start_value'): read('construct', dict(start_value=9))

def test_select_values(read):
    df = read('select', *[dict(response=f'{{"select":"select{v}"}}') for v in ('0.0', '0.5', '1.0')])
    assert df.lam_h.tolist() == [0, .5, 1] and df.start.isna().all() and (df.interface == 'select-shuffled').all()

@pytest.mark.parametrize('response', ["{'select': 'select0.5'}", '', '[]', '{}', '{"select":"0.5"}',
                                      '{"select":"selectx"}', '{"select":"select0.45"}'])
def test_bad_select(read, response):
    with pytest.raises(ValueError, match='row 2: (response|select):'): read('select', dict(response=response))

def test_pair_listed_twice(read):
    "Batches 2 and 3 list a pair twice: both answers stay, and the repeat belongs to the first."
    df = read('select', *[dict(trial_index=i, response=f'{{"select":"select{v}"}}', task=t) for i, v, t in
                          [(6, .2, 'select_shuffled'), (7, .9, 'select_shuffled'), (8, .3, 'rerun_select_shuffled')]])
    assert df[~df.repeat].duplicated(['participant', 'pair']).sum() == 1
    r = repeats(df)
    assert len(r) == 1 and r[['lam_h', 'position']].values.tolist() == [[.2, 0]] and r.differ[0] == pytest.approx(.1)

@pytest.mark.parametrize('pair, says', [('Dog_12', 'stimulus id'), ('Dgo_1_Frog_2', "Did you mean 'dog'"),
                                        ('', 'stimulus id')])
def test_bad_pair(read, pair, says):
    with pytest.raises(ValueError, match=says): read('construct', dict(class_pair=pair))

# --- second study

def test_slider_is_the_second_class(read):
    df = read('coefficient', *[dict(trial_index=i, responses=json.dumps(dict(mixingcoeff=m, confidence=c)))
                               for i, (m, c) in enumerate([(0, 0), (100, 100), (26, 57)])])
    assert df.lam_h.tolist() == [1, 0, 1-26/100] and df.confidence.tolist() == [0, 1, 57/100]

def test_answers_are_in_responses(write, read):
    row = read('coefficient', {}).iloc[0]
    assert (row.stimulus, row.lam_f, row.lam_h, row.confidence) == ('mixed_0.25_Dog_12_Frog_345', .25, .7, .8)
    path = write('coefficient', {})
    pd.read_csv(path).assign(response=lambda d: d.responses).drop(columns='responses').to_csv(path)
    with pytest.raises(ValueError, match='no column responses; found .*response'): coefficient(path)

@pytest.mark.parametrize('responses', ['', '{"mixingcoeff":26}', '{"mixingcoeff":101,"confidence":1}',
                                       '{"mixingcoeff":-1,"confidence":1}',
                                       '{"mixingcoeff":26,"confidence":NaN}', "{'mixingcoeff':26,'confidence':1}",
                                       '{"mixingcoeff":true,"confidence":1}', '{"mixingcoeff":26,"confidence":1',
                                       '[26, 1]', 'null'])
def test_bad_answer(read, responses):
    with pytest.raises(ValueError, match='row 2: (responses|mixingcoeff|confidence):'):
        read('coefficient', dict(responses=responses))

@pytest.mark.parametrize('kind', ['coefficient', 'categorical'])
@pytest.mark.parametrize('change, says', [
    (dict(mixtureCoeff=.5), "mixtureCoeff: found '0.5'"), (dict(label1='Cat'), "label1: found 'Cat'"),
    (dict(label2=''), "label2: found ''"), (dict(id1=13.), "id1: found '13.0'"), (dict(id2=''), "id2: found ''"),
    (dict(filename='Dog_12_Frog_345.png'), 'no mixing coefficient'), (dict(filename=''), 'stimulus id'),
    (dict(filename='mixed_0.25_Doge_12_Frog_345.png'), "Did you mean 'dog'"),
    (dict(filename='mixed_1.25_Dog_12_Frog_345.png', mixtureCoeff=1.25), 'lam_f: found 1.25')])
def test_contradictions(read, kind, change, says):
    with pytest.raises(ValueError, match=re.escape(says)): read(kind, change)

def test_rounds(read, monkeypatch):
    monkeypatch.setattr(judgments, '_ROUND_2', short_id('bbbb'))
    df = read('coefficient', {}, dict(study_id='bbbb'), dict(study_id=''), dict(study_id='bbbb'))
    assert df['round'].tolist() == [1, 2, 1, 2]

def test_processed(read):
    df = read('coefficient', {}, dict(responses='{"mixingcoeff":50,"confidence":20}', task='rerun_rate_mixture',
                                      trial_index=7))
    (name, d), = processed(df).items()
    assert name == 'mixed_0.25_Dog_12_Frog_345.png' and d['Class Pair'] == 'Dog_12_Frog_345.png'
    assert d['Endpoints'] == ['Dog', 'Frog']
    assert d['Predicted Mixing Factor'] == [.7, .5] and d['Predicted Confidence'] == [.8, .2]
    assert d['True Mixing Factor'] == .25
    assert d['Std Dev'] == pytest.approx(.1) and d['Re-Label Diff'] == pytest.approx(.25-.6)
    assert d['Weighted Re-Label'] == pytest.approx(.33) and d['Weighted Re-Label Diff'] == pytest.approx(-.08)
    json.dumps(d)

# --- whole soft labels

@pytest.mark.parametrize('kind', ['categorical', 'cifar_10s'])
@pytest.mark.parametrize('form, first_prob, second, second_prob, repair', [
    ({}, .8, 'frog', .2, ''),
    (dict(prob=' 80'), .8, 'frog', .2, ''),
    (dict(prob='8p'), .8, 'frog', .2, "prob: '8p' read as 80"),
    (dict(prob='0'), 1, 'frog', .2, 'prob: 0 read as 100'),
    (dict(prob2='0'), .8, 'frog', 0, ''),
    (dict(prob2='2p'), .8, 'frog', .2, "prob2: '2p' read as 20"),
    (dict(prob2=''), .8, 'frog', None, ''),
    (dict(prob='60', prob2='90'), .6, 'frog', .9, ''), # the second above the first, and a sum above 100: as typed
    (dict(classSelect2='secondProbDog'), .8, 'dog', .2, ''), # the same class twice
    (dict(classSelect2='secondProbNo', prob2=''), .8, None, None, ''),
    (dict(classSelect2='secondProbNo', prob2='70'), .8, None, None, "prob2: '70' beside no alternative, left out"),
    (dict(classSelect2='secondProbNo', prob2='p\\\\\\'), .8, None, None, 'beside no alternative, left out')])
def test_forms(read, kind, form, first_prob, second, second_prob, repair):
    row = read(kind, soft(**form)).iloc[0]
    assert (row['first'], row.first_prob, bool(row.repaired)) == ('dog', first_prob, bool(repair))
    assert repair in row.repairs
    for found, want in ((row.second, second), (row.second_prob, second_prob)):
        assert pd.isna(found) if want is None else found == want

def test_impossible_classes(read):
    ticks = {f'improbClassSelect{c.capitalize()}': '1' for c in CIFAR10}
    df = read('cifar_10s', soft(improbClassSelectTruck='1', improbClassSelectDog='1'),
              soft(**ticks) | dict(trial_index=7), soft())
    assert df.impossible.tolist() == [('dog', 'truck'), CIFAR10, ()] and not df.repaired.any()

@pytest.mark.parametrize('form, says', [
    (dict(prob='101'), "prob: found '101'; allowed is a number in [0, 100]"), (dict(prob='-5'), "prob: found '-5'"),
    (dict(prob=''), "prob: found ''"), (dict(prob='nan'), "prob: found 'nan'"), (dict(prob='80p'), "prob: found '80p'"),
    (dict(prob='many'), "prob: found 'many'"), (dict(prob2='200'), "prob2: found '200'"),
    (dict(prob2='p'), "prob2: found 'p'"), (dict(prob2=None), 'prob2: found'),
    (dict(classSelect='mostProbDoge'), "classSelect: 'doge' is unknown. Did you mean 'dog'"),
    (dict(classSelect='Dog'), 'classSelect: found'), (dict(classSelect=None), 'classSelect: found'),
    (dict(classSelect2='secondProbNone'), "classSelect2: 'none' is unknown"),
    (dict(improbClassSelectPlane='1'), "'plane' is unknown"), (dict(improbClassSelectDog='0'), 'improbClassSelectDog'),
    (dict(imporbClassSelectDog='1'), 'imporbClassSelectDog')])
def test_bad_forms(read, form, says):
    for kind in ('categorical', 'cifar_10s'):
        with pytest.raises(ValueError, match=re.escape(says)): read(kind, soft(**form))

@pytest.mark.parametrize('change', [dict(label='Cat'), dict(img_id=1.), dict(img_id=''),
                                    dict(filename='cifar10_train_12_Doge.png'),
                                    dict(filename='Dog_12.png')])
def test_bad_images(read, change):
    with pytest.raises(ValueError, match='row 2: (filename|img_id)'): read('cifar_10s', change)

def test_batch_done_twice(read):
    "One participant of CIFAR-10S did a batch twice: both sessions stay, and each repeat belongs to its own."
    def session(p): return [soft(**a) | dict(trial_index=i, task=t) for i, t, a in
                            [(6, 'spec_conf', dict(classSelect=f'mostProb{p}')),
                             (7, 'rerun_spec_conf', dict(classSelect='mostProbDog'))]]
    df = read('cifar_10s', *session('Dog'), *session('Cat'))
    assert df.position.tolist() == [0, 1, 2, 3] and df.session.tolist() == [0, 0, 1, 1]
    assert repeats(df).differ.tolist() == [0, 1]

def test_unknown_study(write):
    with pytest.raises(ValueError, match="study: 'cifar-10h' is unknown. Did you mean"):
        categorical(write('categorical', {}), 'cifar-10h')

# --- exclusions

def sliders(*answers):
    return [dict(subject=s, trial_index=i, task=f"{'rerun_' if again else ''}rate_mixture",
                 responses=json.dumps(dict(mixingcoeff=m, confidence=c))) for i, (s, m, c, again) in enumerate(answers)]

def test_untouched(read):
    df = read('coefficient', *sliders((ME, 50, 50, 0), (ME, 50, 50, 0), (ME, 50, 51, 0), (YOU, 50, 50, 0),
                                      (YOU, 49, 50, 0)))
    kept, out = drop_untouched(df)
    assert kept.index.tolist() == [2, 4] and out.index.tolist() == [0, 1, 3]
    assert (out.reason == 'both sliders untouched').all()
    kept, out = drop_untouched(df, limit=1)
    assert set(kept.participant) == {short_id(YOU)}
    assert out.reason.unique().tolist() == ['both sliders untouched in 2 answers; limit 1']
    assert len(df) == 5 and 'reason' not in df
    with pytest.raises(ValueError, match='limit'): drop_untouched(df, limit=-1)
    with pytest.raises(ValueError, match='df: no column confidence'): drop_untouched(df.drop(columns='confidence'))

def test_inconsistent(read):
    df = read('coefficient', *sliders((ME, 0, 50, 0), (ME, 90, 50, 1), (YOU, 10, 50, 0), (YOU, 20, 50, 1)))
    kept, out = drop_inconsistent(df)
    assert set(kept.participant) == {short_id(YOU)}
    assert out.reason.unique().tolist() == ['repeats differ by 0.90 on average; limit 0.5']
    assert len(drop_inconsistent(df, limit=.95).left_out) == 0
    alone = read('coefficient', *sliders((ME, 0, 50, 1)))
    assert repeats(alone).differ.isna().all() and len(drop_inconsistent(alone).table) == 1

def test_released_rule(read, write):
    dog, clash = soft(), soft(improbClassSelectFrog='1')
    def people(*answers): return [a | dict(trial_index=i) for i, a in enumerate(answers)]
    reasons = lambda *a, **kw: drop_as_released(read('cifar_10s', *people(*a)), **kw).left_out.reason.tolist()
    assert reasons(dog, dog, dog, clash) == []
    assert reasons(dog, clash, clash)[0] == '2 answers contradict themselves'
    assert reasons(dog, clash, soft(prob='0'))[0] == '2 answers contradict themselves'
    cat = soft(classSelect='mostProbCat')
    assert reasons(clash, dog, dog, cat) == [] # three of four are right, which is enough
    assert 'only 0.67 are right' in reasons(clash, dog, cat)[0]
    assert reasons(cat, cat) == []
    table, left_out = read('cifar_10s', *people(dog, soft(prob='120'), dog), errors='collect')
    assert len(drop_as_released(table).left_out) == 0
    assert drop_as_released(table, left_out).left_out.reason.tolist() == ['a percentage outside 0 to 100']*2
    with pytest.raises(ValueError, match='df: no column first'): drop_as_released(read('coefficient', {}))

@given(st.lists(st.tuples(st.sampled_from([ME, YOU]), st.integers(0, 100), st.integers(0, 100), st.booleans()),
                min_size=1, max_size=12))
def test_nothing_is_lost(tmp_path_factory, answers):
    path = tmp_path_factory.mktemp('x')/'export.csv'
    pd.DataFrame([ROWS['coefficient'] | c for c in sliders(*answers)]).to_csv(path)
    df = coefficient(path)
    assert len(df) == len(answers)
    for kept, out in (drop_untouched(df), drop_untouched(df, limit=1), drop_inconsistent(df)):
        assert sorted([*kept.index, *out.index]) == list(df.index) and (out.reason != '').all()

# --- the released files

@pytest.fixture(scope='module')
def tables(hub): return {k: r(hub) for k, r in READ.items()}

def test_counts(tables):
    assert {k: len(t) for k, t in tables.items()} == dict(construct=1440, select=800, coefficient=4950,
                                                          categorical=216, cifar_10s=6723)
    assert {k: t.participant.nunique() for k, t in tables.items()} == dict(construct=45, select=25, coefficient=81,
                                                                           categorical=8, cifar_10s=248)
    assert {k: int(t.repeat.sum()) for k, t in tables.items()} == dict(construct=90, select=50, coefficient=162,
                                                                       categorical=16, cifar_10s=498)
    assert set(tables['construct'].pair) == set(tables['select'].pair) and tables['select'].pair.nunique() == 249
    assert tables['coefficient'].stimulus.nunique() == 2070 and tables['categorical'].stimulus.nunique() == 100
    assert tables['cifar_10s'].id_a.nunique() == 1000

def test_ranges(tables):
    for t in tables.values():
        for c in NUMBERS:
            if c in t: assert t[c].dropna().between(0, 1).all()
        for i in ('id_a', 'id_b'):
            if i in t: assert t[i].between(0, 9999).all()
        assert (t.rt_s > 0).all()

def test_interfaces(tables):
    c = tables['construct']
    assert c.groupby('start').participant.nunique().to_dict() == {.1: 22, .9: 23}
    assert (c.lam_h != c.lam_raw).sum() == 704 and (c.lam_h*10 == (c.lam_h*10).round()).all()
    twice = {k: tables[k][~tables[k].repeat] for k in ('construct', 'select')}
    people = {k: t[t.duplicated(['participant', 'pair'])].participant.nunique() for k, t in twice.items()}
    assert people == dict(construct=10, select=7)

def test_rounds_of_the_second_study(tables):
    g = tables['coefficient'].groupby('round')
    assert g.participant.nunique().to_dict() == {1: 33, 2: 48} and g.stimulus.nunique().to_dict() == {1: 810, 2: 1260}

def test_untouched_sliders(tables):
    _, out = drop_untouched(tables['coefficient'])
    assert len(out) == 163 and out.participant.value_counts().max() == 18

@pytest.mark.parametrize('kind, places', [('construct', {5, 10}), ('select', {5, 10}), ('categorical', {5, 10}),
                                          ('coefficient', {15, 20})])
def test_repeated_trials(tables, kind, places):
    r = repeats(tables[kind])
    assert set(r.position) == places and r.differ.notna().all() and len(r) == tables[kind].repeat.sum()

def test_two_sessions(tables):
    t = tables['cifar_10s']
    assert t.groupby('participant').size().value_counts().to_dict() == {27: 247, 54: 1} and t.session.sum() == 27
    assert set(repeats(t).position) == {5, 10, 32, 37} and (repeats(t).position > 26).sum() == 2
    assert t[t.session == 1].position.tolist() == list(range(27, 54))

@pytest.mark.parametrize('kind, stale, slipped, zero, same, clash, swapped, above, below', [
    ('categorical', 15, 0, 0, 1, 3, 0, 14, 74), ('cifar_10s', 1090, 1, 6, 153, 40, 36, 674, 1786)])
def test_odd_answers(tables, kind, stale, slipped, zero, same, clash, swapped, above, below):
    t = tables[kind]
    for what, n in (('beside no alternative', stale), ("'8p' read as 80", slipped), ('0 read as 100', zero)):
        assert t.repairs.str.contains(what).sum() == n
    assert (t.repaired == (t.repairs != '')).all() and t.repaired.sum() == stale + slipped + zero
    assert (t['first'] == t.second).sum() == same and (t.second_prob > t.first_prob).sum() == swapped
    assert sum(f in i or s in i for f, s, i in zip(t['first'], t.second, t.impossible)) == clash
    total = (t.first_prob + t.second_prob.fillna(0)).round(9)
    assert ((total > 1).sum(), (total < 1).sum()) == (above, below)

def test_unfinished_answers(tables):
    t = tables['cifar_10s']
    assert (t.second.notna() & t.second_prob.isna()).sum() == 10 and (t.impossible.map(len) == 10).sum() == 5

def test_nobody_is_left_out_by_the_released_rule(tables):
    assert len(drop_as_released(tables['cifar_10s']).left_out) == 0

def test_processed_file(tables, hub):
    released = json.loads(hub.path('h-mix/processed_hmix_inferences.json').read_text())
    ours = processed(tables['coefficient'])
    assert len(released) == 2070 and ours.keys() == released.keys()
    for name, fields in released.items(): assert ours[name] == fields # floats included, to the last bit

def test_human_soft_labels_file(tables, hub):
    "The released raw answers agree with the table, image by image, in any order."
    lower = lambda s: None if s == 'No' else s.lower()
    theirs = {int(i): Counter((lower(a['Most Probable Class']), a['Most Probable Class Prob'],
                               lower(a['Second Most Probable Class']), a['Second Most Probable Class Prob'],
                               frozenset(map(str.lower, a['Impossible Class(es)']))) for a in answers)
              for i, answers in json.loads(hub.path('cifar-10s/human_soft_labels_data.json').read_text()).items()}
    percent = lambda p: None if pd.isna(p) else round(p*100, 9)
    ours = {i: Counter((r.first, percent(r.first_prob), None if pd.isna(r.second) else r.second, percent(r.second_prob),
                        frozenset(r.impossible)) for r in t.itertuples())
            for i, t in tables['cifar_10s'].groupby('id_a')}
    assert ours == theirs

def test_classes_are_those_of_the_images(tables, hub):
    with np.load(hub.path('cifar10-test.npz')) as z: names = np.array(CIFAR10)[z['labels']]
    for t in tables.values():
        for i in 'ab':
            if f'id_{i}' in t: assert (names[t[f'id_{i}']] == t[f'class_{i}']).all()

def test_platform_ids_are_gone(tables, hub):
    ids = set()
    for layout in LAYOUTS.values():
        with open(hub.path(layout.file), newline='') as f: ids |= {r['subject'] for r in csv.DictReader(f)}
    short = set().union(*(t.participant for t in tables.values()))
    assert len(ids) == len(short) == 45+25+81+8+248
    text = ''.join(t.to_csv() for t in tables.values())
    assert not any(i in text for i in ids)
