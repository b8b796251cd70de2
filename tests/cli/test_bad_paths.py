"""What is said of baselines, domains, windows and factors that are wrong: one line, before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from .conftest import IMAGES, job_text
from .test_bad_input import Prepare, assert_one_line, both, contents, cut, job, raw, text


@dataclass(frozen=True)
class Row:
    """A fault: the method that is asked for, what is to be said of it, and what lies in the bench's folder."""

    name: str
    method: str
    pattern: str
    prepare: Prepare = lambda bench: None
    job: str = "job.toml"


def array(name: str, values: object) -> Prepare:
    return lambda bench: np.save(bench / name, values, allow_pickle=True)


def fit(**arrays: object) -> Prepare:
    return lambda bench: np.savez(bench / "fit.npz", **arrays)


def sick(bench: Path) -> None:
    """Patient 3 has a NaN."""
    with np.load(bench / "signals.npz") as file:
        stored = dict(file)
    stored["x"][3, 0, 0] = np.nan
    np.savez(bench / "signals.npz", **stored)


def same_name(bench: Path) -> None:
    for folder, value in (("a", 0.1), ("b", 0.2)):
        (bench / folder).mkdir()
        np.save(bench / folder / "o.npy", np.full((2, 17), value))


DOMAIN = """
class Plain:
    def forward(self, x):
        return x

    def inverse(self, z):
        return z


class Half(Plain):
    def forward(self, x):
        return x[..., ::2]


class Lossy(Plain):
    def inverse(self, z):
        return z * 0.5


class Square(Plain):
    def forward(self, x):
        return x.sinh()

    def inverse(self, z):
        return z.asinh()


class Loud(Plain):
    def forward(self, x):
        raise ValueError("loud\\nand clear")


class Bare:
    pass


class NoInverse:
    def forward(self, x):
        return x


class Argument(Plain):
    def __init__(self, width):
        self.width = width


class Axes(Plain):
    axes = [("place", ""), ("wavelength", "")]


class AxesInWords(Plain):
    axes = ["place"]


class Flat(Plain):
    per_channel = True

    def forward(self, x):
        return x.flatten(1)

    def inverse(self, z):
        return z.reshape(len(z), 2, -1)


class Numpy(Plain):
    def forward(self, x):
        return x.new_tensor(x.detach().numpy()[..., ::-1].copy())

    inverse = forward


def halves(x):
    return {"half": x / 2}


def short(x):
    return {"short": x[..., 1:]}


def listed(x):
    return [x]


def raises(x):
    raise ZeroDivisionError("never\\nagain")


def mixing():
    raise ZeroDivisionError("never\\nagain")


number = 3
"""

OWN = text("own.py", DOMAIN)

