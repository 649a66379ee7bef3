"The analysis as a whole: released, one's own and made-up answers; claims; the command."
import json, subprocess, sys
from dataclasses import replace
from pathlib import Path
import numpy as np, pandas as pd
import pytest
from hmix_nb.analysis.answers import load_answers, own_answers, read_table, simulated_answers
from hmix_nb.analysis.claims import claims, compare, mark, measure
from hmix_nb.analysis.report import CAPTIONS, analyse, write_analysis
from hmix_nb.cli import main

@pytest.fixture(scope='module')
def made(): return simulated_answers()

@pytest.fixture(scope='module')
def released(hub): return load_answers()

def own(tmp_path, df, name='mine.csv'):
    df.to_csv(tmp_path/name, index=False)
    return own_answers(tmp_path/name)

def test_the_same_seed_the_same_people(made):
    again, other = simulated_answers(), simulated_answers(seed=1)
    for k, t in made.tables().items():
        pd.testing.assert_frame_equal(t, again.tables()[k])
        assert not t.lam_h.equals(other.tables()[k].lam_h)

def test_every_claim_has_all_it_needs():
    for study in ('h-mix', 'cifar-10s'):
        c = claims(study)
        assert c.index.is_unique and c[['where', 'claim', 'published', 'definition']].map(bool).all().all()
        numbers = c[c['values'].notna()]
        assert numbers.digits.notna().all()
        assert (c['values'].notna() | c.words.notna() | (c.why != '')).all()
        for i, r in numbers.iterrows(): # the text says the numbers, with as many digits
            assert [float(o) for o in r.published.split(', ')] == r['values'], i
            if i not in ('A13', 'A20', 'A21'): assert max(len(o.partition('.')[2]) for o in r.published.split(', ')) == r.digits, i

@pytest.mark.parametrize('ours, said', [([.865, .135], 'same'), ([.875, .125], 'same'), ([.8649, .135], 'differs'), ([.87], 'differs'),
                                        (None, 'not recomputable'), ([np.nan, .13], 'differs')])
def test_mark(ours, said): assert mark(claims().loc['C4c'], ours) == said

def test_what_differs_is_known_and_explained(released):
    c = compare(released)
    assert c.index[c['mark'] == 'differs'].tolist() == ['A9', 'B5x', 'B6x', 'B7', 'C3p', 'C4d', 'E0', 'E2']
    assert not (c['mark'] == 'not recomputable').any()
    assert (c.why[c['mark'] != 'same'] != '').all()
    ours = measure(released)
    assert ours['B5'] == [9] and ours['B6'] == [101] and ours['B5x'] == [11] and ours['B6x'] == [107]
    np.testing.assert_allclose(ours['C3p'], [.121, .136, .143], atol=5e-4)

def test_a_wrong_table_is_seen(released):
    "A claim is compared with the data, not with itself."
    fewer = replace(released, coefficient=released.coefficient[~released.coefficient['repeat']])
    c = compare(fewer)
    assert {'C4c', 'G1'} <= set(c.index[c['mark'] == 'differs'])

def test_cifar10s(hub):
    c = compare(load_answers('cifar-10s'))
    assert c.index[c['mark'] != 'same'].tolist() == ['H8', 'H14']

def test_what_is_absent_is_not_recomputable(released, hub):
    c = compare(replace(released, probs=None, labels=None))
    assert set(c.index[c['mark'] == 'not recomputable']) == {'C6', 'C7', 'E0', 'E1', 'E2', 'E3'}
    assert (c.why[c['mark'] == 'not recomputable'] != '').all()

def test_captions_are_those_of_the_tables_and_figures(made, hub):
    sections = [s for a in (made, load_answers(), load_answers('cifar-10s')) for s in analyse(a, slow=True).sections]
    assert {k for s in sections for k in (*s.tables, *s.figures)} == set(CAPTIONS)
    assert not any(s.left_out for s in sections)

def test_own_study_is_analysed_as_the_same_table_is(made, tmp_path):
    a = own(tmp_path, made.coefficient)
    ours, theirs = analyse(a).tables, analyse(replace(made, construct=None, select=None, probs=None)).tables
    assert set(ours) == set(theirs) and 'claims' not in ours
    for k in ours: pd.testing.assert_frame_equal(ours[k], theirs[k], check_dtype=False)

def small(df): # two pairs of classes
    return df[df.class_a.isin(['0', '3']) & df.class_b.isin(['1', '8'])]

@pytest.mark.parametrize('drop, gone', [(['rt_s', 'position', 'round'], set()), (['repeat'], {'repeats'}), (['confidence'], {'confidence'}),
                                        (['id_a', 'id_b'], set())])
