"A study as data: what is drawn, what is refused, what a file keeps, what people read and may answer."
import os, subprocess, sys
from collections import Counter, defaultdict
from pathlib import Path
from types import SimpleNamespace
import numpy as np, pandas as pd, pytest, yaml
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image
from hmix_nb.elicit import study
from hmix_nb.elicit.answers import agreement, check_answer, payment
from hmix_nb.elicit.design import SINGLE, THREE, deal, draw_pairs, own_order
from hmix_nb.elicit.images import blend_pictures, builtin, left_out, list_folder
from hmix_nb.elicit.spec import TASKS, TEMPLATES, AnswerError, Spec
from hmix_nb.elicit.texts import holes, languages, load_texts, read_yaml, texts_file

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)
def make(template='coefficient', n=12, k=3, **kw): return Spec.new(template, (PIXELS[:n], np.arange(n) % k), classes=('cat', 'dog', 'frog', 'owl')[:k], **kw)

@pytest.fixture
def photos(tmp_path):
    for i in range(40):
        folder = tmp_path/'my photos'/('Cat', 'dog', 'red_panda', 'Übung')[i % 4]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((30+i, 50, 3), i*6, np.uint8)).save(folder/f'{i} ß.png')
    return tmp_path/'my photos'

def test_stays_without_torch():
    code = "import sys, hmix_nb.elicit.store, hmix_nb.elicit.spec as s; s.Spec.new('construct', 'digits', n_pairs=1); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code], cwd=Path(__file__).parent.parent).returncode == 0

# --- images
def test_a_folder_of_photographs(photos, tmp_path):
    spec = Spec.new('coefficient', photos, name='mine')
    assert spec.classes == ('cat', 'dog', 'red panda', 'übung') and spec.check(files=True) is spec
    assert len(spec.stimuli) == 6*6*3 and {len(b) for b in spec.batches.values()} == {54}
    again = Spec.load(spec.save(tmp_path/'studies'/'mine.yaml'))
    assert again.source == '../my photos' and again.version == spec.version
    assert (again.picture(again.stimuli[0]['id'], .5) == spec.picture(spec.stimuli[0]['id'], .5)).all()
    file = photos/spec.images[0]['file']
    Image.new('RGB', (9, 9)).save(file)
    with pytest.raises(ValueError, match='was changed'): Spec.load(tmp_path/'studies'/'mine.yaml').check(files=True)

@pytest.mark.parametrize('name', ['digits', 'memory', 'cifar10-test'])
def test_a_folder_may_be_called_like_a_built_in_set(photos, tmp_path, name):
    photos.rename(tmp_path/name)
    spec = Spec.new('categorical-images', tmp_path/name)
    again = Spec.load(spec.save(tmp_path/'study.yaml'))
    assert again.image(again.images[0]['id']).shape[1] == 50 and again.version == spec.version

def test_folder_given_as_dot(photos, monkeypatch):
    monkeypatch.chdir(photos)
    assert len(Spec.new('categorical-images', '.').check(files=True).images) == 40

def test_what_a_folder_must_not_hold(photos):
    with pytest.raises(ValueError, match='no folder'): list_folder(photos/'none')
    (photos/'dog'/'broken.jpg').write_bytes(b'\xff\xd8\xff nothing')
    with pytest.raises(ValueError, match='broken.jpg'): list_folder(photos)
    (photos/'dog'/'broken.jpg').unlink()
    (photos/'CAT').mkdir()
    Image.new('RGB', (4, 4)).save(photos/'CAT'/'x.png')
    with pytest.raises(ValueError, match="both class 'cat'"): list_folder(photos)

def test_pictures_are_read_the_right_way_up(tmp_path):
    (tmp_path/'a').mkdir()
    x = np.zeros((4, 8, 3), np.uint8)
    x[:, :4] = 255
    exif = Image.Exif()
    exif[0x112] = 6 # to be turned by 90 degrees
    Image.fromarray(x).save(tmp_path/'a'/'1.png', exif=exif)
    Image.fromarray(np.zeros((4, 4, 4), np.uint8), 'RGBA').save(tmp_path/'a'/'2.png')
    Image.fromarray(np.full((4, 4), 65535, np.uint16)).save(tmp_path/'a'/'3.png')
    rows = list_folder(tmp_path)
    spec = SimpleNamespace(root=tmp_path)
    from hmix_nb.elicit.images import read_image
    read = [read_image(str(tmp_path/o['file'])) for o in rows]
    assert read[0].shape == (8, 4, 3) and (read[1] == 255).all() and (read[2] == 255).all()

