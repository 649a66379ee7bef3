"Recipes keep their names, refuse what is none; every published number has its runs; settings are never chosen on what counts."
import inspect, json, re, subprocess, sys
from dataclasses import asdict, dataclass, fields, replace
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from hmix_nb.mixing.stimuli import KINDS
from hmix_nb.softlabels.simulate import VARIANTS
from hmix_nb.study import chapter3, fields as rooms_fields, recipe as room, tables
from hmix_nb.study.fields import ALLOWED, DEFAULTS, unused
from hmix_nb.study.recipe import (COLUMNS, STATED, STUDIES, Arm, Claim, Recipe, Study, as_json, changed, choices, from_dict, get_study, grid,
                                  parse_value, published, published_cell, recipe_hash, reductions)
from hmix_nb.study.tables import SWITCHES, switches
from hmix_nb.study.tune import held_for, keys_of, mean_scores, tried_in, tune
from hmix_nb.train.models import MODELS

PAPERS = ['uai-table2', 'uai-table3', *(f'thesis-{k}' for k in '3.1 3.2 3.3 3.4 3.5-figure 3.6-figure 4.1 4.2 4.3 5.1 5.2 b.1 b.2 b.3 c.1'.split())]

# names of rows in folders that people have; if one of these changes, raise `FORMAT`
FROZEN = {
    '45b37dbac8': {'n_train': 300, 'pool': 20},
    'aea9244f3b': {'n_train': 300, 'labelling': 'relabel+omega', 'n_blends': 450, 'width': 8, 'epochs': 12, 'batch_size': 64, 'schedule': 'one-cycle', 'pool': 20},
    '8cda788e62': {'data': 'h-mix', 'labelling': 'uniform', 'model': 'vgg11', 'epochs': 200, 'drops': (101, 151), 'attack_steps': (0.0, 0.00392156862745098, 0.00784313725490196, 0.01568627450980392, 0.03137254901960784)},
    '42f000fe3d': {'data': 'h-mix', 'train_on': 'split', 'labels': 'cifar-10s', 'draw': 'one', 'annotators': 1, 'model': 'resnet34a', 'epochs': 65, 'batch_size': 32, 'drops': (51, 56), 'clip': 1.0, 'score_s': True, 'attack_steps': (0.0, 0.00392156862745098, 0.00784313725490196, 0.01568627450980392, 0.03137254901960784)},
    'b5535bfd4a': {'data': 'h-mix', 'mixing': 'ent-wc', 'alpha': 0.2, 'endpoints': 'soft', 'model': 'preact_resnet18', 'epochs': 200, 'drops': (101, 151), 'corruptions': 3, 'attack_steps': (0.0, 0.00392156862745098, 0.00784313725490196, 0.01568627450980392, 0.03137254901960784)},
    '220894d1f3': {'data': 'h-mix', 'seed': 4, 'mixing': 'ent-wc', 'policy': 'ends-short', 'alpha': 0.2, 'model': 'preact_resnet18', 'epochs': 200, 'drops': (101, 151), 'corruptions': 3, 'attack_steps': (0.0, 0.00392156862745098, 0.00784313725490196, 0.01568627450980392, 0.03137254901960784)},
    '8e06c3cb15': {'data': 'h-mix', 'train_on': 'split', 'smoothing': 0.05, 'smoothing_form': 'added', 'model': 'resnet34a', 'epochs': 65, 'batch_size': 32, 'drops': (51, 56), 'clip': 1.0, 'score_s': True, 'attack_steps': (0.0, 0.00392156862745098, 0.00784313725490196, 0.01568627450980392, 0.03137254901960784)},
}

def test_names_of_rows_stay():
    for h, d in FROZEN.items(): assert recipe_hash(from_dict(d)) == h, d

def test_a_field_added_later_changes_no_name(monkeypatch):
    @dataclass(frozen=True)
    class Later(Recipe):
        extra: float = 3.
        __hash__ = Recipe.__hash__
    monkeypatch.setitem(DEFAULTS, 'extra', 3.)
    for d in FROZEN.values(): assert recipe_hash(Later(**d)) == recipe_hash(Recipe(**d)) != recipe_hash(Later(**d, extra=4.))

def test_a_new_format_is_a_new_name(monkeypatch):
    before = recipe_hash(Recipe())
    monkeypatch.setattr(room, 'FORMAT', room.FORMAT+1)
    assert recipe_hash(Recipe()) != before

def test_every_field_has_a_reason():
    text = inspect.getsource(rooms_fields)
    for f in fields(Recipe): assert re.search(rf'^    {f.name}: [^#\n]+ = [^#\n]+ # \S.{{10,}}$', text, re.M), f.name

