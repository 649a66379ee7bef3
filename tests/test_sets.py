"Training on more than the loaders hold: which label goes with which image, partners, and what is left behind."
import copy, importlib.util, random, sys, types
import numpy as np, pytest, torch
from fastai.callback.core import Callback, CancelBatchException, CancelEpochException, CancelFitException, CancelTrainException
from fastai.callback.data import WeightedDL
from fastai.callback.schedule import *
from fastai.callback.training import GradientAccumulation, GradientClip
from fastai.data.block import CategoryBlock, DataBlock, MultiCategoryBlock
from fastai.data.core import DataLoaders
from fastai.data.transforms import IndexSplitter, RandomSplitter
from fastai.learner import Learner, load_learner
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat
from fastai.optimizer import Adam
from fastai.vision.augment import Resize, aug_transforms
from fastai.vision.core import PILImage, PILImageBW, TensorImage
from fastai.vision.data import ImageBlock
from fastai.data.transforms import Normalize
from torch import nn
from hmix_nb.data.images import ImageSet, as_floats, soft_dls
from hmix_nb.data.pool import LabelPool
from hmix_nb.data.simulated import SimulatedParticipants, draw_stimuli
from hmix_nb.mixing.labels import Linear
from hmix_nb.mixing.stimuli import Stimuli
from hmix_nb.softlabels.simulate import AnnotatorModel
from hmix_nb.train.callbacks import HumanMixUp
from hmix_nb.train.losses import SoftCrossEntropy
from hmix_nb.train.sets import AugmentingSet, DeaggregatedLabels, SoftEndpoints
from hmix_nb.train.trainset import own_labels

N, K, CLASSES = 60, 4, ('ant', 'bee', 'cow', 'dog')
rng = np.random.default_rng(0)
X = rng.integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)
X[:, 0, 0, 0] = np.arange(N) # each image says which it is
Y = np.arange(N) % K
IMAGES = ImageSet(X, Y, CLASSES)
STIM = Stimuli(SimulatedParticipants(6).judge(draw_stimuli(Y, 2, classes=CLASSES)), IMAGES) # 12 blends
ROWS = torch.rand(N*3, K, generator=torch.Generator().manual_seed(0)).softmax(1)
POOL = LabelPool(ROWS, np.repeat(np.arange(N), 3))

def open_image(i): return PILImage.create(X[i])
def class_of(i): return CLASSES[Y[i]]

def block_dls(workers=0, splitter=None, **kw):
    block = DataBlock((ImageBlock, CategoryBlock), get_x=open_image, get_y=class_of, splitter=splitter or IndexSplitter(range(48, N)), **kw)
    return block.dataloaders(range(N), bs=16, num_workers=workers, device='cpu')

def memory_dls(seed=0): return soft_dls(X[:48], Y[:48], X[48:], Y[48:], n_classes=K, bs=16, generator=seed, device='cpu')

class Seen(Callback):
    order, run_valid = -1, False
    def before_fit(self): self.batches = []
    def before_batch(self): self.batches.append((self.x.detach().clone().as_subclass(torch.Tensor), self.y.as_subclass(torch.Tensor)))
    def all(self): return (torch.cat(o) for o in zip(*self.batches))

def mk(dls, cbs=None, loss=None, **kw):
    torch.manual_seed(0)
    if loss is None: loss = CrossEntropyLossFlat() if hasattr(dls, 'vocab') else SoftCrossEntropy()
    return Learner(dls, nn.Sequential(nn.Flatten(), nn.LazyLinear(K)), loss_func=loss, opt_func=Adam, lr=1e-3, cbs=cbs, **kw)

def fit(learn, epochs=1):
    with learn.no_bar(), learn.no_logging(): learn.fit(epochs)
    return learn

def ids(x): return x[:, 0, 0, 0].mul(255).round().long()