def test_digits_are_those_of_the_data_room():
    from hmix_nb.data.images import digits
    rows, x = builtin('digits')
    theirs = digits()
    assert [int(o['class']) for o in rows] == theirs.y.tolist()
    assert np.abs(np.stack(x).astype(int) - theirs.x).max() <= 1 # one grey level, where a half is rounded

def test_fastai_dataloaders(photos):
    from fastai.vision.data import ImageDataLoaders
    from fastai.vision.augment import Resize
    dls = ImageDataLoaders.from_folder(photos, valid_pct=.25, item_tfms=Resize(16), bs=4, num_workers=0)
    spec = Spec.new('construct', dls)
    assert spec.source == 'memory' and all(o.shape[1:] == (50, 3) for o in spec.arrays.values()), 'photographs, not crops'
    from hmix_nb.data.images import soft_dls
    soft = soft_dls(PIXELS[:8], np.eye(2)[np.arange(8) % 2]*.8+.1, PIXELS[8:12], [0, 1, 0, 1], n_classes=2, vocab=('up', 'down'))
    spec = Spec.new('coefficient', soft)
    assert spec.classes == ('down', 'up') and {o['entropy'] for o in spec.images} == {.325083, 0.}
    assert all((spec.arrays[i] == PIXELS[i]).all() for i in spec.arrays)

def test_blends_are_the_pixels_own():
    a, b = np.full((8, 8, 3), 200, np.uint8), np.full((8, 8, 3), 100, np.uint8)
    assert (blend_pictures(a, b, .25, 32) == 125).all() and (blend_pictures(a, b, 0, 32) == 100).all()
    x = PIXELS[0]
    assert (blend_pictures(x, None, 1, 32, 'nearest') == np.kron(x, np.ones((4, 4, 1), np.uint8))).all()
    assert (blend_pictures(x, None, 1, 32) == np.asarray(Image.fromarray(x).resize((32, 32), Image.Resampling.LANCZOS))).all()
    assert blend_pictures(np.zeros((90, 50, 3), np.uint8), np.zeros((20, 70, 3), np.uint8), .5, 40).shape == (40, 40, 3)

def test_h_mix_from_the_hub(hub):
    spec = Spec.new('coefficient', hub)
    assert len(spec.stimuli) == 810 and len(spec.batches) == 15 and {len(b) for b in spec.batches.values()} == {54}
    train = set(np.load(hub.path('splits/train_indices.npy')).tolist())
    assert {o['id'] for o in spec.images} <= train
    lams = defaultdict(list)
    for s in spec.stimuli: lams[s['id_a'], s['id_b']].append(s['lam_f'])
    assert len(lams) == 270 and all({.5} < set(v) and len({.1, .25} & set(v)) == len({.75, .9} & set(v)) == 1 for v in lams.values())
    some = Spec.new('categorical-images', hub, n_pairs=25, high=.88)
    assert Counter(o['entropy'] > .25 for o in some.images) == {True: 220, False: 30} and max(o['entropy'] for o in some.images if o['entropy'] <= .25) <= .1
    low = {o['id'] for o in some.images if o['entropy'] <= .1}
    per_batch = [sum(s['id_a'] in low for s in some.stimuli if s['batch'] == b) for b in some.batches]
    assert set(per_batch) == {3}, 'three clear images in each batch of 25, as in CIFAR-10S'

# --- design
@settings(max_examples=60, deadline=None)
@given(st.integers(2, 5), st.integers(3, 6), st.integers(1, 9), st.integers(2, 40), st.sampled_from([THREE, SINGLE, ((.3, .7),), ((.5,),)]), st.integers(0, 9))
def test_designs_are_balanced(k, per_class, n, per_batch, lams, seed):
    images = [{'id': i, 'class': 'abcde'[i % k]} for i in range(k*per_class)]
    spec = Spec.new('coefficient', (np.zeros((k*per_class, 4, 4, 3), np.uint8), np.arange(k*per_class) % k), classes=tuple('abcde'[:k]), n_pairs=n, per_batch=per_batch, lams=lams, seed=seed)
    s = pd.DataFrame(spec.stimuli)
    assert s.groupby(['class_a', 'class_b']).size().nunique() == 1 and len(s) == n*len(lams)*k*(k-1)//2
    assert (s.class_a < s.class_b).all() and s.id.is_unique
    for g in lams:
        here = s[s.lam_f.isin(g)]
        assert np.ptp(here.lam_f.value_counts().reindex(g, fill_value=0)) <= 1
        for _, o in here.groupby(['class_a', 'class_b']): assert np.ptp(o.lam_f.value_counts().reindex(g, fill_value=0)) <= 1
    assert (s.groupby(['id_a', 'id_b']).size() == len(lams)).all()
    used = pd.concat([s.id_a, s.id_b]).value_counts().groupby(lambda i: i % k).agg(np.ptp) # within a class
    sizes = s.batch.value_counts()
    assert np.ptp(sizes) <= 1 and sizes.max() <= per_batch
    spread = pd.crosstab(s.class_a + s.class_b, s.batch)
    assert (spread.max(axis=1) - spread.min(axis=1) <= 1).all()
    if len(sizes) >= len(lams): assert not s.duplicated(['id_a', 'id_b', 'batch']).any()