def test_allowed_names_are_those_of_the_rooms():
    assert set(ALLOWED['model']) == set(MODELS) and set(ALLOWED['simulator']) == set(VARIANTS)
    assert set(ALLOWED['labelling']) == {'none', *KINDS}

NEED = dict(data='h-mix', train_on='soft', labels='cifar-10s', smoothing=.1, labelling='relabel+omega', mixing='ent-wc', epochs=9)
BAD = [(k, v) for k in ALLOWED for v in ('hmm', None, 3)]
BAD += [(k, v) for k in rooms_fields._WHOLE for v in (-1, 2.5, '3', True, float('nan'), np.array([1, 2]))]
BAD += [(k, v) for k in rooms_fields._NUMBERS for v in (-1., float('nan'), float('inf'), '.1', None, True, [.1], 1+1j)]
BAD += [(k, 1.1) for k, hi in rooms_fields._NUMBERS.items() if hi == 1] + [(k, v) for k in rooms_fields._FLAGS for v in (0, 1, 'yes', None)]
BAD += [(k, 0.) for k in rooms_fields._POSITIVE] + [('n_soft', 901), ('corruptions', 6), ('epochs', 0)]
BAD += [('drops', v) for v in ((3, 2), (2, 2), (0,), (9,), (2.5,), 3, '2,3', None)] + [('attack_steps', v) for v in ((2,), ('a',), .1, (-.1,))]

@pytest.mark.parametrize('k, v', BAD)
def test_bad_values_name_field_found_and_allowed(k, v):
    with pytest.raises(ValueError) as e: Recipe(**NEED | {k: v})
    assert str(e.value).startswith(f'{k}: ') and re.search('[Aa]llowed', str(e.value)), e.value
    if k in ALLOWED and v is not None: assert repr(v) in str(e.value)

@pytest.mark.parametrize('d, said', [
    (dict(data='h-mix', score_s=True), "score_s: found True with train_on='all'"),
    (dict(held='train-15000'), "held: found 'train-15000' with data='digits'"),
    (dict(train_on='split'), "train_on: found 'split' with data='digits'"), (dict(train_on='split+held'), 'train_on: '),
    (dict(smoothing=.1, smoothing_form='added', mixing='mixup'), "smoothing_form: found 'added' with mixing='mixup'; allowed is 'mixed', or"),
    (dict(n_train=1598), 'n_train: found 1598 with bin_size=100; allowed is at most 1597'), (dict(n_train=100_000, bin_size=900), 'at most 0'),
    (dict(data='h-mix', bin_size=1501), "bin_size: found 1501 with data='h-mix'; allowed is at most 1500"),
    (dict(train_on='soft'), 'n_soft: found 900 with n_train=300; allowed is at most 300'), (dict(train_on='soft', n_soft=100, n_train=99), 'n_soft: found 100'),
    (dict(train_on='soft', n_soft=300, held='carved'), 'n_soft: found 300 with n_train=300; allowed is at most 240'),
    (dict(labelling='mixup', n_blends=100), "n_blends: found 100 with labelling='mixup'; allowed is a multiple of 45"),
    (dict(alpha=.0099, mixing='mixup'), 'alpha: found 0.0099; allowed is a number of at least 0.01'),
    (dict(score_s=True), 'score_s: '), (dict(subset='thesis', labelling='mixup'), 'subset: '), (dict(resimulate=True), 'resimulate: ')])
def test_what_cannot_go_together_is_refused(d, said):
    with pytest.raises(ValueError, match=said): Recipe(**d)

def test_what_is_just_allowed_is_a_run():
    for d in (dict(n_train=1597), dict(train_on='soft', n_soft=300), dict(labelling='mixup', n_blends=90), dict(alpha=.01, mixing='mixup'), dict(n_blends=100),
              dict(train_on='soft', n_soft=240, held='carved'), dict(data='h-mix', bin_size=1500), dict(smoothing_form='added', mixing='mixup'),
              dict(data='h-mix', train_on='soft', n_soft=900), dict(n_train=1700, held='carved')): assert Recipe(**d)

def test_values_are_written_in_one_way():
    r = Recipe(lr=1, seed=np.int64(3), drops=[2, 4], attack_steps=[0, np.float32(.5)])
    assert (type(r.lr), type(r.seed), r.drops, r.attack_steps) == (float, int, (2, 4), (0., .5))
    assert r == Recipe(lr=1., seed=3, drops=(2, 4), attack_steps=(0., .5)) and json.loads(as_json(r))

