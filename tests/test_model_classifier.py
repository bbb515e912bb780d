import copy

import numpy as np
import pytest
import torch

from inspection.errors import TrainingError
from inspection.model.backbones import ARCHITECTURES, build_layers, check_weights, load_backbone
from inspection.model.classifier import NEUTRAL, Averaged, Classifier, Design
from inspection.model.storing import load_model, save_model
from inspection.settings import TrainingSettings

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)


def _classifier(backbone="squeezenet1_1", types=(), **fields):
    torch.manual_seed(0)
    model = Classifier(Design(backbone, ARCHITECTURES[backbone].taps[:2], defect_types=types, **fields))
    torch.nn.init.normal_(model.score.weight)
    return model.eval()


@pytest.mark.parametrize("backbone", ARCHITECTURES)
def test_every_backbone_gives_one_logit_and_a_logit_for_each_type(backbone):
    model = Classifier(Design(backbone, ARCHITECTURES[backbone].taps, defect_types=("dent", "crack", "stain"))).eval()
    score, types = model(torch.zeros(2, 64, 64, 3))
    assert score.shape == (2, 1)
    assert types.shape == (2, 3)
    assert len(model.pool(torch.zeros(1, 64, 64, 3))) == len(model.widths) == 2 * len(ARCHITECTURES[backbone].taps)


def test_without_defect_types_there_is_one_output_only():
    assert isinstance(_classifier()(torch.zeros(1, 64, 64, 3)), torch.Tensor)


def test_normalisation_is_inside_and_colour_order_is_rgb():
    model = Classifier(Design("squeezenet1_1", (1,))).eval()
    grey = torch.tensor([0.485, 0.456, 0.406]) * 255
    mean = next(iter(model.maps(grey.expand(1, 64, 64, 3))))[1]
    assert torch.allclose(mean, model.layers[1](model.layers[0](torch.zeros(1, 3, 64, 64))), atol=1e-5)


@pytest.mark.parametrize("backbone", ARCHITECTURES)
def test_folding_the_normalisation_changes_no_score_not_even_at_the_border(backbone):
    model = _classifier(backbone, types=("a", "b"))
    folded = copy.deepcopy(model)
    folded.fold_normalisation()
    folded.fold_normalisation()  # once is enough
    assert model.score_pixels(PIXELS).std() > 1e-3
    assert np.allclose(folded.score_pixels(PIXELS), model.score_pixels(PIXELS), atol=1e-3)
    assert np.allclose(folded.score_types(PIXELS), model.score_types(PIXELS), atol=1e-3)


def test_pictures_are_padded_with_neutral_grey():
    model = _classifier("resnet18")
    convolution = model.layers[0]
    seen = []
    convolution.register_forward_hook(lambda module, inputs, output: seen.append(output))
    model.score_pixels(np.full((1, 64, 64, 3), NEUTRAL, np.uint8))
    map_ = seen[0]  # of a picture that is as grey as its border: the same at every place
    assert map_.shape[2:] == (32, 32)
    assert torch.allclose(map_, map_[:, :, 16:17, 16:17].expand_as(map_), atol=1e-5)


def test_features_are_cut_off_at_six_standard_deviations():
    model = _classifier()
    model.set_standardisation(torch.zeros(sum(model.widths)), torch.full((sum(model.widths),), 1e-6))
    with torch.no_grad():
        model.score.weight.fill_(1.0)
        model.score.bias.zero_()
    assert model.score_pixels(PIXELS).max() <= 6 * sum(model.widths) + 1e-3


def test_scores_do_not_depend_on_the_batch():
    model = _classifier(types=("a", "b"))
    assert np.allclose(model.score_pixels(PIXELS, 1), model.score_pixels(PIXELS, 3), atol=1e-4)
    assert model.score_types(PIXELS).shape == (3, 2)


@pytest.mark.parametrize("averaged", [False, True])
def test_a_saved_model_gives_the_same_digits_when_loaded(tmp_path, averaged):
    one = _classifier(types=("a", "b"), place_taps=(1,), input_size=(64, 64)).to(memory_format=torch.channels_last)
    model = Averaged([one, _classifier("mobilenet_v3_small", types=("a", "b"))]) if averaged else one
    model.to(memory_format=torch.channels_last)
    save_model(model, tmp_path / "model.pt")
    loaded = load_model(tmp_path / "model.pt")
    assert loaded.defect_types == ("a", "b")
    assert np.array_equal(loaded.score_pixels(PIXELS), model.score_pixels(PIXELS))