def test_same_seed_same_study_another_seed_another():
    assert make(seed=3).to_dict() == make(seed=3).to_dict() != make(seed=4).to_dict()

def test_quotas_need_entropies():
    with pytest.raises(ValueError, match='no entropy'): make(high=.5)
    spec = make(entropy=[0, 0, 0, .6, .6, .6]*2, high=.5, n_pairs=2)
    e = {o['id']: o['entropy'] for o in spec.images}
    kinds = Counter((e[s['id_a']] > .25, e[s['id_b']] > .25) for s in spec.stimuli if s['lam_f'] == .5)
    assert kinds == {(True, True): 3, (False, False): 3}
    with pytest.raises(ValueError, match='n_pairs: found 5 of low entropy'): make(entropy=[0, 0, 0, .6, .6, .6]*2, high=.5, n_pairs=10)
    with pytest.raises(ValueError, match='cifar10h'): make(entropy='cifar10h')
    with pytest.raises(ValueError, match='5 values'): make(entropy=[0]*5)

def test_orders_are_ones_own_and_repeats_come_last():
    spec = make(repeats=[15, 20])
    orders = [spec.order(f'person {i}', 0) for i in range(40)]
    for o in orders:
        assert [t.index for t in o] == list(range(56)) and [t.repeat for t in o] == [False]*54 + [True]*2
        assert (o[54].stimulus, o[55].stimulus) == (o[15].stimulus, o[20].stimulus)
        assert {t.stimulus for t in o} == set(spec.batches[0])
    assert len({t.id for o in orders for t in o}) == 40*56, 'a trial belongs to one person'
    assert len({o[0].stimulus for o in orders}) > 15
    assert orders[0] == spec.order('person 0', 0) == Spec.from_dict(spec.to_dict(), arrays=spec.arrays).order('person 0', 0)
    last = make(repeats=3).order('x', 0)
    assert len({t.stimulus for t in last[54:]}) == 3 and all(t.repeat for t in last[54:])

def test_starts_are_taken_in_turn_fixed_or_random():
    by = lambda start: [[t.start for t in make('construct', start=start).order('x', 0, place)] for place in range(4)]
    assert [set(o) for o in by([.1, .9])] == [{.1}, {.9}, {.1}, {.9}] and {v for o in by(.3) for v in o} == {.3}
    free = {v for o in by('random') for v in o}
    assert free <= {k/10 for k in range(11)} and len(free) > 5
    t = make(start='random', start_confidence='random').order('x', 0)
    assert len({o.start for o in t}) > 10 and all(0 <= o.start <= 1 and 0 <= o.start_confidence <= 1 for o in t)

def test_select_is_shuffled_anew_each_time():
    order = make('select-shuffled', repeats=[0]).order('x', 0)
    assert all(sorted(t.options) == [k/10 for k in range(11)] for t in order)
    assert len({t.options for t in order}) == len(order)
    pair = make('pairwise').order('x', 0)
    assert {t.options == (t.lam_f, t.lam_f2) for t in pair} == {True, False} and all(set(t.options) == {t.lam_f, t.lam_f2} for t in pair)

def test_keys_of_pictures_tell_nothing():
    spec = make('select-shuffled')
    keys = spec.media(b'a secret')
    assert len(keys) == 11*len(spec.stimuli) and all(len(k) == 22 for k in keys) and not set(keys) & set(spec.media(b'another'))
    assert not set(keys) & set(spec.replace(size=64).media(b'a secret')), 'another version, other keys: no cache shows the old one'