def one(k):
    if k in ALLOWED: return st.sampled_from(ALLOWED[k])
    if k in rooms_fields._FLAGS: return st.booleans()
    if k == 'n_blends': return st.sampled_from([45, 90, 450])
    if k in rooms_fields._WHOLE: return st.integers(max(rooms_fields._WHOLE[k], 1), rooms_fields._MOST.get(k, 40))
    if k in rooms_fields._NUMBERS: return st.floats(1e-6, 1)
    return st.just((.1,)) if k == 'attack_steps' else st.just(())

some = st.fixed_dictionaries({}, optional={k: one(k) for k in DEFAULTS})

def made(d):
    try: return Recipe(**d)
    except ValueError: return None

@given(some, st.data())
@settings(max_examples=200, deadline=None)
def test_a_field_without_effect_makes_no_difference(d, data):
    if (r := made(d)) is None: return
    assert from_dict(json.loads(as_json(r))) == r and recipe_hash(from_dict(asdict(r))) == recipe_hash(r)
    assert from_dict(choices(r)) == r and all(getattr(r, k) == DEFAULTS[k] for k in unused(r))
    for k in unused(r) - {'score_s', 'resimulate', 'subset', 'train_on', 'split_seed'}: # digits refuse some; a split seed may be the seed's
        assert made(asdict(r) | {k: data.draw(one(k))}) in (r, None)
    other = made(d | dict(seed=r.seed+1))
    assert other is None or other != r and recipe_hash(other) != recipe_hash(r)

@given(some, some)
@settings(max_examples=200, deadline=None)
def test_equal_names_are_equal_recipes(a, b):
    a, b = made(a), made(b)
    if a and b: assert (recipe_hash(a) == recipe_hash(b)) == (a == b)
    if a and b and a == b: assert hash(a) == hash(b)

def test_a_field_that_goes_takes_others_along():
    a = Recipe(data='h-mix', held='carved', score_s=True, split_seed=7) # no second set is scored, so nothing is split
    assert a == Recipe(data='h-mix', held='carved') and a.split_seed is None

def test_unknown_fields_are_refused_with_the_nearest():
    with pytest.raises(ValueError, match="unknown field 'polcy'.*'policy'.*Fields: data, seed"): from_dict(dict(polcy='linear'))
    for make in (lambda: Recipe(epocs=3), lambda: replace(Recipe(), epocs=3), lambda: grid(Recipe(), epocs=(3,)), lambda: changed(get_study('demo'), epocs=3),
                 lambda: changed(get_study('demo'), lambda a: False, epocs=3), lambda: from_dict(dict(epocs=3)), lambda: get_study('demo', changes=dict(epocs='3'))):
        with pytest.raises(ValueError, match="unknown field 'epocs'. Did you mean 'epochs'.*Fields: data, seed"): make()
    assert 'epochs' in inspect.signature(Recipe).parameters and Recipe('digits', 3).seed == 3
    with pytest.raises(ValueError, match="'kappa'"): get_study('5.1', changes=dict(kapa=.5))
    with pytest.raises(ValueError, match="Did you mean 'relabel'"): Recipe(labelling='relable')

def test_tuning_never_scores_what_counts():
    r = Recipe(data='h-mix', train_on='split', score_s=True, corruptions=3, attack_steps=(.1,), held='carved')
    assert not r.score_s and not r.corruptions and not r.attack_steps
    r = Recipe(data='digits', corruptions=3, held='carved')
    assert not r.corruptions

# studies

def test_listing_is_light_and_quick():
    code = '''import sys, time; from hmix_nb.study.recipe import STUDIES, get_study; start = time.perf_counter()
n = [(len(get_study(k)), len(get_study(k, quick=True))) for k in STUDIES]
print(time.perf_counter()-start < 5, [m for m in ("torch", "pandas", "fastai", "matplotlib", "scipy") if m in sys.modules], len(n))'''
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout
    assert out.startswith('True [] ') and int(out.split()[-1]) >= 18

def test_all_studies_of_the_papers_are_there(): assert set(PAPERS) | {'demo'} <= set(STUDIES)

@pytest.mark.parametrize('given, name', [
    ('3.1', 'thesis-3.1'), ('THESIS-4.1', 'thesis-4.1'), ('B.2', 'thesis-b.2'), ('3.5-figure', 'thesis-3.5-figure'), ('Thesis 5.2', 'thesis-5.2'),
    ('uai_table2', 'uai-table2'), ('UAI-3', 'uai-table3'), ('c.1', 'thesis-c.1'), ('figure-3.6', 'thesis-3.6-figure'), ('poster-1', 'uai-table2')])
def test_names_are_understood(given, name): assert get_study(given).name == name