def weighted_dls():
    dsets = DataBlock((ImageBlock, CategoryBlock), get_x=open_image, get_y=class_of, splitter=IndexSplitter(range(48, N))).datasets(range(N))
    w = np.zeros(48)
    w[:5] = 1
    from fastai.data.transforms import ToTensor
    from fastai.vision.core import PILBase
    from fastai.data.transforms import IntToFloatTensor
    return dsets.dataloaders(bs=16, dl_type=WeightedDL, dl_kwargs=({'wgts': w}, {}), after_item=[ToTensor], after_batch=[IntToFloatTensor],
                             num_workers=0, device='cpu')

def list_dls():
    x = as_floats(X)
    return DataLoaders.from_dsets([*zip(x[:48], Y[:48].tolist())], [*zip(x[48:], Y[48:].tolist())], bs=16, device='cpu', num_workers=0)

LOADERS = dict(block=block_dls, workers=lambda: block_dls(2), memory=memory_dls, weighted=weighted_dls, list=list_dls,
               split=lambda: block_dls(splitter=RandomSplitter(.2, seed=3)))

@pytest.mark.parametrize('loaders', LOADERS)
@pytest.mark.parametrize('mean', [False, True])
def test_each_image_gets_a_label_of_its_own(loaders, mean):
    dls, seen = LOADERS[loaders](), Seen()
    pool = POOL if loaders in ('block', 'workers', 'split', 'weighted') else POOL.select(range(48))
    cb = SoftEndpoints(pool) if mean else DeaggregatedLabels(pool, generator=0)
    fit(mk(dls, [cb, seen], SoftCrossEntropy()), 3)
    x, y = seen.all()
    own = ROWS.view(N, 3, K)[ids(x)]
    want = own.mean(1, keepdim=True) if mean else own
    assert ((want-y[:, None]).abs().sum(2).amin(1) < 1e-5).all()
    if loaders == 'weighted': assert ids(x).max() < 5 # the weights are still in force
    if not mean: # another one in other epochs, for most
        which = (own-y[:, None]).abs().sum(2).argmin(1)
        assert len({(i, w) for i, w in zip(ids(x).tolist(), which.tolist())}) > len(ids(x).unique())*1.3

@pytest.mark.parametrize('loaders', ['block', 'memory'])
def test_a_seed_gives_the_same_labels(loaders):
    def labels(seed):
        random.seed(0)
        dls, seen = LOADERS[loaders](), Seen()
        dls.train.shuffle = False
        fit(mk(dls, [DeaggregatedLabels(POOL if loaders == 'block' else POOL.select(range(48)), generator=seed), seen], SoftCrossEntropy()))
        return torch.cat([y for _, y in seen.batches])
    assert torch.equal(labels(1), labels(1)) and not torch.equal(labels(1), labels(2))

@pytest.mark.parametrize('loaders', ['block', 'workers', 'memory', 'list'])
def test_blends_are_all_there_with_their_labels(loaders):
    dls, seen = LOADERS[loaders](), Seen()
    dls.train.drop_last = False
    fit(mk(dls, [AugmentingSet(STIM, 'relabel'), seen], SoftCrossEntropy()))
    x, y = seen.all()
    assert len(x) == 48+12 and y.shape == (60, K) and y.dtype == torch.float32
    clean = torch.stack([(x-o).abs().amax((1, 2, 3)) < 1e-4 for o in as_floats(X[:48])])
    assert (clean.sum(1) == 1).all()
    assert torch.equal(y[clean.int().argmax(1)].argmax(1), torch.as_tensor(Y[:48]))
    for o, row in zip(STIM.images(), STIM.labels('relabel')):
        at = (x-o).abs().amax((1, 2, 3)) < (.51/255 if loaders in ('block', 'workers') else 1e-5)
        assert at.sum() == 1
        torch.testing.assert_close(y[at][0], row)