def test_what_a_table_lacks_is_left_out_by_name(made, tmp_path, drop, gone):
    found = analyse(own(tmp_path, small(made.coefficient).drop(columns=drop)))
    assert {k for s in found.sections for k in s.left_out} == gone | {'figure examples', 'entropy'} # nothing known of the images
    assert {'recovery', 'fits', 'examples'} <= set(found.tables)
    assert write_analysis(found, tmp_path/'o', figures=False).exists()

def test_one_pair_and_one_person(made, tmp_path):
    d = small(made.coefficient)
    for t in (d[(d.class_a == '0') & (d.class_b == '1')], d[d.participant == d.participant.iloc[0]]):
        page = write_analysis(analyse(own(tmp_path, t), slow=True), tmp_path/'o')
        assert page.exists()

def test_images_of_one_class_have_a_place_in_the_table(made, tmp_path):
    d = small(made.coefficient)
    t = analyse(own(tmp_path, pd.concat([d, d[:3].assign(class_a='0', class_b='0')]))).tables
    assert t['fits'].status[('0', '0')] == 'one class: nothing to tell apart' and (t['fits'].status == 'ok').sum() == 3
    assert t['steps'].status[('0', '0')] == 'one class: no order'

def test_missing_confidence_names_the_pairs_and_spares_the_others(made, tmp_path):
    d = small(made.coefficient).reset_index(drop=True)
    d.loc[0, 'confidence'] = np.nan
    found = analyse(own(tmp_path, d))
    t = found.tables['fits']
    bad = t[t.confidence_status != 'ok']
    assert bad.index.tolist() == [(d.class_a[0], d.class_b[0])] and (t.status == 'ok').all() and t.c0.notna().all()
    assert found.tables['confidence'].missing.sum() == 1

@pytest.mark.parametrize('change, message', [
    (dict(lam_h=80), r"column 'lam_h' has 80.* in row 0, 1, 2, 3, 4, …"), (dict(lam_f='half'), "column 'lam_f' has 'half'"),
    (dict(participant=None), "column 'participant' has"), (dict(repeat='maybe'), "column 'repeat' has 'maybe'"),
    (dict(rt_s='n/k'), "column 'rt_s' has 'n/k'"), (dict(rt_s=-1.), "column 'rt_s' has -1.0")])
def test_bad_tables_name_column_and_rows(made, tmp_path, capsys, change, message):
    made.coefficient.assign(**change).to_csv(tmp_path/'bad.csv', index=False)
    with pytest.raises(ValueError, match='bad.csv: ' + message): read_table(tmp_path/'bad.csv')
    assert main(['analyse', str(tmp_path/'bad.csv'), '--out', str(tmp_path/'o')]) == 2
    assert 'bad.csv' in capsys.readouterr().err and not (tmp_path/'o').exists()

@pytest.mark.parametrize('text', ['', 'a,b\n1,2\n', 'participant,"x\n', '\x89PNG\r\n'])
def test_no_table_at_all(tmp_path, text):
    (tmp_path/'x.csv').write_text(text, encoding='latin-1')
    with pytest.raises(ValueError, match='x.csv'): own_answers(tmp_path/'x.csv')

def test_forms_keep_what_was_ruled_out(tmp_path):
    forms = simulated_answers('cifar-10s').categorical
    assert own(tmp_path, forms).categorical.impossible.tolist() == forms.impossible.tolist()
    joined = forms.assign(impossible=forms.impossible.map(';'.join))
    assert own(tmp_path, joined).categorical.impossible.tolist() == forms.impossible.tolist()
    for text in ('(cat', "('cat')", '(1)', '(1, 2)'):
        with pytest.raises(ValueError, match='impossible in row 0'): own(tmp_path, forms.assign(impossible=text))

def test_command_without_data(tmp_path, capsys):
    assert main(['analyse', '--root', str(tmp_path), '--out', str(tmp_path/'o')]) == 0
    said, page = capsys.readouterr().out, (tmp_path/'o'/'report.html').read_text(encoding='utf-8')
    assert 'Nobody was asked' in said and 'Nobody was asked' in page and 'hmix data --fetch h-mix' in said
    assert 'published' not in said
    for kind in ('svg', 'png'): assert len(list((tmp_path/'o'/'figures').glob(f'*.{kind}'))) >= 10
    assert len(list((tmp_path/'o'/'tables').glob('*.csv'))) >= 20
    assert '<script' not in page and 'src="http' not in page
    assert main(['analyse', '--study', 'cifar-10s', '--root', str(tmp_path), '--out', str(tmp_path/'s')]) == 0
    assert 'Nobody was asked' in capsys.readouterr().out