@pytest.mark.parametrize('given, near', [('uai-tabel2', 'uai-table2'), ('thesis-3.7', 'thesis-3.'), ('demos', 'demo'), ('thesis-c.2', 'thesis-c.1')])
def test_unknown_studies_are_refused_with_the_nearest(given, near):
    with pytest.raises(ValueError, match=f"study: .*unknown. Did you mean.*{near}"): get_study(given)

def test_every_published_number_has_its_runs():
    rows = {k: Counter3(get_study(k)) for k in PAPERS}
    for k in PAPERS:
        want = {(t, o['label'], o.get('block'), c) for t in get_study(k).tables for o in published()[t]['rows'] for c in published()[t]['columns']}
        assert set(rows[k]) == want, k
    assert {t for k in PAPERS for t in get_study(k).tables} == set(published()) - {'uai_1', 'poster_1', 'poster_2', 'text_numbers'}

def Counter3(study): # cells of the papers -> arms
    out, first = {}, next(iter(study.blocks))
    for a in study.arms:
        for block in study.blocks:
            for m in COLUMNS:
                for p in a.published:
                    if (p.block if p.block in study.blocks else first) != block: continue
                    if published_cell(study, a, m, block) is not None: out.setdefault((p.table, p.label, p.block, p.prefix+COLUMNS[m]), []).append(a.name)
    return out

def test_two_arms_share_a_printed_cell_only_where_it_is_unknown_which_it_was():
    twice = {(k, *v) for k in PAPERS for v in Counter3(get_study(k)).values() if len(v) > 1}
    assert {o[0] for o in twice} == {'thesis-b.1'}

@pytest.mark.parametrize('name, arm, block, metric, cell', [
    ('uai-table2', 'relabel+omega', None, 'calib', [.19, .001]), ('uai-table3', 'Human-Fits', None, 'fgsm', [7.32, 2.27]),
    ('3.3', 'CIFAR-10H, M = 1', 'CIFAR-10S', 'calib', [.45, .05]), ('3.4', 'T2, Clamp', 'CIFAR-10H', 'fgsm', [8.482, 3.95]),
    ('4.3', 'relabel+omega, separate', None, 'ce', [1.83, .03]), ('5.2', 'Mix-MaxEnt, soft', None, 'c_ce', [1.252, .02]),
    ('5.2', 'no mixing', None, 'ce', None), ('b.1', 'Label Smoothing', 'CIFAR-10S', 'ce', [2.674, .33]), ('c.1', 'tau + Ent-WC', None, 'ce', [1.039, .02]),
    ('c.1', 'shared slope', None, 'ce', None), ('3.1', 'Hard Labels', None, 'accuracy', None)])
def test_printed_cells_stand_with_their_arms(name, arm, block, metric, cell):
    s = get_study(name)
    assert published_cell(s, next(a for a in s.arms if a.name == arm), metric, block) == cell

def test_arms_are_what_the_papers_say():
    def first(name, arm): return next(a for a in get_study(name).arms if a.name == arm).recipes[0]
    for name, arm, what in [
        ('3.1', 'CIFAR-10H', dict(labels='cifar-10h', draw='mean', annotators=0, train_on='split', score_s=True, epochs=65, drops=(51, 56), batch_size=32, clip=1.,
                                  weight_decay=1e-4, momentum=.9, labelling='none', mixing='none')),
        ('3.2', 'Ours (T2, Clamp)', dict(labels='cifar-10s', draw='one', variety='T2', spread='clamp', label_gamma=.1)),
        ('3.3', 'Ours, M = 2', dict(draw='one', annotators=2, model='resnet34a')), ('3.4', 'T1, Unif', dict(variety='T1', spread='uniform', draw='one')),
        ('b.3', 'Semantic', dict(variety='T2', spread='semantic')), ('b.1', 'Label Smoothing', dict(labels='hard', smoothing=.05, smoothing_form='mixed', smooth_on='soft')),
        ('b.1', 'Label Smoothing, as coded', dict(smoothing_form='added')),
        ('4.2', 'relabel, separate', dict(labelling='relabel', separate=True, subset='thesis', model='preact_resnet18', epochs=200, drops=(101, 151), batch_size=128, clip=0.)),
        ('uai-table2', 'random', dict(labelling='random', subset='all', train_on='all')), ('5.1', 'Mix-MaxEnt', dict(mixing='mix-maxent', alpha=10., coef=1., towards='entropy')),
        ('5.1', 'Ent-WC', dict(mixing='ent-wc', alpha=.2, kappa=.7, detach=False, corruptions=3)), ('5.1', 'no mixing', dict(mixing='none', labelling='none')),
        ('5.2', 'no mixing, soft', dict(endpoints='soft', mixing='none')), ('c.1', 'Ent-WC, soft', dict(policy='linear', endpoints='soft', mixing='ent-wc')), ('c.1', 'tau, soft', dict(policy='logistic', endpoints='soft', mixing='mixup', alpha=1.)),
        ('c.1', 'permuted pairs + Ent-WC', dict(policy='permuted', mixing='ent-wc', alpha=.2)), ('3.6-figure', 'CIFAR-10H', dict(train_on='soft', n_soft=250, score_s=False, draw='one')),
        ('3.5-figure', 'Ours (T2, Clamp)', dict(draw='mean', annotators=1, labels='cifar-10s', score_s=True))]:
        r = first(name, arm)
        assert {k: getattr(r, k) for k in what} == what, (name, arm)