def test_transforms_are_those_of_the_rest():
    norm = Normalize.from_stats([.5]*3, [.25]*3, cuda=False)
    dls, seen = block_dls(item_tfms=Resize(16), batch_tfms=[norm]), Seen()
    dls.train.drop_last = False
    fit(mk(dls, [AugmentingSet(STIM), seen]))
    x, y = seen.all()
    assert x.shape == (60, 3, 16, 16)
    blend = PILImage.create((STIM.images()[0]*255).round().byte().permute(1, 2, 0).numpy())
    want = (torch.as_tensor(np.array(dls.after_item((blend, 0))[0])).float()/255-.5)/.25
    assert ((x-want).abs().amax((1, 2, 3)) < 1e-4).sum() == 1
    augmented = block_dls(batch_tfms=aug_transforms(size=8))
    fit(mk(augmented, [AugmentingSet(STIM)]))

def test_grey_images_and_tensor_images():
    def grey(i): return PILImageBW.create(X[i, ..., 0])
    block = DataBlock((ImageBlock(PILImageBW), CategoryBlock), get_x=grey, get_y=class_of, splitter=IndexSplitter(range(48, N)))
    seen = Seen()
    fit(mk(block.dataloaders(range(N), bs=16, num_workers=0, device='cpu'), [AugmentingSet(STIM), seen]))
    assert next(seen.all()).shape[1] == 1
    sets = [[(TensorImage(X[i]).permute(2, 0, 1), int(Y[i])) for i in o] for o in (range(48), range(48, N))]
    dls = DataLoaders.from_dsets(*sets, bs=16, device='cpu', num_workers=0)
    learn = mk(dls, [AugmentingSet(STIM), seen], SoftCrossEntropy())
    learn.model = nn.Sequential(nn.Flatten(), ToFloat(), nn.LazyLinear(K))
    fit(learn)
    assert next(seen.all()).dtype == torch.uint8

class ToFloat(nn.Module):
    def forward(self, x): return x.as_subclass(torch.Tensor).float()

class Boom(Callback):
    def __init__(self, how, event): self.how, self.event, self.order = how, event, 50
    def __call__(self, event_name):
        if event_name == self.event and self.learn.training and self.how: raise self.how

def makers(dls):
    pool = POOL if hasattr(dls, 'vocab') else POOL.select(range(48))
    return dict(augment=lambda: [AugmentingSet(STIM)], draw=lambda: [DeaggregatedLabels(pool)], soft=lambda: [SoftEndpoints(pool)],
                simulated=lambda: [SoftEndpoints(four_classes(), n_annotators=2, how='draw')],
                all=lambda: [HumanMixUp(g=Linear()), AugmentingSet(STIM), DeaggregatedLabels(pool)])

def four_classes():
    from hmix_nb.softlabels.simulate import fit_annotators
    return fit_annotators(POOL, POOL.mean().numpy(), similarity=np.eye(K), threshold=3.)

KINDS = ['augment', 'draw', 'soft', 'simulated', 'all']

@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('loaders', [block_dls, memory_dls])
@pytest.mark.parametrize('event', ['before_train', 'before_batch', 'after_pred', 'after_loss', 'before_step', 'after_batch'])
def test_nothing_is_left_behind(kind, loaders, event):
    for how in (None, KeyboardInterrupt(), RuntimeError('boom'), CancelFitException(), CancelEpochException(), CancelTrainException(),
                CancelBatchException() if event != 'before_train' else None):
        dls = loaders()
        learn = mk(dls, makers(dls)[kind]() + [Boom(how, event)], metrics=None)
        loss, before, train, ds = learn.loss_func, dict(vars(dls)), dict(vars(dls.train)), dls.train_ds
        try: fit(learn)
        except (KeyboardInterrupt, RuntimeError, CancelBatchException): pass # fastai takes the last no more in after_batch
        assert learn.loss_func is loss and vars(dls) == before and dls.train_ds is ds, how
        after = vars(dls.train)
        assert {k: v for k, v in after.items() if k in train and v is not train[k] and k not in ('rng', '_n_inp', '_types')} == {}, how
        assert not {'all_batches', 'remove_cbs'} & set(vars(learn)), how
        assert learn.dl is (dls.train if isinstance(how, (KeyboardInterrupt, RuntimeError)) or learn.dl else None), how
        held = [v for cb in learn.cbs for k, v in vars(cb).items() if k in ('_from', '_made', '_made_pool')]
        assert held and all(o is None for o in held), how
        with learn.no_bar(): plain, again = learn.validate(), learn.get_preds(with_loss=True)
        assert len(again[2]) == 12 and abs(float(again[2].mean())-plain[0]) < 1e-5
        learn.remove_cbs(list(learn.cbs)[3:])
        fit(learn) # and it trains as it did without