def test_averaging_takes_the_mean_of_the_logits():
    one, other = _classifier(), _classifier("mobilenet_v3_small")
    both = Averaged([one, other]).score_pixels(PIXELS)
    assert np.allclose(both, (one.score_pixels(PIXELS) + other.score_pixels(PIXELS)) / 2, atol=1e-4)


def test_averaging_refuses_members_that_know_different_types():
    with pytest.raises(ValueError, match="different defect types"):
        Averaged([_classifier(types=("a", "b")), _classifier()])


@pytest.mark.parametrize("content", [b"", b"not a model", None])
def test_a_file_that_is_no_model_is_refused_by_name(tmp_path, content):
    path = tmp_path / "model.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TrainingError, match=r"model\.pt"):
        load_model(path)


def test_a_model_cut_short_is_refused(tmp_path):
    save_model(_classifier(), tmp_path / "model.pt")
    data = (tmp_path / "model.pt").read_bytes()
    (tmp_path / "model.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(TrainingError, match="cut short"):
        load_model(tmp_path / "model.pt")


def test_an_unknown_backbone_is_refused_with_the_names_there_are():
    with pytest.raises(TrainingError, match=r"mobilenet_v2.*found 'vgg'"):
        build_layers("vgg")


def test_weights_of_another_architecture_are_refused_with_the_tensors_that_do_not_fit(tmp_path):
    import torchvision

    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), tmp_path / "squeeze.pth")
    settings = TrainingSettings(backbone="mobilenet_v3_small", weights=str(tmp_path / "squeeze.pth"))
    with pytest.raises(
        TrainingError, match=r"squeeze\.pth: want weights of mobilenet_v3_small.*features\.0\.0\.weight"
    ):
        check_weights(settings)


def test_weights_with_other_shapes_are_refused_with_both_shapes(tmp_path):
    import torchvision

    state = torchvision.models.squeezenet1_1(weights=None).state_dict()
    state["features.0.weight"] = torch.zeros(64, 1, 3, 3)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(TrainingError, match=r"want \(64, 3, 3, 3\), found \(64, 1, 3, 3\)"):
        load_backbone("squeezenet1_1", str(tmp_path / "w.pth"), 0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_with_the_tensor(tmp_path, value):
    import torchvision

    state = torchvision.models.squeezenet1_1(weights=None).state_dict()
    state["features.0.weight"][0, 0, 0, 0] = value
    torch.save(state, tmp_path / "w.pth")
    settings = TrainingSettings(backbone="squeezenet1_1", weights=str(tmp_path / "w.pth"))
    with pytest.raises(TrainingError, match=r"w\.pth: want finite weights.*features\.0\.weight.*give other weights"):
        check_weights(settings)


def test_a_weights_file_serves_even_when_its_classifier_has_another_size(tmp_path):
    import torchvision

    network = torchvision.models.squeezenet1_1(weights=None, num_classes=7)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    layers = load_backbone("squeezenet1_1", str(tmp_path / "w.pth"), 1)
    assert torch.equal(layers[0].weight, network.features[0].weight)


@pytest.mark.parametrize("content", [None, b"", b"PK nonsense"])
def test_a_missing_or_broken_weights_file_is_refused_by_name(tmp_path, content):
    if content is not None:
        (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(TrainingError, match=r"w\.pth"):
        check_weights(TrainingSettings(weights=str(tmp_path / "w.pth")))


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return print, ("run",)

    torch.save({"weights": Evil()}, tmp_path / "w.pth")
    with pytest.raises(TrainingError, match="cannot read safely"):
        check_weights(TrainingSettings(weights=str(tmp_path / "w.pth")))


def test_without_a_network_the_message_says_how_to_give_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(TrainingError, match=r"download that file elsewhere and set weights to its path"):
        check_weights(TrainingSettings(backbone="squeezenet1_1", weights="imagenet"))


def test_random_weights_are_said_loudly_and_follow_the_seed(caplog):
    one, same, other = (load_backbone("squeezenet1_1", "none", seed) for seed in (1, 1, 2))
    assert torch.equal(one[0].weight, same[0].weight)
    assert not torch.equal(one[0].weight, other[0].weight)
    assert "no pretrained weights" in caplog.text