def test_architectures_and_seeds():
    def of(name): return {r.model: r.lr for r in get_study(name).recipes}, len({r.seed for r in get_study(name).recipes})
    three, two = dict(resnet34a=.1, resnet50=.4, vgg11=.1), dict(preact_resnet18=.1, vgg11=.1)
    for k in ('3.1', '3.2', 'b.1'): assert of(k) == (three, 5)
    for k in ('3.3', '3.4', '3.5-figure', 'b.2', 'b.3'): assert of(k) == (dict(resnet34a=.1), 5)
    assert of('3.6-figure') == (dict(resnet34a=.1), 10)
    for k in ('4.1', '4.2', '4.3', '5.1', '5.2', 'c.1'): assert of(k) == (dict(preact_resnet18=.1), 5)
    for k in ('uai-table2', 'uai-table3'): assert of(k) == (two, 5)
    assert [len(get_study(k)) for k in ('uai-table2', '3.1', '4.1', '5.1', '3.6-figure')] == [60, 75, 25, 20, 80]

@pytest.mark.parametrize('quick', [False, True])
def test_rows_of_two_tables_are_one_run(quick):
    h = {k.removeprefix('thesis-'): {recipe_hash(r) for r in get_study(k, quick=quick).recipes} for k in PAPERS}
    assert h['3.2'] < h['b.1'] and h['4.2'] < h['4.3'] and h['5.1'] < h['5.2']
    n = 2 if quick else 5
    assert [len(h['3.4'] & h[k]) for k in ('b.2', 'b.3', '3.2')] == [n, n, n]
    assert [len(h['4.1'] & h[k]) for k in ('4.3', 'uai-table2')] == [2*n, n]
    assert [len(h['5.1'] & h[k]) for k in ('c.1', 'uai-table3')] == [2*n, n] and len(h['c.1'] & h['uai-table3']) == 7*n

@pytest.mark.parametrize('name', [*PAPERS, 'demo'])
def test_quick_keeps_rows_and_metrics_and_says_what_it_cuts(name):
    full, quick = get_study(name), get_study(name, quick=True)
    assert [a.name for a in quick.arms] == [a.name for a in full.arms] and quick.full == full
    for k in ('metrics', 'blocks', *STATED, 'margin', 'tables', 'departures', 'curve', 'baseline'): assert getattr(quick, k) == getattr(full, k)
    for a, b in zip(quick.arms, full.arms):
        assert len({r.seed for r in a.recipes}) >= 2 and a.published == b.published
        if full.curve: assert {getattr(r, full.curve[0]) for r in a.recipes} == {getattr(r, full.curve[0]) for r in b.recipes}
    cut = reductions(quick)
    for k in DEFAULTS:
        if {getattr(r, k) for r in quick.recipes} != {getattr(r, k) for r in full.recipes}: assert k in cut.index
    assert {'seed', 'runs'} <= set(cut.index) and reductions(full).empty
    assert all(r.corruptions == 3 for r in quick.recipes) == all(r.corruptions == 3 for r in full.recipes)

# what the text says, and the printed means do not
AGAINST_ITS_TABLE = {('thesis-3.2', 'fgsm', 'CIFAR-10S'), ('thesis-3.3', 'calib', 'CIFAR-10S'), ('thesis-5.2', 'calib', None),
                     ('thesis-3.4', 'calib', 'CIFAR-10S')}

def test_claims_are_those_that_the_tables_print():
    odd = set()
    for k in PAPERS:
        s = get_study(k)
        for kind, c in ((kind, c) for kind in STATED for c in getattr(s, kind)):
            assert re.search(r'\((Table )?[3-5BC0-9.]+\)$', c.text) and c.metric in s.metrics and c.block in (None, *s.blocks)
            low, high = (published_cell(s, next(a for a in s.arms if a.name == o), c.metric, c.block) for o in (c.low, c.high))
            if kind == 'orderings' and low and high and low[0] >= high[0]: odd.add((k, c.metric, c.block))
            if kind == 'not_lower': assert low[0] > (1 - s.margin)*high[0], (k, c)
    assert odd == AGAINST_ITS_TABLE