@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('loaders', [block_dls, memory_dls])
def test_partners(kind, loaders, tmp_path):
    dls = loaders()
    learn = mk(dls, makers(dls)[kind](), path=tmp_path)
    learn.model = nn.Sequential(nn.Flatten(), nn.Linear(192, K)) # lr_find cannot save a lazy one
    with learn.no_bar(), learn.no_logging():
        learn.lr_find(num_it=5, show_plot=False)
        learn.fit_one_cycle(2, 1e-3, cbs=[GradientClip(1.), GradientAccumulation(32)])
        assert torch.isfinite(torch.tensor(learn.recorder.losses)).all()
        before = learn.validate()
        learn.dls = memory_dls() # fastai 2.8.7 cannot export a DataBlock with functions as getters, with callbacks or without
        learn.export('o.pkl')
        again = load_learner(tmp_path/'o.pkl')
        again.dls = learn.dls = dls
        with again.no_bar(): assert abs(again.validate()[0]-before[0]) < 1e-6
        with again.no_bar(), again.no_logging(), pytest.raises(ValueError, match='was loaded with a learner, without its data'): again.fit(1)
        learn.fit(1)
    assert (tmp_path/'o.pkl').stat().st_size < 60_000

def test_rows_of_the_pool_reach_the_blends_and_mixing():
    for loaders in (block_dls, memory_dls):
        dls, seen = loaders(), Seen()
        pool = POOL if hasattr(dls, 'vocab') else POOL.select(range(48))
        dls.train.drop_last = False
        learn = fit(mk(dls, [AugmentingSet(STIM, 'mixup'), seen, DeaggregatedLabels(pool), HumanMixUp(g=Linear(), generator=0)]), 2)
        x, y = (o[60:] for o in seen.all())
        near = torch.cat([(x-o).abs().amax((1, 2, 3))[None] for o in STIM.images()]) < .003
        assert near.sum() == 12
        torch.testing.assert_close(y[near.int().argmax(1)], STIM.labels('mixup'))
        clean = ~near.any(0)
        assert ((ROWS.view(N, 3, K)[ids(x[clean])]-y[clean][:, None]).abs().sum(2).amin(1) < 1e-5).all()
        m = learn.human_mix_up.mixed
        torch.testing.assert_close(m.y.sum(1), torch.ones(len(m.y)))

def test_two_sets_of_blends():
    seen, other = Seen(), Stimuli(SimulatedParticipants(2, seed=1).judge(draw_stimuli(Y, 1, classes=CLASSES, seed=1)), IMAGES)
    for loaders in (block_dls, memory_dls):
        dls = loaders()
        dls.train.drop_last = False
        fit(mk(dls, [AugmentingSet(STIM), AugmentingSet(other), seen]), 2)
        assert sum(len(x) for x, _ in seen.batches) == 2*(48+12+6)

def test_classes_go_by_name():
    turned = ImageSet(X, K-1-Y, CLASSES[::-1])
    stim = Stimuli(SimulatedParticipants(6).judge(draw_stimuli(K-1-Y, 2, classes=CLASSES[::-1])), turned)
    dls, seen = block_dls(), Seen()
    dls.train.drop_last = False
    fit(mk(dls, [AugmentingSet(stim), seen]))
    x, y = seen.all()
    at = torch.stack([((x-o).abs().amax((1, 2, 3)) < .003).int().argmax() for o in stim.images()])
    torch.testing.assert_close(y[at], stim.labels('relabel').flip(1))
    pool = LabelPool(ROWS.flip(1), POOL.image)
    fit(mk(dls, [DeaggregatedLabels(pool, classes=CLASSES[::-1]), seen]))
    x, y = seen.all()
    assert ((ROWS.view(N, 3, K)[ids(x)]-y[:, None]).abs().sum(2).amin(1) < 1e-5).all()