# --- the file
@pytest.mark.parametrize('template', TEMPLATES)
@pytest.mark.parametrize('language', ['en', 'de'])
def test_every_template_is_written_and_read(template, language, tmp_path):
    spec = make(template, language=language, name=template)
    again = Spec.load(spec.save(tmp_path/f'{template}.yaml'))
    assert again.version == spec.version and {k: v for k, v in again.to_dict().items() if k not in ('source', 'images')} == {
        k: v for k, v in spec.to_dict().items() if k not in ('source', 'images')}
    assert all('{' not in o for o in [again.shown['consent']['text'], *again.shown['instructions']] + [again.question(t) for t in again.trials])
    third = again.shown['comprehension'][-1]
    assert '100' in third['options'][third['answer']] and again.check_comprehension([q['answer'] for q in again.shown['comprehension']]) == ()
    own = make(template, language=language, framing='own').shown['comprehension'][-1]
    assert own['answer'] != third['answer']
    assert again.to_yaml() == Spec.load(again.save(tmp_path/'b.yaml')).to_yaml()

def test_version_is_what_participants_see():
    spec = make()
    same = dict(wanted=9, lease_minutes=5, completion_url='https://x.org/?cc={code}', completion_code='C1', name='other', pay={'base': 2})
    assert {spec.replace(**{k: v}).version for k, v in same.items()} == {spec.version}
    seen = dict(target=.3, repeats=1, seed=9, size=64, upscale='nearest', language='de', framing='own', labels={'cat': 'Katze'}, instructions=['Look'],
                title='Pets', texts={'question.coefficient.others': '{a}?'}, debrief=[], comprehension=[], minutes=20, start=.3, stimuli=spec.stimuli[:30], revise=True)
    assert len({spec.replace(**{k: v}).version for k, v in seen.items()} | {spec.version}) == len(seen)+1
    paid = spec.replace(instructions=['Look. {bonus_line}'], pay={'bonus': 1})
    assert paid.version != paid.replace(pay={'bonus': 2}).version # the amount is said
    other = {k: v.copy() for k, v in spec.arrays.items()}
    next(iter(other.values()))[0, 0, 0] ^= 1
    fresh = [{k: v for k, v in o.items() if k != 'sha'} for o in spec.images]
    assert spec.replace(images=fresh, arrays=other).version != spec.version == spec.replace(images=fresh).version

def test_paragraphs_stand_in_the_file_as_they_are(photos, tmp_path):
    path = Spec.new('coefficient', photos, n_pairs=2).save(tmp_path/'a.yaml')
    said = path.read_text(encoding='utf-8')
    mine = "We're at the lab: it's #1 {minutes}.\n\n    So \"far\"."
    path.write_text(said.replace('[Who you are, where, and how to reach you.]', mine), encoding='utf-8') # as in an editor, without quotes
    assert Spec.load(path).consent['text'].startswith("We're at the lab: it's #1 {minutes}.\n\nSo \"far\". We study")
    for odd in ('a \n\n b', ' a\nb\n', '\n\na\tb', '# a\n---\n- b: c', 'ü\n\u2028猫 🐈\n', 'a\x85\nb', 'a\n\n', "'\"\n|", 'a\r\nb', '...\n.', 'a\n\xa0', 'a\nb\u3000'):
        spec = make(instructions=['Look', odd], consent=dict(text=odd, boxes=[odd]))
        assert Spec.from_dict(read_yaml(spec.to_yaml()), arrays=spec.arrays).to_dict() == spec.to_dict(), odd

def test_what_is_left_out_of_a_folder_is_told(photos):
    assert left_out(photos) == ''
    for name in ('dog/1.HEIC', 'dog/.DS_Store', 'Cat/2.heic', 'notes.txt', '__MACOSX/x.png', 'loose.jpg'):
        (photos/name).parent.mkdir(exist_ok=True)
        (photos/name).write_bytes(b'x')
    assert sorted(left_out(photos).split(', ')) == ['1 file .txt', '1 image beside the subfolders', '2 files .heic']
    assert len(list_folder(photos)) == 40
    with pytest.raises(ValueError, match='but 10 images beside the subfolders, 1 file .heic'): list_folder(photos/'dog')

def test_what_a_viewer_keeps_beside_photographs_is_not_shown(photos):
    rows = list_folder(photos)
    for name in ('dog/.thumbs/1.png', 'dog/__MACOSX/._1.jpg', 'dog/@eaDir/1.jpg', '@eaDir/dog/1.jpg', '.cache/1.png', 'dog/._1.jpg'):
        (photos/name).parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (4, 4)).save(photos/name)
    assert list_folder(photos) == rows and left_out(photos) == ''
    for name in ('dog/@me.png', 'dog/__1.png'): Image.new('RGB', (4, 4)).save(photos/name) # photographs may be called so
    assert len(list_folder(photos)) == len(rows) + 2