def test_every_study_lists_its_departures_and_switches():
    for k in PAPERS:
        s = get_study(k)
        assert len(s.departures) >= 5 and all(re.search(r'thesis|UAI|Seeds are|controls', d) for d in s.departures)
        t = switches(s)
        assert len(t) >= 3 and t.here.astype(bool).all(), k
    fields_of = {k: set(switches(get_study(k)).field) for k in ('3.1', '5.1', '5.2', 'b.1')}
    assert 'detach' in fields_of['5.1'] and 'simulator' in fields_of['5.2'] and 'smooth_on' in fields_of['b.1'] and 'split_seed' in fields_of['3.1']
    assert 'detach' not in fields_of['3.1'] and 'train_on' in fields_of['3.1']

def test_questions_come_up_where_they_matter():
    fields_of = {k: set(switches(get_study(k)).field) for k in PAPERS}
    assert {k for k in PAPERS if 'model' in fields_of[k]} == {'thesis-5.1', 'thesis-5.2', 'thesis-c.1'} # the paper of UAI says ResNet-18
    assert {k for k in PAPERS if 'train_on' in fields_of[k]} == {f'thesis-{k}' for k in '3.1 3.2 3.3 3.4 3.5-figure b.1 b.2 b.3'.split()}
    t = switches(get_study('3.1')).set_index('field')
    assert t.here['Ours (T2, Clamp):annotators'] == 'all' and 'annotators' not in t.index and t.here['split_seed'] == "each run's seed"
    assert 'annotators' in fields_of['thesis-3.4'] and not [f for k in ('thesis-3.3', 'thesis-3.5-figure') for f in fields_of[k] if 'annotators' in f]
    cut = get_study('3.1', changes={'Ours (T2, Clamp):annotators': '6'}) # CIFAR-10H's votes stay
    assert {a.name: a.recipes[0].annotators for a in cut.arms} == {a.name: 6*(a.name == 'Ours (T2, Clamp)') for a in cut.arms}

def test_each_departure_is_said_where_it_applies_and_nowhere_else():
    keys = {k: {n for n, o in tables.SAID.items() if o in get_study(k).departures} for k in PAPERS}
    def those(name): return {k.removeprefix('thesis-') for k in PAPERS if name in keys[k]}
    three = {'3.1', '3.2', '3.3', '3.4', '3.5-figure', 'b.1', 'b.2', 'b.3'}
    assert those('split') == those('s') == three and '3.6-figure' not in three # it has no hard labels, and one set
    assert those('rule') == three | {'3.6-figure', '5.2', 'c.1', 'uai-table3'} and those('drops3') == those('plain') == three | {'3.6-figure'}
    assert those('weight') == {'5.1', '5.2', 'c.1'} and those('maxent') == {'5.1', '5.2'} and those('smooth') == {'b.1'}
    assert those('simulator') == those('soft') == {'5.2', 'c.1', 'uai-table3'} and those('alike') == {'b.2', 'b.3', '5.2', 'c.1', 'uai-table3'}
    assert those('corrupt') == {'5.1', '5.2'} and those('corrupt_too') == {'c.1', 'uai-table3'} # that is, all runs with scores on corruptions
    assert {k for k in PAPERS if any(r.corruptions for r in get_study(k).recipes)} == {k for k in PAPERS if {'corrupt', 'corrupt_too'} & keys[k]}
    assert those('who') == {'3.3', '3.5-figure'} and those('averaged') == {'3.5-figure'} and those('few') == {'3.6-figure'}
    assert those('fits') == {'c.1', 'uai-table3'} and those('810') == {'4.1', '4.2', '4.3'} and those('random') == {'3.1', '4.1', 'uai-table2'}
    assert those('drops4') == {'4.1', '4.2', '4.3', '5.1', '5.2', 'c.1', 'uai-table2', 'uai-table3'} and set().union(*keys.values()) == set(tables.SAID)
    for k in PAPERS: # what is said of a rate that drops is what the recipes have
        at = [int(o) for o in re.search(r'drops after (\d+) and (\d+)', ' '.join(get_study(k).departures)).groups()]
        assert {r.drops for r in get_study(k).recipes} == {tuple(at)}

