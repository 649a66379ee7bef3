"Corruptions: the right file, the right images, nothing left to chance."
import io, tarfile
import numpy as np, pytest, torch
from hmix_nb.data.hub import DataHub
from hmix_nb.evaluation.corruption import CORRUPTIONS, STAND_INS, TUNING, cifar10c, find_cifar10c, stand_in

Y = np.arange(10_000) % 7

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "A made CIFAR-10-C of one corruption: each image says which it is."
    d = tmp_path_factory.mktemp('c')
    x = np.zeros((50_000, 32, 32, 3), np.uint8)
    i = np.arange(50_000)
    x[:, 0, 0], x[:, 31, 31, 2] = np.stack([i//10_000, i % 10_000//100, i % 100], 1), 9
    np.save(d/'fog.npy', x)
    np.save(d/'labels.npy', np.tile(Y, 5).astype(np.uint8))
    return d

@pytest.mark.parametrize('severity', [1, 3, 5])
def test_rows_are_those_of_numpy(folder, severity):
    want = np.load(folder/'fog.npy', mmap_mode='r')[(severity-1)*10_000:severity*10_000]
    assert np.array_equal(cifar10c(folder, 'fog', Y, severity), want)
    ids = np.array([9999, 0, 123, 123])
    got = cifar10c(folder, 'fog', Y, severity, ids)
    assert np.array_equal(got, want[ids]) and np.array_equal(got[:, 0, 0], [[severity-1, i//100, i % 100] for i in ids])
    assert (got[:, 31, 31, 2] == 9).all()

def test_the_archive_gives_the_same_as_the_folder(folder, tmp_path):
    with tarfile.open(tmp_path/'a.tar', 'w') as t:
        for f in ('fog.npy', 'labels.npy'): t.add(folder/f, f'CIFAR-10-C/{f}')
    assert np.array_equal(cifar10c(tmp_path/'a.tar', 'fog', Y, 2, [5, 77]), cifar10c(folder, 'fog', Y, 2, [5, 77]))
    with pytest.raises(FileNotFoundError, match='holds no snow.npy'): cifar10c(tmp_path/'a.tar', 'snow', Y)

def test_it_is_found_where_the_hub_or_the_user_says(folder, tmp_path):
    assert find_cifar10c(DataHub(tmp_path)) is None
    assert find_cifar10c(DataHub(tmp_path), folder) == folder
    (tmp_path/'cifar-10-c').mkdir()
    (tmp_path/'cifar-10-c'/'CIFAR-10-C').symlink_to(folder)
    assert find_cifar10c(DataHub(tmp_path)) == tmp_path/'cifar-10-c'/'CIFAR-10-C'
    with pytest.raises(FileNotFoundError, match='folder'): find_cifar10c(DataHub(tmp_path), tmp_path)

def test_another_order_of_images_is_refused(folder):
    with pytest.raises(ValueError, match='differs from the test set for'): cifar10c(folder, 'fog', np.roll(Y, 1))
    with pytest.raises(ValueError, match='lengths differ'): cifar10c(folder, 'fog', Y[:50])

@pytest.mark.parametrize('change,message', [
    (lambda p: np.save(p, np.zeros((50_000, 8), np.uint8)), 'allowed are 50,000'),
    (lambda p: np.save(p, np.zeros((50_000, 32), np.float32)), 'float32'),
    (lambda p: p.write_bytes(b'no npy'), 'no readable npy'),
    (lambda p: p.write_bytes(p.read_bytes()[:10_000_000]), 'ends too early')])
def test_bad_files_are_named(folder, tmp_path, change, message):
    for f in ('fog.npy', 'labels.npy'): (tmp_path/f).write_bytes((folder/f).read_bytes())
    change(tmp_path/'fog.npy')
    with pytest.raises(ValueError, match=message): cifar10c(tmp_path, 'fog', Y, 5)

@pytest.mark.parametrize('severity', [0, 6, 2.5, '3'])
def test_bad_severity(folder, severity):
    with pytest.raises(ValueError, match='severity: found'): cifar10c(folder, 'fog', Y, severity)

def test_names():
    assert len(set(CORRUPTIONS)) == 15 and len(set(TUNING)) == 4 and set(STAND_INS) <= {*CORRUPTIONS, *TUNING}
    with pytest.raises(ValueError, match="Did you mean 'contrast'"): stand_in(np.zeros((1, 32, 32, 3), np.uint8), 'contrasts')

@pytest.fixture(scope='module')
def images(): return (np.random.default_rng(0).random((6, 8, 8, 3)).repeat(4, 1).repeat(4, 2)*255).astype(np.uint8)

@pytest.mark.parametrize('name', STAND_INS)
@pytest.mark.parametrize('severity', [1, 3, 5])
def test_stand_ins_are_seeded_and_leave_input_and_generator_alone(images, name, severity):
    before, state = images.copy(), torch.get_rng_state()
    a = stand_in(images, name, severity)
    torch.rand(3)
    assert np.array_equal(a, stand_in(images, name, severity)) and np.array_equal(images, before)
    assert a.shape == images.shape and a.dtype == np.uint8 and not np.array_equal(a, images)
    torch.set_rng_state(state)
    stand_in(images, name, severity)
    assert torch.equal(torch.get_rng_state(), state)

def test_noise_has_the_stated_strength():
    grey = np.full((40, 32, 32, 3), 128, np.uint8)
    for s, c in zip(range(1, 6), (.04, .06, .08, .09, .1)):
        assert abs(stand_in(grey, 'gaussian_noise', s).std()/255-c) < .001

def test_the_stronger_the_further(images):
    for name in ('gaussian_noise', 'gaussian_blur', 'brightness', 'contrast', 'jpeg_compression', 'elastic_transform'):
        change = [np.abs(stand_in(images, name, s).astype(int)-images).mean() for s in range(1, 6)]
        assert change == sorted(change), name

def test_floats_are_refused():
    with pytest.raises(ValueError, match='uint8'): stand_in(np.zeros((1, 32, 32, 3)), 'contrast')