def test_images_go_by_name(tmp_path):
    for i in range(N): PILImage.create(X[i]).save(tmp_path/f'im_{(i*7)%N:02d}.png')
    def label(o): return CLASSES[Y[X_of(o)]]
    def X_of(o): return next(i for i in range(N) if (i*7)%N == int(o.stem[3:]))
    files = sorted(tmp_path.glob('*.png'), reverse=True)
    dls = DataBlock((ImageBlock, CategoryBlock), get_y=label, splitter=RandomSplitter(.2, seed=0)).dataloaders(files, bs=16, num_workers=0, device='cpu')
    for names in ([f'im_{(i*7)%N:02d}' for i in range(N)], [f'im_{(i*7)%N:02d}.png' for i in range(N)]):
        seen = Seen()
        fit(mk(dls, [DeaggregatedLabels(LabelPool(ROWS, POOL.image, names=names)), seen]))
        x, y = seen.all()
        assert ((ROWS.view(N, 3, K)[ids(x)]-y[:, None]).abs().sum(2).amin(1) < 1e-5).all()
    numbered = LabelPool(ROWS, POOL.image, names=range(100, 100+N))
    fit(mk(dls, [DeaggregatedLabels(numbered, names=lambda o: 100+X_of(o)), seen]))
    x, y = seen.all()
    assert ((ROWS.view(N, 3, K)[ids(x)]-y[:, None]).abs().sum(2).amin(1) < 1e-5).all()
    with pytest.raises(ValueError, match='no labels for .* of 48 training images'): fit(mk(dls, DeaggregatedLabels(LabelPool(ROWS[:3], [0, 1, 2], names=names[:3]))))

def test_a_simulator_is_asked_once_about_each_image():
    for loaders in (block_dls, memory_dls):
        seen = Seen()
        cb = SoftEndpoints(four_classes(), generator=0)
        dls = loaders()
        fit(mk(dls, [cb, seen]), 3)
        x, y = seen.all()
        for i in range(48): assert y[ids(x) == i].unique(dim=0).shape[0] <= 1
    assert torch.equal(own_labels(block_dls().train_ds, K), own_labels(memory_dls().train_ds, K))

class NoGrad(Callback):
    def before_step(self): raise AssertionError('a step was made')

MULTI = lambda: DataBlock((ImageBlock, MultiCategoryBlock), get_x=open_image, get_y=lambda i: [class_of(i)], splitter=IndexSplitter(range(48, N))
                          ).dataloaders(range(N), bs=16, num_workers=0, device='cpu')
SMALL = Stimuli(STIM.answers.merge(STIM.table.reset_index().drop(columns=['lam_h', 'confidence']), on='stimulus'), ImageSet(X[:, :4, :4], Y, CLASSES))
FIVE = Stimuli(STIM.answers.merge(STIM.table.reset_index().drop(columns=['lam_h', 'confidence']), on='stimulus'), ImageSet(X, Y, (*CLASSES, 'eel')))