@pytest.mark.skipif(os.sep == '\\', reason='names of files hold neither a colon nor a backslash')
@pytest.mark.parametrize('name', ['Screenshot 10:22:33.png', 'x\\y.png', 'C:\\x.png'])
def test_a_photograph_is_called_as_one_likes(photos, name):
    Image.new('RGB', (60, 60)).save(photos/'dog'/name)
    spec = Spec.new('categorical-images', photos)
    assert f'dog/{name}' in {o['file'] for o in spec.images}
    spec.check(files=True)

def test_a_damaged_photograph_is_found_without_reading_it_in_full_size(tmp_path):
    (tmp_path/'a').mkdir()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8))
    noise.save(tmp_path/'a'/'1.jpg')
    assert len(list_folder(tmp_path)) == 1
    whole = (tmp_path/'a'/'1.jpg').read_bytes()
    (tmp_path/'a'/'1.jpg').write_bytes(whole[:-3000])
    with pytest.raises(ValueError, match='a/1.jpg: no image'): list_folder(tmp_path)

def test_a_newer_package_goes_on_with_a_study(monkeypatch):
    mine = {'question.coefficient.others': 'How much {a}, how much {b}?'}
    now = lambda **kw: [make(instructions=['Look. {framing} {bonus_line}'], pay={'bonus': 1}, language=l, **kw).version for l in ('en', 'de')]
    before, own = now(), now(texts=mine)
    shipped = study.load_texts
    monkeypatch.setattr(study, 'load_texts', lambda *a: {**shipped(*a), 'strings': {k: f'Kindly: {v}' for k, v in shipped(*a)['strings'].items()}})
    assert make().text('next') == 'Kindly: Next' and (now(), now(texts=mine)) == (before, own)
    assert len({*before, *own}) == 4 and now(texts={k: v + '!' for k, v in mine.items()}) != own

BAD = dict(name=['', 'a b', '../x', 3, None], task=['construkt', None, 3], language=['xx', '', 3], framing=['me'], target=[0, 1, 'x', None, True, float('nan')],
           start=[2, 'left', [], [.1, 'x'], None, True, .005], start_confidence=[2, None], repeats=[-1, 99, [99], [1, 1], 'x', [[1]], True, None], revise=['yes', 1],
           wanted=[0, -1, 1.5, 'x', None, True], lease_minutes=[0, -1, 'x', None], minutes=[0], pay=[{'bonus': -1}, {'bonuss': 1}, 3, {'base': 'x'}],
           completion_url=['javascript:alert(1)', 'ftp://x', 'https://a b', 'https://x"y<', 3], completion_code=['a b', 'x'*65, '<é>'], upscale=['bicubic'],
           size=[0, 5000, 'x', 3.5], seed=[-1, 'x'], classes=[[], ['cat'], 'cat', ['cat', 'cat'], ['Cat', 'dog'], ['cat', True], ['a_b', 'c'], ['(x', 'y'], ['a<b', 'c']],
           labels=[{'cow': 'Kuh'}, {'cat': 3}, []], consent=[{}, {'text': 'x'}, {'text': '', 'boxes': ['a']}, {'text': 'x', 'boxes': []}, None, {'text': 'x {nn}', 'boxes': ['a']}],
           instructions=[[], [''], 'x', [3]], comprehension=[[{}], [{'question': 'a', 'options': ['x'], 'answer': 0}], [{'question': 'a', 'options': ['x', 'y'], 'answer': 2}], 3],
           debrief=[[{'id': 'A', 'question': 'x', 'kind': 'text'}], [{'id': 'a', 'question': 'x', 'kind': 'txt'}], [{'id': 'a', 'question': 'x', 'kind': 'text'}]*2],
           texts=[{'nxt': 'x'}, {'next': 3}, {'next': '{what}'}, []], source=['', None, 3], title=['a\nb', 3],
           images=[[], [{}], [{'id': 0}], 'x', [{'id': 0, 'class': 'cat', 'path': 'x'}], [{'id': True, 'class': 'cat'}]],
           stimuli=[[], [{}], 'x', [{'class_a': 'cat', 'id_a': 99, 'class_b': 'dog', 'id_b': 1, 'lam_f': .5}], [{'class_a': 'cat', 'id_a': [1]}]])

@pytest.mark.parametrize('field, value', [(k, v) for k, vs in BAD.items() for v in vs])
def test_what_is_wrong_is_named(field, value):
    with pytest.raises(ValueError, match=f'^{field}|stimuli'): make().replace(**{field: value})