def test_each_switch_changes_the_runs_that_it_is_about():
    for _, _, k, others in SWITCHES:
        asked = [(s, f) for s in map(get_study, PAPERS) for f in switches(s).field if f.split(':')[-1] == k]
        assert asked, k
        for o in others:
            done = 0
            for s, f in asked:
                try: done += get_study(s.name, changes={f: o}).recipes != s.recipes
                except ValueError as e: assert re.search('drops: found|would be the same run|endpoints|score_s', str(e)), (s.name, k, e)
            assert done, (k, o)

def test_changes():
    s = get_study('5.1', changes={'Ent-WC:kappa': '.5', 'epochs': '20', 'drops': '10,15', 'model': 'preact_resnet34'})
    by = {a.name: a.recipes[0] for a in s.arms}
    assert by['Ent-WC'].kappa == .5 and by['mixup'].drops == (10, 15) and by['no mixing'].model == 'preact_resnet34'
    assert s.name == 'thesis-5.1-part' and {'kappa', 'epochs', 'drops', 'model'} <= set(reductions(s).index)
    assert get_study('5.1', changes={}).name == 'thesis-5.1'
    for changes, said in [({'Ent-WC:kapa': 1}, "Did you mean 'kappa'"), ({'EntWC:kappa': .5}, "arm: 'EntWC' is unknown. Did you mean 'Ent-WC'"),
                          ({'gamma': .1}, 'gamma: no run of thesis-5.1 makes use of it'), ({'mixup:kappa': .1}, 'mixup:kappa: no run'),
                          ({'kappa': 'much'}, "kappa: found 'much'"), ({'mixing': 'mixup'}, "would be the same run|more than once"), ({'detach': 'maybe'}, "detach: found 'maybe'")]:
        with pytest.raises(ValueError, match=said): get_study('5.1', changes=changes)

@pytest.mark.parametrize('k, text, value', [('lr', '.1', .1), ('seed', '3', 3), ('drops', '100,150', (100, 150)), ('drops', '', ()), ('drops', '(5,)', (5,)),
                                            ('width', 'none', None), ('detach', 'True', True), ('labelling', 'none', 'none'), ('attack_steps', '0, .1', (0, .1)),
                                            ('lr', .2, .2), ('clip', '1e-1', .1), ('epochs', 'many', 'many')])
def test_values_from_a_command_line(k, text, value): assert parse_value(k, text) == value

def test_parts_and_seeds():
    s = get_study('uai-table2', arms=['MIXUP', 'relabel+omega'], seeds=2)
    assert [a.name for a in s.arms] == ['mixup', 'relabel+omega'] and len(s) == 8 and s.full.name == 'uai-table2'
    assert all({c.low, c.high} <= {'mixup', 'relabel+omega'} for c in s.orderings) and s.orderings and s.baseline == 'mixup'
    assert get_study('uai-table2', arms=['none']).baseline is None
    assert {r.n_soft for r in get_study('3.6-figure', seeds=1).recipes} == {250, 500, 750, 900}
    assert {r.seed for r in get_study('3.1', quick=True, seeds=3).recipes} == {0, 1, 2}
    for bad in (0, 1.5, 'two'):
        with pytest.raises(ValueError, match='seeds: found'): get_study('demo', seeds=bad)
    with pytest.raises(ValueError, match="arms: 'relable' is unknown. Did you mean 'relabel'"): get_study('uai-table2', arms=['relable'])
    with pytest.raises(ValueError, match='arms'): get_study('demo', arms=[])

def test_a_study_is_checked():
    a, b = (Arm(k, grid(Recipe(labelling=k), seed=(0, 1))) for k in ('none', 'mixup'))
    with pytest.raises(ValueError, match='each name once'): Study('s', 's', (a, a))
    with pytest.raises(ValueError, match="baseline: 'mixip' is unknown. Did you mean 'mixup'"): Study('s', 's', (a, b), 'mixip')
    with pytest.raises(ValueError, match="arm: 'x' is unknown"): Study('s', 's', (a, b), orderings=(Claim('t', 'none', 'x', 'ce'),))
    with pytest.raises(ValueError, match="'none' and 'again' would be the same run"): Study('s', 's', (a, replace(a, name='again')))
    s = Study('s', 's', (a, b))
    assert [r.seed for r in s.recipes] == [0, 0, 1, 1] and s.arm_of(recipe_hash(b.recipes[1])) is b and s.arm_of('nobody') is None
    assert [len(a.recipes) for a in changed(s, seed=3).arms] == [1, 1]

# tuning, with runs that are made up