@pytest.mark.parametrize('dls,cb,message', [
    (block_dls, lambda: AugmentingSet(SMALL), 'blends have shape (3, 4, 4)'), (memory_dls, lambda: AugmentingSet(SMALL), 'blends have shape (3, 4, 4)'),
    (block_dls, lambda: AugmentingSet(FIVE), "does not know 'eel'"), (memory_dls, lambda: AugmentingSet(FIVE), 'has 5 classes; the training set has 4'),
    (weighted_dls, lambda: AugmentingSet(STIM), 'WeightedDL with an order of its own'), (MULTI, lambda: AugmentingSet(STIM), 'one label per image'),
    (block_dls, lambda: DeaggregatedLabels(POOL.select(range(50))), 'pool: has 50 images; the training set has 48'),
    (memory_dls, lambda: DeaggregatedLabels(POOL), 'pool: has 60 images; the training set has 48'),
    (block_dls, lambda: DeaggregatedLabels(LabelPool(ROWS.repeat(1, 2)/2, POOL.image)), 'pool: has 8 classes; the learner has 4'),
    (memory_dls, lambda: SoftEndpoints(LabelPool(ROWS.repeat(1, 2)[:144]/2, POOL.image[:144])), 'pool: has 8 classes; the learner has 4'),
    (block_dls, lambda: DeaggregatedLabels(LabelPool(ROWS[:9], POOL.image[:9], names=range(N))), 'pool: no label for 3, 4'),
    (block_dls, lambda: SoftEndpoints(AnnotatorModel.shipped()), 'classes'),
    (block_dls, lambda: [SoftEndpoints(POOL), DeaggregatedLabels(POOL)], 'allowed is one of them'),
    (block_dls, lambda: DeaggregatedLabels(POOL, names=['a']), 'lengths differ')])
def test_errors_come_before_the_first_step(dls, cb, message):
    dls = dls()
    learn = mk(dls, cb())
    learn.add_cb(NoGrad())
    with pytest.raises(ValueError) as e: fit(learn)
    assert message in str(e.value)

@pytest.mark.parametrize('cb', [lambda: AugmentingSet(STIM), lambda: DeaggregatedLabels(POOL)])
@pytest.mark.parametrize('loss,message', [(SoftCrossEntropy(), 'one label per image'), (BCEWithLogitsLossFlat(), 'loss_func: found BCEWithLogits')])
def test_several_labels_per_image_are_refused(cb, loss, message):
    with pytest.raises(ValueError, match=message): fit(mk(MULTI(), [cb(), NoGrad()], loss))

@pytest.mark.parametrize('call,message', [
    (lambda: AugmentingSet(STIM, 'relable'), "Did you mean 'relabel'"), (lambda: AugmentingSet(STIM, separate=True), 'separate: found True'),
    (lambda: SoftEndpoints(POOL, how='each'), 'how:'), (lambda: SoftEndpoints(3), 'source: found int'),
    (lambda: DeaggregatedLabels(None), 'pool: found NoneType'), (lambda: DeaggregatedLabels(ROWS), 'pool: found Tensor'),
    (lambda: DeaggregatedLabels(POOL, generator='0'), "generator: found '0'"),
    (lambda: DeaggregatedLabels(POOL, generator=True), 'generator: found True')])
def test_bad_options(call, message):
    with pytest.raises(ValueError) as e: call()
    assert message in str(e.value)

def test_trying_transforms_out_draws_no_random_numbers():
    def state(cb):
        random.seed(1); np.random.seed(1); torch.manual_seed(1)
        dls = block_dls(item_tfms=Resize(8))
        learn = mk(dls, cb)
        cb.learn = learn
        torch.manual_seed(1)
        before = torch.get_rng_state(), np.random.get_state()[2]
        cb.make(dls.train)
        return torch.equal(before[0], torch.get_rng_state()) and before[1] == np.random.get_state()[2]
    assert state(AugmentingSet(STIM))

@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('loaders', [block_dls, memory_dls])
def test_after_an_interrupt_the_learner_has_its_own_batches(kind, loaders):
    dls = loaders()
    learn = mk(dls, makers(dls)[kind]() + [Boom(KeyboardInterrupt(), 'after_batch')])
    with pytest.raises(KeyboardInterrupt): fit(learn)
    assert learn.dl is dls.train and learn.dl.one_batch()[1].max() < K # classes or rows, no positions