def test_blends_that_a_task_cannot_show():
    spec = make()
    one = dict(spec.stimuli[0])
    for bad, told in ((one | {'lam_f': 2}, 'lam_f'), ({k: v for k, v in one.items() if k != 'lam_f'}, 'needs it'), (one | {'class_a': 'dog'}, 'the stimulus says'),
                      (one | {'lam_f2': .5}, 'has none'), (one | {'id_b': one['id_a']}, 'stimulus says'), (one | {'batch': -1}, 'batch'), (one | {'id': 'mixed_0.5_Dog_1_Cat_2'}, 'make')):
        bad = bad if 'id' in bad and told == 'make' else {k: v for k, v in bad.items() if k != 'id'}
        with pytest.raises(ValueError, match=told): spec.replace(stimuli=[bad])
    with pytest.raises(ValueError, match='2 times'): spec.replace(stimuli=[one, one], repeats=0)
    with pytest.raises(ValueError, match='not blended'): spec.replace(stimuli=[{'class_a': one['class_a'], 'id_a': one['id_a']}], repeats=0)

def test_files_that_are_no_study(tmp_path):
    path = tmp_path/'x.yaml'
    for text, told in (('[1]', 'mapping'), ('a: [', 'no YAML'), ('task: construct\ntask: pairwise', 'twice'), ('repaets: 2', "'repeats'"), ('', 'mapping'),
                       ('!!python/object/apply:os.system [ls]', 'no YAML'), ('name: !!binary x', 'no YAML|name')):
        path.write_text(text)
        with pytest.raises(ValueError, match=told) as e: Spec.load(path)
        assert str(e.value).startswith('x.yaml')
    path.write_bytes(b'name: \xff')
    with pytest.raises(ValueError, match='UTF-8'): Spec.load(path)
    with pytest.raises(OSError): Spec.load(tmp_path/'none.yaml')

junk = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(['cat', 'random', '0.5', '../x']),
                    lambda o: st.lists(o, max_size=3) | st.dictionaries(st.sampled_from(['id', 'class', 'class_a', 'id_a', 'lam_f', 'text', 'boxes', 'question', 'options', 'answer', 'kind', 'base', 'cat', 'next', 'batch']), o, max_size=4), max_leaves=8)
PLAIN = make().to_dict()

@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(PLAIN)), junk)
def test_no_value_breaks_a_study_in_another_way(field, value):
    try: spec = Spec.from_dict(PLAIN | {field: value}, arrays={i: PIXELS[i] for i in range(24)})
    except ValueError: return
    spec.order('x', next(iter(spec.batches)))
    assert spec.version and spec.shown and yaml.safe_load(spec.to_yaml())

# --- texts
def test_languages_say_the_same():
    en = load_texts('en')
    assert languages() == ('de', 'en')
    for o in map(load_texts, languages()):
        assert set(o) == set(en) and set(o['strings']) == set(en['strings']) and set(o['templates']) == set(TEMPLATES)
        assert {k: holes(v) for k, v in o['strings'].items()} == {k: holes(v) for k, v in en['strings'].items()}
        for k, t in o['templates'].items():
            assert len(t['instructions']) == len(en['templates'][k]['instructions'])
            assert [(q['answer'], len(q['options'])) for q in t['comprehension']] == [(q['answer'], len(q['options'])) for q in en['templates'][k]['comprehension']]
        assert [(q['id'], q['kind']) for q in o['debrief']] == [(q['id'], q['kind']) for q in en['debrief']]
    same = [k for k, v in en['strings'].items() if v == load_texts('de')['strings'][k]]
    assert set(same) <= {'coefficient.middle', 'coefficient.left', 'coefficient.right', 'coefficient.value', 'coefficient.sure_half'}

def test_a_language_of_ones_own(tmp_path):
    words = yaml.safe_load(yaml.safe_dump(load_texts('en')))
    words['strings'] = {k: f'« {v} »' for k, v in words['strings'].items()}
    (tmp_path/'fr.yaml').write_text(yaml.safe_dump(words, allow_unicode=True), encoding='utf-8')
    spec = make(words=tmp_path/'fr.yaml')
    assert spec.language == 'fr' and spec.text('next') == '« Next »' and spec.text('progress', done=1, n=2) == '« 1 of 2 done »'
    with pytest.raises(ValueError, match="'fr' is unknown"): make(language='fr')
    for few in ({}, dict(next='Suivant')): # of all but a few
        with pytest.raises(ValueError, match=f'texts lacks {len(words["strings"])-len(few)} of {len(words["strings"])} strings'): make().replace(language='fr', texts=few)
    ours = dict(load_texts('en')['strings'])
    whole = make().replace(language='fr', texts=ours)
    del ours['next'] # as where a newer package has one more
    most = make().replace(language='fr', texts=ours)
    assert (whole.untranslated, most.untranslated, most.text('next')) == ([], ['next'], 'Next')
    assert [sum('in English' in o for o in spec.warnings()) for spec in (whole, most)] == [0, 1]
    path = tmp_path/'fr.yaml'
    path.write_text(''.join(o for o in texts_file('en').splitlines(True) if not o.startswith('  next:')), encoding='utf-8')
    with pytest.raises(ValueError, match="words: strings lacks 1, such as 'next'"): make(words=path)