ROWS = [
    Row("unknown rule of relevance", "lrp:epsilon=0.1", r"'epsilon=0\.1' is no rule; expected z, eps=0\.1"),
    Row("misspelt composite", "lrp:epsilon-pluss", r"'epsilon-pluss' is no rule\. Did you mean 'epsilon-plus'"),
    Row("alpha and beta", "lrp:a2b2", r"a - b is 0, expected 1, as in a2b1"),
    Row("two rules", "lrp:z,eps=1", r"'z,eps=1' gives two rules for one place"),
    Row("no input rule", "lrp:z@", r"ends in an @: write an input rule behind it"),
    Row("unknown input rule", "lrp:z@foo", r"behind the @: 'foo' is no rule"),
    Row("sign of nothing of relevance", "lrp:z@sign", r"behind the @: sign='' given, expected a number"),
    Row("sign with another rule", "lrp:z@sign=0,a1b0", r"sign takes eps=0\.1 or eps=0\.25std, not a1b0"),
    Row("signs of too many", "lrp:z@sign=1/2/3", r"3 numbers given, expected one, or one for each of the 2 channels"),
    Row("half a box", "lrp:z@zbox=1", r"zbox='1' given, expected LOW:HIGH, caffe"),
    Row("box upside down", "lrp:z@zbox=2:1", r"zbox=2:1: low is above high"),
    Row("box of three channels", "lrp:z@zbox=torchvision", r"low is \(3,\), expected a number, one for each of the 2 channels"),
    Row("no box file", "lrp:z@zbox=none.npz", r"zbox=none\.npz holds no arrays low and high"),
    Row("file without bounds", "lrp:z@zbox=fit.npz", r"zbox=fit\.npz holds no arrays low and high: .*low", fit(a=np.ones(2))),
    Row("bounds of another shape", "lrp:z@zbox=fit.npz", r"low is \(5,\), expected", fit(low=np.zeros(5), high=np.ones(5))),
    Row("bounds of NaN", "lrp:z@zbox=fit.npz", r"not all its values are finite", fit(low=np.zeros(2), high=np.full(2, np.nan))),
    Row("an input rule of a gradient", "grad@flat", r"only lrp takes an input rule behind an @"),
    Row("relevance in a cepstrum", "lrp:z,domain=cepstrum", r"cepstrum is not linear, only ig can be taken in it"),
    Row("an option", "lrp:z,init=two", r"lrp: init='two' given, expected logit or one or probability"),
    Row("a name of nobody", "lrp_omega", r"unknown method 'lrp_omega'"),
    # domains
    Row("unknown domain", "ig:domain=forier", r"unknown domain 'forier'\. Did you mean 'fourier'\? .*FILE\.py:CLASS"),
    Row("no domain", "ig:domain=", r"ig: domain='' given, expected FILE\.py:NAME|unknown domain ''|domain='' given"),
    Row("key of another domain", "ig:domain=fourier,levels=3", r"ig has no key 'levels'\. It is a key of domain=wavelet"),
    Row("key of a domain without one", "ig:hop=3", r"ig has no key 'hop'\. It is a key of domain=stft"),
    Row("unknown key of a domain", "ig:domain=stft,lenght=8", r"ig has no key 'lenght'\. Did you mean 'length'\?"),
    Row("domain of what has none", "occlusion:domain=fourier", r"occlusion has no key 'domain'"),
    Row("domain of a smoothed gradient", "smoothgrad:domain=fourier", r"smoothgrad has no key 'domain'"),
    Row("key twice", "ig:steps=3,steps=4", r"'ig:steps=3,steps=4' sets a key twice"),
    Row("domain twice", "ig:domain=fourier,domain=stft", r"sets a key twice"),
    Row("key of a domain twice", "ig:domain=stft,hop=2,hop=4", r"sets a key twice"),
    Row("side", "ig:domain=fourier,sided=three", r"ig: sided='three' given, expected one or two"),
    # paths
    Row("no steps", "ig:steps=0", r"ig: steps='0' given, expected a whole number from 1"),
    Row("negative steps", "ig:steps=-3", r"ig: steps='-3' given, expected a whole number from 1"),
    Row("half a step", "ig:steps=1.5", r"ig: steps='1\.5' given, expected a whole number from 1"),
    Row("unknown rule", "ig:rule=foo", r"ig: rule='foo' given, expected gauss or riemann or trapezoid"),
    Row("one step from end to end", "ig:rule=trapezoid,steps=1", r"rule=trapezoid needs steps=2 or more"),
    Row("negative blur", "ig:baseline=blur,blur=-1", r"ig: blur='-1' given, expected a number from 0"),
    Row("no draws", "smoothgrad:n=0", r"smoothgrad: n='0' given, expected a whole number from 1"),
    Row("noise that is no number", "vargrad:sd=nan", r"vargrad: sd='nan' given, expected a number from 0"),
    Row("unknown key", "ig:step=3", r"ig has no key 'step'\. Did you mean 'steps'\?"),
    # factors
    Row("sign of nothing", "grad+sign=", r"'grad\+sign=': \+sign= breaks off"),
    Row("sign of a word", "grad+sign=abc", r"sign: mu='abc' given, expected a number, one for each channel"),
    Row("sign of a baseline's word", "grad+sign=blur", r"sign: mu='blur' given, expected a number"),
    Row("sign of infinity", "grad+sign=inf", r"sign: mu='inf' given, expected a number"),
    Row("signs of more channels", "grad+sign=0.1/0.2/0.3", r"3 numbers given, expected one, or .* 2 channels"),
    Row("a threshold that is not there", "grad+sign=mu.npy", r"mu\.npy.*(No such file|not found)"),
    Row("times input in a domain that is not linear", "grad+input:domain=cepstrum", r"cepstrum is not linear, only ig"),
    Row("factor behind a domain", "ig:domain=fourier+sign", r"a domain can only come last"),
    Row("factor behind a factor's domain", "grad+input:domain=fourier+sign=mean", r"a domain can only come last"),
    Row("factor on occlusion", "occlusion+sign", r"factors multiply an input attribution such as grad, not occlusion"),
    Row("factor on each channel's occlusion", "occlusion:channels=each+input", r"factors multiply an input attribution"),
    Row("factor on RISE", "rise+input", r"factors multiply an input attribution such as grad, not rise"),
    Row("domain of a sign", "grad+sign:domain=fourier", r"sign has no key 'domain'"),
    # fourier and its bands
    Row("bands in words", "ig:domain=fourier,bands=low", r"bands='low' given, expected NAME:LOW-HIGH/\.\. in Hz, or eeg"),
    Row("bands without end", "ig:domain=fourier,bands=low:0-", r"bands='low:0-' given, expected NAME:LOW-HIGH"),
    Row("bands that are no numbers", "ig:domain=fourier,bands=1.2.3-4", r"bands='1\.2\.3-4' given, expected NAME:LOW-HIGH"),
    Row("bands of letters", "ig:domain=fourier,bands=e-5", r"bands='e-5' given, expected NAME:LOW-HIGH"),
    Row("bands upside down", "ig:domain=fourier,bands=4-2", r"bands='4-2' given, expected NAME:LOW-HIGH"),
    Row("bands beyond half the rate", "ig:domain=fourier,bands=a:60-80",
        r"bands='a:60-80': no frequency lies in a:60-80; .*up to \S+ Hz", job(data="rate = 100.0")),
    Row("bands between the frequencies", "ig:domain=fourier,bands=0.1-0.2", r"no frequency lies in 0\.1-0\.2; they are 5\.882 Hz apart",
        job(data="rate = 100.0")),
    Row("bands that overlap", "ig:domain=fourier,bands=a:0-30/b:20-40", r"b:20-40 overlaps another band", job(data="rate = 100.0")),
    Row("a band twice", "ig:domain=fourier,bands=0-30/0-30", r"0-30 overlaps another band", job(data="rate = 100.0")),
    Row("bands of both sides", "ig:domain=fourier,sided=two,bands=0-30", r"leave sided=two out", job(data="rate = 100.0")),
    Row("bands of images", "ig:domain=fourier,bands=0-1", r"bands=.* is for signals, .* these have 2", job="images.toml"),
    # stft
    Row("stft of images", "ig:domain=stft", r"domain=stft is for signals, inputs with one axis; these have 2", job="images.toml"),
    Row("windows that do not add up", "ig:domain=stft,length=8,hop=7", r"hann windows of 8 points every 7 do not add up"),
    Row("windows with gaps", "ig:domain=stft,length=4,hop=6", r"hann windows of 4 points every 6 do not add up"),
    Row("unknown window", "ig:domain=stft,window=hnan", r"stft: window='hnan' given, expected a name such as hann"),
    Row("window with an argument", "ig:domain=stft,window=kaiser", r"stft: window='kaiser' given, expected a name"),
    # wavelets
    Row("unknown wavelet", "ig:domain=wavelet,wavelet=dB4", r"unknown wavelet 'dB4'\. Did you mean 'db4'\?"),
    Row("continuous wavelet", "ig:domain=wavelet,wavelet=morl", r"unknown wavelet 'morl'\."),
    Row("too many levels", "ig:domain=wavelet,levels=9", r"wavelet: levels=9 given; an axis of 17 points has 1 at most"),
    Row("too many levels of images", "ig:domain=wavelet,levels=9", r"wavelet: levels=9 given; an axis of 8 points", job="images.toml"),
    Row("levels in words", "ig:domain=wavelet,levels=all", r"ig: levels='all' given, expected a whole number from 0"),
    Row("per what", "ig:domain=wavelet,per=band", r"ig: per='band' given, expected coefficient or level"),
    # components
    Row("more components than channels", "ig:domain=ica,n=3", r"ica: n=3 given, the inputs have 2 channels"),
    Row("fit in words", "ig:domain=ica,fit=all", r"ig: fit='all' given, expected sample, dataset, FILE\.npz"),
    Row("fit that is not there", "ig:domain=ica,fit=fit.npz", r"ica: fit=fit\.npz cannot be used: .*(No such file|not found)"),
    Row("fit without mean", "ig:domain=ica,fit=fit.npz", r"ica: fit=fit\.npz cannot be used: .*mean", fit(mixing=np.eye(2))),
    Row("fit of another shape", "ig:domain=ica,fit=fit.npz", r"fit\.npz has a mixing \(3, 2\) and a mean \(2,\), expected \(2, components\)",
        fit(mixing=np.ones((3, 2)), mean=np.zeros(2))),
    Row("fit of another mean", "ig:domain=ica,fit=fit.npz", r"fit\.npz has .* a mean \(3,\)", fit(mixing=np.eye(2), mean=np.zeros(3))),
    Row("fit of words", "ig:domain=ica,fit=fit.npz", r"ica: fit=fit\.npz cannot be used", fit(mixing=np.array([["a"]]), mean=np.zeros(2))),
    Row("fit that is not finite", "ig:domain=ica,fit=fit.npz", r"fit\.npz.*(finite|NaN)", fit(mixing=np.full((2, 2), np.nan), mean=np.zeros(2))),
    Row("fit of 0 bytes", "ig:domain=ica,fit=fit.npz", r"ica: fit=fit\.npz cannot be used", raw("fit.npz", b"")),
    Row("fit cut short", "ig:domain=ica,fit=fit.npz", r"ica: fit=fit\.npz cannot be used",
        both(fit(mixing=np.eye(2), mean=np.zeros(2)), cut("fit.npz", 0.4))),
    Row("fit of nothing", "ig:domain=ica,fit=own.py:mixin", r"ica fit: .*own\.py has no 'mixin'\. Did you mean 'mixing'\?", OWN),
    Row("fit that raises", "ig:domain=ica,fit=own.py:mixing", r"fit=own\.py:mixing.*ZeroDivisionError: never|fit=own\.py:mixing.*never", OWN),
    Row("fit of a number", "ig:domain=ica,fit=own.py:number", r"ica: fit=own\.py:number cannot be used", OWN),
    Row("fit in no file", "ig:domain=ica,fit=won.py:mixing", r"ica fit: .*won\.py not found", OWN),
    # parts
    Row("parts without period", "ig:domain=parts", r"parts: write period=POINTS .* or of=FILE\.py:FUNCTION"),
    Row("parts of both", "ig:domain=parts,period=4,of=own.py:halves", r"parts: write period=POINTS .* or of=FILE\.py:FUNCTION", OWN),
    Row("period too long", "ig:domain=parts,period=9", r"parts: period=9 given, expected 2 to 8, half the signal"),
    Row("period of a point", "ig:domain=parts,period=1", r"parts: period=1 given, expected 2 to 8"),
    Row("period of images", "ig:domain=parts,period=4", r"domain=parts,.* is for signals", job="images.toml"),
    Row("parts of no function", "ig:domain=parts,of=own.py:haves", r"own\.py has no 'haves'\. Did you mean 'halves'\?", OWN),
    Row("parts in no file", "ig:domain=parts,of=won.py:halves", r"parts: .*won\.py not found", OWN),
    Row("parts of another shape", "ig:domain=parts,of=own.py:short", r"parts: short must give a dict of tensors \(1, 2, 17\)", OWN),
    Row("parts that are no dict", "ig:domain=parts,of=own.py:listed", r"parts: listed must give a dict", OWN),
    Row("parts that raise", "ig:domain=parts,of=own.py:raises", r"parts.*raises.*ZeroDivisionError: never", OWN),
    # cepstrum
    Row("no floor", "ig:domain=cepstrum,floor=0", r"cepstrum: floor=0 given, expected more than 0"),
    Row("other package", "ig:domain=cepstrum,compat=captum", r"ig: compat='captum' given, expected off or cross-domain-saliency-maps"),
    # the user's own
    Row("own domain in no file", "ig:domain=won.py:Plain", r"domain: .*won\.py not found"),
    Row("own domain of another name", "ig:domain=own.py:Pain", r"own\.py has no 'Pain'\. Did you mean 'Plain'\?", OWN),
    Row("own domain without class", "ig:domain=own.py", r"unknown domain '.*own\.py'.*FILE\.py:CLASS", OWN),
    Row("own domain with a key", "ig:domain=own.py:Plain,hop=3", r"ig has no key 'hop'", OWN),
    Row("own file that raises", "ig:domain=own.py:Plain", r"own\.py fails: ZeroDivisionError: division by zero", text("own.py", "1 / 0\n")),
    Row("own domain that is bare", "ig:domain=own.py:Bare", r"domain Bare has no method forward; it needs forward and inverse", OWN),
    Row("own domain without inverse", "ig:domain=own.py:NoInverse", r"domain NoInverse has no method inverse", OWN),
    Row("own domain of a number", "ig:domain=own.py:number", r"own\.py has no 'number'", OWN),
    Row("own domain with an argument", "ig:domain=own.py:Argument", r"domain Argument.*TypeError.*'width'", OWN),
    Row("own domain that raises", "ig:domain=own.py:Loud", r"domain Loud.*ValueError: loud", OWN),
    Row("own domain of half", "ig:domain=own.py:Half", r"domain Half: inverse gives \(1, 2, 9\) for \(1, 2, 17\)", OWN),
    Row("own domain that loses", "ig:domain=own.py:Lossy", r"domain Lossy: inverse\(forward\(x\)\) is off x by .*would not add up", OWN),
    Row("own domain that is not linear", "ig:domain=own.py:Square", r"domain Square is not linear; set linear = False", OWN),
    Row("own domain with axes too many", "ig:domain=own.py:Axes", r"domain Axes names 2 axes, its coefficients have 1", OWN),
    Row("own domain with axes in words", "ig:domain=own.py:AxesInWords", r"domain AxesInWords.*axes", OWN),
    Row("own domain of no channels", "ig:domain=own.py:Flat", r"domain Flat says per_channel, its coefficients \(34,\)", OWN),
    Row("own domain without gradient", "ig:domain=own.py:Numpy", r"domain Numpy.*(gradient|differentiable)", OWN),
    # baselines
    Row("unknown sample", "ig:baseline=patent 3", r"'?patent 3'? is neither zero, mean, blur, uniform nor a sample\. Did you mean 'patient 3'\?"),
    Row("unknown word", "ig:baseline=unifrom", r"unifrom is neither .* nor a sample\. Did you mean 'uniform'\?"),
    Row("no baseline", "ig:baseline=", r"ig: baseline='' given, expected zero, mean, blur, uniform, numbers"),
    Row("baselines of more channels", "ig:baseline=1/2/3", r"3 numbers given, expected one, or one for each of the 2 channels"),
    Row("baseline that is not finite", "ig:baseline=nan", r"nan is neither|baseline='nan' given"),
    Row("baseline that is not there", "ig:baseline=o.npy", r"o\.npy is no array for inputs of \(2, 17\): .*(No such file|not found)"),
    Row("baseline of another shape", "ig:baseline=o.npy", r"o\.npy is no array for inputs of \(2, 17\)", array("o.npy", np.zeros((2, 16)))),
    Row("baseline of more channels", "ig:baseline=o.npy", r"o\.npy is no array for inputs of \(2, 17\)", array("o.npy", np.zeros(3))),
    Row("baseline of a batch", "ig:baseline=o.npy", r"o\.npy is no array for inputs of \(2, 17\)", array("o.npy", np.zeros((5, 2, 17)))),
    Row("baseline of objects", "ig:baseline=o.npy", r"o\.npy is no array", array("o.npy", np.array([None, "a"], object))),
    Row("baseline of words", "ig:baseline=o.npy", r"o\.npy is no array", array("o.npy", np.array(["a", "b"]))),
    Row("baseline of complex numbers", "ig:baseline=o.npy", r"o\.npy is no array", array("o.npy", np.full((2, 17), 1j))),
    Row("baseline with NaN", "ig:baseline=o.npy", r"o\.npy .*(finite|NaN)", array("o.npy", np.full((2, 17), np.nan))),
    Row("baseline of 0 bytes", "ig:baseline=o.npy", r"o\.npy is no array", raw("o.npy", b"")),
    Row("baseline cut short", "ig:baseline=o.npy", r"o\.npy is no array",
        both(array("o.npy", np.zeros((2, 17))), cut("o.npy", 0.4))),
    Row("baseline that is a folder", "ig:baseline=o.npy", r"o\.npy is no array", lambda bench: (bench / "o.npy").mkdir()),
    Row("baseline that is another's archive", "ig:baseline=signals.npz", r"signals\.npz is (no array|neither)"),
    Row("baseline that is a sick sample", "ig:baseline=patient 3", r"patient 3 cannot be a baseline: input has 1 NaN", sick),
    Row("threshold with NaN", "grad+sign=o.npy", r"o\.npy .*(finite|NaN)", array("o.npy", np.full((2, 17), np.nan))),
    Row("threshold of another shape", "grad+sign=o.npy", r"o\.npy is no array for inputs of \(2, 17\)", array("o.npy", np.zeros((2, 16)))),
    # windows and masks
    Row("window of two axes", "occlusion:window=3.3", r"occlusion: 3\.3 given, expected one number"),
    Row("window of three axes for images", "occlusion:window=3.3.3", r"occlusion: 3\.3\.3 given, expected one number, or 2", job="images.toml"),
    Row("window in words", "occlusion:window=big", r"occlusion: window='big' given, expected numbers joined by dots"),
    Row("window without number", "occlusion:window=3.", r"occlusion: window='3\.' given, expected numbers joined by dots"),
    Row("negative stride", "occlusion:stride=-1", r"occlusion: stride='-1' given, expected numbers joined by dots"),
    Row("stride over gaps", "occlusion:window=2,stride=3", r"occlusion: stride=3 steps over places that no window=2 covers"),
    Row("unknown channels", "occlusion:channels=both", r"occlusion: channels='both' given, expected joint or each"),
    Row("unknown fill", "occlusion:fill=patent 3", r"patent 3 is neither .* Did you mean 'patient 3'\?"),
    Row("fill of another shape", "occlusion:fill=o.npy", r"o\.npy is no array for inputs of \(2, 17\)", array("o.npy", np.zeros((3, 3)))),
    Row("no masks", "rise:n=0", r"rise: n='0' given, expected a whole number from 1"),
    Row("no cells", "rise:cells=0", r"rise: cells='0' given, expected a whole number from 1"),
    Row("masks that are all off", "rise:p=0", r"rise: p='0' given, expected more than 0, at most 1"),
    Row("masks that are more than on", "rise:p=1.1", r"rise: p='1\.1' given, expected more than 0, at most 1"),
    Row("unknown fill of masks", "rise:fill=zreo", r"zreo is neither .* Did you mean 'zero'\?"),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_one_line_says_what_is_wrong_and_a_dry_run_says_it_too(bench, call, row):
    (bench / "images.toml").write_text(IMAGES)
    row.prepare(bench)
    before = contents(bench)
    said = []
    for words in (["--quiet"], ["--dry-run"]):
        answer = call("explain", row.job, "-m", row.method, *words, cwd=bench)
        said.append((answer.code, answer.err))
    assert said[0] == said[1]
    assert answer.code == 2, answer
    assert_one_line(answer, row.pattern)
    assert contents(bench) == before


def test_rows_have_names_of_their_own():
    assert len({row.name for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ig:baseline=a/o.npy", "ig:baseline=b/o.npy"),
        ("grad+sign=a/o.npy", "grad+sign=b/o.npy"),
        ("occlusion:fill=a/o.npy", "occlusion:fill=b/o.npy"),
    ],
)
def test_two_files_of_one_name_are_refused(bench, call, one, other):
    same_name(bench)
    before = contents(bench)
    for words in (["--quiet"], ["--dry-run"]):
        answer = call("explain", "job.toml", "-m", one, "-m", other, *words, cwd=bench)
        assert answer.code == 2
        assert_one_line(answer, r"o\.npy is given twice with different files of one name; rename one of them")
    assert contents(bench) == before


def test_a_sample_whose_id_is_a_number_is_not_taken_for_that_number(bench, call):
    """Samples without names are 000000, 000001, ..: what looks like one of them is either it or is refused."""
    text("job.toml", job_text().replace('id = "id"\n', ""))(bench)
    answer = call("explain", "job.toml", "-m", "ig:baseline=000003", "--dry-run", cwd=bench)
    assert "ig:baseline=3" not in answer.out