@pytest.mark.parametrize('make', [lambda: DeaggregatedLabels(POOL, generator=0), lambda: AugmentingSet(STIM),
                                  lambda: SoftEndpoints(POOL, how='draw', generator=0)], ids=['draw', 'augment', 'soft'])
@pytest.mark.parametrize('how', [copy.copy, copy.deepcopy])
def test_copies_keep_the_data(make, how):
    def labels(cb):
        seen = Seen()
        random.seed(0) # orders fastai's loaders
        fit(mk(block_dls(), [cb, seen]))
        x, y = seen.all()
        return y[ids(x).argsort(stable=True)]
    first = labels(make())
    assert torch.equal(labels(how(make())), first)
    used = make()
    labels(used)
    again = how(used)
    assert again._data is not None and again._made is None and len(labels(again)) == len(first)

def test_a_copied_learner_trains_on_the_same_and_an_exported_one_has_no_data(tmp_path):
    learn = mk(list_dls(), [AugmentingSet(STIM), DeaggregatedLabels(POOL.select(range(48)), generator=0), Seen()], SoftCrossEntropy())
    learn.dls.c = K
    other = copy.deepcopy(learn)
    fit(other)
    assert len(other.seen.batches) == 3 and other.augmenting_set.learn is other and other.augmenting_set is not learn.augmenting_set and not hasattr(learn.seen, 'batches')
    learn = mk(block_dls(), [AugmentingSet(STIM), DeaggregatedLabels(POOL, generator=0)])
    fit(learn).dls = memory_dls() # others fastai cannot export
    learn.export(tmp_path/'net.pkl')
    loaded = load_learner(tmp_path/'net.pkl')
    assert loaded.augmenting_set._data is None and loaded.deaggregated_labels._data is None

def test_a_copy_knows_what_the_simulated_people_said():
    first = mk(block_dls(), SoftEndpoints(four_classes()))
    again = copy.deepcopy(fit(first).soft_endpoints)
    assert again.learn is None and again._asked[1] is first.soft_endpoints._asked[1] and again._asked[0] is first.dls.train_ds
    other = mk(list_dls(), SoftEndpoints(four_classes()), SoftCrossEntropy())
    other.dls.c = K
    copied = copy.deepcopy(fit(other))
    fit(copied)
    assert copied.dls.train_ds is not other.dls.train_ds and copied.soft_endpoints._asked[1] is other.soft_endpoints._asked[1]

@pytest.mark.parametrize('cb', [lambda: AugmentingSet(STIM), lambda: DeaggregatedLabels(POOL), lambda: SoftEndpoints(POOL)])
def test_loaders_of_several_processes_are_refused(cb, monkeypatch):
    if not importlib.util.find_spec('accelerate'): # fastai's module asks for its name, the loader does not need it
        monkeypatch.setitem(sys.modules, 'accelerate', types.SimpleNamespace(Accelerator=type('Accelerator', (), {})))
        monkeypatch.delitem(sys.modules, 'fastai.distributed', raising=False)
    from fastai.distributed import DistributedDL
    dls = block_dls()
    dls.loaders[0] = DistributedDL(dls.train, rank=0, world_size=1)
    with pytest.raises(ValueError, match='dls.train: found DistributedDL'): fit(mk(dls, [cb(), NoGrad()]))

class Stops(Callback):
    order = 60
    def __init__(self, how): self.how = how
    def before_epoch(self): raise self.how()

@pytest.mark.parametrize('make', [lambda: AugmentingSet(STIM), lambda: DeaggregatedLabels(POOL.select(range(48))),
                                  lambda: SoftEndpoints(POOL.select(range(48)))])
@pytest.mark.parametrize('how', [CancelFitException, KeyboardInterrupt])
def test_a_fit_that_ends_before_its_first_batch_says_why(make, how):
    learn = mk(memory_dls(), [make(), Stops(how)])
    try: fit(learn)
    except KeyboardInterrupt: assert how is KeyboardInterrupt
    learn.remove_cb(Stops)
    fit(learn)