def test_targets_other_than_half():
    spec = make('construct', target=.7)
    assert '70/30' in spec.question(spec.trials[0]) and any('70/30' in o for o in spec.shown['instructions'])

def test_bonus_is_told_if_there_is_one():
    told = lambda **pay: ' '.join(make(pay=pay).shown['instructions'])
    assert '0.25 $' in told(bonus=.25, currency='$') and 'bonus' not in told()

def test_every_error_has_its_sentence():
    en = load_texts('en')['strings']
    import re, inspect, hmix_nb.elicit.answers as a, hmix_nb.elicit.spec as s, hmix_nb.elicit.store as o, hmix_nb.elicit.study as d, hmix_nb.elicit.database as b
    source = ''.join(map(inspect.getsource, (a, s, o, d, b)))
    for kind, name in (('error', 'AnswerError'), ('refused', 'Refused')):
        keys = set(re.findall(rf"{name}\('(\w+)'", source))
        assert len(keys) > 4 and {f'{kind}.{k}' for k in keys} <= set(en)

# --- answers
MOVED = dict(mix=True, confidence=True)
def trial(task, **kw): return SimpleNamespace(**(dict(options=(.3, .7), lam_f=.7) | kw))
def form(**kw): return dict(first='cat', first_prob=70, second='', second_prob='', impossible=[]) | kw

@pytest.mark.parametrize('task, answer, want', [
    ('construct', {'lam': '0.4'}, {'lam_h': .4}), ('construct', {'lam': 1}, {'lam_h': 1.}), ('construct', {'lam': 0.30000000000000004}, {'lam_h': .3}),
    ('select-shuffled', {'choice': '1'}, {'lam_h': .7}), ('pairwise', {'choice': 0}, {'choice': 'second', 'lam_h': .3}),
    ('coefficient', {'mix': '63', 'confidence': 0}, {'lam_h': .37, 'confidence': 0.}), ('coefficient', {'mix': 0, 'confidence': 100}, {'lam_h': 1., 'confidence': 1.}),
    ('categorical', form(second='dog', second_prob='30', impossible=['owl']), dict(first='cat', first_prob=.7, second='dog', second_prob=.3, impossible=('owl',))),
    ('categorical', form(first_prob=100, second=None, second_prob=None, impossible=['owl', 'dog']), dict(first='cat', first_prob=1., second=None, second_prob=None, impossible=('dog', 'owl'))),
    ('categorical', form(first_prob=50, second='dog', second_prob=50), dict(first='cat', first_prob=.5, second='dog', second_prob=.5, impossible=()))])
def test_good_answers(task, answer, want): assert check_answer(task, answer, trial(task), ('cat', 'dog', 'owl'), MOVED) == want

EXPLAINS = make()

@pytest.mark.parametrize('mix, sure, field', [('33.333333', '50', 'mix'), ('33', '50.5', 'confidence'), ('50', 1e-7, 'confidence')])
def test_a_slider_stands_at_whole_percent(mix, sure, field):
    with pytest.raises(AnswerError) as e: check_answer('coefficient', dict(mix=mix, confidence=sure), trial('coefficient'), ('cat', 'dog'), MOVED)
    assert (e.value.key, e.value.field) == ('whole', field) and '{' not in EXPLAINS.explain(e.value)

@settings(max_examples=400, deadline=None)
@given(st.sampled_from(TASKS), st.dictionaries(st.sampled_from(['lam', 'choice', 'mix', 'confidence', 'first', 'first_prob', 'second', 'second_prob', 'impossible', 'x']),
       junk | st.sampled_from(['cat', 'dog', 50, '50', ['dog'], ['owl', 'dog'], 1, .1, -.0, 10**400])) | junk, st.none() | st.just(MOVED) | junk)