def pretend(recipe, root=None, device=None):
    assert recipe.held != 'people'
    if recipe.lr == .5: raise FloatingPointError('loss is nan in epoch 0, batch 3')
    ce = 1 + abs(recipe.lr - (.2 if recipe.model == 'vgg11' else .01)) + .01*recipe.seed
    ce += abs(recipe.kappa - .9) if recipe.mixing == 'ent-wc' else 0
    return dict(recipe=recipe_hash(recipe), **asdict(recipe), ce=ce, n_eval=1000, source='made', version='0')

@pytest.fixture
def no_data(monkeypatch): monkeypatch.setattr('hmix_nb.study.tune.held_for', lambda recipe, root=None: 'carved')

def tuned(study, tmp_path, fields=None, **kwargs): return tune(study, fields, out=tmp_path, run=pretend, n_jobs=1, progress=False, **kwargs)

def test_rates_are_chosen_for_each_net(tmp_path, no_data):
    t = tuned(get_study('3.1'), tmp_path, 'lr')
    assert t.chosen == {'lr (resnet34a)': .01, 'lr (resnet50)': .01, 'lr (vgg11)': .2} and t.held == 'carved'
    assert {r.model: r.lr for r in t.study.recipes} == dict(resnet34a=.01, resnet50=.01, vgg11=.2)
    assert len(t.table) == 3*7 and t.table[t.table.value == .5].failed.eq(2).all() and not t.table[t.table.failed > 0].chosen.any()
    assert {r.held for r in t.study.recipes} == {'people'} and t.study.departures[-3:] == t.said and len(t.study) == 75
    assert 'lr is 0.01 (0.4 before) for resnet50' in repr(t) and '1,000 images carved out' in repr(t) and 'Hard Labels' in repr(t)
    assert pd.read_csv(tmp_path/'tune'/'tried.csv').shape == t.table.shape and {'lr'} <= set(reductions(t.study).index)

def test_settings_of_an_arm_are_chosen_in_it_one_after_the_other(tmp_path, no_data):
    t = tuned(get_study('5.1', quick=True), tmp_path)
    assert list(t.chosen) == ['lr (preact_small)', 'Mix-MaxEnt:alpha', 'Ent-WC:alpha', 'Ent-WC:kappa'] and t.chosen['Ent-WC:kappa'] == .9
    by = {a.name: a.recipes[0] for a in t.study.arms}
    assert by['Ent-WC'].kappa == .9 and {r.lr for r in t.study.recipes} == {.01} and len(t.study) == 8 and t.study.name.endswith('-quick-tuned')
    tried = [json.loads(p.read_text()) for p in (tmp_path/'tune'/'rows').glob('*.json')]
    assert {o['held'] for o in tried} == {'carved'} and {o['lr'] for o in tried if o['mixing'] == 'ent-wc'} == {.01}
    assert t.study.full.name == 'thesis-5.1'

def test_a_choice_that_nobody_survives_is_no_choice(tmp_path, no_data):
    with pytest.raises(ValueError, match='value: all of .* failed'): tuned(changed(get_study('4.1'), lr=.5), tmp_path, {'lr': [.5]})

@pytest.mark.parametrize('fields, said', [('lrr', "Did you mean 'lr'"), ('gamma', 'gamma'), ({'nonsense': [1]}, "unknown field 'nonsense'"), ('kappa', "fields: 'kappa' is unknown")])
def test_unknown_settings_are_refused_before_any_work(fields, said, tmp_path):
    with pytest.raises(ValueError, match=said): tuned(get_study('4.1'), tmp_path, fields)
    assert not list(tmp_path.iterdir())

def test_every_study_can_be_tuned(tmp_path, no_data):
    for k in PAPERS:
        for quick in (False, True):
            s = get_study(k, quick=quick)
            for key in keys_of(s):
                a = tried_in(s, key)
                assert len(a.recipes) == len({r.model for r in a.recipes})
                for r in a.recipes: assert replace(r, held='carved').held == 'carved' and replace(r, held='train-15000', seed=3)

def test_papers_candidates_hold_what_they_chose():
    for k in PAPERS:
        s = get_study(k)
        for key, values in s.tunable.items():
            field = key.split(':')[-1]
            assert all(getattr(r, field) in values for r in tried_in(s, key).recipes), (k, key)
    assert get_study('3.1').tunable['label_gamma'] == (0., .01, .05, .1, .2, .3, .4) and 'label_gamma' not in get_study('b.2').tunable

def test_images_to_choose_on(hub):
    r = get_study('5.1').recipes[0]
    assert held_for(r) in ('carved', 'train-15000') and held_for(Recipe()) == 'carved'
    with pytest.raises(ValueError, match="held: 'people' is unknown"): tuned(get_study('5.1'), None, 'lr', held='people')