def test_command_writes_the_same_twice(tmp_path):
    for o in 'ab': assert main(['analyse', '--root', str(tmp_path), '--no-figures', '--out', str(tmp_path/o)]) == 0
    for f in (tmp_path/'a'/'tables').iterdir(): assert f.read_bytes() == (tmp_path/'b'/'tables'/f.name).read_bytes()

def test_command_refuses_a_study_beside_tables(tmp_path, capsys):
    assert main(['analyse', 'x.csv', '--study', 'h-mix']) == 2
    assert '--study' in capsys.readouterr().err
    assert main(['analyse', str(tmp_path/'absent.csv')]) == 2

def test_command_needs_no_torch_without_figures(tmp_path):
    code = ("import sys; from hmix_nb.cli import main; "
            f"main(['analyse', '--no-figures', '--root', {str(tmp_path)!r}, '--out', {str(tmp_path/'o')!r}]); sys.exit('torch' in sys.modules)")
    assert subprocess.run([sys.executable, '-c', code], capture_output=True).returncode == 0

def test_altered_file_is_refused(tmp_path, capsys):
    (tmp_path/'h-mix').mkdir()
    for n in ('hmix_construct_midpoint', 'hmix_select_shuffled_midpoint', 'hmix_infer_mixing_factor', 'hmix_categorical_soft_labels'):
        (tmp_path/'h-mix'/f'{n}.csv').write_text('altered')
    assert main(['analyse', '--root', str(tmp_path), '--out', str(tmp_path/'o')]) == 2
    assert 'hmix' in capsys.readouterr().err

def test_forms_about_few_classes(tmp_path):
    forms = simulated_answers('cifar-10s').categorical
    a = own(tmp_path, forms.assign(class_a='0'))
    assert set(a.classes) == set('0123456789') # not only those of the images
    assert 0 < analyse(a).tables['forms'].value['possible'] <= 10

def test_own_table_of_cifar10_gets_the_images_and_votes(hub, released, tmp_path):
    d = released.coefficient
    d[d.class_a.isin(['bird', 'cat']) & d.class_b.isin(['cat', 'dog'])].to_csv(tmp_path/'mine.csv')
    found = analyse(own_answers(tmp_path/'mine.csv', cifar10=True))
    assert 'entropy' in found.tables and not any(s.left_out for s in found.sections)
    assert found.claims is None

def test_seed_reaches_every_bootstrap(made, tmp_path):
    a, b = (analyse(made, seed=s).tables for s in (0, 1))
    assert {k for k in a if not a[k].equals(b[k])} == {'agreement', 'recovery', 'confidence', 'repeats', 'monotonicity', 'steps'}

def test_a_second_study_in_the_same_folder_leaves_none_of_the_first(made, tmp_path):
    write_analysis(analyse(made), tmp_path)
    write_analysis(analyse(simulated_answers('cifar-10s')), tmp_path, figures=False)
    assert [f.name for f in tmp_path.rglob('*.*') if f.is_file()] and not list(tmp_path.glob('figures/*'))
    assert {f.stem for f in (tmp_path/'tables').iterdir()} == set(analyse(simulated_answers('cifar-10s')).tables)

def test_simulated_people_are_named_in_title_and_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(['analyse', '--root', str(tmp_path), '--no-figures']) == 0
    assert '<title>Simulated people, after H-Mix</title>' in (tmp_path/'runs'/'analyse-h-mix-simulated'/'report.html').read_text()

@pytest.mark.parametrize('spoil, gone', [(lambda d: d.drop(columns='id_a'), {'label_examples', 'against_votes', 'varieties'}),
                                         (lambda d: d.assign(position=d.position+500), set()),
                                         (lambda d: d.drop(columns=['rt_s', 'position']), {'annotators'})])
def test_forms_of_all_kinds_end_in_a_report(hub, tmp_path, spoil, gone):
    d = load_answers('cifar-10s').categorical
    spoil(d[d.id_a < 2000]).to_csv(tmp_path/'forms.csv', index=False)
    found = analyse(own_answers(tmp_path/'forms.csv', cifar10=True))
    assert write_analysis(found, tmp_path/'o', figures=False).exists()
    assert {k for s in found.sections for k in s.left_out} <= gone, found.sections[0].left_out

def test_a_class_that_cifar10_has_not_is_named(tmp_path, hub):
    forms = load_answers('cifar-10s').categorical[:40]
    forms.assign(first=forms['first'].where(forms.index != 7, 'zebra')).to_csv(tmp_path/'f.csv')
    with pytest.raises(ValueError, match="class: 'zebra' is unknown"): own_answers(tmp_path/'f.csv', cifar10=True)
    assert '11 classes: ' in own_answers(tmp_path/'f.csv').about or 'zebra' in own_answers(tmp_path/'f.csv').about