def test_an_answer_is_in_range_or_explained(task, answer, moved):
    try: out = check_answer(task, answer, trial(task), ('cat', 'dog', 'owl'), moved)
    except AnswerError as e:
        assert '{' not in EXPLAINS.explain(e).replace('{', '', str(e.values).count('{'))
        return
    for k in ('lam_h', 'confidence', 'first_prob', 'second_prob'): assert out.get(k) is None or 0 <= out[k] <= 1 and str(out[k]) != '-0.0'
    if task == 'coefficient': assert all(round(out[k], 2) == out[k] for k in out) # whole percent: where a slider can stand
    if task == 'categorical':
        assert out['first'] in ('cat', 'dog', 'owl') and out['second'] != out['first'] and not {out['first'], out['second']} & set(out['impossible'])
        assert out['first_prob'] + (out['second_prob'] or 0) <= 1 + 1e-9 and out['first_prob'] >= (out['second_prob'] or 0)

def test_explanations_use_the_names_that_people_read():
    spec = make(language='de', labels={'cat': 'Katze'})
    with pytest.raises(AnswerError) as e: check_answer('categorical', form(second='cat', second_prob=10), None, ('cat', 'dog'))
    assert spec.explain(e.value).startswith('Katze ist Ihre erste')

# --- bonus
def test_agreement_leaves_oneself_out():
    df = pd.DataFrame(dict(participant=list('abab'), stimulus=[1, 1, 2, 2], repeat=[False, False, False, True], lam_h=[.2, .6, .5, .5], confidence=[1., .5, 1, 1]))
    a = agreement(df, 'coefficient', ()).set_index('participant')
    assert a.n.tolist() == [1, 1] and np.allclose(a.agreement, 1 - (.4+.5)/2) # the second stimulus was judged by one, repeats aside
    twice = pd.concat([df, df.assign(participant='c', repeat=True)])
    assert agreement(twice, 'coefficient', ()).set_index('participant').agreement.round(9).to_dict() == a.agreement.round(9).to_dict()

def test_payment_table():
    spec = make(pay=dict(base=2, bonus=.25, none=.5, full=.9))
    answers = pd.DataFrame(dict(participant=list('abc'), stimulus=1, repeat=False, lam_h=[.5, .5, 1.], confidence=[.5, .5, .5]))
    people = pd.DataFrame(dict(participant=list('abcd'), status=['finished', 'finished', 'dropped', 'finished']))
    p = spec.payment(answers, people).set_index('participant')
    assert p.columns.tolist() == ['n', 'agreement', 'bonus', 'total', 'finished']
    assert p.total.tolist() == [2.23, 2.23, 0, 2.25] and p.n.tolist() == [1, 1, 1, 0]
    assert spec.payment(answers[:0], people).total.tolist() == [2.25, 2.25, 0, 2.25]

def test_large_photographs_are_read_once_and_blend_the_same(tmp_path):
    g = np.random.default_rng(0)
    for name, edge in (('cat', (90, 140)), ('dog', (150, 70)), ('owl', (20, 30))):
        (tmp_path/'photos'/name).mkdir(parents=True)
        Image.fromarray(g.integers(0, 256, (*edge, 3), dtype=np.uint8)).save(tmp_path/'photos'/name/'1.png')
    spec = Spec.new('construct', tmp_path/'photos', size=48, n_pairs=1, repeats=0)
    for s in spec.stimuli:
        for lam in (0, .3, 1): assert (spec.picture(s['id'], lam) == blend_pictures(spec.image(s['id_a']), spec.image(s['id_b']), lam, 48)).all()
    assert spec.square(0).shape == spec.square(1).shape == (48, 48, 3) and spec.square(2).shape == (20, 30, 3)
    for o in spec.images: (tmp_path/'photos'/o['file']).unlink() # all that is shown is in memory
    assert spec.picture(spec.stimuli[0]['id'], .77).shape == (48, 48, 3)
    with pytest.raises(ValueError, match='cannot be read'): spec.check(files=True)

def test_given_stimuli_with_file_names(photos):
    rows = list_folder(photos)
    cat, dog = (next(o for o in rows if o['class'] == c) for c in ('cat', 'dog'))
    spec = Spec.new('coefficient', photos, stimuli=pd.DataFrame([dict(class_a='cat', id_a=cat['file'], class_b='dog', id_b=dog['file'], lam_f=.4)]), repeats=0)
    assert spec.stimuli[0]['id'] == f"mixed_0.4_Cat_{cat['id']}_Dog_{dog['id']}" and len(spec.images) == 2 and spec.wanted == 2

def test_warnings_are_sentences():
    assert any('[brackets]' in o for o in make().warnings()) and any('wanted' in o for o in make(wanted=1).warnings())
